package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/loam-run/loam"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBuckets(t *testing.T) {
	for i := range buckets - 1 {
		if b := bucket(Bound(i)); b != i {
			t.Errorf("%v counts in bucket %d, not %d", Bound(i), b, i)
		}
		if b := bucket(Bound(i) + 1); b <= i && Bound(i+1) > Bound(i) {
			t.Errorf("just above %v counts in bucket %d", Bound(i), b)
		}
	}
	if bucket(-1) != 0 || bucket(time.Hour) != buckets-1 {
		t.Error("what is out of bounds is lost")
	}
}

func TestSeries(t *testing.T) {
	set := NewSet(3)
	s := set.Series(Labels{"r", "t"})
	if set.Series(Labels{"r", "t"}) != s {
		t.Error("the same labels have two series")
	}
	var wg sync.WaitGroup
	for shard := range 3 {
		wg.Go(func() {
			for i := range 100 {
				s.Begin(shard)
				s.End(shard, 200+100*(i%4), 10, time.Duration(i)*time.Microsecond)
			}
		})
	}
	s.Begin(0)
	wg.Wait()
	sum := s.Sum()
	if sum.Requests != 300 || sum.Classes[2] != 75 || sum.Errors() != 75 || sum.InFlight != 1 || sum.Sent != 3000 || sum.Total != 3*4950*time.Microsecond {
		t.Errorf("%+v", sum)
	}
	if q := sum.Quantile(.5); q < 48*time.Microsecond || q > 64*time.Microsecond {
		t.Errorf("median %v", q)
	}
	if (Sum{}).Quantile(.5) != 0 {
		t.Error("nothing has a median")
	}
	set.Series(Labels{`q"\`, ""})
	var b strings.Builder
	if err := set.WritePrometheus(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`loam_requests_total{route="r",target="t",code="5xx"} 75`, `loam_request_duration_seconds_bucket{route="r",target="t",le="+Inf"} 300`,
		`loam_requests_in_flight{route="r",target="t"} 1`, `route="q\"\\",target=""`,
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
	set.Keep(func(l Labels) bool { return l.Route == "r" })
	if n := len(set.All()); n != 1 {
		t.Errorf("%d series left", n)
	}
}

type locked struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

func request() *loam.Request {
	r := loam.NewRequest(context.Background())
	r.Method, r.Path, r.Authority, r.ID, r.Route, r.Target, r.Remote = "GET", "/a b\"\n\xff", "shop", "id-1", "HTTPRoute/shop", "App/orders", "127.0.0.1:1"
	return r
}

func TestAccessLog(t *testing.T) {
	at := time.Date(2026, 11, 21, 8, 0, 0, 5e6, time.UTC)
	for format, check := range map[string]func(string){
		JSON: func(s string) {
			var got map[string]any
			if err := json.Unmarshal([]byte(s), &got); err != nil {
				t.Fatal(err, s)
			}
			if got["path"] != "/a b\"\n\ufffd" || got["status"] != 200.0 || got["us"] != 1500.0 || got["time"] != "2026-11-21T08:00:00.005Z" {
				t.Error(got)
			}
		},
		Text: func(s string) {
			if want := `2026-11-21T08:00:00.005Z listener=web method=GET host=shop path="/a b\"\u000a\ufffd" status=200 bytes=7 us=1500 route=HTTPRoute/shop target=App/orders remote=127.0.0.1:1 request=id-1` + "\n"; s != want {
				t.Errorf("got %s want %s", s, want)
			}
		},
	} {
		var w locked
		l := NewAccessLog(&w, format, 1)
		r := request()
		l.Log("web", r, at, 200, 7, 1500*time.Microsecond)
		r.Release()
		if err := errors.Join(l.Close(), l.Close()); err != nil {
			t.Fatal(err)
		}
		check(w.String())
	}
}

func TestAccessLogSample(t *testing.T) {
	var w locked
	l := NewAccessLog(&w, Text, 0)
	r := request()
	defer r.Release()
	for range 100 {
		l.Log("web", r, time.Now(), 200, 0, 0)
	}
	l.Log("web", r, time.Now(), 503, 0, 0)
	l.Close()
	if n := strings.Count(w.String(), "\n"); n != 1 || !strings.Contains(w.String(), "status=503") {
		t.Errorf("%d lines: %s", n, w.String())
	}
}

type stuck struct{ free chan struct{} }

func (s stuck) Write(p []byte) (int, error) { <-s.free; return len(p), nil }

// A disk that takes nothing holds nobody up, and memory stays bounded.
func TestAccessLogStuck(t *testing.T) {
	s := stuck{make(chan struct{})}
	l := NewAccessLog(s, Text, 1)
	r := request()
	defer r.Release()
	for range 50_000 {
		l.Log("web", r, time.Now(), 200, 0, 0)
	}
	l.mu.Lock()
	if len(l.buf) > room+1000 || l.dropped == 0 {
		t.Errorf("%d bytes wait, %d lines dropped", len(l.buf), l.dropped)
	}
	l.mu.Unlock()
	close(s.free)
	l.Close()
}

func BenchmarkEnd(b *testing.B) {
	s := NewSet(2).Series(Labels{"r", "t"})
	for b.Loop() {
		s.Begin(1)
		s.End(1, 200, 128, 100*time.Microsecond)
	}
}
