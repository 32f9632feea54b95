package crypto

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/loam-run/loam"
)

// Dapr's scheme dapr.io/enc/v1: three lines, which are its name, a manifest in JSON and a MAC of both; then the message in
// segments, each sealed by a key of this message alone, which the manifest holds wrapped.
const (
	schemeName  = "dapr.io/enc/v1"
	segmentSize = 64 << 10 // bytes of the message in each segment but the last
	overhead    = 16       // bytes of a segment's tag
	prefixSize  = 7        // of the random part of a nonce
	maxHeader   = 64 << 10
)

// wrapping are the names of algorithms that wrap a file's key, by their number in a manifest from 1.
func wrapping() []string {
	return []string{"A256KW", "A128CBC-NOPAD", "A192CBC-NOPAD", "A256CBC-NOPAD", "RSA-OAEP-256"}
}

// ciphers are those that seal segments, likewise.
func ciphers() []string { return []string{"AES-GCM", "CHACHA20-POLY1305"} }

func number(names []string, name string) int {
	for i, n := range names {
		if n == name {
			return i + 1
		}
	}
	return 0
}

type manifest struct {
	Key       string `json:"k,omitempty"`
	Algorithm int    `json:"kw"`
	Wrapped   []byte `json:"wfk"`
	Cipher    int    `json:"cph"`
	Prefix    []byte `json:"np"`
}

// EncryptOptions say how a stream is encrypted.
type EncryptOptions struct {
	Key           string // that wraps the stream's own key
	Algorithm     string // to wrap with: A256KW (or AES), RSA-OAEP-256 (or RSA)
	Cipher        string // of the stream: AES-GCM, which is what "" means, or CHACHA20-POLY1305; in either case
	DecryptionKey string // named in the stream as the key to decrypt with; "": Key
	OmitKey       bool   // name none
}

// EncryptStream returns a reader of what in holds, encrypted. The call itself reads nothing of in, and the reader does
// nothing but read in: only the call may wait for the component. The reader holds a segment at a time.
func (c *Crypto) EncryptStream(ctx context.Context, caller *loam.Caller, o EncryptOptions, in io.Reader) (io.Reader, error) {
	op, err := c.check("crypto.EncryptStream", caller, o.Key, o.Algorithm, false)
	if err != nil {
		return nil, err
	}
	m := manifest{Key: o.Key, Algorithm: number(wrapping(), unalias(o.Algorithm)), Cipher: 1}
	if o.Cipher != "" {
		m.Cipher = number(ciphers(), strings.ToUpper(o.Cipher))
	}
	switch {
	case m.Algorithm == 0:
		err = fmt.Errorf("algorithm %q: a stream's key is wrapped by %s", o.Algorithm, strings.Join(wrapping(), ", "))
	case m.Cipher == 0:
		err = fmt.Errorf("cipher %q: a stream is encrypted by %s", o.Cipher, strings.Join(ciphers(), ", "))
	case len(o.DecryptionKey) > MaxName:
		err = fmt.Errorf("a key's name takes at most %d bytes", MaxName)
	}
	if err != nil {
		return nil, &loam.Error{Code: loam.InvalidArgument, Op: op, Err: err}
	}
	if o.DecryptionKey != "" {
		m.Key = o.DecryptionKey
	}
	if o.OmitKey {
		m.Key = ""
	}
	random := make([]byte, 32+prefixSize)
	_, _ = rand.Read(random) // it does not fail
	fileKey, prefix := random[:32], random[32:]
	m.Prefix = prefix
	if m.Wrapped, _, err = c.driver.Wrap(ctx, Params{Key: o.Key, Algorithm: wrapping()[m.Algorithm-1]}, fileKey); err != nil {
		return nil, wrap(op, err)
	}
	text, err := json.Marshal(&m)
	if err != nil {
		return nil, wrap(op, err)
	}
	signed, err := headerMAC(fileKey, text)
	if err != nil {
		return nil, wrap(op, err)
	}
	aead, err := streamCipher(m.Cipher, fileKey, prefix)
	if err != nil {
		return nil, wrap(op, err)
	}
	var header bytes.Buffer
	header.WriteString(schemeName + "\n")
	header.Write(text)
	header.WriteString("\n" + base64.StdEncoding.EncodeToString(signed) + "\n")
	return &segments{
		in: in, out: header.Bytes(), size: segmentSize, prefix: prefix,
		do: func(nonce, b []byte) ([]byte, error) { return aead.Seal(b[:0], nonce, b, nil), nil },
	}, nil
}

