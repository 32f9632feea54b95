package service

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/loam-run/loam"
)

// DNS is the discovery of a name's addresses: all of its A and AAAA records, or where its SRV records point.
type DNS struct {
	Name string
	Port int // of every address; 0: Name has SRV records (RFC 2782), which say it. Those of the best priority are used
	// Refresh is when the name is looked up again. A record that lives shorter is looked up when it ends, but not more
	// than once a second. 30s.
	Refresh time.Duration
	// Dial connects with a name server; nil: with those of the system.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// soonest bounds how often a name is looked up.
const soonest = time.Second

// lookupTimeout bounds one lookup, all its retries and names included.
const lookupTimeout = 20 * time.Second

// Run looks the name up until ctx ends. A name that cannot be looked up, or is not there any more, leaves the last
// addresses in use: a name server that fails must not take down what works.
func (d DNS) Run(ctx context.Context, update func([]Endpoint, error)) {
	poll(ctx, max(cmp.Or(d.Refresh, 30*time.Second), soonest), d.Name, d.lookup, update)
}

// poll looks up again and again, until ctx ends: when what it found is out of date, and after failures.
func poll(ctx context.Context, refresh time.Duration, name string, lookup func(context.Context) ([]Endpoint, time.Duration, error), update func([]Endpoint, error)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	again := soonest
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		found, ttl, err := lookup(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			update(nil, &loam.Error{Code: loam.Unavailable, Op: "look up " + strconv.Quote(name), Err: err, Hint: "correct the name, or the name server"})
			timer.Reset(again)
			again = min(2*again, refresh)
			continue
		}
		update(found, nil)
		again = soonest
		timer.Reset(max(soonest, min(ttl, refresh)))
	}
}

// lookup finds the endpoints and how long that holds.
func (d DNS) lookup(ctx context.Context) ([]Endpoint, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	life := &lifetime{left: 1<<63 - 1}
	// The resolver of the standard library knows search lists, hosts files and truncated answers; it keeps TTLs to itself,
	// so they are read off its connections.
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		dial := d.Dial
		if dial == nil {
			dial = new(net.Dialer).DialContext
		}
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		if udp, ok := conn.(*net.UDPConn); ok {
			return &datagrams{udp, life}, nil
		}
		return &stream{conn, life}, nil
	}}
	type host struct {
		name         string
		port, weight int
	}
	hosts := []host{{d.Name, d.Port, 1}}
	if d.Port == 0 {
		_, records, err := r.LookupSRV(ctx, "", "", d.Name)
		if err != nil {
			return nil, 0, err
		}
		hosts = hosts[:0]
		for _, s := range records { // sorted by priority
			if s.Priority == records[0].Priority && len(hosts) < maxHosts {
				hosts = append(hosts, host{s.Target, int(s.Port), max(1, int(s.Weight))})
			}
		}
	}
	var found []Endpoint
	var failed error
	for _, h := range hosts {
		addresses, err := r.LookupNetIP(ctx, "ip", h.name)
		if err != nil {
			failed = err // the others may be there
			continue
		}
		for _, a := range addresses {
			at := netip.AddrPortFrom(a.Unmap(), uint16(h.port)).String()
			if !slices.ContainsFunc(found, func(e Endpoint) bool { return e.Address == at }) && len(found) < most {
				found = append(found, Endpoint{Address: at, Weight: h.weight})
			}
		}
	}
	if len(found) == 0 {
		return nil, 0, cmp.Or(failed, error(&net.DNSError{Err: "no addresses", Name: d.Name, IsNotFound: true}))
	}
	slices.SortFunc(found, func(a, b Endpoint) int { return cmp.Compare(a.Address, b.Address) })
	return found, life.get(), nil
}

// maxHosts bounds how many names of SRV records are looked up.
const maxHosts = 256

// lifetime is the shortest TTL seen.
type lifetime struct {
	mu   sync.Mutex // A and AAAA are asked for at once
	left time.Duration
}

func (l *lifetime) get() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.left
}

func (l *lifetime) see(message []byte) {
	if ttl, ok := shortest(message); ok {
		l.mu.Lock()
		l.left = min(l.left, ttl)
		l.mu.Unlock()
	}
}

// datagrams is a connection with a name server over UDP. The resolver asks for a net.PacketConn.
type datagrams struct {
	*net.UDPConn
	life *lifetime
}

// Read reads a message.
func (c *datagrams) Read(b []byte) (int, error) {
	n, err := c.UDPConn.Read(b)
	c.life.see(b[:n])
	return n, err
}

// stream is one over TCP.
type stream struct {
	net.Conn
	life *lifetime
}

// Read reads a length, or a message; one that comes in pieces tells nothing, and the name is looked up at its Refresh.
func (c *stream) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.life.see(b[:n])
	return n, err
}

// shortest is the least TTL of an answer's records; false where it has none.
func shortest(message []byte) (ttl time.Duration, ok bool) {
	var p dnsmessage.Parser
	if h, err := p.Start(message); err != nil || !h.Response || h.RCode != dnsmessage.RCodeSuccess || p.SkipAllQuestions() != nil {
		return 0, false
	}
	for {
		h, err := p.AnswerHeader()
		if err != nil || p.SkipAnswer() != nil {
			return ttl, ok
		}
		switch d := time.Duration(h.TTL) * time.Second; {
		case h.TTL > 1<<31-1: // RFC 2181, section 8: it means 0
			ttl, ok = 0, true
		case !ok || d < ttl:
			ttl, ok = d, true
		}
	}
}
