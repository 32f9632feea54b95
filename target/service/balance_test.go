package service

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/loam-run/loam"
)

// nowhere is a transport that answers at once.
type nowhere struct{ res loam.Response }

func (n *nowhere) Serve(*loam.Request) (*loam.Response, error) { return &n.res, nil }
func (*nowhere) Close()                                        {}

func membersOf(weights ...int) []member {
	m := make([]member, len(weights))
	for i, w := range weights {
		address := fmt.Sprintf("10.0.%d.%d:80", i/250, i%250)
		m[i] = member{Endpoint{Address: address, Weight: w}, &state{address: address, id: newID(address)}, float64(w)}
	}
	return m
}

func equal(n int) []member {
	w := make([]int, n)
	for i := range w {
		w[i] = 1
	}
	return membersOf(w...)
}

// counts picks n times.
func counts(p picker, members, n int) []float64 {
	c := make([]float64, members)
	for i := range n {
		random := mix(uint64(i) * golden)
		c[p.pick(choice{turn: uint64(i), random: random, key: random})]++
	}
	return c
}

// chiSquare is how far counts are from shares: about as much as there are members where chance alone is at work.
func chiSquare(counts []float64, members []member) float64 {
	var n, sum, x float64
	for i := range members {
		n, sum = n+counts[i], sum+members[i].share
	}
	for i := range members {
		want := n * members[i].share / sum
		x += (counts[i] - want) * (counts[i] - want) / want
	}
	return x
}

// limit is exceeded by chance once in more than 10,000 times (Wilson and Hilferty).
func limit(members int) float64 {
	k := float64(members - 1)
	return k * math.Pow(1-2/(9*k)+3.8*math.Sqrt(2/(9*k)), 3)
}

var weightings = map[string][]member{
	"2": equal(2), "10": equal(10), "100": equal(100),
	"1:3": membersOf(1, 3), "10 of all kinds": membersOf(1, 2, 3, 4, 5, 6, 7, 8, 9, 100), "1:1000": membersOf(1, 1000),
}

func TestRandomIsFair(t *testing.T) {
	for name, members := range weightings {
		if x, most := chiSquare(counts(newLottery(members), len(members), 200_000), members), limit(len(members)); x > most {
			t.Errorf("%s: chi-square %.1f, want at most %.1f", name, x, most)
		}
	}
	// The test can fail: shares that are one in 25 off are found.
	members := equal(10)
	c := counts(newLottery(members), 10, 200_000)
	c[0], c[1] = c[0]*1.04, c[1]*0.96
	if x := chiSquare(c, members); x <= limit(10) {
		t.Errorf("a bias goes unseen: %.1f", x)
	}
}

func TestRoundRobin(t *testing.T) {
	for name, members := range weightings {
		r := newRotation(members)
		c := counts(r, len(members), len(r)*3)
		for i := range members {
			if want := 3 * members[i].share; c[i] != want {
				t.Errorf("%s: member %d had %v turns of three rounds, want %v", name, i, c[i], want)
			}
		}
	}
	// Turns are spread: with 5:1:1 nobody waits for all five.
	r := newRotation(membersOf(5, 1, 1))
	last, gap := 0, 0
	for i := range 14 {
		if r.pick(choice{turn: uint64(i)}) != 0 {
			gap, last = max(gap, i-last), i
		}
	}
	if gap > 5 {
		t.Errorf("the light ones come in a bunch: %v", r)
	}
	if r := newRotation(membersOf(30, 20)); len(r) != 5 {
		t.Errorf("a rotation of 3:2 has %d turns", len(r))
	}
	if r := newRotation(membersOf(1, 1<<20, 1<<20)); len(r) > slotsMost+3 {
		t.Errorf("a rotation of %d turns", len(r))
	}
	slow := membersOf(10, 10)
	slow[0].share = 3.3 // it starts slowly
	if c := counts(newRotation(slow), 2, 10_000); math.Abs(c[0]/10_000-3.3/13.3) > 0.02 {
		t.Errorf("a third of a share got %v of 10000", c[0])
	}
}

