// Package crypto is the crypto capability: streams that are encrypted and decrypted in Dapr's scheme (dapr.io/enc/v1), and
// the single operations under it, with keys that stay in the component. Crypto holds what is the same for every component
// (grants, bounds, the scheme), a Driver what is not.
package crypto

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strconv"

	"github.com/go-jose/go-jose/v4"

	"github.com/loam-run/loam"
)

// Bounds of what a caller may ask.
const (
	MaxName    = 512     // bytes of a key's name
	MaxMessage = 4 << 20 // bytes of what is encrypted or signed at once; streams have no end
)

// A Crypto is one component's.
type Crypto struct {
	name   string
	driver Driver
	guard  loam.Guard
}

// New makes a Crypto of the component called name.
func New(name string, d Driver) *Crypto { return &Crypto{name: name, driver: d} }

// Guarded is the component with g round every call of the component, but for those that last.
func (c *Crypto) Guarded(g loam.Guard) *Crypto {
	made := *c
	made.guard = g
	return &made
}

// A Format is how a public key is written.
type Format uint8

// The formats there are.
const (
	PEM Format = iota // PKIX in PEM
	JWK               // RFC 7517
)

// PublicKey returns the public half of a key. NotFound: there is none, or it is symmetric.
func (c *Crypto) PublicKey(ctx context.Context, caller *loam.Caller, name string, f Format) (string, error) {
	op, err := c.check("crypto.PublicKey", caller, name, "", false)
	if err != nil {
		return "", err
	}
	key, err := loam.Guarded(ctx, c.guard, func(ctx context.Context) (crypto.PublicKey, error) { return c.driver.PublicKey(ctx, name) })
	if err != nil {
		return "", wrap(op, err)
	}
	text, err := marshal(key, name, f)
	if err != nil {
		return "", &loam.Error{Code: loam.Unimplemented, Op: op, Err: err}
	}
	return text, nil
}

func marshal(key crypto.PublicKey, name string, f Format) (string, error) {
	if f == JWK {
		b, err := (&jose.JSONWebKey{Key: key, KeyID: name}).MarshalJSON()
		return string(b), err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

// Encrypt seals one message.
func (c *Crypto) Encrypt(ctx context.Context, caller *loam.Caller, p Params, plaintext []byte) (ciphertext, tag []byte, err error) {
	op, err := c.params("crypto.Encrypt", caller, p, plaintext, nil)
	if err != nil {
		return nil, nil, err
	}
	err = c.do(ctx, func(ctx context.Context) (err error) {
		ciphertext, tag, err = c.driver.Encrypt(ctx, p, plaintext)
		return err
	})
	return ciphertext, tag, wrap(op, err)
}

// Decrypt opens what Encrypt sealed.
func (c *Crypto) Decrypt(ctx context.Context, caller *loam.Caller, p Params, ciphertext, tag []byte) ([]byte, error) {
	op, err := c.params("crypto.Decrypt", caller, p, ciphertext, tag)
	if err != nil {
		return nil, err
	}
	plaintext, err := loam.Guarded(ctx, c.guard, func(ctx context.Context) ([]byte, error) { return c.driver.Decrypt(ctx, p, ciphertext, tag) })
	return plaintext, wrap(op, err)
}

// Wrap seals what is a key itself.
func (c *Crypto) Wrap(ctx context.Context, caller *loam.Caller, p Params, key []byte) (wrapped, tag []byte, err error) {
	op, err := c.params("crypto.Wrap", caller, p, key, nil)
	if err != nil {
		return nil, nil, err
	}
	err = c.do(ctx, func(ctx context.Context) (err error) {
		wrapped, tag, err = c.driver.Wrap(ctx, p, key)
		return err
	})
	return wrapped, tag, wrap(op, err)
}

// Unwrap opens what Wrap sealed.
func (c *Crypto) Unwrap(ctx context.Context, caller *loam.Caller, p Params, wrapped, tag []byte) ([]byte, error) {
	op, err := c.params("crypto.Unwrap", caller, p, wrapped, tag)
	if err != nil {
		return nil, err
	}
	key, err := loam.Guarded(ctx, c.guard, func(ctx context.Context) ([]byte, error) { return c.driver.Unwrap(ctx, p, wrapped, tag) })
	return key, wrap(op, err)
}

// Sign signs a digest that the caller made with the algorithm's hash; with EdDSA, the message.
func (c *Crypto) Sign(ctx context.Context, caller *loam.Caller, p Params, digest []byte) ([]byte, error) {
	op, err := c.params("crypto.Sign", caller, p, digest, nil)
	if err != nil {
		return nil, err
	}
	signature, err := loam.Guarded(ctx, c.guard, func(ctx context.Context) ([]byte, error) { return c.driver.Sign(ctx, p, digest) })
	return signature, wrap(op, err)
}

// Verify tells whether a signature is good.
func (c *Crypto) Verify(ctx context.Context, caller *loam.Caller, p Params, digest, signature []byte) (bool, error) {
	op, err := c.params("crypto.Verify", caller, p, digest, signature)
	if err != nil {
		return false, err
	}
	good, err := loam.Guarded(ctx, c.guard, func(ctx context.Context) (bool, error) { return c.driver.Verify(ctx, p, digest, signature) })
	return good, wrap(op, err)
}

// params checks what all single operations share. A grant to read a key's component is one to use the key in any way:
// nothing that is stored changes.
func (c *Crypto) params(method string, caller *loam.Caller, p Params, message, rest []byte) (op string, err error) {
	if op, err = c.check(method, caller, p.Key, p.Algorithm, false); err != nil {
		return op, err
	}
	switch {
	case p.Algorithm == "":
		err = fmt.Errorf("no algorithm is given")
	case len(message) > MaxMessage || len(rest) > MaxMessage || len(p.Data) > MaxMessage || len(p.Nonce) > 64:
		err = fmt.Errorf("a message takes at most %d bytes, a nonce 64", MaxMessage)
	}
	if err != nil {
		return op, &loam.Error{Code: loam.InvalidArgument, Op: op, Err: err}
	}
	return op, nil
}

func (c *Crypto) check(method string, caller *loam.Caller, key, algorithm string, write bool) (op string, err error) {
	op = method + " " + strconv.Quote(key)
	if key == "" || len(key) > MaxName || len(algorithm) > 64 {
		return op, loam.Errorf(loam.InvalidArgument, op, "a key's name takes 1 to %d bytes, an algorithm's at most 64", MaxName)
	}
	return op, caller.Check("crypto", c.name, key, write)
}

func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return &loam.Error{Code: loam.CodeOf(err), Op: op, Err: err, Hint: loam.HintOf(err)}
}

func (c *Crypto) do(ctx context.Context, call func(ctx context.Context) error) error {
	if c.guard == nil {
		return call(ctx)
	}
	return c.guard(ctx, call)
}
