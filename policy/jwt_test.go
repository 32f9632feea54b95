package policy

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/loam-run/loam"
)

// signer is a key that an issuer has.
type signer struct {
	alg jose.SignatureAlgorithm
	id  string
	key any // private, or secret
}

func signers(t testing.TB) map[string]signer {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]signer{
		"RS256": {jose.RS256, "rsa", rsaKey}, "PS384": {jose.PS384, "rsa", rsaKey}, "ES256": {jose.ES256, "ec", ecKey},
		"EdDSA": {jose.EdDSA, "ed", edKey}, "HS256": {jose.HS256, "secret", []byte("0123456789abcdef0123456789abcdef")},
	}
}

func (s signer) public() any {
	switch k := s.key.(type) {
	case *rsa.PrivateKey:
		return &k.PublicKey
	case *ecdsa.PrivateKey:
		return &k.PublicKey
	case ed25519.PrivateKey:
		return k.Public()
	}
	return s.key
}

// jwks is a key set of signers' public keys.
func jwks(t testing.TB, all ...signer) []byte {
	t.Helper()
	var set jose.JSONWebKeySet
	for _, s := range all {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: s.public(), KeyID: s.id, Use: "sig"})
	}
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s signer) sign(t testing.TB, claims any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: s.alg, Key: jose.JSONWebKey{Key: s.key, KeyID: s.id}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(b)
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// claimsOf are claims that are accepted, with changes: nil removes one.
func claimsOf(change map[string]any) map[string]any {
	c := map[string]any{"iss": "https://login.example.com", "sub": "ann", "aud": "shop", "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func static(t testing.TB, all ...signer) *Keys {
	t.Helper()
	keys, err := StaticKeys(jwks(t, all...))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// whoami is a target that answers what it was told of the caller.
var whoami = loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
	return status(200, "sub", claim(req.Claims, "sub"), "forwarded", req.Header.Get("X-User"), "roles", req.Header.Get("X-Roles")), nil
})

func TestJWT(t *testing.T) {
	s := signers(t)
	other := signers(t)
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	good := s["ES256"].sign(t, claimsOf(nil))
	// The public key as if it were a secret: the classic confusion.
	confused := signer{jose.HS256, "rsa", jwks(t, s["RS256"])}.sign(t, claimsOf(nil))
	tampered := strings.Split(good, ".")
	tampered[1] = part(claimsOf(map[string]any{"sub": "root"}))
	for name, c := range map[string]struct {
		header []string
		want   int
	}{
		"RS256":                 {[]string{"Authorization", "Bearer " + s["RS256"].sign(t, claimsOf(nil))}, 200},
		"PS384":                 {[]string{"Authorization", "Bearer " + s["PS384"].sign(t, claimsOf(nil))}, 200},
		"ES256":                 {[]string{"Authorization", "Bearer " + good}, 200},
		"EdDSA":                 {[]string{"authorization", "bearer  " + s["EdDSA"].sign(t, claimsOf(nil))}, 200},
		"HS256":                 {[]string{"Authorization", "Bearer " + s["HS256"].sign(t, claimsOf(nil))}, 200},
		"one audience of many":  {[]string{"Authorization", "Bearer " + s["ES256"].sign(t, claimsOf(map[string]any{"aud": []string{"bar", "shop"}}))}, 200},
		"just past, by clocks":  {[]string{"Authorization", "Bearer " + s["ES256"].sign(t, claimsOf(map[string]any{"exp": time.Now().Add(-30 * time.Second).Unix()}))}, 200},
		"no key named":          {[]string{"Authorization", "Bearer " + signer{jose.ES256, "", s["ES256"].key}.sign(t, claimsOf(nil))}, 200},
		"none":                  {nil, 401},
		"another scheme":        {[]string{"Authorization", "Basic YTpi"}, 401},
		"an empty one":          {[]string{"Authorization", "Bearer "}, 401},
		"two of them":           {[]string{"Authorization", "Bearer " + good, "Authorization", "Bearer " + good}, 401},
		"no token":              {[]string{"Authorization", "Bearer abc.def.ghi"}, 401},
		"enormous":              {[]string{"Authorization", "Bearer " + strings.Repeat("a", longestToken+1)}, 401},
		"expired":               {[]string{"Authorization", "Bearer " + s["ES256"].sign(t, claimsOf(map[string]any{"exp": time.Now().Add(-2 * time.Minute).Unix()}))}, 401},
		"not yet valid":         {[]string{"Authorization", "Bearer " + s["ES256"].sign(t, claimsOf(map[string]any{"nbf": time.Now().Add(2 * time.Minute).Unix()}))}, 401},
		"another issuer":        {[]string{"Authorization", "Bearer " + s["ES256"].sign(t, claimsOf(map[string]any{"iss": "https://evil.example.com"}))}, 401},
		"no issuer":             {[]string{"Authorization", "Bearer " + s["ES256"].sign(t, claimsOf(map[string]any{"iss": nil}))}, 401},
		"another audience":      {[]string{"Authorization", "Bearer " + s["ES256"].sign(t, claimsOf(map[string]any{"aud": "bar"}))}, 401},
		"no audience":           {[]string{"Authorization", "Bearer " + s["ES256"].sign(t, claimsOf(map[string]any{"aud": nil}))}, 401},
		"another's key":         {[]string{"Authorization", "Bearer " + other["ES256"].sign(t, claimsOf(nil))}, 401},
		"tampered":              {[]string{"Authorization", "Bearer " + strings.Join(tampered, ".")}, 401},
		"not signed":            {[]string{"Authorization", "Bearer " + part(map[string]any{"alg": "none"}) + "." + part(claimsOf(nil)) + "."}, 401},
		"a public key's secret": {[]string{"Authorization", "Bearer " + confused}, 401},
		"a key for another alg": {[]string{"Authorization", "Bearer " + signer{jose.ES256, "rsa", s["ES256"].key}.sign(t, claimsOf(nil))}, 401},
		"claims that are none":  {[]string{"Authorization", "Bearer " + s["ES256"].sign(t, []int{1})}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			var count tally
			p := JWT(JWTOptions{Told: count.told}, JWTConfig{
				Issuer: "https://login.example.com", Audiences: []string{"shop", "web"}, Keys: static(t, s["RS256"], s["ES256"], s["EdDSA"], s["HS256"]),
				Forward: map[string]string{"sub": "X-User", "roles": "X-Roles"},
			})
			for range 2 { // the second time from memory, where it was good
				req := get(t, "/", append(c.header, "x-user", "root", "X-Roles", "admin")...)
				res, err := p(whoami).Serve(req)
				if err != nil || res.Status != c.want {
					t.Fatalf("%v, %v", res, err)
				}
				if c.want == 200 && (res.Header.Get("sub") != "ann" || res.Header.Get("forwarded") != "ann" || res.Header.Get("roles") != "") {
					t.Errorf("the target was told %v", res.Header)
				}
				if c.want == 401 && !strings.HasPrefix(res.Header.Get("WWW-Authenticate"), "Bearer") {
					t.Errorf("%v", res.Header)
				}
			}
			if (count.of(Unauthenticated) == 2) != (c.want == 401) {
				t.Errorf("told %v", count.acts)
			}
		})
	}
}

