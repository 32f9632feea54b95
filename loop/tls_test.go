package loop

import (
	"bytes"
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loam-run/loam"
)

// tlsConfigs are a server's and a client's that trusts it.
func tlsConfigs(t *testing.T, long bool) (server, client *tls.Config) {
	t.Helper()
	var key crypto.Signer
	var err error
	if long {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"loam.test"},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{RootCAs: pool, ServerName: "loam.test"}
}

// accept makes a session that shakes hands, and then leaves the connection to next.
func accept(config *tls.Config, away bool, next Session) sessionFunc {
	return func(t loam.Task, c Conn) Verdict {
		_ = c.SetDeadline(t.Now().Add(2 * time.Minute))
		early := make([]byte, 5) // as who finds out what is spoken does
		if _, err := io.ReadFull(c, early); err != nil {
			return Close
		}
		x := TLSServer(c, early, config)
		if err := x.Handshake(t, away); err != nil {
			return Close
		}
		x.Release(next, time.Minute)
		return Idle
	}
}

func secureDial(t testing.TB, ln Listener, config *tls.Config) *tls.Conn {
	t.Helper()
	c := tls.Client(dial(t, ln), config)
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTLS(t *testing.T) {
	for _, long := range []bool{false, true} {
		server, client := tlsConfigs(t, long)
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			for _, away := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s rsa=%v away=%v", tls.VersionName(version), long, away), func(t *testing.T) {
					engines(t, func(t *testing.T, e Engine) {
						client := client.Clone()
						client.MaxVersion = version
						ln := serve(t, e, accept(server, away, sessionFunc(echo)))
						c := secureDial(t, ln, client)
						big := strings.Repeat("0123456789", 20_000)
						go func() { _, _ = io.WriteString(c, big) }()
						got := make([]byte, len(big))
						if _, err := io.ReadFull(c, got); err != nil || string(got) != big {
							t.Error(err)
						}
						want(t, c, "hello")

						// And as a client of the engine's own.
						if err := inTask(t, e, func(t loam.Task) error {
							raw, err := Dial(t, "tcp", ln.Addr().String(), t.Now().Add(2*time.Minute))
							if err != nil {
								return err
							}
							x := TLSClient(raw, client)
							defer x.Close()
							if err := x.Handshake(t, away); err != nil {
								return err
							}
							if v := x.ConnectionState().Version; v != version {
								return errors.New(tls.VersionName(v))
							}
							for range 3 {
								if _, err := x.Write([]byte("ping")); err != nil {
									return err
								}
								if err := x.Ready(); err != nil {
									return err
								}
								b := make([]byte, 4)
								if _, err := io.ReadFull(x, b); err != nil || string(b) != "ping" {
									return fmt.Errorf("%q %w", b, err)
								}
								x.Release(sessionFunc(func(loam.Task, Conn) Verdict { return Close }), time.Minute)
								if !x.Take(t) {
									return errors.New("an idle connection could not be taken")
								}
							}
							_, err = x.File()
							if loam.CodeOf(err) != loam.Unimplemented {
								return err
							}
							return nil
						}); err != nil {
							t.Error(err)
						}
					})
				})
			}
		}
	}
}

// Trap 5: what TLS has read ahead of its session shows on no socket. The session must be served all the same.
func TestTrapReadAhead(t *testing.T) {
	server, client := tlsConfigs(t, false)
	engines(t, func(t *testing.T, e Engine) {
		for _, release := range []bool{false, true} {
			one := func(t loam.Task, c Conn) (v Verdict) { // answers one byte at a time, and goes
				c.Poll(true)
				defer c.Poll(false)
				b := make([]byte, 1)
				switch _, err := c.Read(b); {
				case errors.Is(err, ErrAgain):
					return Idle
				case err != nil:
					return Close
				}
				_, _ = c.Write(b)
				return Idle
			}
			var s sessionFunc = one
			if release {
				s = func(t loam.Task, c Conn) Verdict {
					if v := one(t, c); v == Close {
						return v
					}
					c.Release(sessionFunc(one), time.Minute)
					return Idle
				}
			}
			ln := serve(t, e, accept(server, false, s))
			want(t, secureDial(t, ln, client), "several bytes in one record")

			wait := serve(t, e, accept(server, false, sessionFunc(func(t loam.Task, c Conn) Verdict {
				b := make([]byte, 3)
				for range 4 { // by Ready, and a Read of less than there is
					if err := c.Ready(); err != nil {
						return Close
					}
					n, err := c.Read(b)
					if err != nil {
						return Close
					}
					_, _ = c.Write(b[:n])
				}
				return Close
			})))
			c := secureDial(t, wait, client)
			want(t, c, "0123456789")
		}
	})
}

