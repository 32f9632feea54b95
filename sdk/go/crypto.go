package loam

import "github.com/loam-run/loam/sdk/go/internal/api"

// A CryptoStore is a component of the crypto capability: keys that stay with Loam, and what is done with them. Keys are
// named as the component names them, algorithms as in JWA (RFC 7518).
type CryptoStore struct{ component string }

// Crypto is the component of that name, the default one for "".
func Crypto(component string) CryptoStore { return CryptoStore{component} }

// Seal encrypts a message in the form dapr.io/enc/v1, which names the key that opens it. algorithm is how that key wraps the
// message's own: AES (A256KW) or RSA (RSA-OAEP-256).
func (c CryptoStore) Seal(key, algorithm string, message []byte) ([]byte, error) {
	var resp api.CryptoSealResponse
	err := call("crypto.Seal", &api.CryptoSealRequest{Component: c.component, Key: key, Algorithm: algorithm, Data: message}, &resp)
	return resp.Data, err
}

// Open opens what Seal sealed. An empty key is the one that the message names; a function that takes messages of strangers
// names it itself. InvalidArgument: it was changed, or is of another key.
func (c CryptoStore) Open(key string, sealed []byte) ([]byte, error) {
	var resp api.CryptoOpenResponse
	err := call("crypto.Open", &api.CryptoOpenRequest{Component: c.component, Key: key, Data: sealed}, &resp)
	return resp.Data, err
}

// A Cipher is one operation of a key, as Encrypt and its like take it.
type Cipher struct {
	Key        string
	Algorithm  string // A256GCM, RSA-OAEP-256…
	Nonce      []byte // for ciphers that take one; never the same twice for a key
	Associated []byte // what an authenticated cipher covers beside the data
}

// Encrypt is one operation by itself; the tag is empty where the algorithm has none. Seal does without nonces.
func (c CryptoStore) Encrypt(by Cipher, data []byte) (ciphertext, tag []byte, err error) {
	var resp api.CryptoEncryptResponse
	err = call("crypto.Encrypt", &api.CryptoEncryptRequest{
		Component: c.component, Key: by.Key, Algorithm: by.Algorithm, Nonce: by.Nonce, Associated: by.Associated, Data: data,
	}, &resp)
	return resp.Data, resp.Tag, err
}

// Decrypt undoes Encrypt.
func (c CryptoStore) Decrypt(by Cipher, ciphertext, tag []byte) ([]byte, error) {
	var resp api.CryptoDecryptResponse
	err := call("crypto.Decrypt", &api.CryptoDecryptRequest{
		Component: c.component, Key: by.Key, Algorithm: by.Algorithm, Nonce: by.Nonce, Associated: by.Associated, Data: ciphertext, Tag: tag,
	}, &resp)
	return resp.Data, err
}

// Wrap is Encrypt for what is a key itself, with a key that is for that.
func (c CryptoStore) Wrap(by Cipher, key []byte) (wrapped, tag []byte, err error) {
	var resp api.CryptoWrapResponse
	err = call("crypto.Wrap", &api.CryptoWrapRequest{
		Component: c.component, Key: by.Key, Algorithm: by.Algorithm, Nonce: by.Nonce, Associated: by.Associated, Data: key,
	}, &resp)
	return resp.Data, resp.Tag, err
}

// Unwrap undoes Wrap.
func (c CryptoStore) Unwrap(by Cipher, wrapped, tag []byte) ([]byte, error) {
	var resp api.CryptoUnwrapResponse
	err := call("crypto.Unwrap", &api.CryptoUnwrapRequest{
		Component: c.component, Key: by.Key, Algorithm: by.Algorithm, Nonce: by.Nonce, Associated: by.Associated, Data: wrapped, Tag: tag,
	}, &resp)
	return resp.Data, err
}

// Sign signs a digest that was made with the algorithm's hash; with EdDSA, the message itself.
func (c CryptoStore) Sign(key, algorithm string, digest []byte) ([]byte, error) {
	var resp api.CryptoSignResponse
	err := call("crypto.Sign", &api.CryptoSignRequest{Component: c.component, Key: key, Algorithm: algorithm, Digest: digest}, &resp)
	return resp.Signature, err
}

// Verify tells whether a signature is good.
func (c CryptoStore) Verify(key, algorithm string, digest, signature []byte) (bool, error) {
	var resp api.CryptoVerifyResponse
	err := call("crypto.Verify", &api.CryptoVerifyRequest{
		Component: c.component, Key: key, Algorithm: algorithm, Digest: digest, Signature: signature,
	}, &resp)
	return resp.Valid, err
}

// PublicKey is the public half of a key, in PEM; NotFound: there is none, or it is symmetric.
func (c CryptoStore) PublicKey(key string) (string, error) { return c.publicKey(key, false) }

// PublicJWK is PublicKey as a JSON Web Key (RFC 7517).
func (c CryptoStore) PublicJWK(key string) (string, error) { return c.publicKey(key, true) }

func (c CryptoStore) publicKey(key string, jwk bool) (string, error) {
	var resp api.CryptoPublicKeyResponse
	err := call("crypto.PublicKey", &api.CryptoPublicKeyRequest{Component: c.component, Key: key, Jwk: jwk}, &resp)
	return resp.Text, err
}
