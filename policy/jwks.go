package policy

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/loam-run/loam"
)

// Keys are what tokens of an issuer are verified by (RFC 7517): given, or fetched and fetched again from time to time. What
// was fetched last serves until something newer is there. It has no goroutine of its own: a request that finds the keys
// old begins a task that fetches them, and goes on with the old ones.
type Keys struct {
	fetch   func(context.Context) ([]byte, error) // nil: the keys are given
	refresh time.Duration
	now     atomic.Pointer[keySet]

	mu       sync.Mutex // guards what follows; never held while waiting
	fetching bool
	waiting  []loam.Task
	last     time.Time // when the last fetch ended
	err      error     // of the last fetch
}

// keySet is immutable.
type keySet struct {
	keys []key
	at   time.Time
}

// key is a key and the only algorithms that it verifies: a token cannot choose another for it.
type key struct {
	id   string
	key  any
	algs []jose.SignatureAlgorithm
}

const (
	keysPatience = 10 * time.Second // of one fetch
	keysAgain    = 30 * time.Second // a token with an unknown key has them fetched again, so often at most
	keysRetry    = time.Second      // likewise where the last fetch failed
	keysSize     = 1 << 20          // bytes of a key set
	keysMost     = 256              // keys of a set
)

// StaticKeys reads a key set in JSON. Symmetric keys (HS256 and its like) are taken too.
func StaticKeys(jwks []byte) (*Keys, error) {
	set, err := parseKeys(jwks, true)
	if err != nil {
		return nil, err
	}
	k := new(Keys)
	k.now.Store(set)
	return k, nil
}

// RemoteKeys fetches a key set when it is first needed, and again once it is older than refresh; 0: 10 minutes. fetch may block.
// Symmetric keys are not taken: they would be no secret.
func RemoteKeys(fetch func(context.Context) ([]byte, error), refresh time.Duration) *Keys {
	if refresh <= 0 {
		refresh = 10 * time.Minute
	}
	return &Keys{fetch: fetch, refresh: refresh}
}

// FetchURL is a fetch of RemoteKeys by HTTP. client follows no redirect to plain HTTP, if it is well advised.
func FetchURL(client *http.Client, url string) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) (b []byte, err error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		res, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, res.Body.Close()) }()
		if res.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s answers %s", url, res.Status)
		}
		b, err = io.ReadAll(io.LimitReader(res.Body, keysSize+1))
		if len(b) > keysSize {
			return nil, fmt.Errorf("%s answers more than %d bytes", url, keysSize)
		}
		return b, err
	}
}

func parseKeys(jwks []byte, symmetric bool) (*keySet, error) {
	var raw struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(jwks, &raw); err != nil {
		return nil, fmt.Errorf("not a key set: %w", err)
	}
	set := new(keySet)
	if len(raw.Keys) > keysMost {
		return nil, fmt.Errorf("%d keys, at most %d are taken", len(raw.Keys), keysMost)
	}
	var wrong error
	for _, one := range raw.Keys {
		var k jose.JSONWebKey
		if err := k.UnmarshalJSON(one); err != nil {
			wrong = errors.Join(wrong, err) // of a kind that is not known yet: others may do
			continue
		}
		if k.Use != "" && k.Use != "sig" {
			continue
		}
		if !k.IsPublic() {
			if _, secret := k.Key.([]byte); !secret {
				k = k.Public()
			} else if !symmetric {
				continue
			}
		}
		algs := algorithms(k.Key)
		if k.Algorithm != "" {
			algs = slices.DeleteFunc(algs, func(a jose.SignatureAlgorithm) bool { return string(a) != k.Algorithm })
		}
		if len(algs) > 0 {
			set.keys = append(set.keys, key{k.KeyID, k.Key, algs})
		}
	}
	if len(set.keys) == 0 {
		return nil, errors.Join(errors.New("no key in it verifies signatures"), wrong)
	}
	return set, nil
}

