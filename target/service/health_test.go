package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol/http1"
)

// pass lets time go by in a bubble, and what is due happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestActive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackends()
		var sick, asked atomic.Int64
		s := newService(t, Config{Discovery: abc(), Open: b.Open, Active: &Active{
			Interval: 10 * time.Second, Timeout: time.Second, Healthy: 2, Unhealthy: 3,
			Check: func(ctx context.Context, address string, via loam.Target) error {
				if via.(*backend).address != address {
					t.Errorf("%s is asked by way of another", address)
				}
				if address != "b" {
					return nil
				}
				asked.Add(1)
				switch sick.Load() {
				case 1:
					return errors.New("it aches")
				case 2:
					<-ctx.Done() // it says nothing
					return ctx.Err()
				}
				return nil
			},
		}}, nil)
		if took := b.send(t, s, 60); took["b"] == 0 {
			t.Errorf("before its first answer an endpoint is usable: %v", took)
		}
		synctest.Wait()
		for _, e := range s.Status().Endpoints {
			if e.State != Healthy {
				t.Errorf("%+v", e)
			}
		}
		// round waits for one more answer of b.
		round := func() {
			n := asked.Load()
			start := time.Now()
			for asked.Load() == n {
				pass(100 * time.Millisecond)
			}
			pass(1100 * time.Millisecond)
			if took := time.Since(start); took < 7*time.Second || took > 13*time.Second {
				t.Errorf("a round took %s", took)
			}
		}
		for _, illness := range []int64{1, 2} {
			sick.Store(illness)
			round()
			round()
			if e := find(t, s, "b"); e.State != Healthy {
				t.Errorf("after two bad answers: %+v", e)
			}
			round()
			if e := find(t, s, "b"); e.State != Unhealthy || illness == 1 && e.Reason != "it aches" {
				t.Errorf("after three bad answers: %+v", e)
			}
			if took := b.send(t, s, 60); took["b"] != 0 {
				t.Errorf("an unhealthy endpoint got requests: %v", took)
			}
			sick.Store(0)
			round()
			if e := find(t, s, "b"); e.State != Unhealthy {
				t.Errorf("after one good answer: %+v", e)
			}
			round()
			if e := find(t, s, "b"); e.State != Healthy || e.Reason != "" {
				t.Errorf("after two good answers: %+v", e)
			}
		}
		if took := b.send(t, s, 60); took["b"] == 0 {
			t.Errorf("it does not come back: %v", took)
		}
	})
}

// The first answer counts at once: a service that starts beside sick endpoints does not send them three rounds of requests.
func TestActiveFirstAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackends()
		var update func([]Endpoint, error)
		var asked atomic.Int64
		s := newService(t, Config{Open: b.Open, Discovery: DiscoveryFunc(func(ctx context.Context, u func([]Endpoint, error)) {
			update = u
			u([]Endpoint{{Address: "a"}, {Address: "b"}}, nil)
			<-ctx.Done()
		}), Active: &Active{Check: func(_ context.Context, address string, _ loam.Target) error {
			if address == "b" {
				asked.Add(1)
				return errors.New("starting")
			}
			return nil
		}}}, nil)
		synctest.Wait()
		if e := find(t, s, "b"); e.State != Unhealthy {
			t.Errorf("%+v", e)
		}
		update([]Endpoint{{Address: "a"}}, nil)
		synctest.Wait()
		n := asked.Load()
		if pass(time.Hour); asked.Load() != n {
			t.Errorf("b is asked %d times after it went", asked.Load()-n)
		}
		if took := b.send(t, s, 5); took["a"] != 5 {
			t.Errorf("took %v", took)
		}
	})
}

