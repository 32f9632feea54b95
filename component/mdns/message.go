package mdns

import (
	"errors"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// Lifetimes of records, as Dapr's sidecars announce them (RFC 6762, section 10, has 120 for those that name a host).
const (
	serviceTTL = 3200
	addressTTL = 120
)

// flush is the bit of a record's class that says: forget what else you know of that name and type (RFC 6762, 10.2).
const flush = 1 << 15

// A service is an app that is announced: an instance of the service that is called as the app is.
type service struct {
	id       string // TXT, and the first label of the service's name
	name     dnsmessage.Name
	instance dnsmessage.Name
	host     dnsmessage.Name
	address  netip.AddrPort
}

// newService names an app's records. An id is a label: what is not one cannot be announced.
func newService(id, host, instance string, address netip.AddrPort) (*service, error) {
	name, err := serviceName(id)
	if err != nil {
		return nil, err
	}
	s := &service{id: id, name: name, address: address}
	if s.instance, err = dnsmessage.NewName(label(instance) + "." + name.String()); err != nil {
		return nil, err
	}
	s.host, err = dnsmessage.NewName(label(host) + ".local.")
	return s, err
}

var errID = errors.New("mdns: an app id takes 1 to 63 bytes, of which none is a dot, a space or a control character")

// serviceName is what an app's records are asked for by.
func serviceName(id string) (dnsmessage.Name, error) {
	if id == "" || len(id) > 63 || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r == '.' || r == 0x7f }) {
		return dnsmessage.Name{}, errID
	}
	return dnsmessage.NewName(id + ".local.")
}

// label makes one label of a name that a machine may have.
func label(s string) string {
	s, _, _ = strings.Cut(s, ".")
	if s == "" {
		s = "host"
	}
	return s[:min(len(s), 63)]
}

// question asks who serves name.
func question(name dnsmessage.Name) ([]byte, error) {
	m := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypePTR, Class: dnsmessage.ClassINET}}}
	return m.Pack()
}

// answer tells of the service. Where it is withdrawn its records live no longer.
func (s *service) answer(withdrawn bool) ([]byte, error) {
	long, short := uint32(serviceTTL), uint32(addressTTL)
	if withdrawn {
		long, short = 0, 0
	}
	head := func(name dnsmessage.Name, class dnsmessage.Class, ttl uint32) dnsmessage.ResourceHeader {
		return dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET | class, TTL: ttl}
	}
	m := dnsmessage.Message{Header: dnsmessage.Header{Response: true, Authoritative: true}}
	m.Answers = []dnsmessage.Resource{{Header: head(s.name, 0, long), Body: &dnsmessage.PTRResource{PTR: s.instance}}}
	m.Additionals = []dnsmessage.Resource{
		{Header: head(s.instance, flush, long), Body: &dnsmessage.SRVResource{Port: s.address.Port(), Target: s.host}},
		{Header: head(s.instance, flush, long), Body: &dnsmessage.TXTResource{TXT: []string{s.id}}},
	}
	// Several sidecars share the machine's name, and their addresses may differ: none flushes the others'.
	if ip := s.address.Addr().Unmap(); ip.Is4() {
		m.Additionals = append(m.Additionals, dnsmessage.Resource{Header: head(s.host, 0, short), Body: &dnsmessage.AResource{A: ip.As4()}})
	} else {
		m.Additionals = append(m.Additionals, dnsmessage.Resource{Header: head(s.host, 0, short), Body: &dnsmessage.AAAAResource{AAAA: ip.As16()}})
	}
	return m.Pack()
}

// A found instance is what a message says of one.
type found struct {
	id       string
	instance string
	address  netip.AddrPort
	gone     bool // it withdraws
}

// bounds of what is read of one message.
const (
	maxQuestions = 64
	maxRecords   = 256
)

