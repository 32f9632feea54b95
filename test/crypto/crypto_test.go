// Package crypto holds Loam's crypto capability against Dapr's own library, both ways: a stream or a message that one of
// them made, the other opens. It is a module of its own, so that the library is in no binary of Loam's.
package crypto

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	kit "github.com/dapr/kit/crypto"
	enc "github.com/dapr/kit/schemes/enc/v1"
	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/loam-run/loam"
	capability "github.com/loam-run/loam/capability/crypto"
	"github.com/loam-run/loam/capability/crypto/cryptotest"
	component "github.com/loam-run/loam/component/crypto"
)

// keys opens the same keys by both libraries.
func keys(t *testing.T) (ours capability.Driver, theirs map[string]jwk.Key) {
	t.Helper()
	dir := t.TempDir()
	theirs = map[string]jwk.Key{}
	for name, k := range cryptotest.Keys(t) {
		data, ok := k.([]byte)
		if !ok {
			der, err := x509.MarshalPKCS8PrivateKey(k)
			if err != nil {
				t.Fatal(err)
			}
			data = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		key, err := jwk.FromRaw(k)
		if err != nil {
			t.Fatal(err)
		}
		theirs[name] = key
	}
	ours, err := component.OpenFolder(t.Context(), "keys", component.FolderConfig{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ours.Close() })
	return ours, theirs
}

func TestStreams(t *testing.T) {
	driver, theirs := keys(t)
	c := capability.New("keys", driver)
	caller := &loam.Caller{Name: "test", Grants: []loam.Grant{{Capability: "crypto", Component: "keys"}}}
	for _, cipher := range []enc.Cipher{enc.CipherAESGCM, enc.CipherChaCha20Poly1305} {
		for key, algorithm := range map[string]enc.KeyAlgorithm{"aes256": enc.KeyAlgorithmAES, "rsa": enc.KeyAlgorithmRSA} {
			for _, size := range []int{0, 1, 1000, 65535, 65536, 65537, 131072, 1 << 20} {
				t.Run(fmt.Sprintf("%s %s %d", cipher, algorithm, size), func(t *testing.T) {
					message := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
					// Theirs, opened by ours, which reads it by and by.
					sealed, err := enc.Encrypt(bytes.NewReader(message), enc.EncryptOptions{
						KeyName: key, Algorithm: algorithm, Cipher: &cipher,
						WrapKeyFn: func(plain []byte, algorithm, _ string, nonce []byte) ([]byte, []byte, error) {
							return kit.Encrypt(plain, algorithm, theirs[key], nonce, nil)
						},
					})
					if err != nil {
						t.Fatal(err)
					}
					h, err := capability.ReadHeader(iotest.HalfReader(sealed))
					if err != nil {
						t.Fatal(err)
					}
					opened, err := c.DecryptStream(t.Context(), caller, "", h)
					if err != nil {
						t.Fatal(err)
					}
					if got, err := io.ReadAll(opened); err != nil || !bytes.Equal(got, message) {
						t.Errorf("theirs opened by ours: %d bytes, %v", len(got), err)
					}
					// Ours, opened by theirs.
					ours, err := c.EncryptStream(t.Context(), caller, capability.EncryptOptions{Key: key, Algorithm: string(algorithm), Cipher: string(cipher)}, bytes.NewReader(message))
					if err != nil {
						t.Fatal(err)
					}
					opened, err = enc.Decrypt(iotest.DataErrReader(ours), enc.DecryptOptions{
						UnwrapKeyFn: func(wrapped []byte, algorithm, name string, nonce, tag []byte) ([]byte, error) {
							return kit.Decrypt(wrapped, algorithm, theirs[name], nonce, tag, nil)
						},
					})
					if err != nil {
						t.Fatal(err)
					}
					if got, err := io.ReadAll(opened); err != nil || !bytes.Equal(got, message) {
						t.Errorf("ours opened by theirs: %d bytes, %v", len(got), err)
					}
				})
			}
		}
	}
}

func TestMessages(t *testing.T) {
	driver, theirs := keys(t)
	for _, c := range []struct {
		algorithm, key string
		nonce          int
	}{
		{"A128CBC", "aes128", 16}, {"A192CBC", "aes192", 16}, {"A256CBC", "aes256", 16},
		{"A128GCM", "aes128", 12}, {"A192GCM", "aes192", 12}, {"A256GCM", "aes256", 12},
		{"A128CBC-HS256", "aes256", 16}, {"A192CBC-HS384", "cbc192", 16}, {"A256CBC-HS512", "cbc256", 16},
		{"A128KW", "aes128", 0}, {"A192KW", "aes192", 0}, {"A256KW", "aes256", 0},
		{"C20P", "aes256", 12}, {"XC20P", "aes256", 24}, {"C20PKW", "aes256", 12}, {"XC20PKW", "aes256", 24},
		{"RSA1_5", "rsa", 0}, {"RSA-OAEP", "rsa", 0}, {"RSA-OAEP-256", "rsa", 0}, {"RSA-OAEP-384", "rsa", 0}, {"RSA-OAEP-512", "rsa", 0},
	} {
		p := capability.Params{Key: c.key, Algorithm: c.algorithm, Nonce: bytes.Repeat([]byte{3}, c.nonce)}
		if c.nonce != 16 || c.algorithm != "A128CBC" {
			p.Data = []byte("associated")
		}
		message := []byte("sixteen letters.sixteen letters.")
		sealed, tag, err := kit.Encrypt(bytes.Clone(message), c.algorithm, theirs[c.key], p.Nonce, p.Data)
		if err != nil {
			t.Fatal(c.algorithm, err)
		}
		if got, err := driver.Decrypt(t.Context(), p, sealed, tag); err != nil || !bytes.Equal(got, message) {
			t.Errorf("%s: theirs opened by ours: %q, %v", c.algorithm, got, err)
		}
		if sealed, tag, err = driver.Encrypt(t.Context(), p, message); err != nil {
			t.Fatal(c.algorithm, err)
		}
		if got, err := kit.Decrypt(sealed, c.algorithm, theirs[c.key], p.Nonce, tag, p.Data); err != nil || !bytes.Equal(got, message) {
			t.Errorf("%s: ours opened by theirs: %q, %v", c.algorithm, got, err)
		}
	}
}

func TestSignatures(t *testing.T) {
	driver, theirs := keys(t)
	sum256, sum384, sum512 := sha256.Sum256([]byte("m")), sha512.Sum384([]byte("m")), sha512.Sum512([]byte("m"))
	for algorithm, c := range map[string]struct {
		key    string
		digest []byte
	}{
		"RS256": {"rsa", sum256[:]}, "RS384": {"rsa", sum384[:]}, "RS512": {"rsa", sum512[:]},
		"PS256": {"rsa", sum256[:]}, "PS384": {"rsa", sum384[:]}, "PS512": {"rsa", sum512[:]},
		"ES256": {"ec", sum256[:]}, "ES384": {"ec", sum384[:]}, "EdDSA": {"ed", []byte("message")},
	} {
		p := capability.Params{Key: c.key, Algorithm: algorithm}
		signature, err := kit.SignPrivateKey(c.digest, algorithm, theirs[c.key])
		if err != nil {
			t.Fatal(algorithm, err)
		}
		if good, err := driver.Verify(t.Context(), p, c.digest, signature); !good || err != nil {
			t.Errorf("%s: theirs verified by ours: %t, %v", algorithm, good, err)
		}
		if signature, err = driver.Sign(t.Context(), p, c.digest); err != nil {
			t.Fatal(algorithm, err)
		}
		if good, err := kit.VerifyPublicKey(c.digest, signature, algorithm, theirs[c.key]); !good || err != nil {
			t.Errorf("%s: ours verified by theirs: %t, %v", algorithm, good, err)
		}
	}
}

func TestPublicKeys(t *testing.T) {
	driver, theirs := keys(t)
	c := capability.New("keys", driver)
	caller := &loam.Caller{Name: "test", Grants: []loam.Grant{{Capability: "crypto", Component: "keys"}}}
	for _, format := range []capability.Format{capability.PEM, capability.JWK} {
		text, err := c.PublicKey(t.Context(), caller, "rsa", format)
		if err != nil {
			t.Fatal(err)
		}
		k, err := jwk.ParseKey([]byte(text), jwk.WithPEM(format == capability.PEM))
		if err != nil {
			t.Fatal(err)
		}
		var got rsa.PublicKey
		var want rsa.PrivateKey
		if err := k.Raw(&got); err != nil {
			t.Fatal(err)
		}
		if err := theirs["rsa"].Raw(&want); err != nil {
			t.Fatal(err)
		}
		if !want.PublicKey.Equal(&got) {
			t.Errorf("%s is another key", text)
		}
	}
}
