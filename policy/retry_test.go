package policy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
)

// Which failures of which requests are tried again.
func TestRetryConditions(t *testing.T) {
	unavailable := func(cause error) error { return &loam.Error{Code: loam.Unavailable, Op: "upstream", Err: cause} }
	connect := unavailable(fmt.Errorf("%w: %w", protocol.ErrConnect, syscall.ECONNREFUSED))
	lost := unavailable(fmt.Errorf("%w: %w", protocol.ErrConnectionLost, io.ErrUnexpectedEOF))
	refusedStream := unavailable(protocol.ErrNotProcessed)
	all := RetryConfig{On: OnConnect | OnReset | OnRefusedStream | OnGatewayError}
	for _, c := range []struct {
		name   string
		c      RetryConfig
		method string
		body   string
		fails  any
		again  bool
	}{
		{"connect", all, "GET", "", connect, true},
		{"connect, not asked for", RetryConfig{On: OnReset}, "GET", "", connect, false},
		{"a dial that counts as not processed", RetryConfig{On: OnConnect}, "GET", "", unavailable(fmt.Errorf("%w: %w", protocol.ErrNotProcessed, &net.OpError{Op: "dial", Err: errors.New("no route")})), true},
		{"a dial of the target's own", all, "POST", "", unavailable(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), false},
		{"connect, any method", all, "POST", "body", connect, true},
		{"connect, by default", RetryConfig{}, "GET", "", connect, true},
		{"reset", all, "GET", "", lost, true},
		{"reset, by its cause", all, "GET", "", unavailable(syscall.ECONNRESET), true},
		{"reset, with a body", all, "PUT", "body", lost, true},
		{"reset, not idempotent", all, "POST", "body", lost, false},
		{"reset, POST told", RetryConfig{On: OnReset, Methods: []string{"POST"}}, "POST", "body", lost, true},
		{"reset, GET not told", RetryConfig{On: OnReset, Methods: []string{"POST"}}, "GET", "", lost, false},
		{"refused stream", all, "GET", "", refusedStream, true},
		{"refused stream, any method", all, "POST", "", refusedStream, true},
		{"refused stream, a body that is gone", all, "POST", "body", refusedStream, false},
		{"502", all, "GET", "", status(502), true},
		{"500 is no gateway error", all, "GET", "", status(500), false},
		{"500", RetryConfig{On: On5xx}, "GET", "", status(500), true},
		{"503, not idempotent", all, "POST", "", status(503), false},
		{"a try took too long", all, "GET", "", loam.Errorf(loam.DeadlineExceeded, "timeout", "late"), true},
		{"a try took too long, not asked for", RetryConfig{On: OnReset}, "GET", "", loam.Errorf(loam.DeadlineExceeded, "timeout", "late"), false},
		{"status by number", RetryConfig{Statuses: []int{429}}, "GET", "", status(429), true},
		{"another status", RetryConfig{Statuses: []int{429}}, "GET", "", status(503), false},
		{"a status stands for no connection error", RetryConfig{Statuses: []int{429}}, "GET", "", connect, false},
		{"gRPC", RetryConfig{GRPC: []loam.Code{loam.Unavailable}}, "gRPC", "body", status(200, "grpc-status", "14"), true},
		{"gRPC, another code", RetryConfig{GRPC: []loam.Code{loam.Unavailable}}, "gRPC", "body", status(200, "grpc-status", "5"), false},
		{"gRPC, as an error", RetryConfig{GRPC: []loam.Code{loam.Unavailable}}, "gRPC", "body", lost, true},
		{"gRPC's codes are of gRPC", RetryConfig{GRPC: []loam.Code{loam.Unavailable}}, "GET", "", lost, false},
		{"success", all, "GET", "", status(200), false},
		{"not found", all, "GET", "", status(404), false},
		{"the caller is gone", all, "GET", "", fmt.Errorf("%w: %w", protocol.ErrConnectionLost, context.Canceled), false},
		{"refused by a breaker", all, "GET", "", NewBreaker(BreakerConfig{}).err, false},
		{"a switch of protocols", RetryConfig{Statuses: []int{101}}, "GET", "", &loam.Response{Status: 101, Tunnel: struct{ io.ReadWriteCloser }{}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				// The target may fail before it reads the body, as one does that cannot be reached.
				var calls int
				s := &script{steps: []any{status(200)}}
				target := loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
					if calls++; calls > 1 {
						return s.Serve(req)
					}
					if err, ok := c.fails.(error); ok && errors.Is(err, protocol.ErrConnect) {
						return nil, err
					}
					return (&script{steps: []any{c.fails}}).Serve(req)
				})
				req := get(t, "/")
				if req.Method = c.method; c.method == "gRPC" {
					req.Method = "POST"
					req.Header.Add("Content-Type", "application/grpc")
				}
				if c.body != "" {
					req.Body, req.Length = io.NopCloser(strings.NewReader(c.body)), int64(len(c.body))
				}
				res, err := Retry(c.c)(target).Serve(req)
				if again := calls > 1; again != c.again {
					t.Fatalf("tried %d times", calls)
				}
				if c.again {
					want := strings.TrimRight(req.Method+" / "+c.body, " ")
					if err != nil || res.Status != 200 || s.seen[0] != want {
						t.Errorf("%v, %v; the second try was %q, want %q", res, err, s.seen, want)
					}
				}
			})
		})
	}
}