func TestPassiveConsecutive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackends()
		s := newService(t, Config{Discovery: abc(), Open: b.Open, Passive: &Passive{ConsecutiveErrors: 5, Ejection: 30 * time.Second, Interval: 10 * time.Second}}, nil)
		synctest.Wait()
		b.set("b", refuses)
		fail := func(n int) {
			for range n {
				req := newRequest(t)
				req.Affinity = newID("b")
				_, _ = s.Serve(req)
				req.Release()
			}
			synctest.Wait()
		}
		fail(4)
		b.set("b", nil)
		fail(1) // it succeeds: a row begins anew
		b.set("b", refuses)
		fail(4)
		if e := find(t, s, "b"); e.State != Healthy || e.Failures != 8 {
			t.Errorf("%+v", e)
		}
		fail(1)
		e := find(t, s, "b")
		if e.State != Ejected || time.Until(e.EjectedUntil) != 30*time.Second {
			t.Errorf("after five in a row: %+v", e)
		}
		if took := b.send(t, s, 60); took["b"] != 0 {
			t.Errorf("an ejected endpoint got requests: %v", took)
		}
		pass(30*time.Second + time.Millisecond)
		if e := find(t, s, "b"); e.State != Healthy {
			t.Errorf("after its time: %+v", e)
		}
		// It was quiet for three intervals, so the second time is no longer than the first. A third that follows at once is.
		fail(5)
		pass(30*time.Second + time.Millisecond)
		fail(5)
		fail(5)
		if e := find(t, s, "b"); e.State != Ejected || time.Until(e.EjectedUntil) < 30*time.Second {
			t.Errorf("%+v", e)
		}
		pass(time.Hour)
		if e := find(t, s, "b"); e.State != Healthy {
			t.Errorf("%+v", e)
		}
	})
}

// An endpoint that fails each time it returns stays out longer each time.
func TestPassiveGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackends()
		b.set("b", refuses)
		s := newService(t, Config{Discovery: abc(), Open: b.Open, Passive: &Passive{ConsecutiveErrors: 1, Ejection: time.Second, Interval: time.Hour}}, nil)
		synctest.Wait()
		for i := range 14 {
			for find(t, s, "b").State != Ejected {
				b.send(t, s, 10)
				synctest.Wait()
			}
			if left, want := time.Until(find(t, s, "b").EjectedUntil), time.Duration(min(i+1, 10))*time.Second; left != want {
				t.Errorf("ejected for %s the %dth time, want %s", left, i+1, want)
			}
			pass(11 * time.Second)
		}
	})
}

func TestPassiveRatio(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackends()
		s := newService(t, Config{Algorithm: RoundRobin, Discovery: abc(), Open: b.Open, Passive: &Passive{Ratio: 0.5, MinRequests: 10, Interval: 10 * time.Second, Ejection: time.Minute}}, nil)
		synctest.Wait()
		n := 0
		half := func(*loam.Request) (*loam.Response, error) {
			if n++; n%2 == 0 {
				return &loam.Response{Status: 502}, nil
			}
			return &loam.Response{Status: 200}, nil
		}
		interval := func() { pass(10 * time.Second) }
		b.set("c", half)
		b.send(t, s, 3*8)
		interval()
		b.send(t, s, 3*8) // too few
		interval()
		if e := find(t, s, "c"); e.State != Healthy || e.Failures != 8 {
			t.Errorf("with 8 requests: %+v", e)
		}
		b.send(t, s, 3*12)
		if e := find(t, s, "c"); e.State != Healthy {
			t.Errorf("before the interval is over: %+v", e)
		}
		interval()
		if e := find(t, s, "c"); e.State != Ejected {
			t.Errorf("half of 12 failed: %+v", e)
		}
		b.set("a", status(500))
		b.send(t, s, 60)
		interval()
		if e := find(t, s, "a"); e.State != Healthy {
			t.Errorf("more than half would be out: %+v", e)
		}
	})
}

