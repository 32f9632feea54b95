package crypto

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"

	"github.com/loam-run/loam"
	capability "github.com/loam-run/loam/capability/crypto"
	"github.com/loam-run/loam/capability/crypto/cryptotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func pkcs8(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// encode writes a key in each of the ways a file may have it, by the end of its name.
func encode(t testing.TB, key any) map[string][]byte {
	t.Helper()
	jwk, err := json.Marshal(jose.JSONWebKey{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	ways := map[string][]byte{".json": jwk, "-jwk": jwk}
	secret, ok := key.([]byte)
	if ok {
		ways["-base64"] = []byte(base64.StdEncoding.EncodeToString(secret) + "\n")
		ways["-base64url"] = []byte(base64.RawURLEncoding.EncodeToString(secret))
		ways["-raw"] = secret
		return ways
	}
	der := pkcs8(t, key)
	ways[".der"], ways[".pem"] = der, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	ways["-pem"] = ways[".pem"]
	switch k := key.(type) {
	case *rsa.PrivateKey:
		ways["-1.pem"] = pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)})
	case *ecdsa.PrivateKey:
		sec1, err := x509.MarshalECPrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		ways["-1.pem"] = append(pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 0}}),
			pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})...)
	}
	return ways
}

func write(t testing.TB, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func folderOf(t *testing.T, dir string) capability.Driver {
	t.Helper()
	d, err := OpenFolder(t.Context(), "keys", FolderConfig{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestFolder(t *testing.T) {
	cryptotest.Run(t, func(t *testing.T, keys map[string]any) capability.Driver {
		dir := t.TempDir()
		for name, k := range keys {
			if secret, ok := k.([]byte); ok {
				write(t, dir, name, []byte(base64.StdEncoding.EncodeToString(secret)))
			} else {
				write(t, dir, name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8(t, k)}))
			}
		}
		return folderOf(t, dir)
	})
}

func setOf(t testing.TB, keys map[string]any) []byte {
	t.Helper()
	var set jose.JSONWebKeySet
	for name, k := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k, KeyID: name})
	}
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSet(t *testing.T) {
	ways := map[string]func(t *testing.T, set []byte) string{
		"inline": func(_ *testing.T, set []byte) string { return string(set) },
		"base64": func(_ *testing.T, set []byte) string { return base64.StdEncoding.EncodeToString(set) },
		"file": func(t *testing.T, set []byte) string {
			dir := t.TempDir()
			write(t, dir, "set.json", set)
			return filepath.Join(dir, "set.json")
		},
		"url": func(t *testing.T, set []byte) string {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(set) }))
			t.Cleanup(s.Close)
			return s.URL
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			cryptotest.Run(t, func(t *testing.T, keys map[string]any) capability.Driver {
				d, err := OpenSet(t.Context(), "keys", SetConfig{Set: way(t, setOf(t, keys))})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = d.Close() })
				return d
			})
		})
	}
}

// However a file has a key, it is the same one.
func TestFiles(t *testing.T) {
	for name, key := range cryptotest.Keys(t) {
		dir := t.TempDir()
		d := folderOf(t, dir).(local)
		for end, data := range encode(t, key) {
			write(t, dir, name+end, data)
			k, err := d.keys.Key(t.Context(), name+end)
			if err != nil {
				t.Errorf("%s%s: %v", name, end, err)
				continue
			}
			type equal interface {
				Equal(x crypto.PrivateKey) bool
			}
			secret, _ := key.([]byte)
			if e, ok := key.(equal); ok && !e.Equal(k.Material) || !ok && string(k.Material.([]byte)) != string(secret) {
				t.Errorf("%s%s is another key: %T", name, end, k.Material)
			}
		}
	}
}

func TestFilesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	d := folderOf(t, dir)
	write(t, dir, "empty", nil)
	write(t, dir, "bad.pem", []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	write(t, dir, "bad.json", []byte(`{"kty":"oct"`))
	write(t, dir, "odd.pem", pem.EncodeToMemory(&pem.Block{Type: "DSA PRIVATE KEY", Bytes: []byte{1}}))
	write(t, dir, "large", make([]byte, maxKeys+1))
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]loam.Code{
		"empty": loam.FailedPrecondition, "bad.pem": loam.FailedPrecondition, "bad.json": loam.FailedPrecondition,
		"odd.pem": loam.FailedPrecondition, "large": loam.NotFound, "sub": loam.NotFound, "link": loam.NotFound,
		"../" + filepath.Base(dir) + "/empty": loam.NotFound, "": loam.NotFound, "a\x00b": loam.NotFound,
	} {
		if k, err := d.PublicKey(t.Context(), name); loam.CodeOf(err) != want {
			t.Errorf("%q: %v, %v, want %v", name, k, err, want)
		}
	}
}

