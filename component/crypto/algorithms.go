package crypto

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // RSA-OAEP of JWA is with SHA-1
	_ "crypto/sha256"
	_ "crypto/sha512"
	"errors"
	"strings"

	jose "github.com/go-jose/go-jose/v4/cipher"
	"golang.org/x/crypto/chacha20poly1305"

	"github.com/loam-run/loam"
	capability "github.com/loam-run/loam/capability/crypto"
)

func invalid(format string, args ...any) error {
	return loam.Errorf(loam.InvalidArgument, "", format, args...)
}

// errOpen is all that is told of what cannot be decrypted: more would help who guesses.
func errOpen() error { return invalid("it cannot be decrypted: it was changed, or is of another key") }

func errKey(algorithm string) error {
	return loam.Errorf(loam.FailedPrecondition, "", "the key is not one for %s", algorithm)
}

func errAlgorithm(algorithm string) error {
	return loam.Errorf(loam.InvalidArgument, "", "algorithm %q is not one of those there are", algorithm)
}

// seal encrypts by any algorithm there is; the tag is nil where it has none.
func seal(key any, p *capability.Params, plaintext []byte) (ciphertext, tag []byte, err error) {
	if hash, ok := oaep(p.Algorithm); ok {
		public, ok := publicOf(key).(*rsa.PublicKey)
		if !ok {
			return nil, nil, errKey(p.Algorithm)
		}
		if hash == 0 {
			ciphertext, err = rsa.EncryptPKCS1v15(rand.Reader, public, plaintext) //nolint:staticcheck // RSA1_5 is what was asked for
		} else {
			ciphertext, err = rsa.EncryptOAEP(hash.New(), rand.Reader, public, plaintext, p.Data)
		}
		if errors.Is(err, rsa.ErrMessageTooLong) {
			err = invalid("%d bytes are too many for this key", len(plaintext))
		}
		return ciphertext, nil, err
	}
	secret, size, err := symmetric(key, p.Algorithm)
	if err != nil {
		return nil, nil, err
	}
	switch family := p.Algorithm[4:]; {
	case strings.HasPrefix(family, "CBC") && !strings.Contains(family, "HS"):
		ciphertext, err = sealCBC(secret, p, plaintext)
		return ciphertext, nil, err
	case family == "KW" && size > 0:
		if len(plaintext) < 16 || len(plaintext)%8 != 0 {
			return nil, nil, invalid("a key of %d bytes: %s wraps 16 or more, in steps of 8", len(plaintext), p.Algorithm)
		}
		block, err := aes.NewCipher(secret)
		if err != nil {
			return nil, nil, err
		}
		ciphertext, err = jose.KeyWrap(block, plaintext)
		return ciphertext, nil, err
	}
	aead, err := authenticated(secret, p)
	if err != nil {
		return nil, nil, err
	}
	out := aead.Seal(nil, p.Nonce, plaintext, p.Data)
	n := len(out) - tagSize(p.Algorithm)
	return out[:n:n], out[n:], nil
}

// open decrypts what seal made.
func open(key any, p *capability.Params, ciphertext, tag []byte) (plaintext []byte, err error) {
	if hash, ok := oaep(p.Algorithm); ok {
		private, ok := key.(*rsa.PrivateKey)
		if !ok {
			return nil, errKey(p.Algorithm)
		}
		if hash == 0 {
			plaintext, err = rsa.DecryptPKCS1v15(rand.Reader, private, ciphertext) //nolint:staticcheck // RSA1_5 is what was asked for
		} else {
			plaintext, err = rsa.DecryptOAEP(hash.New(), rand.Reader, private, ciphertext, p.Data)
		}
		if err != nil {
			return nil, errOpen()
		}
		return plaintext, nil
	}
	secret, size, err := symmetric(key, p.Algorithm)
	if err != nil {
		return nil, err
	}
	switch family := p.Algorithm[4:]; {
	case strings.HasPrefix(family, "CBC") && !strings.Contains(family, "HS"):
		return openCBC(secret, p, ciphertext)
	case family == "KW" && size > 0:
		if len(ciphertext) < 24 || len(ciphertext)%8 != 0 {
			return nil, errOpen()
		}
		block, err := aes.NewCipher(secret)
		if err != nil {
			return nil, err
		}
		if plaintext, err = jose.KeyUnwrap(block, ciphertext); err != nil {
			return nil, errOpen()
		}
		return plaintext, nil
	}
	aead, err := authenticated(secret, p)
	if err != nil {
		return nil, err
	}
	if n := tagSize(p.Algorithm); len(tag) != n {
		return nil, invalid("a tag of %d bytes: %s has one of %d", len(tag), p.Algorithm, n)
	}
	if plaintext, err = aead.Open(nil, p.Nonce, append(bytes.Clone(ciphertext), tag...), p.Data); err != nil {
		return nil, errOpen()
	}
	return plaintext, nil
}