// The pauses grow, each is random up to its bound, and the last failure is what the caller gets.
func TestRetryBackoff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		longest := make([]time.Duration, 4)
		for range 200 {
			var at []time.Time
			target := loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
				at = append(at, req.Task().Now())
				return status(503), nil
			})
			p := Retry(RetryConfig{Attempts: 4, On: On5xx, Backoff: 10 * time.Millisecond, MaxBackoff: 30 * time.Millisecond})
			if res, err := p(target).Serve(get(t, "/")); err != nil || res.Status != 503 || len(at) != 5 {
				t.Fatal(res, err, len(at))
			}
			for i := range longest {
				longest[i] = max(longest[i], at[i+1].Sub(at[i]))
			}
		}
		for i, most := range []time.Duration{10, 20, 30, 30} {
			if most *= time.Millisecond; longest[i] > most || longest[i] < most/2 {
				t.Errorf("pause %d was up to %s, want %s", i, longest[i], most)
			}
		}
	})
}

func TestRetryAfter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		date := time.Now().Add(2 * time.Second).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")
		for _, c := range []struct {
			value    string
			deadline time.Duration
			calls    int
			after    time.Duration // at least, and a backoff more at most
		}{
			{date, 0, 2, 2 * time.Second}, // first: time goes on
			{"2", 0, 2, 2 * time.Second},
			{"2", 5 * time.Second, 2, 2 * time.Second},
			{"7", 5 * time.Second, 1, 0}, // the request's time would be over
			{"11", 0, 1, 0},              // the client may wait for that, not we
			{"soon", 0, 2, 0},
			{"-1", 0, 2, 0},
			{"99999999999999999999", 0, 2, 0},
		} {
			start := time.Now()
			req := get(t, "/")
			if c.deadline > 0 {
				req.SetDeadline(start.Add(c.deadline))
			}
			s := &script{steps: []any{status(503, "Retry-After", c.value), status(200)}}
			_, err := Retry(RetryConfig{On: On5xx})(s).Serve(req)
			if took := time.Since(start); err != nil || s.calls != c.calls || took < c.after || took > c.after+time.Second+25*time.Millisecond {
				t.Errorf("%s: %d calls, %s, %v", c.value, s.calls, took, err)
			}
		}
	})
}

