package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/loam-run/loam"
)

// nameServer answers over UDP and TCP from records that a test sets.
type nameServer struct {
	packets net.PacketConn
	streams net.Listener
	work    sync.WaitGroup

	mu      sync.Mutex
	records map[string][]dnsmessage.Resource // by type and name: "TypeA orders.test."
	fail    bool
	cut     bool // UDP answers are truncated
}

func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	streams, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &nameServer{packets: packets, streams: streams, records: map[string][]dnsmessage.Resource{}}
	n.work.Go(func() {
		b := make([]byte, 1500)
		for {
			size, from, err := packets.ReadFrom(b)
			if err != nil {
				return
			}
			if a := n.answer(b[:size], true); a != nil {
				_, _ = packets.WriteTo(a, from)
			}
		}
	})
	n.work.Go(func() {
		for {
			c, err := streams.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 1500)
			if size, err := c.Read(b); err == nil && size > 2 { // a question comes in one piece
				a := n.answer(b[2:size], false)
				_, _ = c.Write(append([]byte{byte(len(a) >> 8), byte(len(a))}, a...))
			}
			c.Close()
		}
	})
	t.Cleanup(func() {
		packets.Close()
		streams.Close()
		n.work.Wait()
	})
	return n
}

func (n *nameServer) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	if strings.HasPrefix(network, "udp") {
		return new(net.Dialer).DialContext(ctx, network, n.packets.LocalAddr().String())
	}
	return new(net.Dialer).DialContext(ctx, network, n.streams.Addr().String())
}

func (n *nameServer) answer(question []byte, udp bool) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	m.Answers = n.records[q.Type.String()+" "+q.Name.String()]
	switch {
	case n.fail:
		m.RCode, m.Answers = dnsmessage.RCodeServerFailure, nil
	case n.cut && udp:
		m.Truncated, m.Answers = true, nil
	case len(m.Answers) == 0:
		known := slices.ContainsFunc([]string{"TypeA ", "TypeAAAA ", "TypeSRV "}, func(t string) bool { return n.records[t+q.Name.String()] != nil })
		if !known {
			m.RCode = dnsmessage.RCodeNameError
		}
	}
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

func (n *nameServer) add(name string, ttl uint32, body dnsmessage.ResourceBody) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var kind dnsmessage.Type
	switch body.(type) {
	case *dnsmessage.AResource:
		kind = dnsmessage.TypeA
	case *dnsmessage.AAAAResource:
		kind = dnsmessage.TypeAAAA
	case *dnsmessage.SRVResource:
		kind = dnsmessage.TypeSRV
	}
	h := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Class: dnsmessage.ClassINET, Type: kind, TTL: ttl}
	key := kind.String() + " " + name
	n.records[key] = append(n.records[key], dnsmessage.Resource{Header: h, Body: body})
}

func (n *nameServer) a(name, address string, ttl uint32) {
	if a := netip.MustParseAddr(address); a.Is4() {
		n.add(name, ttl, &dnsmessage.AResource{A: a.As4()})
	} else {
		n.add(name, ttl, &dnsmessage.AAAAResource{AAAA: a.As16()})
	}
}

func (n *nameServer) srv(name, target string, port, priority, weight uint16, ttl uint32) {
	n.add(name, ttl, &dnsmessage.SRVResource{Target: dnsmessage.MustNewName(target), Port: port, Priority: priority, Weight: weight})
}

func TestLookup(t *testing.T) {
	n := newNameServer(t)
	n.a("orders.test.", "10.0.0.2", 60)
	n.a("orders.test.", "10.0.0.1", 60)
	n.a("orders.test.", "2001:db8::1", 7)
	n.srv("_http._tcp.orders.test.", "one.test.", 8001, 1, 3, 50)
	n.srv("_http._tcp.orders.test.", "two.test.", 8002, 1, 0, 50)
	n.srv("_http._tcp.orders.test.", "gone.test.", 8003, 1, 1, 50)
	n.srv("_http._tcp.orders.test.", "spare.test.", 8004, 2, 1, 50)
	n.a("one.test.", "10.0.1.1", 20)
	n.a("two.test.", "10.0.1.2", 40)
	n.a("spare.test.", "10.0.1.4", 1)
	for _, cut := range []bool{false, true} {
		n.mu.Lock()
		n.cut = cut
		n.mu.Unlock()
		for _, c := range []struct {
			name string
			port int
			want string
			ttl  time.Duration
		}{
			{"orders.test.", 80, "10.0.0.1:80/1 10.0.0.2:80/1 [2001:db8::1]:80/1", 7 * time.Second},
			{"_http._tcp.orders.test.", 0, "10.0.1.1:8001/3 10.0.1.2:8002/1", 20 * time.Second},
			{"127.0.0.9", 80, "127.0.0.9:80/1", 1<<63 - 1},
		} {
			found, ttl, err := DNS{Name: c.name, Port: c.port, Dial: n.dial}.lookup(t.Context())
			got := []string{}
			for _, e := range found {
				got = append(got, fmt.Sprintf("%s/%d", e.Address, e.Weight))
			}
			if strings.Join(got, " ") != c.want || ttl != c.ttl || err != nil {
				t.Errorf("%s, truncated %t: %s for %s, %v; want %s for %s", c.name, cut, got, ttl, err, c.want, c.ttl)
			}
		}
	}
	var notFound *net.DNSError
	if _, _, err := (DNS{Name: "none.test.", Port: 80, Dial: n.dial}).lookup(t.Context()); !errors.As(err, &notFound) || !notFound.IsNotFound {
		t.Errorf("a name that is not there: %v", err)
	}
	n.mu.Lock()
	n.fail = true
	n.mu.Unlock()
	if _, _, err := (DNS{Name: "orders.test.", Port: 80, Dial: n.dial}).lookup(t.Context()); err == nil {
		t.Error("a server that fails tells nothing")
	}
}

