// Package cryptotest is what every driver of the crypto capability must do. A component's own test calls Run.
package cryptotest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/loam-run/loam"
	capability "github.com/loam-run/loam/capability/crypto"
)

// Keys makes the keys that Run wants, by name: []byte, *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey.
func Keys(t *testing.T) map[string]any {
	t.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]any{"rsa": r, "ec": e, "ed": ed}
	for name, size := range map[string]int{"aes128": 16, "aes192": 24, "aes256": 32, "cbc192": 48, "cbc256": 64} {
		secret := make([]byte, size)
		_, _ = rand.Read(secret) // it does not fail
		keys[name] = secret
	}
	return keys
}

// sealing are the algorithms that encrypt, with the key each takes and the size of its nonce and tag.
func sealing() map[string]struct {
	key        string
	nonce, tag int
} {
	type s = struct {
		key        string
		nonce, tag int
	}
	return map[string]s{
		"A128CBC": {"aes128", 16, 0}, "A192CBC": {"aes192", 16, 0}, "A256CBC": {"aes256", 16, 0},
		"A128CBC-NOPAD": {"aes128", 16, 0}, "A192CBC-NOPAD": {"aes192", 16, 0}, "A256CBC-NOPAD": {"aes256", 16, 0},
		"A128GCM": {"aes128", 12, 16}, "A192GCM": {"aes192", 12, 16}, "A256GCM": {"aes256", 12, 16},
		"A128CBC-HS256": {"aes256", 16, 16}, "A192CBC-HS384": {"cbc192", 16, 24}, "A256CBC-HS512": {"cbc256", 16, 32},
		"A128KW": {"aes128", 0, 0}, "A192KW": {"aes192", 0, 0}, "A256KW": {"aes256", 0, 0},
		"C20P": {"aes256", 12, 16}, "XC20P": {"aes256", 24, 16}, "C20PKW": {"aes256", 12, 16}, "XC20PKW": {"aes256", 24, 16},
		"RSA1_5": {"rsa", 0, 0}, "RSA-OAEP": {"rsa", 0, 0}, "RSA-OAEP-256": {"rsa", 0, 0}, "RSA-OAEP-384": {"rsa", 0, 0},
		"RSA-OAEP-512": {"rsa", 0, 0},
	}
}

// Run tests the drivers that open returns: each call one with those keys and no others.
func Run(t *testing.T, open func(t *testing.T, keys map[string]any) capability.Driver) {
	keys := Keys(t)
	t.Run("seal and open", func(t *testing.T) { sealAndOpen(t, open(t, keys)) })
	t.Run("sign and verify", func(t *testing.T) { signAndVerify(t, open(t, keys)) })
	t.Run("public keys", func(t *testing.T) { publicKeys(t, open(t, keys), keys) })
	t.Run("what does not fit", func(t *testing.T) { misfits(t, open(t, keys)) })
	t.Run("streams", func(t *testing.T) { streams(t, open(t, keys)) })
	t.Run("many at once", func(t *testing.T) {
		d := open(t, keys)
		var using sync.WaitGroup
		for range 8 {
			using.Go(func() {
				for range 20 {
					p := capability.Params{Key: "aes256", Algorithm: "A256KW"}
					w, _, err := d.Wrap(t.Context(), p, make([]byte, 32))
					if err != nil {
						t.Error(err)
						return
					}
					if k, err := d.Unwrap(t.Context(), p, w, nil); err != nil || !bytes.Equal(k, make([]byte, 32)) {
						t.Errorf("%x, %v", k, err)
					}
				}
			})
		}
		using.Wait()
	})
}

