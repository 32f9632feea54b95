package crypto

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/loam-run/loam"
	capability "github.com/loam-run/loam/capability/crypto"
)

// SetConfig is the metadata of crypto.jwks.
type SetConfig struct {
	// Set is a JSON Web Key Set (RFC 7517): itself, in JSON or base64 of it; a URL; or a file's path.
	Set     string        `meta:"jwks" need:"yes"`
	Timeout time.Duration `meta:"requestTimeout,30s"`     // of a request for the URL
	Refresh time.Duration `meta:"minRefreshInterval,10m"` // how old the URL's answer may be
}

// OpenSet opens crypto.jwks. What a URL answered is asked for again when it is older than the interval, or does not have a
// key; a file is read again when it changed.
func OpenSet(ctx context.Context, _ string, c SetConfig) (capability.Driver, error) {
	s := &set{config: c}
	if c.Timeout < time.Millisecond {
		s.config.Timeout = 30 * time.Second
	}
	if c.Refresh < time.Second {
		s.config.Refresh = 10 * time.Minute
	}
	text := strings.TrimSpace(c.Set)
	switch {
	case strings.HasPrefix(text, "https://"), strings.HasPrefix(text, "http://"):
		s.url = text
		s.client = &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute}}
	case strings.HasPrefix(text, "{"):
		return s.of([]byte(text))
	default:
		if decoded, err := base64.StdEncoding.DecodeString(text); err == nil && len(decoded) > 0 && decoded[0] == '{' {
			return s.of(decoded)
		}
		s.path = c.Set
	}
	s.loading.Lock()
	defer s.loading.Unlock()
	if err := s.load(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return New(s), nil
}

// of makes a driver of a set that does not change.
func (s *set) of(text []byte) (capability.Driver, error) {
	var err error
	if s.keys, err = parseSet(text); err != nil {
		return nil, &loam.Error{Code: loam.InvalidArgument, Op: "crypto.jwks", Err: err}
	}
	return New(s), nil
}

type set struct {
	config SetConfig
	url    string // either this
	path   string // or that; neither: it does not change
	client *http.Client

	loading  sync.Mutex // held while the set is asked for; taken before mu
	modified time.Time  // of the file; guarded by loading, as is size
	size     int64

	mu     sync.Mutex
	keys   map[string]*Key
	loaded time.Time // when keys was asked for last, by success or not
}

// How long after one request for a URL there is none for a key that it did not have, or since it failed.
const (
	patience = 10 * time.Second
	retry    = 30 * time.Second
)

func (s *set) Key(ctx context.Context, name string) (*Key, error) {
	k, stale := s.look(name)
	// Who has a key does not wait for another: somebody asks, the rest go on with what there is.
	if stale && (k == nil && s.lockLoading() || k != nil && s.loading.TryLock()) {
		if k, stale = s.look(name); stale {
			if err := s.load(ctx); err != nil {
				s.mu.Lock()
				// The keys that are there are better than none. The next try comes soon, but not with each call.
				s.loaded = time.Now().Add(min(retry, s.config.Refresh) - s.config.Refresh)
				s.mu.Unlock()
			}
			k, _ = s.look(name)
		}
		s.loading.Unlock()
	}
	if k == nil {
		return nil, loam.Errorf(loam.NotFound, "", "there is no key %q in the set", name)
	}
	return k, nil
}

func (s *set) lockLoading() bool { s.loading.Lock(); return true }

// look returns a key as it is known, nil where it is not, and tells whether to ask for the set anew.
func (s *set) look(name string) (k *Key, stale bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k = s.keys[name]
	age := time.Since(s.loaded)
	return k, s.path != "" || s.url != "" && (age > s.config.Refresh || k == nil && age > patience)
}

// load asks for the set anew.
func (s *set) load(ctx context.Context) error {
	data, err := s.read(ctx)
	if data == nil && err == nil {
		return nil // the file is the same
	}
	if err != nil {
		return &loam.Error{Code: loam.Unavailable, Op: "crypto.jwks", Err: err, Hint: "jwks is a JSON Web Key Set itself, a URL, or a file's path"}
	}
	keys, err := parseSet(data)
	if err != nil {
		return &loam.Error{Code: loam.FailedPrecondition, Op: "crypto.jwks", Err: err}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys, s.loaded = keys, time.Now()
	return nil
}

// read is called under loading; it returns nil where there is nothing new.
func (s *set) read(ctx context.Context) ([]byte, error) {
	if s.path != "" {
		f, err := os.Open(s.path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }() // it was only read
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		if info.ModTime().Equal(s.modified) && info.Size() == s.size && s.keys != nil && s.loaded.Sub(s.modified) > tick {
			return nil, nil
		}
		s.modified, s.size = info.ModTime(), info.Size()
		return bounded(f)
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // read to its end, or of no use
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", s.url, resp.Status)
	}
	return bounded(resp.Body)
}

func bounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxKeys+1))
	if err == nil && len(data) > maxKeys {
		err = fmt.Errorf("a key set of more than %d bytes", maxKeys)
	}
	return data, err
}

func (s *set) Close() error {
	if s.client != nil {
		s.client.CloseIdleConnections()
	}
	return nil
}