// A try gets the request as it was, whatever another made of it.
func TestRetryRestoresTheRequest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		deadline := time.Now().Add(time.Minute)
		calls := 0
		var first, second counting
		target := loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			if req.Path != "/a" || req.RawQuery != "q" || req.Authority != "shop.example.com" || req.Affinity != "one" || !req.Deadline().Equal(deadline) ||
				fmt.Sprint(req.Header) != "[{A 1} {B 2}]" {
				t.Errorf("try %d got %+v", calls, req)
			}
			if calls++; calls == 1 {
				req.AtEnd(&first)
			} else {
				req.AtEnd(&second)
				if first != 1 {
					t.Error("the first try holds what it held")
				}
			}
			req.Path, req.RawQuery, req.Authority, req.Affinity = "/b", "", "other", "two"
			req.Header.Del("A")
			req.Header.Set("B", "3")
			req.SetDeadline(time.Now())
			return status(502), nil
		})
		req := get(t, "/a", "A", "1", "B", "2")
		req.RawQuery, req.Affinity = "q", "one"
		req.SetDeadline(deadline)
		if _, err := Retry(RetryConfig{On: On5xx, Attempts: 1})(target).Serve(req); err != nil || calls != 2 || second != 0 {
			t.Error(err, calls, second)
		}
	})
}

type counting int

func (c *counting) RequestEnded() { *c++ }

// A body that is too large to be kept is streamed on, and not tried again.
func TestRetryBodyBound(t *testing.T) {
	for _, unknown := range []bool{false, true} {
		for size, calls := range map[int]int{100: 2, 101: 1} {
			bubble(t, func(t *testing.T) {
				s := &script{steps: []any{status(503), status(200)}}
				body := strings.Repeat("x", size)
				_, err := Retry(RetryConfig{On: On5xx, Body: 100})(s).Serve(post(t, "PUT", body, unknown))
				if err != nil || s.calls != calls {
					t.Errorf("%d bytes, unknown %t: %d calls, %v", size, unknown, s.calls, err)
				}
				for _, seen := range s.seen {
					if seen != "PUT / "+body {
						t.Errorf("a try got a body of %d bytes", len(seen)-6)
					}
				}
			})
		}
	}
}

// A try that read a part of the body: the next one gets that part again and then the rest, which is read once.
func TestRetryHalfReadBody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		calls := 0
		target := loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			if calls++; calls == 1 {
				if _, err := io.ReadFull(req.Body, make([]byte, 3)); err != nil {
					t.Error(err)
				}
				return nil, protocol.ErrConnectionLost
			}
			b, err := io.ReadAll(req.Body)
			if string(b) != "hello world" || err != nil {
				t.Errorf("%q, %v", b, err)
			}
			return status(200), nil
		})
		req := loam.NewRequest(t.Context())
		body := &closeCount{Reader: strings.NewReader("hello world")}
		req.Method, req.Path, req.Body, req.Length = "PUT", "/", body, 11
		if _, err := Retry(RetryConfig{})(target).Serve(req); err != nil || calls != 2 {
			t.Error(calls, err)
		}
		if req.Release(); body.closed != 1 {
			t.Errorf("the body was closed %d times", body.closed)
		}
	})
}

type closeCount struct {
	io.Reader
	closed int
}

func (c *closeCount) Close() error {
	c.closed++
	return nil
}

// A body that keeps itself, or is at hand whole, is not wrapped: who relays it knows it.
func TestRetryLeavesBodies(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for _, body := range []io.ReadCloser{&keeping{memory: memory{b: []byte("hello")}}, &there{memory: memory{b: []byte("hello")}}} {
			var seen []string
			target := loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
				if req.Body != body {
					t.Errorf("the body is a %T", req.Body)
				}
				b, err := io.ReadAll(req.Body)
				if seen = append(seen, string(b)); err != nil {
					t.Error(err)
				}
				return status(503), nil
			})
			req := get(t, "/")
			req.Method, req.Body, req.Length = "PUT", body, 5
			if k, ok := body.(*keeping); ok {
				req.Length = -1
				defer func() {
					if k.most != 100 {
						t.Errorf("it keeps %d bytes", k.most)
					}
				}()
			}
			if _, err := Retry(RetryConfig{On: On5xx, Attempts: 1, Body: 100})(target).Serve(req); err != nil || fmt.Sprint(seen) != "[hello hello]" {
				t.Error(seen, err)
			}
		}
	})
}