// A file that changed is the new key.
func TestFileChanges(t *testing.T) {
	dir := t.TempDir()
	d := folderOf(t, dir)
	p := capability.Params{Key: "k", Algorithm: "A128KW"}
	write(t, dir, "k", []byte("0123456789abcde."))
	w, _, err := d.Wrap(t.Context(), p, make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "k", []byte("0123456789abcdef0123456.")) // of another size, since clocks of file systems are coarse
	if _, err := d.Unwrap(t.Context(), p, w, nil); loam.CodeOf(err) != loam.FailedPrecondition {
		t.Errorf("with the new key: %v", err)
	}
}

func TestWhatAKeyIsFor(t *testing.T) {
	secret := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	d, err := OpenSet(t.Context(), "keys", SetConfig{Set: `{"keys":[
		{"kty":"oct","kid":"enc","k":"` + secret + `","use":"enc"},
		{"kty":"oct","kid":"wrap","k":"` + secret + `","key_ops":["wrapKey","unwrapKey"]},
		{"kty":"oct","kid":"gcm","k":"` + secret + `","alg":"A256GCM"},
		{"kty":"oct","kid":"sig","k":"` + secret + `","use":"sig"},
		{"kty":"XXX","kid":"odd"}, {"kty":"oct","k":"` + secret + `"}, 7]}`})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key, algorithm string
		wrap, encrypt  loam.Code
	}{
		{"enc", "A256KW", loam.OK, loam.OK},
		{"wrap", "A256KW", loam.OK, loam.FailedPrecondition},
		{"gcm", "A256KW", loam.FailedPrecondition, loam.FailedPrecondition},
		{"sig", "A256KW", loam.FailedPrecondition, loam.FailedPrecondition},
		{"odd", "A256KW", loam.NotFound, loam.NotFound},
	} {
		p := capability.Params{Key: c.key, Algorithm: c.algorithm}
		if _, _, err := d.Wrap(t.Context(), p, make([]byte, 16)); loam.CodeOf(err) != c.wrap {
			t.Errorf("wrap with %s: %v", c.key, err)
		}
		if _, _, err := d.Encrypt(t.Context(), p, make([]byte, 16)); loam.CodeOf(err) != c.encrypt {
			t.Errorf("encrypt with %s: %v", c.key, err)
		}
	}
}

// A URL is asked again when its answer is old or lacks a key, and what it answered holds while it fails.
func TestSetRefreshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		answer := setOf(t, map[string]any{"old": make([]byte, 32)})
		failing := false
		s := &set{config: SetConfig{Refresh: 10 * time.Minute, Timeout: time.Second}, url: "http://keys", client: &http.Client{Transport: roundTrip(func(*http.Request) *http.Response {
			asked.Add(1)
			w := httptest.NewRecorder()
			if failing {
				w.WriteHeader(http.StatusInternalServerError)
			} else {
				_, _ = w.Write(answer)
			}
			return w.Result()
		})}}
		want := func(what, key string, code loam.Code, times int32) {
			t.Helper()
			if _, err := s.Key(t.Context(), key); loam.CodeOf(err) != code || asked.Load() != times {
				t.Errorf("%s: %v, asked %d times, want %d", what, err, asked.Load(), times)
			}
		}
		want("first", "old", loam.OK, 1)
		want("again", "old", loam.OK, 1)
		want("another key, at once", "new", loam.NotFound, 1)
		answer = setOf(t, map[string]any{"new": make([]byte, 32)})
		<-time.After(patience + time.Second)
		want("another key, later", "new", loam.OK, 2)
		failing = true
		<-time.After(11 * time.Minute)
		want("while it fails", "new", loam.OK, 3)
		want("and not with each call", "new", loam.OK, 3)
		failing = false
		answer = setOf(t, map[string]any{"newer": make([]byte, 32)})
		<-time.After(retry + time.Second)
		want("when it is well again", "newer", loam.OK, 4)
		want("when it is well again", "new", loam.NotFound, 4)
	})
}

type roundTrip func(*http.Request) *http.Response

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }

func TestSetRefuses(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	for text, want := range map[string]loam.Code{
		"{}": loam.InvalidArgument, `{"keys":7}`: loam.InvalidArgument, "/no/such/file": loam.Unavailable, s.URL: loam.Unavailable,
		"http://127.0.0.1:1/": loam.Unavailable,
	} {
		if _, err := OpenSet(t.Context(), "keys", SetConfig{Set: text}); loam.CodeOf(err) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := OpenFolder(t.Context(), "keys", FolderConfig{Path: filepath.Join(t.TempDir(), "none")}); loam.CodeOf(err) != loam.FailedPrecondition {
		t.Errorf("no folder: %v", err)
	}
}

func FuzzParseFile(f *testing.F) {
	for name, key := range cryptotest.Keys(&testing.T{}) {
		for end, data := range encode(f, key) {
			f.Add(name+end, data)
		}
	}
	f.Add("x.pem", []byte("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		k, err := parseFile(name, data)
		if err == nil && known(k.Material) != nil {
			t.Errorf("a key of type %T", k.Material)
		}
		_, _ = parseSet(data)
	})
}