// A Sealed is an encrypted stream whose header was read.
type Sealed struct {
	manifest manifest
	text     []byte // the manifest as it was sent, which its MAC is of
	mac      []byte
	rest     io.Reader
}

// Key is the name of the key to decrypt with that the stream gives; "": none.
func (s *Sealed) Key() string { return s.manifest.Key }

// ReadHeader reads the header of an encrypted stream.
func ReadHeader(in io.Reader) (*Sealed, error) {
	const op = "crypto.ReadHeader"
	buf := make([]byte, 0, 1024)
	for begin, lines := 0, 0; ; {
		if i := bytes.IndexByte(buf[begin:], '\n'); i >= 0 {
			if begin += i + 1; begin > maxHeader {
				return nil, loam.Errorf(loam.InvalidArgument, op, "the header is longer than %d bytes", maxHeader)
			}
			if lines++; lines == 1 && string(buf[:begin]) != schemeName+"\n" {
				return nil, loam.Errorf(loam.InvalidArgument, op, "the stream does not begin with %s", schemeName)
			}
			if lines == 3 {
				return parseHeader(buf[:begin], io.MultiReader(bytes.NewReader(buf[begin:]), in))
			}
			continue
		}
		if len(buf) >= maxHeader || lines == 0 && len(buf) > len(schemeName) {
			return nil, loam.Errorf(loam.InvalidArgument, op, "the stream does not begin with the header of %s", schemeName)
		}
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, min(2*cap(buf), maxHeader)), buf...)
		}
		n, err := in.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case n > 0: // an error comes again
		case errors.Is(err, io.EOF):
			return nil, loam.Errorf(loam.InvalidArgument, op, "the stream ends within its header")
		case err != nil:
			return nil, err
		}
	}
}

// parseHeader reads three whole lines.
func parseHeader(header []byte, rest io.Reader) (*Sealed, error) {
	lines := bytes.SplitN(header, []byte("\n"), 4)
	s := &Sealed{text: lines[1], rest: rest}
	invalid := loam.Errorf(loam.InvalidArgument, "crypto.ReadHeader", "the header cannot be read")
	d := json.NewDecoder(bytes.NewReader(s.text))
	m := &s.manifest
	if err := d.Decode(m); err != nil || d.InputOffset() != int64(len(s.text)) {
		return nil, invalid
	}
	var err error
	if s.mac, err = base64.StdEncoding.DecodeString(string(lines[2])); err != nil {
		return nil, invalid
	}
	if m.Algorithm < 1 || m.Algorithm > len(wrapping()) || m.Cipher < 1 || m.Cipher > len(ciphers()) || len(m.Wrapped) == 0 ||
		len(m.Prefix) != prefixSize || len(m.Key) > MaxName {
		return nil, invalid
	}
	return s, nil
}

// DecryptStream returns a reader of the message. key is the one to unwrap with; "": that which the stream names. As with
// EncryptStream, only the call may wait for the component, and only the reader reads the stream; it hands out nothing that
// was not authenticated. The reader's error is InvalidArgument where the stream was tampered with or cut short.
func (c *Crypto) DecryptStream(ctx context.Context, caller *loam.Caller, key string, s *Sealed) (io.Reader, error) {
	m := &s.manifest
	if key == "" {
		key = m.Key
	}
	if key == "" {
		return nil, loam.Errorf(loam.InvalidArgument, "crypto.DecryptStream", "the stream names no key, and none was given")
	}
	op, err := c.check("crypto.DecryptStream", caller, key, "", false)
	if err != nil {
		return nil, err
	}
	fileKey, err := c.driver.Unwrap(ctx, Params{Key: key, Algorithm: wrapping()[m.Algorithm-1]}, m.Wrapped, nil)
	if err != nil && loam.CodeOf(err) != loam.InvalidArgument {
		return nil, wrap(op, err) // there is no such key, or it cannot be had
	}
	if err != nil || len(fileKey) != 32 {
		fileKey = make([]byte, 32) // fails below as a wrong MAC does: what is wrong with a stream is not told in detail
	}
	mac, err := headerMAC(fileKey, s.text)
	if err != nil {
		return nil, wrap(op, err)
	}
	if !hmac.Equal(mac, s.mac) {
		return nil, loam.Errorf(loam.InvalidArgument, op, "the stream's signature is not right: it was changed, or is of another key")
	}
	aead, err := streamCipher(m.Cipher, fileKey, m.Prefix)
	if err != nil {
		return nil, wrap(op, err)
	}
	return &segments{
		in: s.rest, size: segmentSize + overhead, prefix: m.Prefix,
		do: func(nonce, b []byte) ([]byte, error) {
			b, err := aead.Open(b[:0], nonce, b, nil)
			if err != nil {
				return nil, loam.Errorf(loam.InvalidArgument, op, "a segment cannot be decrypted: the stream was changed or cut short")
			}
			return b, nil
		},
	}, nil
}