// Who returns from an ejection starts slowly.
func TestSlowReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackends()
		b.set("b", refuses)
		s := newService(t, Config{Discovery: abc(), Open: b.Open, SlowStart: time.Minute, Passive: &Passive{ConsecutiveErrors: 1, Ejection: time.Second}}, nil)
		b.send(t, s, 50)
		synctest.Wait()
		b.set("b", nil)
		pass(time.Second)
		if e := find(t, s, "b"); e.State != Healthy || e.Share > 0.11 {
			t.Errorf("%+v", e)
		}
		if took := b.send(t, s, 3000); took["b"] < 50 || took["b"] > 300 {
			t.Errorf("took %v", took)
		}
		if pass(time.Hour); find(t, s, "b").Share != 1 || s.whole.now.Load().ramps {
			t.Errorf("%+v", find(t, s, "b"))
		}
	})
}

func TestMaxEjected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackends()
		var list []Endpoint
		for _, a := range strings.Split("abcdefghij", "") {
			list = append(list, Endpoint{Address: a})
			b.set(a, refuses)
		}
		for most, want := range map[float64]int{0.3: 3, 0.01: 1, 1: 10} {
			s := newService(t, Config{Discovery: Static(list...), Open: b.Open, Passive: &Passive{ConsecutiveErrors: 1, MaxEjected: most, Ejection: time.Hour}}, nil)
			out := 0
			for range 100 {
				b.send(t, s, 10)
				synctest.Wait()
			}
			for _, e := range s.Status().Endpoints {
				if e.State == Ejected {
					out++
				}
			}
			if out != want {
				t.Errorf("%d of 10 are ejected at %v", out, most)
			}
		}
	})
}

func TestSlowStart(t *testing.T) {
	for _, a := range []Algorithm{RoundRobin, Random, LeastRequest} {
		synctest.Test(t, func(t *testing.T) {
			b := newBackends()
			var update func([]Endpoint, error)
			s := newService(t, Config{Algorithm: a, Open: b.Open, SlowStart: 100 * time.Second, Discovery: DiscoveryFunc(func(ctx context.Context, u func([]Endpoint, error)) {
				update = u
				u([]Endpoint{{Address: "a"}}, nil)
				<-ctx.Done()
			})}, nil)
			synctest.Wait()
			if e := find(t, s, "a"); e.Share != 1 {
				t.Errorf("%v: those of the first list have their whole share: %+v", a, e)
			}
			update([]Endpoint{{Address: "a"}, {Address: "b"}}, nil)
			for _, at := range []float64{0, 0.3, 0.6, 1} {
				start := time.Now()
				took := b.send(t, s, 20_000)
				share := max(0.1, at)
				want := share / (1 + share)
				if got := float64(took["b"]) / 20_000; math.Abs(got-want) > 0.03 {
					t.Errorf("%v: at %v of its start b got %.3f, want %.3f", a, at, got, want)
				}
				if got := find(t, s, "b").Share; math.Abs(got-share) > 0.001 {
					t.Errorf("%v: at %v its share is %v", a, at, got)
				}
				pass(map[float64]time.Duration{0: 30 * time.Second, 0.3: 30 * time.Second, 0.6: 40 * time.Second}[at] - time.Since(start))
			}
		})
	}
}

// Over sockets and both engines: one of three servers breaks, then dies, then comes back as something else; retries
// elsewhere hide all of it.
func TestOverSockets(t *testing.T) {
	t.Run("goroutines", func(t *testing.T) { testOverSockets(t, loop.Goroutines()) })
	t.Run("loops", func(t *testing.T) { testOverSockets(t, loop.New(loop.Options{Loops: 2})) })
}

