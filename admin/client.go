package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/target/service"
)

// A Client talks to the process that owns a data directory.
type Client struct {
	base, token string
}

// Dial reads a data directory's contact. An empty dir is the nearest .loam from here upwards.
func Dial(dir string) (*Client, error) {
	if dir == "" {
		dir = nearest()
	}
	token, err := os.ReadFile(filepath.Join(dir, tokenFile))
	if err != nil {
		return nil, notRunning(dir, err)
	}
	b, err := os.ReadFile(filepath.Join(dir, addressFile))
	if err != nil {
		return nil, notRunning(dir, err)
	}
	var c contact
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, notRunning(dir, err)
	}
	return &Client{base: "http://" + c.Address, token: string(token)}, nil
}

func nearest() string {
	here, err := os.Getwd()
	if err != nil {
		return ".loam"
	}
	for dir := here; ; dir = filepath.Dir(dir) {
		try := filepath.Join(dir, ".loam")
		if _, err := os.Stat(filepath.Join(try, tokenFile)); err == nil {
			return try
		}
		if dir == filepath.Dir(dir) {
			return filepath.Join(here, ".loam")
		}
	}
}

func notRunning(dir string, err error) error {
	e := &loam.Error{Code: loam.Unavailable, Op: "no loam runs with the data directory " + dir, Err: err, Hint: "start one with loam run or loam dev, or name its directory: --data DIR"}
	if errors.Is(err, fs.ErrPermission) {
		e.Op, e.Hint = "the token in "+dir+" cannot be read", "it belongs to another user: run this as that user"
	}
	return e
}

// Status asks for the status.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	err = c.ask(ctx, "/v1/status", &s)
	return s, err
}

// Services asks how every service and its endpoints are.
func (c *Client) Services(ctx context.Context) (all []service.Status, err error) {
	err = c.ask(ctx, "/v1/services", &all)
	return all, err
}

// ask gets JSON into v.
func (c *Client) ask(ctx context.Context, path string, v any) error {
	res, err := c.do(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10)) // only to tell why
		return fmt.Errorf("admin endpoint: %s: %s", res.Status, strings.TrimSpace(string(b)))
	}
	return json.NewDecoder(res.Body).Decode(v)
}

// Invoke sends a request to a function or app, past all routes. The caller closes the body.
func (c *Client) Invoke(ctx context.Context, kind, name, method, path string, header http.Header, body io.Reader) (*http.Response, error) {
	return c.do(ctx, method, "/v1/invoke/"+kind+"/"+name+path, header, body)
}

// Backup copies a component's store, as it is at one moment, to w.
func (c *Client) Backup(ctx context.Context, component string, w io.Writer) (int64, error) {
	res, err := c.do(ctx, http.MethodGet, "/v1/backup/"+url.PathEscape(component), nil, nil)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10)) // only to tell why
		return 0, fmt.Errorf("backup: %s", strings.TrimSpace(string(b)))
	}
	return io.Copy(w, res.Body)
}

func (c *Client) do(ctx context.Context, method, path string, header http.Header, body io.Reader) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		r.Header[name] = values
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, &loam.Error{Code: loam.Unavailable, Op: "loam does not answer", Err: err, Hint: "it may have been killed: start it again with loam run or loam dev"}
	}
	return res, nil
}