func sealAndOpen(t *testing.T, d capability.Driver) {
	ctx := t.Context()
	for algorithm, s := range sealing() {
		p := capability.Params{Key: s.key, Algorithm: algorithm, Nonce: bytes.Repeat([]byte{7}, s.nonce)}
		message := []byte("sixteen letters.sixteen letters.")
		for name, pair := range map[string]struct {
			seal func(p capability.Params, b []byte) ([]byte, []byte, error)
			open func(p capability.Params, b, tag []byte) ([]byte, error)
		}{
			"encrypt": {
				func(p capability.Params, b []byte) ([]byte, []byte, error) { return d.Encrypt(ctx, p, b) },
				func(p capability.Params, b, tag []byte) ([]byte, error) { return d.Decrypt(ctx, p, b, tag) },
			},
			"wrap": {
				func(p capability.Params, b []byte) ([]byte, []byte, error) { return d.Wrap(ctx, p, b) },
				func(p capability.Params, b, tag []byte) ([]byte, error) { return d.Unwrap(ctx, p, b, tag) },
			},
		} {
			sealed, tag, err := pair.seal(p, bytes.Clone(message))
			if err != nil || len(tag) != s.tag || bytes.Contains(sealed, message[:16]) {
				t.Errorf("%s %s: %x, a tag of %d bytes (want %d), %v", name, algorithm, sealed, len(tag), s.tag, err)
				continue
			}
			if got, err := pair.open(p, sealed, tag); err != nil || !bytes.Equal(got, message) {
				t.Errorf("%s %s: opened as %q, %v", name, algorithm, got, err)
			}
			// What was changed is refused, where the algorithm can tell; and never opened as what it was.
			changed := bytes.Clone(sealed)
			changed[len(changed)-1] ^= 1
			got, err := pair.open(p, changed, tag)
			if bytes.Equal(got, message) || s.tag > 0 && loam.CodeOf(err) != loam.InvalidArgument {
				t.Errorf("%s %s: changed, opened as %q, %v", name, algorithm, got, err)
			}
			if s.tag > 0 {
				q := p
				q.Data = []byte("more")
				if _, err := pair.open(q, sealed, tag); loam.CodeOf(err) != loam.InvalidArgument {
					t.Errorf("%s %s: with other associated data: %v", name, algorithm, err)
				}
				if _, err := pair.open(p, sealed, tag[1:]); loam.CodeOf(err) != loam.InvalidArgument {
					t.Errorf("%s %s: with a short tag: %v", name, algorithm, err)
				}
			}
			if s.nonce > 0 {
				q := p
				q.Nonce = p.Nonce[1:]
				if _, _, err := pair.seal(q, message); loam.CodeOf(err) != loam.InvalidArgument {
					t.Errorf("%s %s: with a short nonce: %v", name, algorithm, err)
				}
			}
			for _, hostile := range [][]byte{nil, {1}, bytes.Repeat([]byte{1}, 8), bytes.Repeat([]byte{1}, 4096)} {
				if got, err := pair.open(p, hostile, make([]byte, s.tag)); err == nil && !strings.HasSuffix(algorithm, "-NOPAD") {
					t.Errorf("%s %s: %d bytes of nothing open as %d", name, algorithm, len(hostile), len(got))
				}
			}
		}
	}
}

func signAndVerify(t *testing.T, d capability.Driver) {
	ctx := t.Context()
	sum256, sum512 := sha256.Sum256([]byte("message")), sha512.Sum512([]byte("message"))
	sum384 := sha512.Sum384([]byte("message"))
	for algorithm, digest := range map[string][]byte{
		"RS256": sum256[:], "RS384": sum384[:], "RS512": sum512[:], "PS256": sum256[:], "PS384": sum384[:], "PS512": sum512[:],
		"ES256": sum256[:], "EdDSA": []byte("message"),
	} {
		p := capability.Params{Algorithm: algorithm, Key: map[byte]string{'R': "rsa", 'P': "rsa", 'E': "ec"}[algorithm[0]]}
		if algorithm == "EdDSA" {
			p.Key = "ed"
		}
		signature, err := d.Sign(ctx, p, digest)
		if err != nil {
			t.Errorf("%s: %v", algorithm, err)
			continue
		}
		if good, err := d.Verify(ctx, p, digest, signature); !good || err != nil {
			t.Errorf("%s: %t, %v", algorithm, good, err)
		}
		other := bytes.Clone(digest)
		other[0] ^= 1
		if good, err := d.Verify(ctx, p, other, signature); good || err != nil {
			t.Errorf("%s, another digest: %t, %v", algorithm, good, err)
		}
		if good, err := d.Verify(ctx, p, digest, signature[1:]); good || err != nil {
			t.Errorf("%s, a short signature: %t, %v", algorithm, good, err)
		}
	}
}

func publicKeys(t *testing.T, d capability.Driver, keys map[string]any) {
	for _, name := range []string{"rsa", "ec", "ed"} {
		public, err := d.PublicKey(t.Context(), name)
		want := keys[name].(crypto.Signer).Public()
		if same, ok := want.(interface{ Equal(crypto.PublicKey) bool }); err != nil || !ok || !same.Equal(public) {
			t.Errorf("%s: %v, %v", name, public, err)
		}
	}
	for _, name := range []string{"aes256", "nosuch"} {
		if public, err := d.PublicKey(t.Context(), name); loam.CodeOf(err) != loam.NotFound || public != nil {
			t.Errorf("%s: %v, %v", name, public, err)
		}
	}
}