func TestLeastRequest(t *testing.T) {
	// Each of 10 has 0 to 9 under way: the busiest wins no duel, the idlest each of its own, 2 of 10 draws.
	members := equal(10)
	for i := range members {
		members[i].started.Store(uint64(i))
	}
	c := counts(&leastRequest{newLottery(members), members}, 10, 100_000)
	if c[9] != 0 || math.Abs(c[0]/100_000-0.2) > 0.01 {
		t.Errorf("the busiest was picked %v times, the idlest %v of 100000", c[9], c[0])
	}
	for i := range 9 {
		if c[i] < c[i+1] {
			t.Errorf("picked %v: the busier are picked more", c)
		}
	}
	// With nothing under way, weights are what counts.
	members = membersOf(1, 2, 3, 4)
	l := &leastRequest{newLottery(members), members}
	if c := counts(l, 4, 100_000); chiSquare(c, members) > limit(4) {
		t.Errorf("idle endpoints of weight 1 to 4 were picked %v", c)
	}
	// Requests that stay: the load comes to be as the weights.
	for i := range 10_000 {
		members[l.pick(choice{random: mix(uint64(i) * golden)})].begin()
	}
	for i := range members {
		if got, want := float64(members[i].inFlight()), 1000*members[i].share; math.Abs(got-want) > 0.02*want {
			t.Errorf("weight %v has %v under way, want about %v", members[i].share, got, want)
		}
	}
}

func TestPeakEWMA(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	const decay = float32(10 * time.Second >> 14)
	members := equal(3)
	p := &peakEWMA{newLottery(members), members, decay}
	at := func(d time.Duration) uint32 { return stampOf(now.Add(d)) }
	ms := func(m *state, d time.Duration) float64 { return float64(m.latency.read(at(d), decay)) / 1e6 }
	for i, took := range []time.Duration{10, 20, 200} {
		members[i].latency.observe(took*time.Millisecond, false, at(0), decay)
	}
	count := func(d time.Duration) (c [3]int) {
		for i := range 3000 {
			c[p.pick(choice{random: mix(uint64(i) * golden), now: at(d)})]++
		}
		return c
	}
	if c := count(0); c[2] != 0 || c[0] < 1800 || c[0] > 2200 {
		t.Errorf("picked %v: the fastest wins its two duels of three, the slowest none", c)
	}
	members[0].started.Store(25) // 26 times 10 ms is worse than 200
	if c := count(0); c[0] != 0 || c[1] < 1800 {
		t.Errorf("picked %v with 25 requests under way at the fastest", c)
	}
	m := members[1].state
	m.latency.observe(500*time.Millisecond, false, at(time.Second), decay)
	if got := ms(m, time.Second); math.Abs(got-500) > 0.1 {
		t.Errorf("a peak counts at once: %v ms", got)
	}
	m.latency.observe(10*time.Millisecond, false, at(2*time.Second), decay)
	if got := ms(m, 2*time.Second); got < 400 || got > 490 {
		t.Errorf("it is forgotten slowly: %v ms after a second", got)
	}
	for i := range 60 {
		m.latency.observe(10*time.Millisecond, false, at(time.Duration(3+i)*time.Second), decay)
	}
	if got := ms(m, time.Minute); got > 15 {
		t.Errorf("it is forgotten in the end: %v ms after a minute", got)
	}
	m.latency.observe(time.Millisecond, true, at(time.Minute), decay)
	if got := ms(m, time.Minute); got < 100 {
		t.Errorf("one that fails at once looks fast: %v ms", got)
	}
	for range 100 {
		m.latency.observe(time.Millisecond, true, at(time.Minute), decay)
	}
	if got := ms(m, time.Minute); got > 10_001 {
		t.Errorf("failures grow without bound: %v ms", got)
	}
	before := ms(m, time.Minute)
	m.latency.observe(time.Millisecond, false, at(time.Minute-time.Millisecond), decay)
	if got := ms(m, time.Minute); got < 0.99*before {
		t.Errorf("the clock of a loop that is behind made %v ms of %v", got, before)
	}
	fresh := equal(2)
	p = &peakEWMA{newLottery(fresh), fresh, decay}
	fresh[0].latency.observe(time.Second, false, at(0), decay)
	if p.pick(choice{random: 1, now: at(0)}) != 1 {
		t.Error("one that was never asked is asked first")
	}
	if fresh[1].begin(); p.pick(choice{random: 1, now: at(0)}) != 0 {
		t.Error("and once only, until it answers")
	}
}

