// Package mdns finds apps on the machine and its network by multicast DNS (RFC 6762, 6763), as Dapr's sidecars do: an app
// is a service that is called ID.local., its TXT record is the id, its SRV record has the port of the sidecar's internal
// API. Nothing has to run or to be configured for it, and nobody vouches for what is answered: it is for machines and
// networks whose hosts are trusted.
package mdns

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/loam-run/loam"
)

// Bounds and times.
const (
	maxIDs       = 1024 // that are asked about
	maxInstances = 64   // of one
	maxPacket    = 9000 // bytes (RFC 6762, section 17)

	timeout  = time.Second            // of an answer, as with Dapr
	again    = 250 * time.Millisecond // a question that nobody answered is asked again, later each time
	lifetime = time.Minute            // that an answer is used, as with Dapr
	gather   = 20 * time.Millisecond  // after the first answer, for those of other instances
	pause    = 100 * time.Millisecond // between two answers about one app: what was said was heard by all
	announce = 2                      // times that an app is told of, a second apart (RFC 6762, section 8.3)
)

var (
	group4 = net.IPv4(224, 0, 0, 251)
	group6 = net.ParseIP("ff02::fb")
)

// Config of a Resolver. The zero value is what everybody uses.
type Config struct {
	Port int // 5353
	Log  *slog.Logger
}

// A Resolver announces apps and finds them. Its sockets are opened when they are needed first. Close ends it.
type Resolver struct {
	c       Config
	host    string
	mu      sync.Mutex // nothing waits while it is held; sending a packet does not
	sockets []socket
	closed  bool
	joined  map[string]bool // sockets and interfaces
	ours    []*announced
	ids     map[string]*seen
	stop    context.Context
	cancel  context.CancelFunc

	announcing, listening sync.WaitGroup
}

// A socket sends to and hears from one group.
type socket struct {
	name  string
	conn  net.PacketConn
	group *net.UDPAddr
	join  func(*net.Interface) error
	via   func(*net.Interface) error
}

// announced is an app that we tell of.
type announced struct {
	*service
	last time.Time
}

// seen is what is known of an id that was asked about.
type seen struct {
	instances []instance
	changed   chan struct{} // closed with the next instance
	used      time.Time
}

type instance struct {
	name    string
	address netip.AddrPort
	until   time.Time
}

// New makes a Resolver.
func New(c Config) *Resolver {
	c.Port = cmp.Or(c.Port, 5353)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	host, _ := os.Hostname() // a label of any kind will do
	r := &Resolver{c: c, host: host, joined: map[string]bool{}, ids: map[string]*seen{}}
	r.stop, r.cancel = context.WithCancel(context.Background())
	return r
}

// open opens the sockets unless they are open. It is called with mu held.
func (r *Resolver) open() error {
	if r.closed {
		return errClosed
	}
	if len(r.sockets) > 0 {
		return nil
	}
	var why error
	// net binds the wildcard address for a multicast one, and shares the port with others that do the same.
	if c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(224, 0, 0, 0), Port: r.c.Port}); err != nil {
		why = err
	} else {
		p := ipv4.NewPacketConn(c)
		_ = p.SetMulticastLoopback(true) // the default nearly everywhere; without it other machines are found all the same
		_ = p.SetMulticastTTL(255)
		group := &net.UDPAddr{IP: group4, Port: r.c.Port}
		r.sockets = append(r.sockets, socket{
			name: "4", conn: c, group: group, via: p.SetMulticastInterface,
			join: func(i *net.Interface) error { return p.JoinGroup(i, group) },
		})
	}
	if c, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.ParseIP("ff02::"), Port: r.c.Port}); err != nil {
		why = errors.Join(why, err)
	} else {
		p := ipv6.NewPacketConn(c)
		_ = p.SetMulticastLoopback(true)
		_ = p.SetMulticastHopLimit(255)
		group := &net.UDPAddr{IP: group6, Port: r.c.Port}
		r.sockets = append(r.sockets, socket{
			name: "6", conn: c, group: group, via: p.SetMulticastInterface,
			join: func(i *net.Interface) error { return p.JoinGroup(i, group) },
		})
	}
	if len(r.sockets) == 0 {
		return &loam.Error{
			Code: loam.Unavailable, Op: "mdns", Err: why,
			Hint: "find apps otherwise: nameResolution of the Configuration",
		}
	}
	for _, s := range r.sockets {
		r.listening.Go(func() { r.listen(s) })
	}
	return nil
}