// algorithms are those that a key can verify (RFC 7518, section 3.1, and RFC 8037). ES256 and its like each have one curve.
func algorithms(key any) []jose.SignatureAlgorithm {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return nil
		}
		return []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512}
	case *ecdsa.PublicKey:
		switch k.Curve.Params().BitSize {
		case 256:
			return []jose.SignatureAlgorithm{jose.ES256}
		case 384:
			return []jose.SignatureAlgorithm{jose.ES384}
		case 521:
			return []jose.SignatureAlgorithm{jose.ES512}
		}
	case ed25519.PublicKey:
		return []jose.SignatureAlgorithm{jose.EdDSA}
	case []byte:
		if len(k) >= 32 {
			return []jose.SignatureAlgorithm{jose.HS256, jose.HS384, jose.HS512}
		}
	}
	return nil
}

// find returns the keys that may have signed a token: those of that name, or all where the token or the key has none.
func (s *keySet) find(id string, alg jose.SignatureAlgorithm) []key {
	var found []key
	for _, k := range s.keys {
		if (id == "" || k.id == "" || k.id == id) && slices.Contains(k.algs, alg) {
			found = append(found, k)
		}
	}
	return found
}

// get returns the keys, waiting for them only where there are none yet.
func (k *Keys) get(req *loam.Request) (*keySet, error) {
	set := k.now.Load()
	switch {
	case k.fetch == nil:
	case set == nil:
		return k.wait(req, keysRetry)
	case req.Task().Now().Sub(set.at) > k.refresh:
		k.begin(req.Task(), keysAgain, false)
	}
	return set, nil
}

// newer returns keys that were fetched after set, where there are any or may be: for a token that none of set verifies.
func (k *Keys) newer(req *loam.Request, set *keySet) (*keySet, error) {
	if now := k.now.Load(); now != set || k.fetch == nil {
		return now, nil
	}
	return k.wait(req, keysAgain)
}

// wait fetches the keys, unless that was tried less than pause ago, and returns what there is then.
func (k *Keys) wait(req *loam.Request, pause time.Duration) (*keySet, error) {
	task := req.Task()
	for k.begin(task, pause, true) {
		if err := task.Park(req.Deadline()); err != nil {
			return nil, err
		}
	}
	if set := k.now.Load(); set != nil {
		return set, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return nil, &loam.Error{Code: loam.Unavailable, Op: "jwt", Err: fmt.Errorf("the issuer's keys could not be had: %w", k.err), Hint: "see that jwksURL can be reached from here"}
}

// begin has the keys fetched, unless that was tried less than pause ago. It tells whether that is under way; join has the task
// woken at its end.
func (k *Keys) begin(task loam.Task, pause time.Duration, join bool) (underWay bool) {
	now := task.Now()
	k.mu.Lock()
	start := !k.fetching && (k.last.IsZero() || now.Sub(k.last) >= pause)
	k.fetching = k.fetching || start
	if underWay = k.fetching; underWay && join && !slices.Contains(k.waiting, task) {
		k.waiting = append(k.waiting, task)
	}
	k.mu.Unlock()
	if start {
		task.Go(k.renew)
	}
	return underWay
}

// renew fetches the keys once, in a task of its own: who asked for them may go away.
func (k *Keys) renew(task loam.Task) {
	var set *keySet
	err := errors.New("it panicked")
	defer func() {
		if err == nil {
			set.at = task.Now()
			k.now.Store(set)
		}
		k.mu.Lock()
		k.fetching, k.err, k.last = false, err, task.Now()
		waiting := k.waiting
		k.waiting = nil
		k.mu.Unlock()
		for _, t := range waiting {
			t.Wake()
		}
	}()
	task.Await(func() {
		ctx, cancel := context.WithTimeout(context.Background(), keysPatience)
		defer cancel()
		var b []byte
		if b, err = k.fetch(ctx); err == nil {
			set, err = parseKeys(b, false)
		}
	})
}