// unalias resolves the short names that Dapr has for what wraps a key.
func unalias(algorithm string) string {
	switch algorithm {
	case "AES":
		return "A256KW"
	case "RSA":
		return "RSA-OAEP-256"
	}
	return algorithm
}

func headerMAC(fileKey, manifest []byte) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, fileKey, nil, "header", 32)
	if err != nil {
		return nil, err
	}
	h := hmac.New(sha256.New, key)
	_, _ = fmt.Fprintf(h, "%s\n%s\n", schemeName, manifest) // a hash takes everything
	return h.Sum(nil), nil
}

func streamCipher(number int, fileKey, prefix []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, fileKey, prefix, "payload", 32)
	if err != nil {
		return nil, err
	}
	if number == 2 {
		return chacha20poly1305.New(key)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// segments reads in by segments of size bytes, the last of which may be shorter, and hands out what do makes of each. It is
// one byte ahead, since the last one is sealed as such.
type segments struct {
	in     io.Reader
	size   int
	prefix []byte
	do     func(nonce, segment []byte) ([]byte, error) // in place

	buf    []byte // what was read and not handed to do; grows as it is needed
	out    []byte // what was made and not read
	ahead  []byte // the byte after what out was made of, where there is one
	number int64  // of the segment in buf
	err    error  // for when out is empty
}

func (s *segments) Read(p []byte) (int, error) {
	for len(s.out) == 0 && s.err == nil {
		s.next()
	}
	if len(s.out) == 0 {
		return 0, s.err
	}
	n := copy(p, s.out)
	s.out = s.out[n:]
	return n, nil
}

// next makes one more segment.
func (s *segments) next() {
	s.buf = append(s.buf, s.ahead...)
	s.ahead = s.ahead[:0]
	for empty := 0; len(s.buf) <= s.size; {
		if cap(s.buf) < min(len(s.buf)+512, s.size+1+overhead) {
			s.buf = append(make([]byte, 0, min(max(4096, 4*cap(s.buf)), s.size+1+overhead)), s.buf...)
		}
		n, err := s.in.Read(s.buf[len(s.buf):min(cap(s.buf), s.size+1)])
		s.buf = s.buf[:len(s.buf)+n]
		if errors.Is(err, io.EOF) {
			s.err = io.EOF
			break
		}
		if empty++; n > 0 {
			empty = 0
		}
		if err == nil && empty > 100 {
			err = io.ErrNoProgress
		}
		if err != nil {
			s.err = err
			return
		}
	}
	last := len(s.buf) <= s.size
	if last && len(s.buf) == 0 {
		return // an empty message, which is no segment
	}
	if s.number > math.MaxUint32 {
		s.err = loam.Errorf(loam.OutOfRange, "crypto", "a stream has at most 2^32 segments")
		return
	}
	var nonce [12]byte
	copy(nonce[:], s.prefix)
	binary.BigEndian.PutUint32(nonce[prefixSize:], uint32(s.number))
	segment := s.buf
	if last {
		nonce[11] = 1
	} else {
		segment, s.ahead = s.buf[:s.size], append(s.ahead, s.buf[s.size])
	}
	if cap(segment) < len(segment)+overhead {
		segment = append(make([]byte, 0, len(segment)+overhead), segment...)
	}
	out, err := s.do(nonce[:], segment)
	if err != nil {
		s.err = err
		return
	}
	s.number++
	s.out, s.buf = out, s.buf[:0]
}
