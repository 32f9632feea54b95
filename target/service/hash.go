package service

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/loam-run/loam"
)

// A Key is what of a request its endpoint goes by, as a hash; false: the request has none.
type Key func(req *loam.Request) (uint64, bool)

// HashHeader goes by a header field.
func HashHeader(name string) Key {
	return func(req *loam.Request) (uint64, bool) { return hashOf(req.Header.Get(name)) }
}

// HashCookie goes by a cookie.
func HashCookie(name string) Key {
	return func(req *loam.Request) (uint64, bool) {
		for i := range req.Header {
			if f := &req.Header[i]; len(f.Name) == 6 && strings.EqualFold(f.Name, "cookie") {
				if v, ok := pair(f.Value, name, ';'); ok {
					return hashOf(v)
				}
			}
		}
		return 0, false
	}
}

// HashQuery goes by a query parameter, as it was sent.
func HashQuery(name string) Key {
	return func(req *loam.Request) (uint64, bool) {
		v, _ := pair(req.RawQuery, name, '&')
		return hashOf(v)
	}
}

// HashSource goes by the sender's address, without its port.
func HashSource(req *loam.Request) (uint64, bool) {
	host := req.Remote
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') && strings.IndexByte(host, ':') == i || i > 0 && host[i-1] == ']' {
		host = host[:i]
	}
	return hashOf(host)
}

func hashOf(v string) (uint64, bool) {
	if v == "" {
		return 0, false
	}
	return hash(v, 0), true
}

// pair finds name=value among those that sep separates.
func pair(s, name string, sep byte) (string, bool) {
	for s != "" {
		part := s
		if i := strings.IndexByte(s, sep); i >= 0 {
			part, s = s[:i], s[i+1:]
		} else {
			s = ""
		}
		for part != "" && part[0] == ' ' {
			part = part[1:]
		}
		if len(part) > len(name) && part[len(name)] == '=' && part[:len(name)] == name {
			return part[len(name)+1:], true
		}
	}
	return "", false
}

const golden = 0x9e3779b97f4a7c15 // 2^64 over the golden ratio

// mix makes numbers that lie close together differ in every bit (the end of splitmix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// hash is the same in every process and on every machine, so that several of them send a key to one endpoint. It is fast
// and even; it resists nobody who looks for collisions, who would gain an endpoint of its choice and nothing more.
func hash(s string, seed uint64) uint64 {
	h := seed ^ uint64(len(s))*golden
	for len(s) >= 8 {
		w := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		h = (h ^ w) * 0xbf58476d1ce4e5b9
		h ^= h >> 32
		s = s[8:]
	}
	var w uint64
	for i := range len(s) {
		w |= uint64(s[i]) << (8 * i)
	}
	return mix((h ^ w) * golden)
}

// ring is RingHash: every endpoint stands at many points of a circle, and a key belongs to the next point.
type ring struct {
	members []member
	points  []point // by hash
	first   []int32 // the first point of each of the circle's equal parts, of which there are as many as points or more
	shift   int

	bound float64 // Config.BoundedLoad
	total *atomic.Int64
}

type point struct {
	hash uint64
	at   int32 // of the member
}

// Points of an endpoint of mean weight, at least; and of all, at most.
const (
	pointsEach = 160
	pointsMost = 1 << 20
)

// newRing places the members. How many points one has depends on the others' weights as little as can be, or taking one
// away would move the points of those that stay.
func newRing(members []member, bound float64, total *atomic.Int64) *ring {
	var sum float64
	for i := range members {
		sum += float64(members[i].Weight)
	}
	mean := sum / float64(len(members))
	scale := pointsEach / math.Exp2(math.Floor(math.Log2(mean)))
	for scale*sum > pointsMost {
		scale /= 2
	}
	r := &ring{members: members, bound: bound, total: total}
	for i := range members {
		seed := hash(members[i].Address, 0)
		for k := range max(1, int(scale*float64(members[i].Weight))) {
			r.points = append(r.points, point{mix(seed + uint64(k)*golden), int32(i)})
		}
	}
	slices.SortFunc(r.points, func(a, b point) int { return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.at, b.at)) })
	width := bits.Len(uint(len(r.points) - 1))
	r.shift = 64 - width
	r.first = make([]int32, 1<<width)
	i := 0
	for part := range r.first {
		for i < len(r.points) && r.points[i].hash>>r.shift < uint64(part) {
			i++
		}
		r.first[part] = int32(i)
	}
	return r
}

func (r *ring) pick(c choice) int {
	i := int(r.first[c.key>>r.shift])
	for i < len(r.points) && r.points[i].hash < c.key {
		i++
	}
	if i == len(r.points) {
		i = 0
	}
	if r.bound == 0 {
		return int(r.points[i].at)
	}
	most := int64(math.Ceil(r.bound * float64(r.total.Load()+1) / float64(len(r.members))))
	for range r.points {
		if at := int(r.points[i].at); r.members[at].inFlight() < most {
			return at
		}
		if i++; i == len(r.points) {
			i = 0
		}
	}
	return int(r.points[i].at) // all are at the bound, for a moment
}

// table is Maglev: "Maglev: A Fast and Reliable Software Network Load Balancer", section 3.4.
type table []uint16

// Sizes of the table, primes. The large one is for more endpoints than the small one is a hundred times of.
const (
	tableSize  = 65537
	tableLarge = 655357
)

func newTable(members []member) table {
	size := uint64(tableSize)
	if len(members)*100 > tableSize {
		size = tableLarge
	}
	type turns struct {
		at, skip uint64
		due      float64 // the weight that its next turn asks for
	}
	all := make([]turns, len(members))
	var most float64
	for i := range members {
		a := &members[i]
		all[i] = turns{at: hash(a.Address, 1) % size, skip: hash(a.Address, 2)%(size-1) + 1}
		most = max(most, float64(a.Weight))
	}
	t := make(table, size)
	taken := make([]bool, size)
	for left, round := size, 1.0; ; round++ {
		for i := range all {
			a := &all[i]
			if round*float64(members[i].Weight) < a.due { // the light ones have a turn in some rounds only
				continue
			}
			a.due += most
			for taken[a.at] {
				if a.at += a.skip; a.at >= size {
					a.at -= size
				}
			}
			t[a.at], taken[a.at] = uint16(i), true
			if left--; left == 0 {
				return t
			}
		}
	}
}

func (t table) pick(c choice) int {
	hi, _ := bits.Mul64(c.key, uint64(len(t)))
	return int(t[hi])
}