type keeping struct {
	memory
	most int
}

func (k *keeping) Buffered() int { return 0 }

func (k *keeping) Keep(most int) bool {
	k.most = most
	return true
}

// A sender that breaks off is not the target's failure: there is nothing to send again.
func TestRetryBrokenBody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		req := get(t, "/")
		req.Method, req.Length = "PUT", 100
		req.Body = io.NopCloser(io.MultiReader(strings.NewReader("abc"), errReader{io.ErrUnexpectedEOF}))
		s := &script{steps: []any{status(200)}}
		if _, err := Retry(RetryConfig{})(s).Serve(req); !errors.Is(err, io.ErrUnexpectedEOF) || s.calls != 1 {
			t.Errorf("%v after %d calls", err, s.calls)
		}
	})
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// Answers that nobody gets are closed, and read where they are there.
func TestRetryDiscardsAnswers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		there, partly := &there{memory: memory{b: []byte("error")}}, &there{memory: memory{b: []byte("err")}}
		s := &script{steps: []any{&loam.Response{Status: 503, Body: there, Length: 5}, &loam.Response{Status: 503, Body: partly, Length: 5}, status(200)}}
		if _, err := Retry(RetryConfig{On: On5xx})(s).Serve(get(t, "/")); err != nil || s.calls != 3 {
			t.Fatal(err, s.calls)
		}
		if there.closed != 1 || there.Buffered() != 0 {
			t.Error("the answer that was there was not read and closed: its connection is lost")
		}
		if partly.closed != 1 || partly.Buffered() != 3 {
			t.Error("an answer that is not there was waited for")
		}
	})
}

type there struct {
	memory
	closed int
}

func (b *there) Close() error {
	b.closed++
	return nil
}

// A caller that goes away ends the pause.
func TestRetryCanceled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		req := loam.NewRequest(ctx)
		defer req.Release()
		req.Method, req.Path = "GET", "/"
		s := &script{steps: []any{status(503, "Retry-After", "5")}}
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		_, err := Retry(RetryConfig{On: On5xx})(s).Serve(req)
		if loam.CodeOf(err) != loam.Canceled || s.calls != 1 || time.Since(start) != time.Second {
			t.Errorf("%v after %s and %d calls", err, time.Since(start), s.calls)
		}
	})
}

// However many requests fail, retries stay within their share of them.
func TestRetryBudget(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var count tally
		budget := NewBudget(BudgetConfig{Percent: 20, MinPerSecond: 3})
		p := Retry(RetryConfig{On: On5xx, Attempts: 3, Budget: budget, Told: count.told})
		s := &script{steps: []any{status(503)}}
		target := p(s)
		const requests = 1000
		for range requests { // 100 a second
			if _, err := target.Serve(get(t, "/")); err != nil {
				t.Fatal(err)
			}
			pass(10 * time.Millisecond) // the bubble's time
		}
		retries := s.calls - requests
		if retries < 150 || retries > 240 {
			t.Errorf("%d retries of %d requests", retries, requests)
		}
		if count.of(Retried) != retries || count.of(OverBudget) == 0 {
			t.Errorf("told of %d retries and of %d refused", count.of(Retried), count.of(OverBudget))
		}
		pass(time.Minute)
		s.calls = 0
		if _, err := target.Serve(get(t, "/")); err != nil || s.calls != 4 { // MinPerSecond holds for who asks seldom
			t.Errorf("%d tries after a rest, %v", s.calls, err)
		}
	})
}