// interfaces are those that packets go out on: they may come and go with the network. Groups are joined on new ones.
func (r *Resolver) interfaces() []net.Interface {
	all, _ := net.Interfaces() // none are found: nothing is sent
	all = slices.DeleteFunc(all, func(i net.Interface) bool {
		return i.Flags&net.FlagUp == 0 || i.Flags&(net.FlagMulticast|net.FlagLoopback) == 0
	})
	for i := range all {
		for _, s := range r.sockets {
			key := s.name + " " + strconv.Itoa(all[i].Index)
			if !r.joined[key] {
				r.joined[key] = s.join(&all[i]) == nil
			}
		}
	}
	return all
}

// send sends a packet to all who listen. It is called with mu held; an interface that takes none is passed over.
func (r *Resolver) send(b []byte) {
	interfaces := r.interfaces()
	for _, s := range r.sockets {
		for i := range interfaces {
			if s.via(&interfaces[i]) == nil {
				_, _ = s.conn.WriteTo(b, s.group)
			}
		}
	}
}

// Announce makes id known at address, which is an IP address with a port, until ctx ends or the Resolver is closed.
func (r *Resolver) Announce(ctx context.Context, id, address string) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil || !at.IsValid() || at.Port() == 0 || at.Addr().IsUnspecified() {
		return loam.Errorf(loam.InvalidArgument, "mdns", "%q is no address that others could connect to", address)
	}
	// A process announces an id once for each port.
	s, err := newService(id, r.host, label(r.host)+":"+strconv.Itoa(os.Getpid())+":"+strconv.Itoa(int(at.Port())), at)
	if err != nil {
		return &loam.Error{Code: loam.InvalidArgument, Op: "mdns " + strconv.Quote(id), Err: err}
	}
	packet, err := s.answer(false)
	if err != nil {
		return &loam.Error{Code: loam.InvalidArgument, Op: "mdns " + strconv.Quote(id), Err: err}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.open(); err != nil {
		return err
	}
	a := &announced{service: s}
	r.ours = append(r.ours, a)
	r.announcing.Go(func() {
		for range announce {
			r.locked(func() { r.send(packet) })
			if !r.sleep(ctx, time.Second) {
				break
			}
		}
		select {
		case <-ctx.Done():
		case <-r.stop.Done():
		}
		r.locked(func() {
			r.ours = slices.DeleteFunc(r.ours, func(o *announced) bool { return o == a })
			if b, err := s.answer(true); err == nil {
				r.send(b)
			}
		})
	})
	return nil
}

func (r *Resolver) locked(fn func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fn()
}

// sleep is false where it was ended.
func (r *Resolver) sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-r.stop.Done():
	}
	return false
}