// Trap 6: whoever closes a TLS connection, the peer gets the farewell, and resumes the session the next time.
func TestTrapFarewell(t *testing.T) {
	server, client := tlsConfigs(t, false)
	engines(t, func(t *testing.T, e Engine) {
		for name, next := range map[string]Session{
			"by verdict": sessionFunc(func(t loam.Task, c Conn) Verdict {
				_, _ = c.Read(make([]byte, 9))
				_, _ = c.Write([]byte("x"))
				return Close
			}),
			"by the idle limit": sessionFunc(func(t loam.Task, c Conn) Verdict {
				_, _ = c.Read(make([]byte, 9))
				_, _ = c.Write([]byte("x"))
				c.Release(sessionFunc(echo), 10*time.Millisecond)
				return Idle
			}),
		} {
			client := client.Clone()
			client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			ln := serve(t, e, accept(server, false, next))
			for i := range 3 {
				raw := dial(t, ln)
				c := tls.Client(&bare{raw}, client) // which does not take a bare end for the end
				want(t, c, "x")
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
					t.Error(name, err)
				}
				if got := c.ConnectionState().DidResume; got != (i > 0) {
					t.Errorf("%s: connection %d resumed: %v", name, i, got)
				}
			}
		}
		ln := serve(t, e, accept(server, false, sessionFunc(echo)))
		c := tls.Client(&bare{dial(t, ln)}, client)
		want(t, c, "hello")
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Error("by the end of the engine:", err)
		}
	})
}

// bare makes an error of an end that TLS did not announce.
type bare struct{ net.Conn }

func (b *bare) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// A handshake that the peer does not go on with ends with its deadline, and with Cancel.
func TestHandshakeEnds(t *testing.T) {
	server, _ := tlsConfigs(t, false)
	engines(t, func(t *testing.T, e Engine) {
		for _, away := range []bool{false, true} {
			got := make(chan error, 1)
			tasks := make(chan loam.Task, 1)
			ln := serve(t, e, func(t loam.Task, c Conn) Verdict {
				x := TLSServer(c, nil, server)
				_ = c.SetDeadline(t.Now().Add(30 * time.Millisecond))
				got <- x.Handshake(t, away)
				return Close
			})
			_, _ = dial(t, ln).Write([]byte{22, 3, 1, 0, 200}) // half a record
			if err := recv(t, got); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(away, err)
			}

			long := serve(t, e, func(t loam.Task, c Conn) Verdict {
				t.Context()
				tasks <- t
				got <- TLSServer(c, nil, server).Handshake(t, away)
				return Close
			})
			_, _ = dial(t, long).Write([]byte{22, 3, 1, 0, 200})
			recv(t, tasks).Cancel()
			if err := recv(t, got); !errors.Is(err, context.Canceled) {
				t.Error(away, err)
			}

			nonsense := serve(t, e, func(t loam.Task, c Conn) Verdict {
				err := TLSServer(c, nil, server).Handshake(t, away)
				if err == nil {
					err = errors.New("no error")
				}
				got <- err
				return Close
			})
			c := dial(t, nonsense)
			_, _ = c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
			if err := recv(t, got); !errors.As(err, new(tls.RecordHeaderError)) {
				t.Error(err)
			}
		}
	})
}

