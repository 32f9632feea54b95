package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/loam-run/loam"
)

// upgradeLine is a line of the answer to an upgrade.
type upgradeLine struct {
	Progress string    `json:"progress,omitempty"`
	Done     bool      `json:"done,omitempty"`
	Error    string    `json:"error,omitempty"`
	Code     loam.Code `json:"code,omitempty"`
	Hint     string    `json:"hint,omitempty"`
}

// upgrade answers with a line for each thing that happens, the last of which is the result.
func upgrade(w http.ResponseWriter, r *http.Request, s Server) {
	patience, err := time.ParseDuration(r.FormValue("patience"))
	if err != nil {
		patience = 0
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	var mu sync.Mutex
	over := false
	say := func(l upgradeLine) {
		mu.Lock()
		defer mu.Unlock()
		if over {
			return
		}
		_ = json.NewEncoder(w).Encode(l) // who asked may be gone; the upgrade goes on
		_ = http.NewResponseController(w).Flush()
	}
	defer func() {
		mu.Lock()
		over = true
		mu.Unlock()
	}()
	err = s.Upgrade(r.Context(), r.FormValue("binary"), patience, func(text string) { say(upgradeLine{Progress: text}) })
	if err != nil {
		say(upgradeLine{Error: err.Error(), Code: loam.CodeOf(err), Hint: loam.HintOf(err)})
		return
	}
	say(upgradeLine{Done: true})
}

// Upgrade replaces the process by one of another binary, and tells of its progress meanwhile.
func (c *Client) Upgrade(ctx context.Context, binary string, patience time.Duration, progress func(string)) error {
	q := url.Values{"binary": {binary}, "patience": {patience.String()}}
	res, err := c.do(ctx, http.MethodPost, "/v1/upgrade?"+q.Encode(), nil, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return loam.Errorf(loam.Unimplemented, "upgrade", "the admin endpoint answers %s", res.Status)
	}
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		var l upgradeLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return err
		}
		switch {
		case l.Done:
			return nil
		case l.Error != "":
			return &loam.Error{Code: l.Code, Err: errors.New(l.Error), Hint: l.Hint}
		}
		progress(l.Progress)
	}
	return loam.Errorf(loam.Unavailable, "upgrade", "the process ended while it was asked; see loam get whether one serves")
}
