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

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/keys"
)

// crypt encrypts values before a driver stores them, in Dapr's form: base64 of a nonce and AES-GCM's output, the
// separator, the name of the key. Keys are not encrypted.
type crypt struct {
	primary string                 // the name of the key that is written with
	ciphers map[string]cipher.AEAD // by name: the primary, and the secondary that older values may be of
}

// newCrypt reads primaryEncryptionKey and secondaryEncryptionKey: 16, 24 or 32 bytes in hexadecimal. A key's name is in the
// setting of the same name with Name behind it (Dapr takes that of the secret it comes from); without one it is made of
// the key. nil: nothing is encrypted.
func newCrypt(component string, settings map[string]string) (*crypt, error) {
	c := &crypt{ciphers: map[string]cipher.AEAD{}}
	for _, setting := range []string{"secondaryEncryptionKey", "primaryEncryptionKey"} {
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
		if setting == "primaryEncryptionKey" {
			c.primary = name
		}
		c.ciphers[name] = gcm
	}
	switch {
	case c.primary != "":
		return c, nil
	case len(c.ciphers) > 0:
		return nil, loam.Errorf(loam.InvalidArgument, "component "+strconv.Quote(component), "secondaryEncryptionKey is for values of before: it needs a primaryEncryptionKey")
	}
	return nil, nil
}

func (c *crypt) encrypt(value []byte) ([]byte, error) {
	gcm := c.ciphers[c.primary]
	sealed := make([]byte, gcm.NonceSize(), gcm.NonceSize()+len(value)+gcm.Overhead())
	_, _ = rand.Read(sealed) // it never fails
	sealed = gcm.Seal(sealed, sealed, value, nil)
	out := base64.StdEncoding.AppendEncode(nil, sealed)
	return append(append(out, keys.Separator...), c.primary...), nil
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
	gcm := c.ciphers[name]
	if gcm == nil {
		return wrong(fmt.Sprintf("the component has no key called %q", name))
	}
	sealed, err := base64.StdEncoding.DecodeString(string(it.Value[:i]))
	if err != nil || len(sealed) < gcm.NonceSize() {
		return wrong("it is damaged")
	}
	value, err := gcm.Open(nil, sealed[:gcm.NonceSize()], sealed[gcm.NonceSize():], nil)
	if err != nil {
		return wrong("it is damaged, or of another key")
	}
	it.Value = value
	return nil
}