// Of two tasks on one TLS connection one reads and one writes. The peer reads nothing, and asks for new keys, which the
// reader has to answer: with a bare tls.Conn the loop would hang for ever.
func TestTrapKeyUpdate(t *testing.T) {
	server, client := tlsConfigs(t, false)
	engines(t, func(t *testing.T, e Engine) {
		heard := make(chan string, 1)
		var sent atomic.Int64
		var stop atomic.Bool
		ln := serve(t, e, accept(server, false, sessionFunc(func(t loam.Task, c Conn) Verdict {
			t.Go(func(loam.Task) {
				for b := make([]byte, 10_000); !stop.Load(); {
					n, err := c.Write(b)
					sent.Add(int64(n))
					if err != nil {
						return
					}
				}
				_ = c.CloseWrite()
			})
			b := make([]byte, 100)
			for all := ""; ; {
				n, err := c.Read(b)
				all += string(b[:n])
				if strings.HasSuffix(all, "goodbye") {
					heard <- all
				}
				if err != nil {
					return Close
				}
			}
		})))
		client := client.Clone()
		client.MinVersion = tls.VersionTLS13
		var log bytes.Buffer
		client.KeyLogWriter = &log
		raw := dial(t, ln)
		c := tls.Client(raw, client)
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("hello, ")) // record 0 under this key
		was := int64(-1)
		until(t, "the writer waits", func() bool {
			now := sent.Load()
			still := now > 0 && now == was
			was = now
			if !still {
				<-time.After(20 * time.Millisecond)
			}
			return still
		})
		k := newKeys(t, c.ConnectionState().CipherSuite, log.String())
		k.seq = 1
		for range 3 {
			_, _ = raw.Write(k.seal(22, []byte{24, 0, 0, 1, 1})) // KeyUpdate, update_requested (RFC 8446, section 4.6.3)
			k.update()
		}
		_, _ = raw.Write(k.seal(23, []byte("goodbye")))
		if s := recv(t, heard); s != "hello, goodbye" {
			t.Errorf("%q", s)
		}
		want(t, secureDial(t, serve(t, e, accept(server, false, sessionFunc(echo))), client), "the loops live")
		stop.Store(true)
		n, err := io.Copy(io.Discard, c) // under the keys the server changed to
		if n != sent.Load() || err != nil {
			t.Errorf("%d bytes of %d, %v", n, sent.Load(), err)
		}
	})
}

// keys encrypt what a TLS 1.3 client sends, in place of crypto/tls, which cannot be made to ask for new keys.
type keys struct {
	t      *testing.T
	hash   func() hash.Hash
	size   int // of the key
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

func newKeys(t *testing.T, suite uint16, log string) *keys {
	t.Helper()
	k := &keys{t: t, hash: sha256.New, size: 16}
	switch suite {
	case tls.TLS_AES_128_GCM_SHA256:
	case tls.TLS_AES_256_GCM_SHA384:
		k.hash, k.size = sha512.New384, 32
	default:
		t.Fatal("no AES here: ", tls.CipherSuiteName(suite))
	}
	for line := range strings.Lines(log) {
		if f := strings.Fields(line); f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			k.secret, _ = hex.DecodeString(f[2])
		}
	}
	k.derive()
	return k
}

func (k *keys) expand(label string, n int) []byte {
	info := append([]byte{byte(n >> 8), byte(n), byte(6 + len(label))}, "tls13 "+label...)
	b, err := hkdf.Expand(k.hash, k.secret, string(append(info, 0)), n)
	if err != nil {
		k.t.Fatal(err)
	}
	return b
}

func (k *keys) derive() {
	block, err := aes.NewCipher(k.expand("key", k.size))
	if err == nil {
		k.aead, err = cipher.NewGCM(block)
	}
	if err != nil {
		k.t.Fatal(err)
	}
	k.iv, k.seq = k.expand("iv", 12), 0
}

func (k *keys) update() {
	k.secret = k.expand("traffic upd", len(k.secret))
	k.derive()
}

func (k *keys) seal(kind byte, p []byte) []byte {
	nonce := bytes.Clone(k.iv)
	var seq [8]byte
	binary.BigEndian.PutUint64(seq[:], k.seq)
	for i, b := range seq {
		nonce[4+i] ^= b
	}
	k.seq++
	n := len(p) + 1 + k.aead.Overhead()
	head := []byte{23, 3, 3, byte(n >> 8), byte(n)}
	return k.aead.Seal(head, nonce, append(bytes.Clone(p), kind), head)
}

// A relay whose one end speaks TLS is carried by tasks.
func TestRelayTLS(t *testing.T) {
	server, client := tlsConfigs(t, false)
	engines(t, func(t *testing.T, e Engine) {
		ln, done := tunnel(t, e, upstream(t, echoAll), time.Minute, func(t loam.Task, c Conn) (io.ReadWriteCloser, error) {
			x := TLSServer(c, nil, server)
			return x, x.Handshake(t, false)
		})
		c := secureDial(t, ln, client)
		want(t, c, "hello")
		sent := make([]byte, 4<<20)
		_, _ = rand.Read(sent)
		go func() {
			_, _ = c.Write(sent)
			_ = c.CloseWrite()
		}()
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes of %d, %v", len(got), len(sent), err)
		}
		c.Close()
		if d := recv(t, done); d != (carriage{4<<20 + 5, 4<<20 + 5}) {
			t.Error(d)
		}
	})
}
