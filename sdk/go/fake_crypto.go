//go:build !wasip1

package loam

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"

	"github.com/loam-run/loam/sdk/go/internal/api"
)

// crypto does what the crypto capability does, with keys made of their names: AES-GCM whatever the algorithm, and a MAC for a
// signature. Tests see what is sealed, changed or of another key, and never the real algorithms.
func (f *Fake) crypto(method string, in []byte) (message, error) {
	switch method {
	case "crypto.Seal":
		return handled(in, new(api.CryptoSealRequest), func(r *api.CryptoSealRequest) (message, error) {
			nonce := make([]byte, 12)
			_, _ = rand.Read(nonce) // it never fails
			sealed := append(append([]byte(r.Key+"\n"), nonce...), fakeCipher(r.Key).Seal(nil, nonce, r.Data, nil)...)
			return &api.CryptoSealResponse{Data: sealed}, nil
		})
	case "crypto.Open":
		return handled(in, new(api.CryptoOpenRequest), func(r *api.CryptoOpenRequest) (message, error) {
			key, rest, ok := bytes.Cut(r.Data, []byte("\n"))
			if r.Key != "" {
				key = []byte(r.Key)
			}
			if !ok || len(rest) < 12 {
				return nil, Errorf(InvalidArgument, "it is not a sealed message")
			}
			data, err := fakeCipher(string(key)).Open(nil, rest[:12], rest[12:], nil)
			if err != nil {
				return nil, Errorf(InvalidArgument, "it was changed, or is of another key")
			}
			return &api.CryptoOpenResponse{Data: data}, nil
		})
	case "crypto.Encrypt":
		return handled(in, new(api.CryptoEncryptRequest), func(r *api.CryptoEncryptRequest) (message, error) {
			data, tag := fakeSeal(r.Key, r.Nonce, r.Associated, r.Data)
			return &api.CryptoEncryptResponse{Data: data, Tag: tag}, nil
		})
	case "crypto.Wrap":
		return handled(in, new(api.CryptoWrapRequest), func(r *api.CryptoWrapRequest) (message, error) {
			data, tag := fakeSeal(r.Key, r.Nonce, r.Associated, r.Data)
			return &api.CryptoWrapResponse{Data: data, Tag: tag}, nil
		})
	case "crypto.Decrypt":
		return handled(in, new(api.CryptoDecryptRequest), func(r *api.CryptoDecryptRequest) (message, error) {
			data, err := fakeOpen(r.Key, r.Nonce, r.Associated, r.Data, r.Tag)
			return &api.CryptoDecryptResponse{Data: data}, err
		})
	case "crypto.Unwrap":
		return handled(in, new(api.CryptoUnwrapRequest), func(r *api.CryptoUnwrapRequest) (message, error) {
			data, err := fakeOpen(r.Key, r.Nonce, r.Associated, r.Data, r.Tag)
			return &api.CryptoUnwrapResponse{Data: data}, err
		})
	case "crypto.Sign":
		return handled(in, new(api.CryptoSignRequest), func(r *api.CryptoSignRequest) (message, error) {
			return &api.CryptoSignResponse{Signature: fakeMAC(r.Key, r.Algorithm, r.Digest)}, nil
		})
	case "crypto.Verify":
		return handled(in, new(api.CryptoVerifyRequest), func(r *api.CryptoVerifyRequest) (message, error) {
			return &api.CryptoVerifyResponse{Valid: hmac.Equal(r.Signature, fakeMAC(r.Key, r.Algorithm, r.Digest))}, nil
		})
	case "crypto.PublicKey":
		return handled(in, new(api.CryptoPublicKeyRequest), func(r *api.CryptoPublicKeyRequest) (message, error) {
			return &api.CryptoPublicKeyResponse{Text: "public " + hex.EncodeToString(fakeMAC(r.Key, "", nil))}, nil
		})
	}
	return nil, Errorf(Unimplemented, "no method %s", method)
}

func fakeCipher(key string) cipher.AEAD {
	of := sha256.Sum256([]byte(key))
	block, err := aes.NewCipher(of[:])
	if err != nil {
		panic(err) // the key has 32 bytes
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // the block has 16
	}
	return aead
}

// fakeSeal takes nonces of any length, as algorithms differ in that.
func fakeSeal(key string, nonce, associated, data []byte) (ciphertext, tag []byte) {
	n := sha256.Sum256(nonce)
	sealed := fakeCipher(key).Seal(nil, n[:12], data, associated)
	return sealed[:len(data)], sealed[len(data):]
}

func fakeOpen(key string, nonce, associated, ciphertext, tag []byte) ([]byte, error) {
	n := sha256.Sum256(nonce)
	data, err := fakeCipher(key).Open(nil, n[:12], append(bytes.Clone(ciphertext), tag...), associated)
	if err != nil {
		return nil, Errorf(InvalidArgument, "it was changed, or is of another key")
	}
	return data, nil
}

func fakeMAC(key, algorithm string, digest []byte) []byte {
	h := hmac.New(sha256.New, []byte(key+"\n"+algorithm))
	h.Write(digest)
	return h.Sum(nil)
}
