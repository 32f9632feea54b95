package state

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/keys"
)

// crypt encrypts values before a driver stores them, in Dapr's form: base64 of a nonce and AES-GCM's output, the
// separator, the name of the key. Keys are not encrypted.
type crypt struct {
	keys []cryptKey // the primary, which values are written with, and the secondary that older ones may be of
}

type cryptKey struct {
	name string
	cipher.AEAD
}

const primaryKey, secondaryKey = "primaryEncryptionKey", "secondaryEncryptionKey"

// newCrypt reads primaryEncryptionKey and secondaryEncryptionKey: 16, 24 or 32 bytes in hexadecimal. A key's name is in the
// setting of the same name with Name behind it (snapshot writes the name of the secret there that the key comes from, as Dapr
// does); without one it is made of the key. nil: nothing is encrypted.
func newCrypt(component string, settings map[string]string) (*crypt, error) {
	c := &crypt{}
	for _, setting := range []string{primaryKey, secondaryKey} {
		text := keys.Setting(settings, setting)
		if text == "" {
			continue
		}
		key, err := hex.DecodeString(text)
		if err != nil { // not err itself, which may show what it could not read
			return nil, loam.Errorf(loam.InvalidArgument, "component "+strconv.Quote(component), "%s is not hexadecimal", setting)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, loam.Errorf(loam.InvalidArgument, "component "+strconv.Quote(component), "%s has %d bytes, where AES takes 16, 24 or 32", setting, len(key))
		}
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			return nil, fmt.Errorf("component %q: %s: %w", component, setting, err)
		}
		name := keys.Setting(settings, setting+"Name")
		if name == "" {
			sum := sha256.Sum256(key)
			name = hex.EncodeToString(sum[:4])
		}
		if strings.Contains(name, keys.Separator) {
			return nil, loam.Errorf(loam.InvalidArgument, "component "+strconv.Quote(component), "%s has a name that holds %s, which values could not bear", setting, keys.Separator)
		}
		if setting == secondaryKey && len(c.keys) == 0 {
			return nil, loam.Errorf(loam.InvalidArgument, "component "+strconv.Quote(component), "secondaryEncryptionKey is for values of before: it needs a primaryEncryptionKey")
		}
		c.keys = append(c.keys, cryptKey{name, gcm})
	}
	if len(c.keys) == 0 {
		return nil, nil
	}
	return c, nil
}

func (c *crypt) encrypt(value []byte) ([]byte, error) {
	key := c.keys[0]
	sealed := make([]byte, key.NonceSize(), key.NonceSize()+len(value)+key.Overhead())
	_, _ = rand.Read(sealed) // it never fails
	sealed = key.Seal(sealed, sealed, value, nil)
	out := base64.StdEncoding.AppendEncode(nil, sealed)
	return append(append(out, keys.Separator...), key.name...), nil
}

func (c *crypt) decrypt(it *Item) error {
	if len(it.Value) == 0 {
		return nil
	}
	wrong := func(why string) error {
		return loam.Errorf(loam.DataLoss, "state "+strconv.Quote(it.Key), "it cannot be decrypted: %s", why)
	}
	i := bytes.LastIndex(it.Value, []byte(keys.Separator))
	if i < 0 {
		return wrong("it names no key, so it was not encrypted by this component")
	}
	name := string(it.Value[i+len(keys.Separator):])
	sealed, broken := base64.StdEncoding.DecodeString(string(it.Value[:i]))
	known := false
	for _, key := range c.keys {
		if key.name != name { // both may be of one secret
			continue
		}
		known = true
		if broken != nil || len(sealed) < key.NonceSize() {
			break
		}
		if value, err := key.Open(nil, sealed[:key.NonceSize()], sealed[key.NonceSize():], nil); err == nil {
			it.Value = value
			return nil
		}
	}
	if !known {
		return wrong(fmt.Sprintf("the component has no key called %q", name))
	}
	return wrong("it is damaged, or of another key")
}
