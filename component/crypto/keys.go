package crypto

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// maxKeys bounds what is read of keys, in bytes: a file, or a key set.
const maxKeys = 1 << 20

// parseFile reads a key as its file's name says it is: JWK, PEM, DER; else as it looks like, which may be a symmetric key,
// in base64 or as it is.
func parseFile(name string, data []byte) (*Key, error) {
	if len(data) == 0 {
		return nil, errors.New("the file is empty")
	}
	switch strings.ToLower(path.Ext(name)) {
	case ".json", ".jwk":
		return parseJWK(data)
	case ".pem":
		return parsePEM(data)
	case ".der":
		return parseDER("", data)
	}
	aes := len(data) == 16 || len(data) == 24 || len(data) == 32
	switch {
	case data[0] == '{' && !aes:
		return parseJWK(data)
	case bytes.HasPrefix(data, []byte("-----")):
		return parsePEM(data)
	}
	text := string(bytes.TrimRight(data, "\n="))
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if secret, err := encoding.DecodeString(text); err == nil {
			return &Key{Material: secret}, nil
		}
	}
	return &Key{Material: data}, nil
}

// parseJWK reads one JSON Web Key.
func parseJWK(data []byte) (*Key, error) {
	var k jose.JSONWebKey
	var also struct {
		Operations []string `json:"key_ops"`
	}
	if err := errors.Join(json.Unmarshal(data, &k), json.Unmarshal(data, &also)); err != nil {
		return nil, fmt.Errorf("no JSON Web Key: %w", err)
	}
	return &Key{Material: k.Key, Algorithm: k.Algorithm, Use: k.Use, Operations: also.Operations}, known(k.Key)
}

func parsePEM(data []byte) (*Key, error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil, errors.New("there is no key in PEM")
		}
		if block.Type != "EC PARAMETERS" { // which openssl puts before a key
			return parseDER(block.Type, block.Bytes)
		}
	}
}

// parseDER reads a key of a kind that PEM names; "": whichever it is.
func parseDER(kind string, der []byte) (*Key, error) {
	var errs []error
	for _, of := range []struct {
		kind  string
		parse func([]byte) (any, error)
	}{
		{"PRIVATE KEY", x509.ParsePKCS8PrivateKey},
		{"RSA PRIVATE KEY", func(b []byte) (any, error) { return x509.ParsePKCS1PrivateKey(b) }},
		{"EC PRIVATE KEY", func(b []byte) (any, error) { return x509.ParseECPrivateKey(b) }},
		{"PUBLIC KEY", x509.ParsePKIXPublicKey},
		{"RSA PUBLIC KEY", func(b []byte) (any, error) { return x509.ParsePKCS1PublicKey(b) }},
		{"CERTIFICATE", func(b []byte) (any, error) {
			c, err := x509.ParseCertificate(b)
			if err != nil {
				return nil, err
			}
			return c.PublicKey, nil
		}},
	} {
		if kind != "" && kind != of.kind {
			continue
		}
		k, err := of.parse(der)
		if err == nil {
			return &Key{Material: k}, known(k)
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("%q is no kind of key that can be read", kind)
	}
	return nil, errs[0]
}

func known(material any) error {
	switch material.(type) {
	case []byte, *rsa.PrivateKey, *rsa.PublicKey, *ecdsa.PrivateKey, *ecdsa.PublicKey, ed25519.PrivateKey, ed25519.PublicKey:
		return nil
	}
	return fmt.Errorf("keys of type %T are for nothing that is offered", material)
}

// parseSet reads a JSON Web Key Set. Keys of kinds that are not known, and those without a name, are left out: a set is
// somebody else's and may hold more than what is used of it.
func parseSet(data []byte) (map[string]*Key, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("no JSON Web Key Set: %w", err)
	}
	if set.Keys == nil {
		return nil, errors.New(`no JSON Web Key Set: it has no "keys"`)
	}
	keys := make(map[string]*Key, len(set.Keys))
	for _, raw := range set.Keys {
		var name struct {
			ID string `json:"kid"`
		}
		if json.Unmarshal(raw, &name) != nil || name.ID == "" {
			continue
		}
		if k, err := parseJWK(raw); err == nil && keys[name.ID] == nil {
			keys[name.ID] = k
		}
	}
	return keys, nil
}
