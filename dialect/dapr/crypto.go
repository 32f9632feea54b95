package dapr

import (
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/crypto"
	"github.com/loam-run/loam/capability/keys"
)

// provider finds a crypto component.
func (a *API) provider(name string) (*crypto.Crypto, error) {
	if name == "" {
		return nil, errBadRequest.failure("invalid request: missing component name")
	}
	p, err := a.opts.Capabilities.Crypto(name)
	if err == nil {
		return p, nil
	}
	f := a.missing("crypto", err, errCryptoNotConfigured, errCryptoNotFound, "crypto provider "+name, nil)
	switch {
	case f.tag == errCryptoNotFound.tag:
		f.message = "crypto provider " + name + " not found"
	case f.code != loam.Unavailable:
		f.message = "crypto providers not configured"
	}
	return nil, f
}

// cryptoOp is what all but reading a key is called among operations.
const cryptoOp = "crypto_op"

// cryptoFailed is the failure of an operation.
func cryptoFailed(err error) error {
	return errCrypto.caused(err, "failed to perform operation: %s", words(err))
}

// encryptOptions checks what both carriers say of a stream to encrypt.
func encryptOptions(o crypto.EncryptOptions, name func(field string) string) (crypto.EncryptOptions, error) {
	if o.Key == "" {
		return o, errBadRequest.failure("invalid request: missing %s", name("keyName"))
	}
	if o.Algorithm == "" {
		return o, errBadRequest.failure("invalid request: missing %s", name("keyWrapAlgorithm"))
	}
	o.Algorithm, o.Cipher = strings.ToUpper(o.Algorithm), strings.ToUpper(o.Cipher)
	return o, nil
}

// decrypt reads a stream's header and makes the reader of what it holds. waits runs what may wait for the component.
func (a *API) decrypt(ctx context.Context, p *crypto.Crypto, name, key string, in io.Reader, waits func(func())) (io.Reader, error) {
	sealed, err := crypto.ReadHeader(in)
	if err != nil {
		return nil, cryptoFailed(err)
	}
	var out io.Reader
	timing := a.settings.Metrics.begin(nil)
	waits(func() { out, err = p.DecryptStream(ctx, a.opts.App.Caller, key, sealed) })
	timing.end(cryptoCalls, name, cryptoOp, succeeded(err))
	if err != nil {
		return nil, cryptoFailed(err)
	}
	return out, nil
}

// bodyReader reads a request's body for as many bytes as one may have.
func (c *call) bodyReader() io.Reader {
	if c.Body == nil {
		return strings.NewReader("")
	}
	if c.api.maxBody > 0 {
		return &limitedBody{c.Body, c.api.maxBody}
	}
	return c.Body
}

// limitedBody fails past its limit, where io.LimitedReader would end.
type limitedBody struct {
	in   io.Reader
	left int64
}

func (l *limitedBody) Read(p []byte) (int, error) {
	n, err := l.in.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, loam.Errorf(loam.ResourceExhausted, "request", "stream too large")
	}
	return n, err
}

// encrypt answers the body encrypted. The answer is gathered first, so that an error is told as one.
func (c *call) encrypt() error {
	p, err := c.api.provider(c.params[0])
	if err != nil {
		return err
	}
	o, err := encryptOptions(crypto.EncryptOptions{
		Key: c.Header.Get("dapr-key-name"), Algorithm: c.Header.Get("dapr-key-wrap-algorithm"), Cipher: c.Header.Get("dapr-data-encryption-cipher"),
		DecryptionKey: c.Header.Get("dapr-decryption-key-name"), OmitKey: keys.True(c.Header.Get("dapr-omit-decryption-key-name")),
	}, func(field string) string {
		return map[string]string{"keyName": "header 'dapr-key-name'", "keyWrapAlgorithm": "header 'dapr-key-wrap-algorithm'"}[field]
	})
	if err != nil {
		return err
	}
	var out io.Reader
	timing := c.api.settings.Metrics.begin(c.Task())
	c.await(func() { out, err = p.EncryptStream(c.Context(), c.api.opts.App.Caller, o, c.bodyReader()) })
	timing.end(cryptoCalls, c.params[0], cryptoOp, succeeded(err))
	if err != nil {
		return cryptoFailed(err)
	}
	return c.octets(out)
}

func (c *call) decrypt() error {
	p, err := c.api.provider(c.params[0])
	if err != nil {
		return err
	}
	out, err := c.api.decrypt(c.Context(), p, c.params[0], c.Header.Get("dapr-key-name"), c.bodyReader(), c.await)
	if err != nil {
		return err
	}
	return c.octets(out)
}

func (c *call) octets(out io.Reader) error {
	b, err := readAll(out, -1, 0)
	if err != nil {
		return cryptoFailed(err)
	}
	c.answer.Header.Add("Content-Type", "application/octet-stream")
	c.json(http.StatusOK, b)
	return nil
}