// A token that was verified is believed again, until it is over, and no longer.
func TestJWTRemembers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := signers(t)["ES256"]
		keys := static(t, s)
		p := JWT(JWTOptions{}, JWTConfig{Issuer: "https://login.example.com", Keys: keys, Leeway: time.Second})
		token := "Bearer " + s.sign(t, claimsOf(map[string]any{"exp": time.Now().Add(30 * time.Second).Unix()}))
		ask := func() int {
			res, err := p(whoami).Serve(get(t, "/", "Authorization", token))
			if err != nil {
				t.Fatal(err)
			}
			return res.Status
		}
		if ask() != 200 {
			t.Fatal("it is refused")
		}
		pass(29 * time.Second)
		if ask() != 200 {
			t.Error("it is refused before it is over")
		}
		pass(3 * time.Second)
		if ask() != 401 {
			t.Error("it is believed after it is over")
		}
		set, err := parseKeys(jwks(t, signers(t)["ES256"]), true)
		if err != nil {
			t.Fatal(err)
		}
		token = "Bearer " + s.sign(t, claimsOf(nil))
		if ask() != 200 {
			t.Fatal("it is refused")
		}
		keys.now.Store(set)
		if ask() != 401 {
			t.Error("it is believed though the key that verified it is gone")
		}
	})
}

// issuer is where keys are fetched from.
type issuer struct {
	mu      sync.Mutex
	keys    []byte
	err     error
	takes   time.Duration
	fetches int
}