func misfits(t *testing.T, d capability.Driver) {
	ctx := t.Context()
	for _, c := range []struct {
		p    capability.Params
		want loam.Code
	}{
		{capability.Params{Key: "nosuch", Algorithm: "A256KW"}, loam.NotFound},
		{capability.Params{Key: "../aes256", Algorithm: "A256KW"}, loam.NotFound},
		{capability.Params{Key: "/etc/passwd", Algorithm: "A256KW"}, loam.NotFound},
		{capability.Params{Key: "aes256", Algorithm: "A128KW"}, loam.FailedPrecondition},
		{capability.Params{Key: "aes256", Algorithm: "RSA-OAEP-256"}, loam.FailedPrecondition},
		{capability.Params{Key: "rsa", Algorithm: "A256KW"}, loam.FailedPrecondition},
		{capability.Params{Key: "ec", Algorithm: "RSA-OAEP"}, loam.FailedPrecondition},
		{capability.Params{Key: "aes256", Algorithm: "ROT13"}, loam.InvalidArgument},
		{capability.Params{Key: "aes256", Algorithm: "A"}, loam.InvalidArgument},
	} {
		if _, _, err := d.Wrap(ctx, c.p, make([]byte, 32)); loam.CodeOf(err) != c.want {
			t.Errorf("wrap by %s with %s: %v, want %v", c.p.Algorithm, c.p.Key, err, c.want)
		}
		if _, err := d.Unwrap(ctx, c.p, make([]byte, 40), nil); loam.CodeOf(err) != c.want {
			t.Errorf("unwrap by %s with %s: %v, want %v", c.p.Algorithm, c.p.Key, err, c.want)
		}
	}
	for _, p := range []capability.Params{{Key: "aes256", Algorithm: "ES256"}, {Key: "rsa", Algorithm: "EdDSA"}, {Key: "ed", Algorithm: "RS256"}} {
		if _, err := d.Sign(ctx, p, make([]byte, 32)); loam.CodeOf(err) != loam.FailedPrecondition {
			t.Errorf("sign by %s with %s: %v", p.Algorithm, p.Key, err)
		}
		if _, err := d.Verify(ctx, p, make([]byte, 32), make([]byte, 64)); loam.CodeOf(err) != loam.FailedPrecondition {
			t.Errorf("verify by %s with %s: %v", p.Algorithm, p.Key, err)
		}
	}
	if _, err := d.Sign(ctx, capability.Params{Key: "rsa", Algorithm: "RS256"}, make([]byte, 31)); loam.CodeOf(err) != loam.InvalidArgument {
		t.Errorf("a digest of 31 bytes: %v", err)
	}
	if _, _, err := d.Encrypt(ctx, capability.Params{Key: "rsa", Algorithm: "RSA-OAEP-256"}, make([]byte, 300)); loam.CodeOf(err) != loam.InvalidArgument {
		t.Errorf("300 bytes by RSA: %v", err)
	}
}

// Streams of Dapr's scheme, by what the capability makes of the driver.
func streams(t *testing.T, d capability.Driver) {
	ctx := t.Context()
	c := capability.New("test", d)
	caller := &loam.Caller{Name: "test", Grants: []loam.Grant{{Capability: "crypto", Component: "test"}}}
	for _, o := range []capability.EncryptOptions{
		{Key: "aes256", Algorithm: "A256KW"}, {Key: "aes256", Algorithm: "AES", Cipher: "chacha20-poly1305"}, {Key: "rsa", Algorithm: "RSA"},
	} {
		for _, size := range []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 300_000} {
			message := bytes.Repeat([]byte("0123456789"), size/10+1)[:size]
			sealed, err := c.EncryptStream(ctx, caller, o, bytes.NewReader(message))
			if err != nil {
				t.Fatal(err)
			}
			h, err := capability.ReadHeader(sealed)
			if err != nil || h.Key() != o.Key {
				t.Fatalf("%q, %v", h.Key(), err)
			}
			opened, err := c.DecryptStream(ctx, caller, "", h)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(opened); err != nil || !bytes.Equal(got, message) {
				t.Errorf("%+v, %d bytes: %d, %v", o, size, len(got), err)
			}
		}
	}
}
