package crypto

import (
	"bytes"
	"context"
	"io"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
)

// Seal is EncryptStream for a message that is there whole.
func (c *Crypto) Seal(ctx context.Context, caller *loam.Caller, o EncryptOptions, plaintext []byte) ([]byte, error) {
	out, err := c.EncryptStream(ctx, caller, o, bytes.NewReader(plaintext))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(out)
}

// Open opens what Seal, or EncryptStream, sealed. An empty key is the one that the message names.
func (c *Crypto) Open(ctx context.Context, caller *loam.Caller, key string, sealed []byte) ([]byte, error) {
	s, err := ReadHeader(bytes.NewReader(sealed))
	if err != nil {
		return nil, err
	}
	out, err := c.DecryptStream(ctx, caller, key, s)
	if err != nil {
		return nil, err
	}
	plaintext, err := io.ReadAll(out)
	if err != nil {
		return nil, err // what came before is not to be believed: the message was cut short, or changed
	}
	return plaintext, nil
}

// Methods are the capability's calls; find returns the component of a name.
func Methods(find func(component string) (*Crypto, error)) loam.Methods {
	return loam.Methods{
		"crypto.Seal": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.CryptoSealRequest
			c, err := api.Parse(&req, in, func() (*Crypto, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			out, err := c.Seal(ctx, caller, EncryptOptions{Key: req.Key, Algorithm: req.Algorithm, Cipher: req.Cipher}, req.Data)
			if err != nil {
				return nil, err
			}
			return (&api.CryptoSealResponse{Data: out}).AppendProto(nil), nil
		},
		"crypto.Open": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.CryptoOpenRequest
			c, err := api.Parse(&req, in, func() (*Crypto, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			out, err := c.Open(ctx, caller, req.Key, req.Data)
			if err != nil {
				return nil, err
			}
			return (&api.CryptoOpenResponse{Data: out}).AppendProto(nil), nil
		},
		"crypto.Encrypt": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.CryptoEncryptRequest
			c, err := api.Parse(&req, in, func() (*Crypto, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			data, tag, err := c.Encrypt(ctx, caller, Params{req.Key, req.Algorithm, req.Nonce, req.Associated}, req.Data)
			if err != nil {
				return nil, err
			}
			return (&api.CryptoEncryptResponse{Data: data, Tag: tag}).AppendProto(nil), nil
		},
		"crypto.Decrypt": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.CryptoDecryptRequest
			c, err := api.Parse(&req, in, func() (*Crypto, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			data, err := c.Decrypt(ctx, caller, Params{req.Key, req.Algorithm, req.Nonce, req.Associated}, req.Data, req.Tag)
			if err != nil {
				return nil, err
			}
			return (&api.CryptoDecryptResponse{Data: data}).AppendProto(nil), nil
		},
		"crypto.Wrap": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.CryptoWrapRequest
			c, err := api.Parse(&req, in, func() (*Crypto, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			data, tag, err := c.Wrap(ctx, caller, Params{req.Key, req.Algorithm, req.Nonce, req.Associated}, req.Data)
			if err != nil {
				return nil, err
			}
			return (&api.CryptoWrapResponse{Data: data, Tag: tag}).AppendProto(nil), nil
		},
		"crypto.Unwrap": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.CryptoUnwrapRequest
			c, err := api.Parse(&req, in, func() (*Crypto, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			data, err := c.Unwrap(ctx, caller, Params{req.Key, req.Algorithm, req.Nonce, req.Associated}, req.Data, req.Tag)
			if err != nil {
				return nil, err
			}
			return (&api.CryptoUnwrapResponse{Data: data}).AppendProto(nil), nil
		},
		"crypto.Sign": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.CryptoSignRequest
			c, err := api.Parse(&req, in, func() (*Crypto, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			signature, err := c.Sign(ctx, caller, Params{Key: req.Key, Algorithm: req.Algorithm}, req.Digest)
			if err != nil {
				return nil, err
			}
			return (&api.CryptoSignResponse{Signature: signature}).AppendProto(nil), nil
		},
		"crypto.Verify": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.CryptoVerifyRequest
			c, err := api.Parse(&req, in, func() (*Crypto, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			good, err := c.Verify(ctx, caller, Params{Key: req.Key, Algorithm: req.Algorithm}, req.Digest, req.Signature)
			if err != nil {
				return nil, err
			}
			return (&api.CryptoVerifyResponse{Valid: good}).AppendProto(nil), nil
		},
		"crypto.PublicKey": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.CryptoPublicKeyRequest
			c, err := api.Parse(&req, in, func() (*Crypto, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			format := PEM
			if req.Jwk {
				format = JWK
			}
			text, err := c.PublicKey(ctx, caller, req.Key, format)
			if err != nil {
				return nil, err
			}
			return (&api.CryptoPublicKeyResponse{Text: text}).AppendProto(nil), nil
		},
	}
}
