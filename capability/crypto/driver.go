package crypto

import (
	"context"
	"crypto"
)

// A Driver is what a component implements to offer cryptography with keys that do not leave it. Algorithms are named as in
// JWA (RFC 7518). Every method may be called from many goroutines at once. NotFound: there is no such key;
// FailedPrecondition: the key is not for that; InvalidArgument: what was given does not fit the algorithm, or is not
// what it made.
type Driver interface {
	// PublicKey returns the public half of an asymmetric key: *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey or
	// *ecdh.PublicKey. NotFound: there is none, or it is symmetric.
	PublicKey(ctx context.Context, name string) (crypto.PublicKey, error)
	// Encrypt seals a message; the tag is empty where the algorithm has none.
	Encrypt(ctx context.Context, p Params, plaintext []byte) (ciphertext, tag []byte, err error)
	Decrypt(ctx context.Context, p Params, ciphertext, tag []byte) (plaintext []byte, err error)
	// Wrap is Encrypt for what is a key itself, with a key that is for that.
	Wrap(ctx context.Context, p Params, key []byte) (wrapped, tag []byte, err error)
	Unwrap(ctx context.Context, p Params, wrapped, tag []byte) (key []byte, err error)
	// Sign signs a digest; with EdDSA it is the message.
	Sign(ctx context.Context, p Params, digest []byte) (signature []byte, err error)
	// Verify tells whether a signature is good.
	Verify(ctx context.Context, p Params, digest, signature []byte) (bool, error)
	Close() error
}

// Params say what to do with which key.
type Params struct {
	Key       string // name, or name/version where the component has versions
	Algorithm string // A256GCM, RSA-OAEP-256, ES256…
	Nonce     []byte // for ciphers that take one
	Data      []byte // that an authenticated cipher covers beside the message
}