// Where the budget is nobody's but its minimum's.
func TestBudgetNegativeMinimum(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := NewBudget(BudgetConfig{Percent: 50, MinPerSecond: -1})
		task, end := loam.NewTask(t.Context())
		defer end()
		if b.spend(task) {
			t.Error("it gives what nobody earned")
		}
		b.earn(task)
		b.earn(task)
		if !b.spend(task) || b.spend(task) {
			t.Error("half of two is one")
		}
		pass(11 * time.Second)
		b.earn(task)
		b.earn(task)
		if !b.spend(task) {
			t.Error("what was spent long ago still counts")
		}
	})
}

func TestParseCondition(t *testing.T) {
	for word, want := range map[string]Conditions{"connect": OnConnect, "reset": OnReset, "refused-stream": OnRefusedStream, "gateway-error": OnGatewayError, "5xx": On5xx} {
		if got, ok := ParseCondition(word); !ok || got != want {
			t.Errorf("%s: %v, %t", word, got, ok)
		}
	}
	if _, ok := ParseCondition("sometimes"); ok {
		t.Error("it takes any word")
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "0", "120", "-1", "Wed, 21 Oct 2015 07:28:00 GMT", "1e9", "٣"} {
		f.Add(s)
	}
	now := time.Unix(1e9, 0)
	f.Fuzz(func(t *testing.T, value string) {
		if d := retryAfter(value, now); d < 0 {
			t.Errorf("%q: %s", value, d)
		}
	})
}

// A target that answers before it has the body, which a task of its own reads meanwhile, as clients of HTTP/2 do: the next
// try gets the body from its beginning, once that task has stopped.
func TestRetryEarlyAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		in, out := io.Pipe()
		go func() {
			for _, s := range []string{"hel", "lo ", "wor", "ld"} {
				<-time.After(10 * time.Millisecond)
				_, _ = out.Write([]byte(s))
			}
			_ = out.Close()
		}()
		calls := 0
		target := loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			if calls++; calls == 2 {
				b, err := io.ReadAll(req.Body)
				if string(b) != "hello world" || err != nil {
					t.Errorf("%q, %v", b, err)
				}
				return status(200), nil
			}
			body := &pumped{stop: make(chan struct{}), stopped: make(chan struct{})}
			reads := req.Body
			go func() {
				defer close(body.stopped)
				b := make([]byte, 3)
				for range 2 { // then it is told to stop
					if _, err := reads.Read(b); err != nil {
						t.Error(err)
					}
				}
				<-body.stop
			}()
			<-time.After(time.Millisecond)
			return &loam.Response{Status: 503, Body: body, Length: -1}, nil
		})
		req := get(t, "/")
		req.Method, req.Body, req.Length = "PUT", in, -1
		res, err := Retry(RetryConfig{On: On5xx})(target).Serve(req)
		if err != nil || res.Status != 200 || calls != 2 {
			t.Errorf("%v, %v, %d tries", res, err, calls)
		}
	})
}

// pumped is an answer whose Close ends the task that sends the request's body.
type pumped struct {
	stop, stopped chan struct{}
}

func (p *pumped) Read([]byte) (int, error) { return 0, io.EOF }

func (p *pumped) Close() error {
	close(p.stop)
	<-p.stopped
	return nil
}

// A body that breaks when it should begin anew: the request fails, as the target did.
func TestRetryBodyGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &script{steps: []any{status(503), status(200)}}
		req := get(t, "/")
		req.Method, req.Body, req.Length = "PUT", &stubborn{memory{b: []byte("hello")}}, 5
		if _, err := Retry(RetryConfig{On: On5xx})(s).Serve(req); loam.CodeOf(err) != loam.Unavailable || s.calls != 1 {
			t.Errorf("%v after %d calls", err, s.calls)
		}
	})
}

type stubborn struct{ memory }

func (stubborn) Rewind() bool { return false }
