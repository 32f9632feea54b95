package event

import (
	"cmp"
	"context"
	"crypto/rand"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/loam-run/loam"
)

// An Input is where goes what an input binding reads, as Dapr brings it to apps: data is the body of a POST, metadata are
// headers.
type Input struct {
	Target  loam.Target
	Path    string        // that it is posted to
	Timeout time.Duration // of one delivery; 0: a minute
}

// maxAnswer is how many bytes a target may answer to what a binding read.
const maxAnswer = 4 << 20

// Read posts what was read and returns what the target answered, for bindings that hand it on. A status that is not 2xx is
// an error.
func (i Input) Read(ctx context.Context, data []byte, metadata map[string]string, contentType string) ([]byte, error) {
	status, answer, err := post(ctx, i.Target, i.Timeout, maxAnswer+1, func(req *loam.Request) []byte {
		begin(req, i.Path)
		for name, value := range metadata {
			if token(name) && !reserved(name) {
				req.Header.Add(name, escapeValue(value))
			}
		}
		slices.SortFunc(req.Header, func(a, b loam.Field) int { return strings.Compare(a.Name, b.Name) })
		typed(req, cmp.Or(contentType, "application/json")) // what Dapr says where nobody knows
		return data
	})
	switch {
	case err != nil:
		return nil, err
	case status != 0 && (status < 200 || status > 299):
		return nil, loam.Errorf(loam.Unavailable, "deliver", "the target answered %d: %s", status, short(answer))
	case len(answer) > maxAnswer:
		return nil, loam.Errorf(loam.ResourceExhausted, "deliver", "the target answered more than %d bytes", maxAnswer)
	}
	return answer, nil
}

// Jobs is where a program's jobs come to: POST /job/NAME, with the job's data as its body.
type Jobs struct {
	Target  loam.Target
	Timeout time.Duration // of one run; 0: a minute
}

// Run posts a job that is due. nil is a run that succeeded; an error with Drop() true, for a status of 404, is one that is
// not tried again.
func (j Jobs) Run(ctx context.Context, name, contentType string, data []byte) error {
	path := (&url.URL{Path: "/job/" + name}).EscapedPath()
	status, answer, err := post(ctx, j.Target, j.Timeout, maxVerdict, func(req *loam.Request) []byte {
		begin(req, path)
		typed(req, cmp.Or(contentType, "application/octet-stream"))
		return data
	})
	if err != nil {
		return err
	}
	return verdict(status, answer, false, path)
}

// begin gives a request that has no name of its own one.
func begin(req *loam.Request, path string) {
	req.Path, req.ID = path, rand.Text()
	req.Header.Add("X-Request-Id", req.ID)
}

func typed(req *loam.Request, contentType string) {
	if strings.ContainsFunc(contentType, func(c rune) bool { return c < ' ' || c > '~' }) {
		contentType = "application/octet-stream" // no header could hold it
	}
	req.Header.Add("Content-Type", contentType)
}

// reserved tells whether a header is not a binding's to set: it says how the message is to be read, or who sent it.
func reserved(name string) bool {
	switch http.CanonicalHeaderKey(name) {
	case "Connection", "Content-Length", "Content-Type", "Host", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "X-Request-Id":
		return true
	}
	return false
}

// escapeValue writes by percent signs what a header's value cannot hold; a space it can.
func escapeValue(s string) string {
	clean := func(c rune) bool { return c >= ' ' && c <= '~' && c != '%' }
	if !strings.ContainsFunc(s, func(c rune) bool { return !clean(c) }) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if clean(rune(s[i])) {
			b.WriteByte(s[i])
		} else {
			b.WriteString(url.PathEscape(s[i : i+1]))
		}
	}
	return b.String()
}