// A service finds its endpoints by the whole way: name server, list, request.
func TestDNSService(t *testing.T) {
	n := newNameServer(t)
	n.a("orders.test.", "10.0.0.1", 60)
	b := newBackends()
	s := newService(t, Config{Discovery: DNS{Name: "orders.test.", Port: 80, Dial: n.dial}, Open: b.Open}, nil)
	select {
	case <-s.Ready():
	case <-time.After(2 * time.Minute):
		t.Fatal("not ready")
	}
	if took := b.send(t, s, 3); took["10.0.0.1:80"] != 3 {
		t.Errorf("took %v", took)
	}
}

func TestPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // of all that follow: time passing orders nothing
		var answers func() ([]Endpoint, time.Duration, error)
		var asked []time.Duration
		var lists, errs int
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		a := []Endpoint{{Address: "10.0.0.1:80"}}
		answers = func() ([]Endpoint, time.Duration, error) { return a, 5 * time.Second, nil }
		work.Go(func() {
			poll(ctx, 30*time.Second, "orders.test", func(context.Context) ([]Endpoint, time.Duration, error) {
				mu.Lock()
				defer mu.Unlock()
				asked = append(asked, time.Since(start))
				return answers()
			}, func(list []Endpoint, err error) {
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					if errs++; loam.HintOf(err) == "" || list != nil {
						t.Errorf("%v, %v", list, err)
					}
				} else {
					lists++
				}
			})
		})
		check := func(what string, after time.Duration, want ...time.Duration) {
			t.Helper()
			mu.Unlock()
			pass(after)
			mu.Lock()
			for i := range want {
				want[i] *= time.Second
			}
			if !slices.Equal(asked, want) {
				t.Errorf("%s: asked at %v, want %v", what, asked, want)
			}
			asked, start = nil, time.Now()
		}
		mu.Lock()
		check("a TTL of 5s", 12*time.Second, 0, 5, 10)
		answers = func() ([]Endpoint, time.Duration, error) { return a, time.Hour, nil }
		check("a TTL of an hour is looked up at Refresh", 63*time.Second, 3, 33, 63)
		answers = func() ([]Endpoint, time.Duration, error) { return a, 0, nil }
		check("a TTL of 0 is looked up once a second", 33*time.Second, 30, 31, 32, 33)
		if lists != 10 || errs != 0 {
			t.Errorf("%d lists, %d errors", lists, errs)
		}
		answers = func() ([]Endpoint, time.Duration, error) { return nil, 0, errors.New("no answer") }
		check("failures are tried again, ever later", 80*time.Second, 1, 2, 4, 8, 16, 32, 62)
		if lists != 10 || errs != 7 {
			t.Errorf("%d lists, %d errors", lists, errs)
		}
		answers = func() ([]Endpoint, time.Duration, error) { return a, time.Hour, nil }
		check("it is there again", 15*time.Second, 12)
		answers = func() ([]Endpoint, time.Duration, error) { return nil, 0, errors.New("no answer") }
		check("and fails anew", 30*time.Second, 27, 28, 30)
		mu.Unlock()
		cancel()
		work.Wait()
	})
}

func FuzzTTL(f *testing.F) {
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{Response: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("a."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		Answers: []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("a."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 9},
			Body:   &dnsmessage.AResource{},
		}},
	}
	b, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	if ttl, ok := shortest(b); !ok || ttl != 9*time.Second {
		f.Fatal(ttl, ok)
	}
	f.Add(b)
	f.Add(b[:2])
	f.Fuzz(func(t *testing.T, b []byte) {
		if ttl, ok := shortest(b); ttl < 0 || ttl > (1<<31)*time.Second || !ok && ttl != 0 {
			t.Errorf("%x lives %s", b, ttl)
		}
	})
}
