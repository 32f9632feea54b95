package mdns

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/loam-run/loam"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// port is one that nobody else's questions come to.
func port(t *testing.T) int {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}

func open(t *testing.T, port int) *Resolver {
	t.Helper()
	r := New(Config{Port: port})
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// TestResolve: two processes' worth of resolvers find each other on one machine, several instances together, and one that
// went away not any more.
func TestResolve(t *testing.T) {
	p := port(t)
	a, b, c := open(t, p), open(t, p), open(t, p)
	life, end := context.WithCancel(t.Context())
	defer end()
	if err := a.Announce(life, "orders", "127.0.0.1:4001"); err != nil {
		t.Fatal(err)
	}
	if err := b.Announce(t.Context(), "orders", "127.0.0.1:4002"); err != nil {
		t.Fatal(err)
	}
	if err := b.Announce(t.Context(), "Stock_1", "[::1]:4003"); err != nil {
		t.Fatal(err)
	}
	until(t, "both instances", func() bool {
		got, err := c.Resolve(t.Context(), "orders", "default")
		slices.Sort(got)
		return err == nil && slices.Equal(got, []string{"127.0.0.1:4001", "127.0.0.1:4002"})
	})
	if got, err := a.Resolve(t.Context(), "Stock_1", ""); err != nil || !slices.Equal(got, []string{"[::1]:4003"}) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := a.Resolve(t.Context(), "orders", ""); err != nil || len(got) == 0 {
		t.Errorf("its own: %v, %v", got, err)
	}
	if _, err := c.Resolve(t.Context(), "nobody", ""); loam.CodeOf(err) != loam.NotFound || loam.HintOf(err) == "" {
		t.Errorf("%v", err)
	}
	end()
	until(t, "the one that left to be forgotten", func() bool {
		got, err := c.Resolve(t.Context(), "orders", "")
		return err == nil && slices.Equal(got, []string{"127.0.0.1:4002"})
	})
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestRefuses(t *testing.T) {
	r := open(t, port(t))
	for id, address := range map[string]string{
		"": "127.0.0.1:1", "a.b": "127.0.0.1:1", strings.Repeat("x", 64): "127.0.0.1:1", "a b": "127.0.0.1:1",
		"a": "localhost:1", "b": "127.0.0.1:0", "c": "0.0.0.0:1", "d": "127.0.0.1",
	} {
		if err := r.Announce(t.Context(), id, address); loam.CodeOf(err) != loam.InvalidArgument {
			t.Errorf("%q at %q: %v", id, address, err)
		}
	}
	if _, err := r.Resolve(t.Context(), "a.b", ""); loam.CodeOf(err) != loam.InvalidArgument {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Resolve(ctx, "a", ""); loam.CodeOf(err) != loam.Canceled {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.Announce(t.Context(), "a", "127.0.0.1:1"); loam.CodeOf(err) != loam.Unavailable {
		t.Error(err)
	}
}

// TestMemory: strangers fill no memory, by ids nobody asked about or by instances of one that somebody did.
func TestMemory(t *testing.T) {
	r := New(Config{})
	for i := range 3 * maxInstances {
		r.hear(nil, []found{{id: "orders", instance: string(rune('a' + i)), address: netip.MustParseAddrPort("127.0.0.1:1")}})
	}
	if len(r.ids) != 0 {
		t.Fatalf("%d ids", len(r.ids))
	}
	synctest.Test(t, func(t *testing.T) {
		r.ids["orders"] = &seen{changed: make(chan struct{})}
		for i := range 3 * maxInstances {
			r.hear(nil, []found{{id: "orders", instance: string(rune('a' + i)), address: netip.MustParseAddrPort("127.0.0.1:1")}})
		}
		if n := len(r.ids["orders"].instances); n != maxInstances {
			t.Errorf("%d instances", n)
		}
		<-time.After(lifetime + time.Second) // by synctest's clock
		r.hear(nil, []found{{id: "orders", instance: "new", address: netip.MustParseAddrPort("127.0.0.1:2")}})
		if n := len(r.ids["orders"].instances); n != 1 {
			t.Errorf("%d instances after a minute", n)
		}
	})
	for i := range 2 * maxIDs {
		r.makeRoom()
		r.ids[string(rune(i))] = &seen{used: time.Unix(int64(i), 0)}
	}
	if len(r.ids) != maxIDs || r.ids[string(rune(2*maxIDs-1))] == nil {
		t.Errorf("%d ids", len(r.ids))
	}
}

// daprAnswer is what Dapr's library sends when it is asked: records as they came off the wire.
func daprAnswer(t testing.TB, txt string) []byte {
	t.Helper()
	name := dnsmessage.MustNewName
	m := dnsmessage.Message{Header: dnsmessage.Header{Response: true, Authoritative: true, ID: 7}, Answers: []dnsmessage.Resource{
		{Header: dnsmessage.ResourceHeader{Name: name("orders.local."), Class: 1, TTL: 3200}, Body: &dnsmessage.PTRResource{PTR: name("box:12.orders.local.")}},
	}, Additionals: []dnsmessage.Resource{
		{Header: dnsmessage.ResourceHeader{Name: name("box:12.orders.local."), Class: 1, TTL: 3200}, Body: &dnsmessage.SRVResource{Port: 50002, Target: name("box.local.")}},
		{Header: dnsmessage.ResourceHeader{Name: name("box:12.orders.local."), Class: 1, TTL: 3200}, Body: &dnsmessage.TXTResource{TXT: []string{txt}}},
		{Header: dnsmessage.ResourceHeader{Name: name("box.local."), Class: 1, TTL: 120}, Body: &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("fd00::1").As16()}},
		{Header: dnsmessage.ResourceHeader{Name: name("box.local."), Class: 1, TTL: 120}, Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 7}}},
		{Header: dnsmessage.ResourceHeader{Name: name("box.local."), Type: 47, Class: 1, TTL: 120}, Body: &dnsmessage.UnknownResource{Type: 47, Data: []byte{1, 2}}},
	}}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParse(t *testing.T) {
	_, all, err := parse(daprAnswer(t, "orders"))
	want := found{id: "orders", instance: "box:12.orders.local.", address: netip.MustParseAddrPort("192.0.2.7:50002")}
	if err != nil || len(all) != 1 || all[0] != want {
		t.Errorf("%v, %v", all, err)
	}
	s, err := newService("orders", "box.example.org", "box:9:1", netip.MustParseAddrPort("192.0.2.7:1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, gone := range []bool{false, true} {
		b, err := s.answer(gone)
		if err != nil {
			t.Fatal(err)
		}
		if _, all, err = parse(b); err != nil || len(all) != 1 || all[0].gone != gone || all[0].id != "orders" {
			t.Errorf("%v, %v", all, err)
		}
	}
	b, err := question(s.name)
	if err != nil {
		t.Fatal(err)
	}
	if asked, all, err := parse(b); err != nil || len(asked) != 1 || asked[0].String() != "orders.local." || all != nil {
		t.Errorf("%v, %v, %v", asked, all, err)
	}
	// An instance says by its TXT record that it is another app than its name says.
	if _, all, err := parse(daprAnswer(t, "stock")); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
}

// FuzzParse: whatever comes from the network is read without harm, and what is told of an instance is an address that
// can be connected to.
func FuzzParse(f *testing.F) {
	f.Add(daprAnswer(f, "orders"))
	s, _ := newService("orders", "box", "box:9:1", netip.MustParseAddrPort("[fd00::1]:1"))
	for _, gone := range []bool{false, true} {
		b, _ := s.answer(gone)
		f.Add(b)
	}
	b, _ := question(s.name)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		asked, all, err := parse(b)
		if err != nil && (asked != nil || all != nil) {
			t.Fatal("an error and a result")
		}
		if len(asked) > maxQuestions || len(all) > maxRecords {
			t.Fatalf("%d questions, %d instances", len(asked), len(all))
		}
		for _, i := range all {
			if i.id == "" || !i.gone && (!i.address.IsValid() || i.address.Port() == 0 || i.address.Addr().IsUnspecified()) {
				t.Fatalf("%+v", i)
			}
		}
	})
}