// parse reads a message: the names it asks about, or the instances it tells of. An instance whose address the message does
// not have is left out, as Dapr does it: whoever announces one sends both together.
func parse(b []byte) (asked []dnsmessage.Name, all []found, err error) {
	var p dnsmessage.Parser
	h, err := p.Start(b)
	if err != nil {
		return nil, nil, err
	}
	if !h.Response {
		for range maxQuestions {
			q, err := p.Question()
			if errors.Is(err, dnsmessage.ErrSectionDone) {
				break
			}
			if err != nil {
				return nil, nil, err
			}
			if q.Type == dnsmessage.TypePTR || q.Type == dnsmessage.TypeALL {
				asked = append(asked, q.Name)
			}
		}
		return asked, nil, nil
	}
	if err := p.SkipAllQuestions(); err != nil {
		return nil, nil, err
	}
	r := records{instances: map[string]*record{}, hosts: map[string]netip.Addr{}}
	for _, section := range []func(*dnsmessage.Parser) (dnsmessage.ResourceHeader, error){
		(*dnsmessage.Parser).AnswerHeader, (*dnsmessage.Parser).AuthorityHeader, (*dnsmessage.Parser).AdditionalHeader,
	} {
		for {
			h, err := section(&p)
			if errors.Is(err, dnsmessage.ErrSectionDone) {
				break
			}
			if err != nil {
				return nil, nil, err
			}
			if r.n++; r.n > maxRecords {
				return nil, nil, errors.New("mdns: too many records")
			}
			if err := r.add(&p, h); err != nil {
				return nil, nil, err
			}
		}
	}
	return nil, r.found(), nil
}

// records are what a message tells, before it is put together.
type records struct {
	n         int
	instances map[string]*record
	order     []string
	hosts     map[string]netip.Addr
}

type record struct {
	id, host string
	port     uint16
	gone     bool
}

func (r *records) instance(name string) *record {
	i := r.instances[name]
	if i == nil {
		i = &record{}
		r.instances[name] = i
		r.order = append(r.order, name)
	}
	return i
}

func (r *records) add(p *dnsmessage.Parser, h dnsmessage.ResourceHeader) error {
	name := h.Name.String()
	switch h.Type {
	case dnsmessage.TypePTR:
		b, err := p.PTRResource()
		if err != nil {
			return err
		}
		if h.TTL == 0 {
			r.instance(b.PTR.String()).gone = true
		}
	case dnsmessage.TypeSRV:
		b, err := p.SRVResource()
		if err != nil {
			return err
		}
		i := r.instance(name)
		i.host, i.port = b.Target.String(), b.Port
		i.gone = i.gone || h.TTL == 0
	case dnsmessage.TypeTXT:
		b, err := p.TXTResource()
		if err != nil {
			return err
		}
		if len(b.TXT) > 0 {
			r.instance(name).id = b.TXT[0]
		}
	case dnsmessage.TypeA:
		b, err := p.AResource()
		if err != nil {
			return err
		}
		if a, ok := r.hosts[name]; !ok || a.Is6() { // IPv4 before IPv6, as Dapr has it
			r.hosts[name] = netip.AddrFrom4(b.A)
		}
	case dnsmessage.TypeAAAA:
		b, err := p.AAAAResource()
		if err != nil {
			return err
		}
		if _, ok := r.hosts[name]; !ok {
			r.hosts[name] = netip.AddrFrom16(b.AAAA)
		}
	default:
		_, err := p.UnknownResource() // whichever section it stands in
		return err
	}
	return nil
}

// found puts records together.
func (r *records) found() []found {
	var all []found
	for _, name := range r.order {
		i := r.instances[name]
		ip, known := r.hosts[i.host]
		switch {
		case i.id == "" || !strings.HasSuffix(strings.ToLower(name), "."+strings.ToLower(i.id)+".local."):
			continue // another kind of service, or one that says it is what its name says it is not
		case i.gone:
			all = append(all, found{id: i.id, instance: name, gone: true})
		case known && i.port != 0 && !ip.IsUnspecified() && !ip.IsMulticast():
			all = append(all, found{id: i.id, instance: name, address: netip.AddrPortFrom(ip, i.port)})
		}
	}
	return all
}