// Resolve asks for the addresses of an app; no answer within a second is NotFound.
// Namespaces are not told apart, as with Dapr.
func (r *Resolver) Resolve(ctx context.Context, id, _ string) ([]string, error) {
	op := "mdns " + strconv.Quote(id)
	name, err := serviceName(id)
	if err != nil {
		return nil, &loam.Error{Code: loam.InvalidArgument, Op: op, Err: err}
	}
	packet, err := question(name)
	if err != nil {
		return nil, &loam.Error{Code: loam.InvalidArgument, Op: op, Err: err}
	}
	r.mu.Lock()
	if err := r.open(); err != nil {
		r.mu.Unlock()
		return nil, err
	}
	start := time.Now()
	s := r.ids[id]
	if s == nil {
		r.makeRoom()
		s = &seen{changed: make(chan struct{})}
		r.ids[id] = s
	}
	s.used = start
	r.mu.Unlock()
	if err := r.ask(ctx, packet, s, start); err != nil {
		return nil, err
	}
	if !r.sleep(ctx, gather) {
		return nil, cmp.Or(ctx.Err(), error(errClosed))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if addresses := s.since(start); len(addresses) > 0 {
		return addresses, nil
	}
	return nil, &loam.Error{
		Code: loam.NotFound, Op: op, Err: errors.New("nobody on this network answers for it"),
		Hint: "start the app with its sidecar; multicast (UDP port 5353) has to pass between the two",
	}
}

var errClosed = loam.Errorf(loam.Unavailable, "mdns", "the resolver was closed")

// ask asks until somebody answers or the time for it is over.
func (r *Resolver) ask(ctx context.Context, packet []byte, s *seen, start time.Time) error {
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	wait := again
	repeat := time.NewTimer(0)
	defer repeat.Stop()
	for {
		r.mu.Lock()
		changed, answered := s.changed, len(s.since(start)) > 0
		r.mu.Unlock()
		if answered {
			return nil
		}
		select {
		case <-changed:
		case <-repeat.C:
			r.locked(func() { r.send(packet) })
			repeat.Reset(wait)
			wait *= 2
		case <-deadline.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-r.stop.Done():
			return errClosed
		}
	}
}

// since are the addresses of instances that were heard of after t.
func (s *seen) since(t time.Time) (addresses []string) {
	for _, i := range s.instances {
		if a := i.address.String(); !i.until.Before(t.Add(lifetime)) && !slices.Contains(addresses, a) {
			addresses = append(addresses, a)
		}
	}
	return addresses
}

// makeRoom forgets the id that was not asked about for longest, where there are too many. It is called with mu held.
func (r *Resolver) makeRoom() {
	if len(r.ids) < maxIDs {
		return
	}
	oldest := ""
	for id, s := range r.ids {
		if oldest == "" || s.used.Before(r.ids[oldest].used) {
			oldest = id
		}
	}
	delete(r.ids, oldest)
}

// listen hears what is said in a group until the socket is closed.
func (r *Resolver) listen(s socket) {
	b := make([]byte, maxPacket)
	failures := 0
	for {
		n, from, err := s.conn.ReadFrom(b)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			if failures++; failures > 100 {
				r.c.Log.Error("multicast DNS cannot be read any more", "error", err)
				return
			}
			continue
		}
		failures = 0
		if u, ok := from.(*net.UDPAddr); !ok || u.Port != r.c.Port {
			continue // RFC 6762, section 6; questions from other ports want a unicast answer, which Dapr never asks for
		}
		asked, all, err := parse(b[:n])
		if err != nil {
			continue // anybody on the network can say anything
		}
		r.locked(func() { r.hear(asked, all) })
	}
}

// hear answers what was asked and notes what was told. It is called with mu held.
func (r *Resolver) hear(asked []dnsmessage.Name, all []found) {
	now := time.Now()
	for _, name := range asked {
		for _, o := range r.ours {
			if o.name != name || now.Sub(o.last) < pause {
				continue
			}
			if b, err := o.answer(false); err == nil {
				o.last = now
				r.send(b)
			}
		}
	}
	for _, f := range all {
		s := r.ids[f.id]
		if s == nil {
			continue // nobody here wants to know
		}
		s.instances = slices.DeleteFunc(s.instances, func(i instance) bool { return i.name == f.instance || i.until.Before(now) })
		if !f.gone && len(s.instances) < maxInstances {
			s.instances = append(s.instances, instance{f.instance, f.address, now.Add(lifetime)})
		}
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// Close tells that what was announced is gone, and ends the Resolver.
func (r *Resolver) Close() error {
	r.mu.Lock()
	closed := r.closed
	r.closed = true
	r.mu.Unlock()
	if closed {
		return nil
	}
	r.cancel()
	r.announcing.Wait() // their farewells are sent
	var err error
	for _, s := range r.sockets {
		err = errors.Join(err, s.conn.Close())
	}
	r.listening.Wait()
	return err
}
