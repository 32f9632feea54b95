package dapr

import (
	"errors"
	"io"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/dapr"
	"github.com/loam-run/loam/capability/crypto"
	"github.com/loam-run/loam/protocol/grpc"
)

// payloads is a stream of payloads as the bytes that are in them.
type payloads struct {
	next func() (p *pb.StreamPayload, options bool, err error)
	rest []byte
	seq  uint64
	err  error
}

// take adds a payload, which has its number from 0 on.
func (c *payloads) take(p *pb.StreamPayload) error {
	if p == nil {
		return nil
	}
	if p.Seq != c.seq {
		return loam.Errorf(loam.InvalidArgument, "", "invalid sequence number received: %d (expected: %d)", p.Seq, c.seq)
	}
	c.seq++
	c.rest = p.Data
	return nil
}

// Read gives the bytes.
func (c *payloads) Read(b []byte) (int, error) {
	for len(c.rest) == 0 {
		if c.err != nil {
			return 0, c.err
		}
		p, options, err := c.next()
		switch {
		case errors.Is(err, io.EOF):
			c.err = io.EOF
		case err != nil:
			c.err = err
		case options:
			c.err = loam.Errorf(loam.InvalidArgument, "", "options found in non-leading message")
		default:
			c.err = c.take(p)
		}
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

const payloadSize = 32 << 10 // bytes of a message that is answered

// sendPayloads sends what a reader gives.
func sendPayloads(out io.Reader, send func(*pb.StreamPayload) error) error {
	buf := make([]byte, payloadSize)
	for seq := uint64(0); ; {
		n, err := out.Read(buf)
		if n > 0 {
			if err := send(&pb.StreamPayload{Data: buf[:n], Seq: seq}); err != nil {
				return err
			}
			seq++
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return cryptoFailed(err)
		}
	}
}

func (a *API) grpcEncrypt(st *grpc.Stream) error {
	var first pb.EncryptRequest
	if err := st.Recv(&first); err != nil {
		return cryptoFailed(err)
	}
	o := first.Options
	if o == nil {
		return errBadRequest.failure("invalid request: first message does not contain the required options")
	}
	options, err := encryptOptions(crypto.EncryptOptions{
		Key: o.KeyName, Algorithm: o.KeyWrapAlgorithm, Cipher: o.DataEncryptionCipher, DecryptionKey: o.DecryptionKeyName, OmitKey: o.OmitDecryptionKeyName,
	}, func(field string) string { return "property '" + field + "' in the options message" })
	if err != nil {
		return err
	}
	p, err := a.provider(o.ComponentName)
	if err != nil {
		return err
	}
	in := &payloads{next: func() (*pb.StreamPayload, bool, error) {
		var m pb.EncryptRequest
		err := st.Recv(&m)
		return m.Payload, m.Options != nil, err
	}}
	if err := in.take(first.Payload); err != nil {
		return cryptoFailed(err)
	}
	var out io.Reader
	timing := a.settings.Metrics.begin(st.Task())
	await(st.Request(), func() { out, err = p.EncryptStream(st.Context(), a.opts.App.Caller, options, in) })
	timing.end(cryptoCalls, first.Options.ComponentName, cryptoOp, succeeded(err))
	if err != nil {
		return cryptoFailed(err)
	}
	return sendPayloads(out, func(p *pb.StreamPayload) error { return st.Send(&pb.EncryptResponse{Payload: p}) })
}

func (a *API) grpcDecrypt(st *grpc.Stream) error {
	var first pb.DecryptRequest
	if err := st.Recv(&first); err != nil {
		return cryptoFailed(err)
	}
	if first.Options == nil {
		return errBadRequest.failure("invalid request: first message does not contain the required options")
	}
	p, err := a.provider(first.Options.ComponentName)
	if err != nil {
		return err
	}
	in := &payloads{next: func() (*pb.StreamPayload, bool, error) {
		var m pb.DecryptRequest
		err := st.Recv(&m)
		return m.Payload, m.Options != nil, err
	}}
	if err := in.take(first.Payload); err != nil {
		return cryptoFailed(err)
	}
	out, err := a.decrypt(st.Context(), p, first.Options.ComponentName, first.Options.KeyName, in, func(fn func()) { await(st.Request(), fn) })
	if err != nil {
		return err
	}
	return sendPayloads(out, func(p *pb.StreamPayload) error { return st.Send(&pb.DecryptResponse{Payload: p}) })
}

func (a *API) grpcSubtleGetKey(c *grpc.Call, in *pb.SubtleGetKeyRequest) (*pb.SubtleGetKeyResponse, error) {
	out, err := a.subtle(c.Request(), in.ComponentName, "get key", &subtleRequest{Name: in.Name, Format: format(in.Format)})
	if err != nil {
		return nil, err
	}
	return &pb.SubtleGetKeyResponse{Name: out.Name, PublicKey: out.PublicKey}, nil
}

func (a *API) grpcSubtleEncrypt(c *grpc.Call, in *pb.SubtleEncryptRequest) (*pb.SubtleEncryptResponse, error) {
	out, err := a.subtle(c.Request(), in.ComponentName, "encrypt", &subtleRequest{
		Plaintext: in.Plaintext, Algorithm: in.Algorithm, KeyName: in.KeyName, Nonce: in.Nonce, Associated: in.AssociatedData,
	})
	if err != nil {
		return nil, err
	}
	return &pb.SubtleEncryptResponse{Ciphertext: out.Ciphertext, Tag: out.Tag}, nil
}

func (a *API) grpcSubtleDecrypt(c *grpc.Call, in *pb.SubtleDecryptRequest) (*pb.SubtleDecryptResponse, error) {
	out, err := a.subtle(c.Request(), in.ComponentName, "decrypt", &subtleRequest{
		Ciphertext: in.Ciphertext, Algorithm: in.Algorithm, KeyName: in.KeyName, Nonce: in.Nonce, Tag: in.Tag, Associated: in.AssociatedData,
	})
	if err != nil {
		return nil, err
	}
	return &pb.SubtleDecryptResponse{Plaintext: out.Plaintext}, nil
}

func (a *API) grpcSubtleWrapKey(c *grpc.Call, in *pb.SubtleWrapKeyRequest) (*pb.SubtleWrapKeyResponse, error) {
	out, err := a.subtle(c.Request(), in.ComponentName, "wrap key", &subtleRequest{
		PlaintextKey: in.PlaintextKey, Algorithm: in.Algorithm, KeyName: in.KeyName, Nonce: in.Nonce, Associated: in.AssociatedData,
	})
	if err != nil {
		return nil, err
	}
	return &pb.SubtleWrapKeyResponse{WrappedKey: out.WrappedKey, Tag: out.Tag}, nil
}

func (a *API) grpcSubtleUnwrapKey(c *grpc.Call, in *pb.SubtleUnwrapKeyRequest) (*pb.SubtleUnwrapKeyResponse, error) {
	out, err := a.subtle(c.Request(), in.ComponentName, "unwrap key", &subtleRequest{
		WrappedKey: in.WrappedKey, Algorithm: in.Algorithm, KeyName: in.KeyName, Nonce: in.Nonce, Tag: in.Tag, Associated: in.AssociatedData,
	})
	if err != nil {
		return nil, err
	}
	return &pb.SubtleUnwrapKeyResponse{PlaintextKey: out.PlaintextKey}, nil
}

func (a *API) grpcSubtleSign(c *grpc.Call, in *pb.SubtleSignRequest) (*pb.SubtleSignResponse, error) {
	out, err := a.subtle(c.Request(), in.ComponentName, "sign", &subtleRequest{Digest: in.Digest, Algorithm: in.Algorithm, KeyName: in.KeyName})
	if err != nil {
		return nil, err
	}
	return &pb.SubtleSignResponse{Signature: out.Signature}, nil
}

func (a *API) grpcSubtleVerify(c *grpc.Call, in *pb.SubtleVerifyRequest) (*pb.SubtleVerifyResponse, error) {
	out, err := a.subtle(c.Request(), in.ComponentName, "verify signature", &subtleRequest{Digest: in.Digest, Signature: in.Signature, Algorithm: in.Algorithm, KeyName: in.KeyName})
	if err != nil {
		return nil, err
	}
	return &pb.SubtleVerifyResponse{Valid: out.Valid}, nil
}
