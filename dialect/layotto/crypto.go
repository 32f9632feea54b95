package layotto

import (
	"bytes"
	"context"
	"io"
	"strings"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/layotto"
	"github.com/loam-run/loam/capability/crypto"
	"github.com/loam-run/loam/protocol/grpc"
)

func (a *API) cryption(name string) (*crypto.Crypto, error) {
	return find(a, cryptions, name, a.opts.Capabilities.Crypto)
}

// encrypt seals a text in the scheme that Dapr has (dapr.io/enc/v1), which names the key: what Layotto's contract asks of a
// text that is decrypted without one.
func (a *API) encrypt(c *grpc.Call, in *pb.EncryptRequest) (*pb.EncryptResponse, error) {
	s, err := a.cryption(in.ComponentName)
	if err != nil {
		return nil, err
	}
	if in.KeyId == "" {
		return nil, invalid("key_id is empty: component %s has no key of its own", in.ComponentName)
	}
	var text []byte
	await(c, func(ctx context.Context) { text, err = a.seal(ctx, s, in.KeyId, in.PlainText) })
	if err != nil {
		return nil, because(err, "encrypt fail,err: ")
	}
	name, version := keyOf(in.KeyId)
	return &pb.EncryptResponse{CipherText: text, KeyId: name, KeyVersionId: version, RequestId: c.Request().ID}, nil
}

func (a *API) seal(ctx context.Context, s *crypto.Crypto, key string, text []byte) ([]byte, error) {
	algorithm := "A256KW"
	switch _, err := s.PublicKey(ctx, a.caller, key, crypto.PEM); loam.CodeOf(err) {
	case loam.OK:
		algorithm = "RSA-OAEP-256" // of asymmetric keys, the ones that can wrap
	case loam.NotFound: // it is symmetric, or there is none, which the next call tells
	default:
		return nil, err
	}
	r, err := s.EncryptStream(ctx, a.caller, crypto.EncryptOptions{Key: key, Algorithm: algorithm}, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func (a *API) decrypt(c *grpc.Call, in *pb.DecryptRequest) (*pb.DecryptResponse, error) {
	s, err := a.cryption(in.ComponentName)
	if err != nil {
		return nil, err
	}
	var text []byte
	var key string
	await(c, func(ctx context.Context) { text, key, err = a.unseal(ctx, s, in.CipherText) })
	if err != nil {
		return nil, because(err, "decrypt fail,err: ")
	}
	name, version := keyOf(key)
	return &pb.DecryptResponse{PlainText: text, KeyId: name, KeyVersionId: version, RequestId: c.Request().ID}, nil
}

func (a *API) unseal(ctx context.Context, s *crypto.Crypto, text []byte) (plain []byte, key string, err error) {
	sealed, err := crypto.ReadHeader(bytes.NewReader(text))
	if err != nil {
		return nil, "", err
	}
	if sealed.Key() == "" {
		return nil, "", loam.Errorf(loam.InvalidArgument, "decrypt", "the text names no key")
	}
	r, err := s.DecryptStream(ctx, a.caller, "", sealed)
	if err != nil {
		return nil, "", err
	}
	plain, err = io.ReadAll(r) // no longer than the message that it came in
	return plain, sealed.Key(), err
}

// keyOf is a key's name without its version, and the version.
func keyOf(key string) (name, version string) {
	if i := strings.LastIndexByte(key, '/'); i > 0 {
		return key[:i], key[i+1:]
	}
	return key, ""
}