func testOverSockets(t *testing.T, engine loop.Engine) {
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	var broken atomic.Bool
	var list []Endpoint
	servers := make([]*httptest.Server, 3)
	for i := range servers {
		servers[i] = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case i == 0 && broken.Load():
				w.WriteHeader(503)
			case r.URL.Path == "/health":
				w.WriteHeader(204)
			default:
				_, _ = io.WriteString(w, "hello")
			}
		}))
		defer servers[i].Close()
		list = append(list, Endpoint{Address: servers[i].Listener.Addr().String()})
	}
	sick := list[0].Address
	s := newService(t, Config{
		Discovery: Static(list...), Shards: engine.Shards(),
		Open:   func(address string) Transport { return http1.NewClient(address, http1.ClientConfig{Engine: engine}) },
		Active: &Active{Check: CheckHTTP("/health", "", nil), Interval: 10 * time.Millisecond}, Passive: &Passive{ConsecutiveErrors: 3, Ejection: 10 * time.Millisecond},
	}, nil)
	// send sends a request in a task of the engine, with two retries, and reads the answer.
	send := func() {
		failed := make(chan error)
		engine.Go(func(task loam.Task) {
			var req loam.Request
			var err error
			for range 3 {
				if req.Method == "" {
					req.Begin(task)
					req.Method, req.Scheme, req.Path, req.Authority = "GET", "http", "/", "orders"
				}
				var res *loam.Response
				if res, err = s.Serve(&req); err != nil {
					continue
				}
				status := res.Status
				b, readErr := io.ReadAll(res.Body)
				_ = res.Close() // what is read after it may be of another answer
				if err = readErr; status == 200 && string(b) == "hello" {
					break
				}
				err = errors.Join(err, fmt.Errorf("%s answered %d %q", req.Tried, status, b))
			}
			req.End()
			failed <- err
		})
		if err := <-failed; err != nil {
			t.Errorf("a request failed though two servers were well: %v", err)
		}
	}
	until := func(state string) {
		t.Helper()
		eventually(t, sick+" is "+state, func() bool { send(); return find(t, s, sick).State == state })
	}
	until(Healthy)
	eventually(t, "each endpoint has been asked", func() bool {
		send()
		return !slices.ContainsFunc(s.Status().Endpoints, func(e EndpointStatus) bool { return e.Requests == 0 })
	})
	broken.Store(true)
	until(Unhealthy)
	broken.Store(false)
	until(Healthy)
	servers[0].Close()
	until(Unhealthy)
	l, err := net.Listen("tcp", sick)
	if err != nil {
		t.Fatal(err)
	}
	again := httptest.NewUnstartedServer(http.NotFoundHandler()) // its health path is not found
	again.Listener.Close()
	again.Listener = l
	again.Start()
	defer again.Close()
	eventually(t, "its answer is known", func() bool { send(); return strings.Contains(find(t, s, sick).Reason, "404") })
	if e := find(t, s, sick); e.State != Unhealthy {
		t.Errorf("%+v", e)
	}
	for _, e := range s.Status().Endpoints {
		if e.InFlight != 0 || e.Requests == 0 || e.State == Healthy && e.Connections == 0 {
			t.Errorf("%+v", e)
		}
	}
}

func TestCheckTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckTCP(t.Context(), l.Addr().String(), nil); err != nil {
		t.Error(err)
	}
	l.Close()
	if err := CheckTCP(t.Context(), l.Addr().String(), nil); err == nil {
		t.Error("nobody listens, and all is well")
	}
}