func (i *issuer) fetch(ctx context.Context) ([]byte, error) {
	select {
	case <-time.After(i.takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fetches++
	return i.keys, i.err
}

func (i *issuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches
}

// Keys are fetched once however many ask, again when they are old, and at once for a key that is new: but nobody makes
// Loam ask more often than now and then.
func TestRemoteKeys(t *testing.T) {
	bubble(t, func(t *testing.T) {
		first, second, stranger := signers(t)["ES256"], signers(t)["EdDSA"], signers(t)["RS256"]
		i := &issuer{keys: jwks(t, first), takes: 100 * time.Millisecond}
		p := JWT(JWTOptions{}, JWTConfig{Issuer: "https://login.example.com", Keys: RemoteKeys(i.fetch, time.Minute)})
		ask := func(s signer) (int, time.Duration) {
			start := time.Now()
			req := loam.NewRequest(t.Context())
			defer req.Release()
			req.Header.Add("Authorization", "Bearer "+s.sign(t, claimsOf(map[string]any{"jti": time.Now().String()})))
			res, err := p(whoami).Serve(req)
			if err != nil {
				t.Error(err)
				return 0, 0
			}
			return res.Status, time.Since(start)
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if got, took := ask(first); got != 200 || took != 100*time.Millisecond {
					t.Errorf("%d after %s", got, took)
				}
			})
		}
		wg.Wait()
		if i.count() != 1 {
			t.Errorf("%d fetches for the first keys", i.count())
		}

		pass(2 * time.Minute) // old: the request goes on with them
		if got, took := ask(first); got != 200 || took != 0 {
			t.Errorf("%d after %s", got, took)
		}
		pass(time.Second)
		if i.count() != 2 {
			t.Errorf("%d fetches", i.count())
		}

		i.mu.Lock()
		i.keys = jwks(t, first, second)
		i.mu.Unlock()
		pass(keysAgain)
		if got, took := ask(second); got != 200 || took != 100*time.Millisecond || i.count() != 3 {
			t.Errorf("a new key: %d after %s, %d fetches", got, took, i.count())
		}
		for range 100 {
			if got, _ := ask(stranger); got != 401 {
				t.Errorf("a stranger: %d", got)
			}
		}
		if i.count() != 3 {
			t.Errorf("strangers make %d fetches", i.count()-3)
		}

		i.mu.Lock()
		i.err = errBroken
		i.mu.Unlock()
		pass(time.Hour)
		for range 3 {
			if got, _ := ask(second); got != 200 {
				t.Errorf("the issuer is away: %d, though its keys are known", got)
			}
			pass(time.Minute)
		}
		if i.count() != 6 {
			t.Errorf("%d fetches", i.count())
		}
	})
}

// While the first keys cannot be had, requests are answered so and the issuer is not stormed.
func TestRemoteKeysUnreachable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := signers(t)["ES256"]
		i := &issuer{err: errBroken}
		p := JWT(JWTOptions{}, JWTConfig{Issuer: "https://login.example.com", Keys: RemoteKeys(i.fetch, 0)})
		token := "Bearer " + s.sign(t, claimsOf(nil))
		for range 100 {
			if _, err := p(whoami).Serve(get(t, "/", "Authorization", token)); loam.CodeOf(err) != loam.Unavailable || loam.HintOf(err) == "" {
				t.Fatal(err)
			}
		}
		if i.count() != 1 {
			t.Errorf("%d fetches in no time", i.count())
		}
		i.mu.Lock()
		i.keys, i.err = jwks(t, s), nil
		i.mu.Unlock()
		pass(keysRetry)
		if res, err := p(whoami).Serve(get(t, "/", "Authorization", token)); err != nil || res.Status != 200 {
			t.Error(res, err)
		}
		// One that never answers: the request's own time ends the wait.
		i = &issuer{takes: time.Hour}
		p = JWT(JWTOptions{}, JWTConfig{Issuer: "https://login.example.com", Keys: RemoteKeys(i.fetch, 0)})
		req := get(t, "/", "Authorization", token)
		req.SetDeadline(time.Now().Add(time.Second))
		if _, err := p(whoami).Serve(req); loam.CodeOf(err) != loam.DeadlineExceeded {
			t.Error(err)
		}
		if _, err := p(whoami).Serve(get(t, "/", "Authorization", token)); loam.CodeOf(err) != loam.Unavailable {
			t.Error(err)
		}
	})
}

