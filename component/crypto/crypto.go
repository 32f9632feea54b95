// Package crypto does cryptography in this process, with keys from files of a folder or from a JSON Web Key Set, as Dapr's
// crypto.dapr.localstorage and crypto.dapr.jwks do: the same algorithms by the same names, and the same files.
package crypto

import (
	"context"
	"crypto"
	"slices"

	"github.com/loam-run/loam"
	capability "github.com/loam-run/loam/capability/crypto"
	"github.com/loam-run/loam/component"
)

// Factories are the component types of this package.
func Factories() []loam.Factory {
	folder := component.New("crypto.localstorage", OpenFolder)
	folder.Aliases = []string{"crypto.dapr.localstorage"}
	set := component.New("crypto.jwks", OpenSet)
	set.Aliases = []string{"crypto.dapr.jwks"}
	return []loam.Factory{folder, set}
}

// Keys are where keys come from. Every method may be called from many goroutines at once.
type Keys interface {
	// Key returns the key of that name. NotFound: there is none.
	Key(ctx context.Context, name string) (*Key, error)
	Close() error
}

// A Key is one key and what it may be used for.
type Key struct {
	// Material is []byte, *rsa.PrivateKey, *rsa.PublicKey, *ecdsa.PrivateKey, *ecdsa.PublicKey, ed25519.PrivateKey or
	// ed25519.PublicKey.
	Material   any
	Algorithm  string   // the only one it is for; "": any that fits
	Use        string   // sig or enc; "": either
	Operations []string // encrypt, decrypt, wrapKey, unwrapKey, sign, verify; none: all
}

// New makes a driver of keys that are used in this process.
func New(k Keys) capability.Driver { return local{k} }

type local struct{ keys Keys }

func (l local) Close() error { return l.keys.Close() }

// key returns the material of a key that may do an operation.
func (l local) key(ctx context.Context, p *capability.Params, operation, use string) (any, error) {
	k, err := l.keys.Key(ctx, p.Key)
	if err != nil {
		return nil, err
	}
	if len(k.Operations) > 0 && !slices.Contains(k.Operations, operation) || k.Use != "" && k.Use != use {
		return nil, loam.Errorf(loam.FailedPrecondition, "", "the key is not for %s", operation)
	}
	if k.Algorithm != "" && k.Algorithm != p.Algorithm {
		return nil, loam.Errorf(loam.FailedPrecondition, "", "the key is for %s, not for %s", k.Algorithm, p.Algorithm)
	}
	return k.Material, nil
}

func (l local) PublicKey(ctx context.Context, name string) (crypto.PublicKey, error) {
	k, err := l.keys.Key(ctx, name)
	if err != nil {
		return nil, err
	}
	if public := publicOf(k.Material); public != nil {
		return public, nil
	}
	return nil, loam.Errorf(loam.NotFound, "", "the key is symmetric: there is no public half")
}

func (l local) Encrypt(ctx context.Context, p capability.Params, plaintext []byte) ([]byte, []byte, error) {
	k, err := l.key(ctx, &p, "encrypt", "enc")
	if err != nil {
		return nil, nil, err
	}
	return seal(k, &p, plaintext)
}

func (l local) Decrypt(ctx context.Context, p capability.Params, ciphertext, tag []byte) ([]byte, error) {
	k, err := l.key(ctx, &p, "decrypt", "enc")
	if err != nil {
		return nil, err
	}
	return open(k, &p, ciphertext, tag)
}

func (l local) Wrap(ctx context.Context, p capability.Params, key []byte) ([]byte, []byte, error) {
	k, err := l.key(ctx, &p, "wrapKey", "enc")
	if err != nil {
		return nil, nil, err
	}
	return seal(k, &p, key)
}

func (l local) Unwrap(ctx context.Context, p capability.Params, wrapped, tag []byte) ([]byte, error) {
	k, err := l.key(ctx, &p, "unwrapKey", "enc")
	if err != nil {
		return nil, err
	}
	return open(k, &p, wrapped, tag)
}

func (l local) Sign(ctx context.Context, p capability.Params, digest []byte) ([]byte, error) {
	k, err := l.key(ctx, &p, "sign", "sig")
	if err != nil {
		return nil, err
	}
	return sign(k, p.Algorithm, digest)
}

func (l local) Verify(ctx context.Context, p capability.Params, digest, signature []byte) (bool, error) {
	k, err := l.key(ctx, &p, "verify", "sig")
	if err != nil {
		return false, err
	}
	return verify(k, p.Algorithm, digest, signature)
}