// oaep tells the hash of an RSA algorithm, 0 for RSA1_5, and whether it is one.
func oaep(algorithm string) (crypto.Hash, bool) {
	switch algorithm {
	case "RSA1_5":
		return 0, true
	case "RSA-OAEP":
		return crypto.SHA1, true
	case "RSA-OAEP-256", "RSA-OAEP-384", "RSA-OAEP-512":
		return hashOf(algorithm), true
	}
	return 0, false
}

func hashOf(algorithm string) crypto.Hash {
	switch algorithm[len(algorithm)-3:] {
	case "256":
		return crypto.SHA256
	case "384":
		return crypto.SHA384
	}
	return crypto.SHA512
}

// symmetric checks that a key fits a symmetric algorithm. size is that of AES in the algorithm's name, in bytes; 0 where
// it is another cipher. After it, the algorithm's name has more than four letters.
func symmetric(key any, algorithm string) (secret []byte, size int, err error) {
	want := 0
	switch algorithm {
	case "A128CBC", "A128CBC-NOPAD", "A128GCM", "A128KW":
		size, want = 16, 16
	case "A192CBC", "A192CBC-NOPAD", "A192GCM", "A192KW":
		size, want = 24, 24
	case "A256CBC", "A256CBC-NOPAD", "A256GCM", "A256KW":
		size, want = 32, 32
	case "A128CBC-HS256":
		size, want = 16, 32
	case "A192CBC-HS384":
		size, want = 24, 48
	case "A256CBC-HS512":
		size, want = 32, 64
	case "C20P", "XC20P", "C20PKW", "XC20PKW":
		want = chacha20poly1305.KeySize
	default:
		return nil, 0, errAlgorithm(algorithm)
	}
	secret, ok := key.([]byte)
	if !ok || len(secret) != want {
		return nil, 0, errKey(algorithm)
	}
	return secret, size, nil
}

func tagSize(algorithm string) int {
	switch algorithm {
	case "A192CBC-HS384":
		return 24
	case "A256CBC-HS512":
		return 32
	}
	return 16
}

func authenticated(secret []byte, p *capability.Params) (aead cipher.AEAD, err error) {
	switch p.Algorithm {
	case "C20P", "C20PKW":
		aead, err = chacha20poly1305.New(secret)
	case "XC20P", "XC20PKW":
		aead, err = chacha20poly1305.NewX(secret)
	case "A128CBC-HS256", "A192CBC-HS384", "A256CBC-HS512":
		aead, err = jose.NewCBCHMAC(secret, aes.NewCipher)
	default:
		var block cipher.Block
		if block, err = aes.NewCipher(secret); err == nil {
			aead, err = cipher.NewGCM(block)
		}
	}
	if err == nil && len(p.Nonce) != aead.NonceSize() {
		err = invalid("a nonce of %d bytes: %s takes %d", len(p.Nonce), p.Algorithm, aead.NonceSize())
	}
	return aead, err
}

// sealCBC pads by PKCS#7 unless the algorithm says otherwise.
func sealCBC(secret []byte, p *capability.Params, plaintext []byte) ([]byte, error) {
	block, err := cbc(secret, p)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(p.Algorithm, "-NOPAD") {
		if len(plaintext)%aes.BlockSize != 0 {
			return nil, invalid("%d bytes: %s takes whole blocks of %d", len(plaintext), p.Algorithm, aes.BlockSize)
		}
		plaintext = bytes.Clone(plaintext)
	} else {
		n := aes.BlockSize - len(plaintext)%aes.BlockSize
		plaintext = append(bytes.Clone(plaintext), bytes.Repeat([]byte{byte(n)}, n)...)
	}
	cipher.NewCBCEncrypter(block, p.Nonce).CryptBlocks(plaintext, plaintext)
	return plaintext, nil
}