func TestCheckHTTP(t *testing.T) {
	var got *loam.Request
	answers := 0
	via := loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
		got = req.Clone(req.Task())
		return &loam.Response{Status: answers, Body: io.NopCloser(strings.NewReader("body"))}, nil
	})
	for _, c := range []struct {
		answers  int
		statuses []int
		good     bool
	}{{200, nil, true}, {204, nil, true}, {302, nil, false}, {500, nil, false}, {302, []int{200, 302}, true}, {204, []int{200}, false}} {
		answers = c.answers
		if err := CheckHTTP("/up", "orders.internal", c.statuses)(t.Context(), "10.0.0.1:80", via); (err == nil) != c.good {
			t.Errorf("%d with %v: %v", c.answers, c.statuses, err)
		}
		if got.Path != "/up" || got.Authority != "orders.internal" || got.Method != "GET" {
			t.Errorf("asked %+v", got)
		}
		got.Release()
	}
	endless := loam.TargetFunc(func(*loam.Request) (*loam.Response, error) {
		return &loam.Response{Status: 200, Body: io.NopCloser(zeros{})}, nil
	})
	if err := CheckHTTP("/", "", nil)(t.Context(), "a", endless); err != nil {
		t.Errorf("an answer without end: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func TestCheckGRPC(t *testing.T) {
	frame := func(message string) string { return "\x00\x00\x00\x00" + string(rune(len(message))) + message }
	for _, c := range []struct {
		name, asked    string
		answer, status string
		http           int
		want           string // part of the error; "": none
	}{
		{"", "", "\x08\x01", "0", 200, ""},
		{"shop.Orders", "\x0a\x0bshop.Orders", "\x08\x01", "0", 200, ""},
		{"", "", "\x08\x02", "0", 200, "NOT_SERVING"},
		{"", "", "\x08\x03", "0", 200, "SERVICE_UNKNOWN"},
		{"", "", "\x08\x07", "0", 200, "says it is 7"},
		{"", "", "", "0", 200, "UNKNOWN"},
		{"", "", "\x12\x01x\x08\x01", "0", 200, ""}, // a field that is not known is skipped
		{"x", "\x0a\x01x", "", "5", 200, `grpc-status "5"`},
		{"", "", "\x08\x01", "", 200, `grpc-status ""`},
		{"", "", "\x08", "0", 200, "not a HealthCheckResponse"},
		{"", "", "\x12\x7f", "0", 200, "not a HealthCheckResponse"},
		{"", "", "", "", 404, "HTTP status 404"},
	} {
		via := loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			body, err := io.ReadAll(req.Body)
			if err != nil || string(body) != frame(c.asked) || req.Length != int64(len(body)) {
				t.Errorf("asked %q of length %d: %v", body, req.Length, err)
			}
			if req.Path != "/grpc.health.v1.Health/Check" || req.Header.Get("Content-Type") != "application/grpc" || req.Header.Get("TE") != "trailers" {
				t.Errorf("asked %s with %v", req.Path, req.Header)
			}
			res := &loam.Response{Status: c.http, Body: io.NopCloser(strings.NewReader(frame(c.answer)))}
			if c.status != "" {
				res.Trailer.Add("grpc-status", c.status)
			}
			return res, nil
		})
		err := CheckGRPC(c.name, "")(t.Context(), "10.0.0.1:80", via)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("answer %q, grpc-status %s: %v, want %q", c.answer, c.status, err, c.want)
		}
	}
	only := loam.TargetFunc(func(*loam.Request) (*loam.Response, error) { // Trailers-Only
		return &loam.Response{Status: 200, Header: loam.Header{{Name: "grpc-status", Value: "12"}, {Name: "grpc-message", Value: "unknown service"}}}, nil
	})
	if err := CheckGRPC("", "")(t.Context(), "a", only); err == nil || !strings.Contains(err.Error(), "unknown service") {
		t.Error(err)
	}
}

func TestServingRefusesFrames(t *testing.T) {
	for _, frame := range []string{"", "\x00\x00\x00\x00", "\x00\x00\x00\x00\x09\x08\x01", "\x00\x00\x00\x00\x01\x08\x01", "\x01\x00\x00\x00\x02\x08\x01", "\x00\x00\x00\x00\x02\x0d\x01"} {
		if err := serving([]byte(frame)); err == nil {
			t.Errorf("%q is well", frame)
		}
	}
}

func FuzzServing(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x02\x08\x01"))
	f.Add([]byte("\x00\x00\x00\x00\x05\x12\x01x\x08\x01"))
	f.Add([]byte("\x01\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if serving(b) == nil && (len(b) < 7 || !bytes.Contains(b[5:], []byte{1})) {
			t.Errorf("%x is well", b)
		}
	})
}