// Keys that move between two pickers though their member is in both.
func moved(before, after picker, was, is []member) (kept, all int) {
	for i := range 20_000 {
		key := mix(uint64(i) + 1)
		b, a := was[before.pick(choice{key: key})].Address, is[after.pick(choice{key: key})].Address
		if a != b {
			kept++
		}
		all++
	}
	return kept, all
}

func TestConsistency(t *testing.T) {
	for _, n := range []int{3, 10, 50} {
		members := equal(n)
		fewer := append(append([]member{}, members[:1]...), members[2:]...)
		for name, c := range map[string]struct {
			make func([]member) picker
			most float64 // share of keys that may move
		}{
			"ring":   {func(m []member) picker { return newRing(m, 0, nil) }, 1.35 / float64(n)},
			"maglev": {func(m []member) picker { return newTable(m) }, 1/float64(n) + 0.03},
		} {
			before, after := c.make(members), c.make(fewer)
			changed, all := moved(before, after, members, fewer)
			if share := float64(changed) / float64(all); share > c.most || share < 0.5/float64(n) {
				t.Errorf("%s of %d: taking one away moves %.3f of keys, want at most %.3f", name, n, share, c.most)
			}
			stray := 0
			for i := range 20_000 {
				key := mix(uint64(i) + 1)
				b, a := before.pick(choice{key: key}), after.pick(choice{key: key})
				if b != 1 && members[b].Address != fewer[a].Address {
					stray++
				}
			}
			if name == "ring" && stray > 0 || float64(stray) > 0.03*20_000 {
				t.Errorf("%s of %d: %d keys of those that stay move too", name, n, stray)
			}
			// The order of the list means nothing.
			turned := append(append([]member{}, members[n/2:]...), members[:n/2]...)
			if changed, _ := moved(before, c.make(turned), members, turned); name == "ring" && changed > 0 || float64(changed) > 0.03*20_000 {
				t.Errorf("%s of %d: %d keys go by the order of the list", name, n, changed)
			}
		}
	}
}

func TestHashedShares(t *testing.T) {
	for name, members := range weightings {
		ring := newRing(members, 0, nil)
		points := make([]float64, len(members))
		for _, p := range ring.points {
			points[p.at]++
		}
		var sum float64
		for i := range members {
			sum += members[i].share
		}
		even, rough := counts(newTable(members), len(members), 200_000), counts(ring, len(members), 200_000)
		for i := range members {
			want := 200_000 * members[i].share / sum
			chance := 4 * math.Sqrt(want)
			if off := math.Abs(even[i] - want); off > 0.02*want+chance {
				t.Errorf("maglev of %s: member %d had %v, want about %v", name, i, even[i], want)
			}
			// The gap before a point is as long as it happens to be: the more points, the less that matters.
			if off := math.Abs(rough[i] - want); off > 4*want/math.Sqrt(points[i])+chance {
				t.Errorf("ring of %s: member %d had %v with %v points, want about %v", name, i, rough[i], points[i], want)
			}
		}
	}
	if n := len(newRing(membersOf(1, 1<<20, 1<<20), 0, nil).points); n > pointsMost+3 {
		t.Errorf("a ring of %d points", n)
	}
	large := equal(700)
	if n := len(newTable(large)); n != tableLarge {
		t.Errorf("a table of %d places for 700", n)
	}
}

