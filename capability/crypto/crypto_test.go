package crypto_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/crypto"
	component "github.com/loam-run/loam/component/crypto"
)

// fixed is a component with one symmetric key under any name but "none".
func fixed() *crypto.Crypto { return crypto.New("vault", component.New(fixedKeys{})) }

type fixedKeys struct{}

func (fixedKeys) Key(_ context.Context, name string) (*component.Key, error) {
	if name == "none" {
		return nil, loam.Errorf(loam.NotFound, "", "there is no such key")
	}
	secret := bytes.Repeat([]byte{5}, 32)
	if name == "other" {
		secret[0] = 6
	}
	return &component.Key{Material: secret}, nil
}

func (fixedKeys) Close() error { return nil }

func granted(names ...string) *loam.Caller {
	return &loam.Caller{Name: "app", Grants: []loam.Grant{{Capability: "crypto", Component: "vault", Names: names}}}
}

func sealed(t testing.TB, o crypto.EncryptOptions, size int) []byte {
	t.Helper()
	r, err := fixed().EncryptStream(context.Background(), granted(), o, bytes.NewReader(make([]byte, size)))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func open(ctx context.Context, in io.Reader, key string) ([]byte, error) {
	h, err := crypto.ReadHeader(in)
	if err != nil {
		return nil, err
	}
	r, err := fixed().DecryptStream(ctx, granted(), key, h)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func TestGrants(t *testing.T) {
	ctx, c := t.Context(), fixed()
	caller := granted("orders/*")
	p := crypto.Params{Key: "invoices/1", Algorithm: "A256KW"}
	h, err := crypto.ReadHeader(bytes.NewReader(sealed(t, crypto.EncryptOptions{Key: "invoices/1", Algorithm: "AES"}, 1)))
	if err != nil {
		t.Fatal(err)
	}
	for what, call := range map[string]func(caller *loam.Caller) error{
		"public key": func(g *loam.Caller) error { _, err := c.PublicKey(ctx, g, p.Key, crypto.PEM); return err },
		"encrypt":    func(g *loam.Caller) error { _, _, err := c.Encrypt(ctx, g, p, nil); return err },
		"decrypt":    func(g *loam.Caller) error { _, err := c.Decrypt(ctx, g, p, nil, nil); return err },
		"wrap":       func(g *loam.Caller) error { _, _, err := c.Wrap(ctx, g, p, nil); return err },
		"unwrap":     func(g *loam.Caller) error { _, err := c.Unwrap(ctx, g, p, nil, nil); return err },
		"sign":       func(g *loam.Caller) error { _, err := c.Sign(ctx, g, p, nil); return err },
		"verify":     func(g *loam.Caller) error { _, err := c.Verify(ctx, g, p, nil, nil); return err },
		"encrypt a stream": func(g *loam.Caller) error {
			_, err := c.EncryptStream(ctx, g, crypto.EncryptOptions{Key: p.Key, Algorithm: "AES"}, nil)
			return err
		},
		"decrypt a stream":         func(g *loam.Caller) error { _, err := c.DecryptStream(ctx, g, "", h); return err },
		"decrypt by one's own key": func(g *loam.Caller) error { _, err := c.DecryptStream(ctx, g, p.Key, h); return err },
	} {
		if err := call(caller); loam.CodeOf(err) != loam.PermissionDenied {
			t.Errorf("%s: %v", what, err)
		}
		if err := call(nil); loam.CodeOf(err) != loam.PermissionDenied {
			t.Errorf("%s of nobody: %v", what, err)
		}
		if err := call(granted("invoices/*")); loam.CodeOf(err) == loam.PermissionDenied {
			t.Errorf("%s with a grant: %v", what, err)
		}
	}
}

func TestBounds(t *testing.T) {
	ctx, c := t.Context(), fixed()
	long := make([]byte, crypto.MaxMessage+1)
	for what, p := range map[string]crypto.Params{
		"no key": {Algorithm: "A256KW"}, "a long name": {Key: strings.Repeat("k", crypto.MaxName+1), Algorithm: "A256KW"},
		"no algorithm": {Key: "k"}, "a long algorithm": {Key: "k", Algorithm: strings.Repeat("A", 65)},
		"a long nonce": {Key: "k", Algorithm: "A256GCM", Nonce: make([]byte, 65)}, "much data": {Key: "k", Algorithm: "A256GCM", Data: long},
	} {
		if _, _, err := c.Encrypt(ctx, granted(), p, nil); loam.CodeOf(err) != loam.InvalidArgument {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := c.Decrypt(ctx, granted(), crypto.Params{Key: "k", Algorithm: "A256GCM", Nonce: make([]byte, 12)}, long, nil); loam.CodeOf(err) != loam.InvalidArgument {
		t.Errorf("a long message: %v", err)
	}
	for what, o := range map[string]crypto.EncryptOptions{
		"no key": {Algorithm: "AES"}, "no algorithm": {Key: "k"}, "another algorithm": {Key: "k", Algorithm: "A128KW"},
		"another cipher": {Key: "k", Algorithm: "AES", Cipher: "ROT13"}, "no way to wrap": {Key: "k", Algorithm: "A256CBC-NOPAD"},
		"a long name": {Key: "k", Algorithm: "AES", DecryptionKey: strings.Repeat("k", crypto.MaxName+1)},
	} {
		if _, err := c.EncryptStream(ctx, granted(), o, strings.NewReader("")); loam.CodeOf(err) != loam.InvalidArgument {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestKeyOfAStream(t *testing.T) {
	ctx := t.Context()
	for _, c := range []struct {
		o    crypto.EncryptOptions
		key  string
		want loam.Code
	}{
		{crypto.EncryptOptions{Key: "k"}, "", loam.OK},
		{crypto.EncryptOptions{Key: "k"}, "same", loam.OK},
		{crypto.EncryptOptions{Key: "k"}, "other", loam.InvalidArgument},
		{crypto.EncryptOptions{Key: "k"}, "none", loam.NotFound},
		{crypto.EncryptOptions{Key: "k", DecryptionKey: "none"}, "", loam.NotFound},
		{crypto.EncryptOptions{Key: "k", DecryptionKey: "same"}, "", loam.OK},
		{crypto.EncryptOptions{Key: "k", DecryptionKey: "same", OmitKey: true}, "", loam.InvalidArgument},
		{crypto.EncryptOptions{Key: "k", OmitKey: true}, "k", loam.OK},
	} {
		c.o.Algorithm = "AES"
		if got, err := open(ctx, bytes.NewReader(sealed(t, c.o, 10)), c.key); loam.CodeOf(err) != c.want || err == nil && len(got) != 10 {
			t.Errorf("%+v, opened with %q: %d bytes, %v", c.o, c.key, len(got), err)
		}
	}
}

// Whatever is changed, left out or cut off, what is handed out is a beginning of the message, and an error.
func TestTampering(t *testing.T) {
	ctx := t.Context()
	whole := sealed(t, crypto.EncryptOptions{Key: "k", Algorithm: "AES"}, 150_000)
	header := len(whole) - 150_000 - 3*16
	const segment = 64<<10 + 16
	for what, b := range map[string][]byte{
		"cut within the last segment": whole[:len(whole)-1], "without the last segment": whole[:header+2*segment],
		"cut within the first":       whole[:header+100],
		"without the first":          append(bytes.Clone(whole[:header]), whole[header+segment:]...),
		"the second one first":       append(append(bytes.Clone(whole[:header]), whole[header+segment:header+2*segment]...), whole[header:]...),
		"more after it":              append(bytes.Clone(whole), 1),
		"a segment of another":       append(bytes.Clone(whole[:header+segment]), sealed(t, crypto.EncryptOptions{Key: "k", Algorithm: "AES"}, 150_000)[header+segment:]...),
		"a bit of the payload":       flip(whole, header+70_000),
		"a bit of the nonce's part":  bytes.Replace(bytes.Clone(whole), []byte(`"np":"`), []byte(`"np":"A`), 1),
		"a bit of the MAC":           flip(whole, header-10),
		"another key in the header":  bytes.Replace(bytes.Clone(whole), []byte(`"k":"k"`), []byte(`"k":"z"`), 1),
		"a header that says more":    bytes.Replace(bytes.Clone(whole), []byte(`"kw"`), []byte(`"x":1,"kw"`), 1),
		"a header that is two":       bytes.Replace(bytes.Clone(whole), []byte("}\n"), []byte("}{}\n"), 1),
		"an algorithm that is none":  bytes.Replace(bytes.Clone(whole), []byte(`"kw":1`), []byte(`"kw":9`), 1),
		"an algorithm below all":     bytes.Replace(bytes.Clone(whole), []byte(`"kw":1`), []byte(`"kw":-1`), 1),
		"a cipher that is none":      bytes.Replace(bytes.Clone(whole), []byte(`"cph":1`), []byte(`"cph":3`), 1),
		"another scheme":             bytes.Replace(bytes.Clone(whole), []byte("/v1"), []byte("/v2"), 1),
		"nothing":                    nil,
		"only a header's beginning":  whole[:20],
		"a line that does not end":   bytes.Repeat([]byte("x"), 1<<20),
		"a manifest that is endless": append([]byte("dapr.io/enc/v1\n"), bytes.Repeat([]byte(" "), 1<<20)...),
		"three empty lines":          []byte("dapr.io/enc/v1\n\n\n"),
	} {
		got, err := open(ctx, bytes.NewReader(b), "")
		if loam.CodeOf(err) != loam.InvalidArgument {
			t.Errorf("%s: %d bytes, %v", what, len(got), err)
		}
		if !bytes.Equal(got, make([]byte, len(got))) || len(got) > 150_000 {
			t.Errorf("%s: %d bytes that are not the message's", what, len(got))
		}
	}
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

// The calls read nothing of the stream, and a failing one fails the reader as it failed.
func TestReading(t *testing.T) {
	broken := errors.New("broken")
	r, err := fixed().EncryptStream(t.Context(), granted(), crypto.EncryptOptions{Key: "k", Algorithm: "AES"}, iotest.ErrReader(broken))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if _, err := crypto.ReadHeader(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	whole := sealed(t, crypto.EncryptOptions{Key: "k", Algorithm: "AES"}, 100_000)
	if _, err := open(t.Context(), io.MultiReader(bytes.NewReader(whole[:90_000]), iotest.ErrReader(broken)), ""); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if got, err := open(t.Context(), iotest.OneByteReader(bytes.NewReader(whole)), ""); err != nil || len(got) != 100_000 {
		t.Errorf("byte by byte: %d, %v", len(got), err)
	}
}

// A stream costs a segment, however long it is.
func TestMemory(t *testing.T) {
	const size = 64 << 20
	r, err := fixed().EncryptStream(t.Context(), granted(), crypto.EncryptOptions{Key: "k", Algorithm: "AES"}, io.LimitReader(zeros{}, size))
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{r}, make([]byte, 32<<10))
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; err != nil || n < size || used > 1<<20 {
		t.Errorf("%d bytes with %d allocated, %v", n, used, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func FuzzReadHeader(f *testing.F) {
	f.Add(sealed(f, crypto.EncryptOptions{Key: "k", Algorithm: "AES"}, 100))
	f.Add([]byte("dapr.io/enc/v1\n{\"kw\":1,\"wfk\":\"AA==\",\"cph\":2,\"np\":\"AAAAAAAAAA==\"}\nAA==\nxyz"))
	f.Add([]byte("dapr.io/enc/v1\n{}\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := crypto.ReadHeader(bytes.NewReader(b))
		small, errSmall := crypto.ReadHeader(iotest.OneByteReader(bytes.NewReader(b)))
		if (err == nil) != (errSmall == nil) || err == nil && h.Key() != small.Key() {
			t.Fatalf("%v; byte by byte %v", err, errSmall)
		}
		if err != nil {
			if loam.CodeOf(err) != loam.InvalidArgument {
				t.Fatal(err)
			}
			return
		}
		if r, err := fixed().DecryptStream(context.Background(), granted(), "", h); err == nil {
			_, _ = io.ReadAll(r)
		}
	})
}

func BenchmarkEncryptStream(b *testing.B) {
	b.SetBytes(1 << 20)
	for b.Loop() {
		r, err := fixed().EncryptStream(b.Context(), granted(), crypto.EncryptOptions{Key: "k", Algorithm: "AES"}, io.LimitReader(zeros{}, 1<<20))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			b.Fatal(err)
		}
	}
}