func openCBC(secret []byte, p *capability.Params, ciphertext []byte) ([]byte, error) {
	block, err := cbc(secret, p)
	if err != nil {
		return nil, err
	}
	if len(ciphertext)%aes.BlockSize != 0 {
		return nil, errOpen()
	}
	plaintext := make([]byte, len(ciphertext))
	cipher.NewCBCDecrypter(block, p.Nonce).CryptBlocks(plaintext, ciphertext)
	if strings.HasSuffix(p.Algorithm, "-NOPAD") {
		return plaintext, nil
	}
	if len(plaintext) == 0 {
		return nil, errOpen()
	}
	n := int(plaintext[len(plaintext)-1])
	if n == 0 || n > aes.BlockSize || !bytes.HasSuffix(plaintext, bytes.Repeat([]byte{byte(n)}, n)) {
		return nil, errOpen()
	}
	return plaintext[:len(plaintext)-n], nil
}

func cbc(secret []byte, p *capability.Params) (cipher.Block, error) {
	if len(p.Nonce) != aes.BlockSize {
		return nil, invalid("a nonce of %d bytes: %s takes %d", len(p.Nonce), p.Algorithm, aes.BlockSize)
	}
	return aes.NewCipher(secret)
}

func sign(key any, algorithm string, digest []byte) (signature []byte, err error) {
	switch algorithm {
	case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
		private, ok := key.(*rsa.PrivateKey)
		if !ok {
			return nil, errKey(algorithm)
		}
		hash := hashOf(algorithm)
		if len(digest) != hash.Size() {
			return nil, invalid("a digest of %d bytes: %s takes one of %d", len(digest), algorithm, hash.Size())
		}
		if algorithm[0] == 'P' {
			return rsa.SignPSS(rand.Reader, private, hash, digest, nil)
		}
		return rsa.SignPKCS1v15(rand.Reader, private, hash, digest)
	case "ES256", "ES384", "ES512":
		private, ok := key.(*ecdsa.PrivateKey)
		if !ok {
			return nil, errKey(algorithm)
		}
		return ecdsa.SignASN1(rand.Reader, private, digest)
	case "EdDSA":
		private, ok := key.(ed25519.PrivateKey)
		if !ok {
			return nil, errKey(algorithm)
		}
		return ed25519.Sign(private, digest), nil
	}
	return nil, errAlgorithm(algorithm)
}

func verify(key any, algorithm string, digest, signature []byte) (bool, error) {
	switch algorithm {
	case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
		public, ok := publicOf(key).(*rsa.PublicKey)
		if !ok {
			return false, errKey(algorithm)
		}
		hash := hashOf(algorithm)
		var err error
		if algorithm[0] == 'P' {
			err = rsa.VerifyPSS(public, hash, digest, signature, nil)
		} else {
			err = rsa.VerifyPKCS1v15(public, hash, digest, signature)
		}
		if err != nil && !errors.Is(err, rsa.ErrVerification) {
			return false, invalid("%w", err)
		}
		return err == nil, nil
	case "ES256", "ES384", "ES512":
		public, ok := publicOf(key).(*ecdsa.PublicKey)
		if !ok {
			return false, errKey(algorithm)
		}
		return ecdsa.VerifyASN1(public, digest, signature), nil
	case "EdDSA":
		public, ok := publicOf(key).(ed25519.PublicKey)
		if !ok {
			return false, errKey(algorithm)
		}
		return ed25519.Verify(public, digest, signature), nil
	}
	return false, errAlgorithm(algorithm)
}

// publicOf is the public half of a key; nil where there is none.
func publicOf(key any) crypto.PublicKey {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return &k.PublicKey
	case *ecdsa.PrivateKey:
		return &k.PublicKey
	case ed25519.PrivateKey:
		return k.Public()
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
		return k
	}
	return nil
}