// A key belongs to the next point of the ring, wherever it begins to look.
func TestRingOrder(t *testing.T) {
	for _, members := range weightings {
		r := newRing(members, 0, nil)
		for i := range 300 {
			key := mix(uint64(i))
			switch i {
			case 0, 1:
				key = -uint64(i)
			case 2, 3, 4:
				key = r.points[7].hash + uint64(i) - 3
			}
			best := r.points[0]
			for _, p := range r.points {
				if p.hash >= key && (best.hash < key || p.hash < best.hash) {
					best = p
				}
			}
			if got := r.pick(choice{key: key}); got != int(best.at) {
				t.Fatalf("%x went to %d, the next point is %d's", key, got, best.at)
			}
		}
	}
}

// Members of other weights leave the points of those that stay alone.
func TestRingOfWeights(t *testing.T) {
	members := membersOf(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
	fewer := append(append([]member{}, members[:1]...), members[2:]...)
	before, after := newRing(members, 0, nil), newRing(fewer, 0, nil)
	for i := range 20_000 {
		key := mix(uint64(i) + 1)
		b, a := before.pick(choice{key: key}), after.pick(choice{key: key})
		if b != 1 && members[b].Address != fewer[a].Address {
			t.Fatalf("a key of %s moved to %s", members[b].Address, fewer[a].Address)
		}
	}
}

// A single hot key spreads once its endpoint has more than its part.
func TestBoundedLoad(t *testing.T) {
	s := newService(t, Config{Algorithm: RingHash, BoundedLoad: 1.25, HashOn: HashHeader("K")}, equal(8))
	reqs := make([]*loam.Request, 800)
	for i := range reqs {
		reqs[i] = newRequest(t)
		reqs[i].Header.Add("K", "the one")
		if _, err := s.Serve(reqs[i]); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range s.Status().Endpoints {
		if e.InFlight > 126 {
			t.Errorf("%s has %d of 800 under way, want at most 126", e.Address, e.InFlight)
		}
	}
	for _, r := range reqs {
		r.Release()
	}
	if n := s.total.Load(); n != 0 {
		t.Errorf("%d under way after all ended", n)
	}
}

func TestKeys(t *testing.T) {
	req := newRequest(t)
	req.RawQuery, req.Remote = "a=1&user=anna&b", "10.1.2.3:4567"
	req.Header.Add("Cookie", "a=b; xsid=no; sid=s1;t=u")
	req.Header.Add("cookie", "late=x")
	req.Header.Add("X-User", "anna")
	for name, c := range map[string]struct {
		key  Key
		want string // "": none
	}{
		"header": {HashHeader("x-user"), "anna"}, "no header": {HashHeader("x"), ""},
		"cookie": {HashCookie("sid"), "s1"}, "cookie of another line": {HashCookie("late"), "x"}, "first cookie": {HashCookie("a"), "b"},
		"cookie without space": {HashCookie("t"), "u"}, "no cookie": {HashCookie("si"), ""},
		"query": {HashQuery("user"), "anna"}, "query without value": {HashQuery("b"), ""}, "no query": {HashQuery("c"), ""},
		"source": {HashSource, "10.1.2.3"},
	} {
		got, ok := c.key(req)
		want, wantOK := hashOf(c.want)
		if got != want || ok != wantOK {
			t.Errorf("%s: %x %t, want that of %q", name, got, ok, c.want)
		}
	}
	for remote, want := range map[string]string{"[2001:db8::1]:80": "[2001:db8::1]", "2001:db8::1": "2001:db8::1", "unix": "unix", "": ""} {
		req.Remote = remote
		got, ok := HashSource(req)
		if w, wok := hashOf(want); got != w || ok != wok {
			t.Errorf("source %q is not taken for %q", remote, want)
		}
	}
	seen := map[uint64]string{}
	for i := range 100_000 {
		s := fmt.Sprint("user-", i)
		if other, ok := seen[hash(s, 0)]; ok {
			t.Fatalf("%q and %q have one hash", s, other)
		}
		seen[hash(s, 0)] = s
	}
	if got := hash("stay as you are", 0); got != 0xfd64c79056adc214 {
		t.Errorf("hash has changed to %#x: processes of two versions would send one key to two endpoints", got)
	}
}

func FuzzKeys(f *testing.F) {
	f.Add("a=1&user=anna", "user", "10.0.0.1:80")
	f.Add(" sid=1; sid=2;;=; sid", "sid", "[::1]:80")
	f.Add("=&==", "", ":")
	f.Fuzz(func(t *testing.T, s, name, remote string) {
		reference := func(sep string) (uint64, bool) {
			for part := range strings.SplitSeq(s, sep) {
				if k, v, ok := strings.Cut(strings.TrimLeft(part, " "), "="); ok && k == name {
					return hashOf(v)
				}
			}
			return 0, false
		}
		if strings.Contains(name, "=") {
			return // no name has one
		}
		req := newRequest(t)
		defer req.Release()
		req.RawQuery, req.Remote = s, remote
		req.Header.Add("Cookie", s)
		for what, c := range map[string]struct {
			key Key
			sep string
		}{"query": {HashQuery(name), "&"}, "cookie": {HashCookie(name), ";"}} {
			got, ok := c.key(req)
			if want, wantOK := reference(c.sep); got != want || ok != wantOK {
				t.Errorf("%s %q of %q: %x %t, want %x %t", what, name, s, got, ok, want, wantOK)
			}
		}
		if _, ok := HashSource(req); ok && remote == "" {
			t.Error("a source of nothing")
		}
	})
}

func BenchmarkPick(b *testing.B) {
	members := equal(100)
	weighted := membersOf(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
	now := time.Now()
	for i := range members {
		members[i].latency.observe(time.Duration(i+1)*time.Millisecond, false, stampOf(now), 1e5)
	}
	for _, c := range []struct {
		name string
		p    picker
	}{
		{"round-robin", newRotation(members)}, {"round-robin-weighted", newRotation(weighted)},
		{"random", newLottery(members)}, {"random-weighted", newLottery(weighted)},
		{"least-request", &leastRequest{newLottery(members), members}}, {"peak-ewma", &peakEWMA{newLottery(members), members, 1e5}},
		{"ring-hash", newRing(members, 0, nil)}, {"maglev", newTable(members)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			stamp, sum := stampOf(now), 0
			for i := range b.N {
				random := mix(uint64(i) * golden)
				sum += c.p.pick(choice{turn: uint64(i), random: random, key: random, now: stamp})
			}
			if sum < 0 {
				b.Fatal(sum)
			}
		})
	}
}

// BenchmarkServe is all that a service does for a request: picking, counting, and the end. What none takes is not its.
func BenchmarkServe(b *testing.B) {
	run := func(name string, target loam.Target) {
		b.Run(name, func(b *testing.B) {
			req := newRequest(b)
			var task loam.Task = frozen{req.Task()}
			b.ReportAllocs()
			for b.Loop() {
				req.Begin(task)
				req.Header.Add("X-User", "0123456789abcdef")
				if _, err := target.Serve(req); err != nil {
					b.Fatal(err)
				}
				req.End()
			}
		})
	}
	run("none", &nowhere{})
	for a := LeastRequest; a <= Maglev; a++ {
		run(a.String(), newService(b, Config{Algorithm: a, HashOn: HashHeader("X-User"), Passive: &Passive{ConsecutiveErrors: 5}}, equal(100)))
	}
}

// frozen is a task whose clock costs what an event loop's costs: nothing.
type frozen struct{ loam.Task }

var instant = time.Unix(1_800_000_000, 0)

func (frozen) Now() time.Time { return instant }