func TestFetchURL(t *testing.T) {
	answer := func(w http.ResponseWriter, _ *http.Request) {}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r) }))
	defer server.Close()
	defer server.Client().CloseIdleConnections()
	fetch := FetchURL(server.Client(), server.URL)
	answer = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("keys")) }
	if b, err := fetch(t.Context()); string(b) != "keys" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	answer = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }
	if _, err := fetch(t.Context()); err == nil {
		t.Error("404 is a key set")
	}
	answer = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, keysSize+1)) }
	if _, err := fetch(t.Context()); err == nil {
		t.Error("any size will do")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := fetch(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Which keys of a set are taken, and for what.
func TestParseKeys(t *testing.T) {
	s := signers(t)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	set := func(keys ...jose.JSONWebKey) []byte {
		b, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	describe := func(b []byte, symmetric bool) string {
		parsed, err := parseKeys(b, symmetric)
		if err != nil {
			return "error"
		}
		var all []string
		for _, k := range parsed.keys {
			all = append(all, fmt.Sprint(k.id, k.algs))
			switch k.key.(type) {
			case *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey:
				t.Error("a private key is kept")
			}
		}
		return strings.Join(all, " ")
	}
	ec := jose.JSONWebKey{Key: s["ES256"].public(), KeyID: "ec"}
	for _, c := range []struct {
		name      string
		jwks      []byte
		symmetric bool
		want      string
	}{
		{"by its curve", set(ec), false, "ec[ES256]"},
		{"a private one", set(jose.JSONWebKey{Key: s["ES256"].key, KeyID: "ec"}), false, "ec[ES256]"},
		{"by its algorithm", set(jose.JSONWebKey{Key: s["RS256"].public(), KeyID: "rsa", Algorithm: "RS512"}), false, "rsa[RS512]"},
		{"an algorithm of another kind", set(jose.JSONWebKey{Key: s["RS256"].public(), Algorithm: "HS256"}), false, "error"},
		{"to encrypt", set(ec, jose.JSONWebKey{Key: s["RS256"].public(), Use: "enc"}), false, "ec[ES256]"},
		{"a secret, given", set(jose.JSONWebKey{Key: s["HS256"].key, KeyID: "s", Algorithm: "HS256"}), true, "s[HS256]"},
		{"a secret, fetched", set(jose.JSONWebKey{Key: s["HS256"].key, KeyID: "s"}), false, "error"},
		{"a short secret", set(jose.JSONWebKey{Key: []byte("short"), KeyID: "s"}), true, "error"},
		{"a weak one", set(jose.JSONWebKey{Key: &small.PublicKey}), false, "error"},
		{"one that is not known", []byte(`{"keys":[{"kty":"XX"},` + strings.TrimPrefix(string(set(ec)), `{"keys":[`)), false, "ec[ES256]"},
		{"none", []byte(`{"keys":[]}`), false, "error"},
		{"too many", []byte(`{"keys":[` + strings.Repeat("{},", keysMost) + `{}]}`), false, "error"},
		{"no JSON", []byte(`keys`), false, "error"},
	} {
		if got := describe(c.jwks, c.symmetric); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// A token of strangers is refused, whatever it is, and nothing breaks.
func FuzzJWT(f *testing.F) {
	s := signers(f)
	keys := static(f, s["ES256"], s["RS256"], s["HS256"])
	good := s["ES256"].sign(f, claimsOf(nil))
	parts := strings.Split(good, ".")
	for _, token := range []string{good, "", "..", "a.b.c", parts[0] + "." + parts[1] + ".", "eyJhbGciOiJub25lIn0." + parts[1] + ".", parts[0] + ".e30." + parts[2], `{"payload":"e30","signatures":[]}`} {
		f.Add(token)
	}
	p := JWT(JWTOptions{Cached: 16}, JWTConfig{Issuer: "https://login.example.com", Keys: keys, Forward: map[string]string{"sub": "X-User"}})
	// A signature that is changed in bits that encode nothing is the same signature: compare what is signed.
	signed := parts[0] + "." + parts[1] + "."
	f.Fuzz(func(t *testing.T, token string) {
		req := get(t, "/", "Authorization", "Bearer "+token, "X-User", "root")
		res, err := p(whoami).Serve(req)
		if err != nil {
			t.Fatal(err)
		}
		if res.Status == 200 && !strings.HasPrefix(strings.Trim(token, " "), signed) {
			t.Errorf("%q was accepted", token)
		}
		if req.Header.Get("X-User") == "root" {
			t.Error("a forged header passed")
		}
	})
}

func BenchmarkJWT(b *testing.B) {
	s := signers(b)["ES256"]
	keys := static(b, s)
	for name, cached := range map[string]int{"remembered": 0, "verified each time": -1} {
		b.Run(name, func(b *testing.B) {
			target := JWT(JWTOptions{Cached: cached}, JWTConfig{Issuer: "https://login.example.com", Keys: keys})(&fixed{res: status(200)})
			req := get(b, "/", "Authorization", "Bearer "+s.sign(b, claimsOf(nil)))
			b.ReportAllocs()
			for b.Loop() {
				if res, err := target.Serve(req); err != nil || res.Status != 200 {
					b.Fatal(res, err)
				}
			}
		})
	}
}