// A subtleRequest is the body of the requests of subtlecrypto, and what a call of gRPC says: not each has every field.
type subtleRequest struct {
	Name         string `json:"name"`
	Format       format `json:"format"`
	Plaintext    []byte `json:"plaintext"`
	Ciphertext   []byte `json:"ciphertext"`
	PlaintextKey []byte `json:"plaintextKey"`
	WrappedKey   []byte `json:"wrappedKey"`
	Digest       []byte `json:"digest"`
	Signature    []byte `json:"signature"`
	Algorithm    string `json:"algorithm"`
	KeyName      string `json:"keyName"`
	Nonce        []byte `json:"nonce"`
	Tag          []byte `json:"tag"`
	Associated   []byte `json:"associatedData"`
}

// format is a key's: protobuf's JSON has a name or a number of it.
type format int32

// UnmarshalJSON reads it.
func (f *format) UnmarshalJSON(b []byte) error {
	switch strings.Trim(string(b), `"`) {
	case "PEM", "0", "null":
		*f = 0
	case "JSON", "1":
		*f = 1
	default:
		*f = -1
	}
	return nil
}

func (s *subtleRequest) params() crypto.Params {
	return crypto.Params{Key: s.KeyName, Algorithm: s.Algorithm, Nonce: s.Nonce, Data: s.Associated}
}

// A subtleResult is what is answered: not each operation has every field.
type subtleResult struct {
	Name         string `json:"name,omitempty"`
	PublicKey    string `json:"publicKey,omitempty"`
	Ciphertext   []byte `json:"ciphertext,omitempty"`
	Plaintext    []byte `json:"plaintext,omitempty"`
	WrappedKey   []byte `json:"wrappedKey,omitempty"`
	PlaintextKey []byte `json:"plaintextKey,omitempty"`
	Tag          []byte `json:"tag,omitempty"`
	Signature    []byte `json:"signature,omitempty"`
	Valid        bool   `json:"valid,omitempty"`
}

// subtle does one operation. What went wrong with a message is not told in detail: an attacker could learn from it.
func (a *API) subtle(req *loam.Request, component, operation string, in *subtleRequest) (out subtleResult, err error) {
	p, err := a.provider(component)
	if err != nil {
		return out, err
	}
	if in.Format < 0 || in.Format > 1 {
		return out, errBadRequest.failure("invalid request: invalid key format")
	}
	timing := a.settings.Metrics.begin(req.Task())
	await(req, func() {
		ctx, caller := req.Context(), a.opts.App.Caller
		switch operation {
		case "get key":
			out.Name = in.Name
			out.PublicKey, err = p.PublicKey(ctx, caller, in.Name, crypto.Format(in.Format))
		case "encrypt":
			out.Ciphertext, out.Tag, err = p.Encrypt(ctx, caller, in.params(), in.Plaintext)
		case "decrypt":
			out.Plaintext, err = p.Decrypt(ctx, caller, in.params(), in.Ciphertext, in.Tag)
		case "wrap key":
			out.WrappedKey, out.Tag, err = p.Wrap(ctx, caller, in.params(), in.PlaintextKey)
		case "unwrap key":
			out.PlaintextKey, err = p.Unwrap(ctx, caller, in.params(), in.WrappedKey, in.Tag)
		case "sign":
			out.Signature, err = p.Sign(ctx, caller, in.params(), in.Digest)
		case "verify signature":
			out.Valid, err = p.Verify(ctx, caller, in.params(), in.Digest, in.Signature)
		}
	})
	counted := cryptoOp
	if operation == "get key" {
		counted = "get"
	}
	timing.end(cryptoCalls, component, counted, succeeded(err))
	if err == nil {
		return out, nil
	}
	a.log.Debug("operation of a key failed", "component", component, "operation", operation, "error", err)
	if operation == "get key" {
		return subtleResult{}, errCryptoKey.caused(err, "failed to retrieve key %s: %s", in.Name, words(err))
	}
	return subtleResult{}, errCrypto.caused(err, "failed to perform operation: failed to %s", operation)
}

func (c *call) serveSubtle(operation string) error {
	var in subtleRequest
	if err := c.decodeProto(&in); err != nil {
		return err
	}
	out, err := c.api.subtle(c.Request, c.params[0], operation, &in)
	if err != nil {
		return err
	}
	return c.encode(out)
}

func (c *call) subtleGetKey() error    { return c.serveSubtle("get key") }
func (c *call) subtleEncrypt() error   { return c.serveSubtle("encrypt") }
func (c *call) subtleDecrypt() error   { return c.serveSubtle("decrypt") }
func (c *call) subtleWrapKey() error   { return c.serveSubtle("wrap key") }
func (c *call) subtleUnwrapKey() error { return c.serveSubtle("unwrap key") }
func (c *call) subtleSign() error      { return c.serveSubtle("sign") }
func (c *call) subtleVerify() error    { return c.serveSubtle("verify signature") }
