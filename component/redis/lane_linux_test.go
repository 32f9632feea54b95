package redis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/state"
	"github.com/loam-run/loam/capability/state/statetest"
	"github.com/loam-run/loam/component/redis/redistest"
	"github.com/loam-run/loam/loop"
)

// tasked is a driver whose reads of one item and writes are made by tasks of event loops, which wait there.
type tasked struct {
	*State
	e loop.Engine
}

func openTasked(t *testing.T, metadata map[string]string) tasked {
	t.Helper()
	return tasked{openAt[*State](t, "state.redis", metadata), loops(t, 2)}
}

func loops(t *testing.T, n int) loop.Engine {
	t.Helper()
	e, err := loop.Coroutines(loop.Options{Loops: n})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

// in calls the driver in a task, which is canceled with ctx as that of a caller who goes.
func in[T any](ctx context.Context, s tasked, call func(state.Driver) (T, error)) (v T, err error) {
	done := make(chan struct{})
	s.e.Go(func(t loam.Task) {
		defer close(done)
		defer context.AfterFunc(ctx, t.Cancel)()
		d := s.In(t)
		if d == nil {
			err = errors.New("there is no lane")
			return
		}
		v, err = call(d)
	})
	<-done
	return v, err
}

func (s tasked) GetOne(ctx context.Context, key string, o state.GetOptions) (state.Item, error) {
	return in(ctx, s, func(d state.Driver) (state.Item, error) { return d.(state.Getter).GetOne(ctx, key, o) })
}

func (s tasked) Get(ctx context.Context, keys []string) ([]state.Item, error) {
	return in(ctx, s, func(d state.Driver) ([]state.Item, error) { return d.Get(ctx, keys) })
}

func (s tasked) Apply(ctx context.Context, ops []state.Op) ([]string, error) {
	return in(ctx, s, func(d state.Driver) ([]string, error) { return d.Apply(ctx, ops) })
}

func TestStateInTasks(t *testing.T) {
	statetest.Run(t, func(t *testing.T) state.Driver {
		return openTasked(t, at(redistest.Start(t)))
	})
}

// TestLaneShares has many tasks call at once: each gets its own answer, and a loop has two connections.
func TestLaneShares(t *testing.T) {
	server := redistest.Start(t, "--requirepass", "sesame")
	ctx := t.Context()
	d, err := Factories()[0].Open(ctx, "test", at(server, "redisPassword", "sesame", "redisDB", "3"))
	if err != nil {
		t.Fatal(err)
	}
	s := tasked{d.(*State), loops(t, 2)}
	var working sync.WaitGroup
	for g := range 64 {
		working.Go(func() {
			for i := range 30 {
				key := fmt.Sprintf("%d/%d", g, i%5)
				value := strings.Repeat(fmt.Sprintf("%d of %d ", i, g), 1+g*i%100)
				if _, err := s.Apply(ctx, []state.Op{{Key: key, Value: []byte(value)}}); err != nil {
					t.Error(err)
				}
				if it, err := s.GetOne(ctx, key, state.GetOptions{}); err != nil || string(it.Value) != value {
					t.Errorf("%s: %q, %v, want %q", key, it.Value, err, value)
				}
				if _, err := s.Apply(ctx, []state.Op{{Key: key, IfMatch: "1"}}); loam.CodeOf(err) != loam.Aborted { // amid others that succeed
					t.Error(err)
				}
			}
		})
	}
	working.Wait()
	big := make([]byte, state.MaxValue)
	if _, err := s.Apply(ctx, []state.Op{{Key: "big", Value: big}}); err != nil {
		t.Error(err)
	}
	if it, err := s.GetOne(ctx, "big", state.GetOptions{}); err != nil || len(it.Value) != len(big) {
		t.Errorf("%d bytes, %v", len(it.Value), err)
	}
	db := redis.NewClient(&redis.Options{Addr: server.Addr, Password: "sesame", DB: 3})
	defer db.Close()
	want(t, "keys in the database that was named", db.DBSize(ctx).Val(), 64*5+1)
	ours := strings.Count(db.ClientList(ctx).Val(), "name=loam-test ")
	if most := 1 + 2*laneFlights; ours > most { // the pool's, which asked what the server knows, and those of two loops
		t.Errorf("%d connections, at most %d", ours, most)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.GetOne(ctx, "big", state.GetOptions{}); loam.CodeOf(err) != loam.Unavailable {
		t.Errorf("after Close: %v", err)
	}
	until(t, "connections are closed", func() bool { return !strings.Contains(db.ClientList(ctx).Val(), "name=loam-test ") })
}

func TestLaneErrors(t *testing.T) {
	server := redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
	s := openTasked(t, at(server, "readTimeout", "300ms", "dialTimeout", "1s"))
	ctx := t.Context()
	calls := map[string]func(context.Context) error{
		"get":   func(ctx context.Context) error { _, err := s.GetOne(ctx, "k", state.GetOptions{}); return err },
		"bulk":  func(ctx context.Context) error { _, err := s.Get(ctx, []string{"k", "l"}); return err },
		"apply": func(ctx context.Context) error { _, err := s.Apply(ctx, []state.Op{{Key: "k"}}); return err },
		"many": func(ctx context.Context) error { // some of them wait for a flight
			errs := make([]error, 32)
			var working sync.WaitGroup
			for i := range errs {
				working.Go(func() { _, errs[i] = s.GetOne(ctx, "k", state.GetOptions{}) })
			}
			working.Wait()
			for _, err := range errs {
				if loam.CodeOf(err) != loam.CodeOf(errs[0]) {
					return fmt.Errorf("%w and %w", err, errs[0])
				}
			}
			return errs[0]
		},
	}
	each := func(what string, ctx context.Context, is func(error) bool) {
		t.Helper()
		for name, call := range calls {
			if err := call(ctx); !is(err) {
				t.Errorf("%s, %s: %v (%s)", what, name, err, loam.HintOf(err))
			}
		}
	}
	fine := func(err error) bool { return err == nil }
	gone := func(err error) bool { return loam.CodeOf(err) == loam.Unavailable && loam.HintOf(err) != "" }
	each("there", ctx, fine)
	raw(t, server).ClientKillByFilter(ctx, "TYPE", "normal", "SKIPME", "yes")
	each("connections ended", ctx, fine)
	server.Kill()
	each("gone", ctx, gone)
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	for name, call := range calls { // the library may refuse to dial for a second, after many failures
		until(t, "back, "+name, func() bool { return call(ctx) == nil })
	}
	each("back", ctx, fine)
	server.Signal(syscall.SIGSTOP)
	each("hung", ctx, gone)
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	each("hung, with a deadline", short, func(err error) bool {
		return loam.CodeOf(err) == loam.DeadlineExceeded || loam.CodeOf(err) == loam.Canceled // the task's end, or the wait's
	})
	leaving, leave := context.WithCancel(ctx)
	timer := time.AfterFunc(10*time.Millisecond, leave)
	defer timer.Stop()
	each("hung, and the caller goes", leaving, func(err error) bool { return loam.CodeOf(err) == loam.Canceled })
	server.Signal(syscall.SIGCONT)
	for name, call := range calls {
		until(t, "awake, "+name, func() bool { return call(ctx) == nil })
	}
}

// TestLaneEndsWithItsLoop closes the engine before the component, while a call waits.
func TestLaneEndsWithItsLoop(t *testing.T) {
	server := redistest.Start(t)
	s := openTasked(t, at(server, "readTimeout", "60s"))
	if _, err := s.GetOne(t.Context(), "k", state.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	server.Signal(syscall.SIGSTOP)
	calling, answer := make(chan struct{}), make(chan error, 1)
	s.e.Go(func(task loam.Task) {
		close(calling)
		_, err := s.In(task).Get(context.Background(), []string{"k"})
		answer <- err
	})
	<-calling
	if err := s.e.Close(); err != nil {
		t.Error(err)
	}
	if err := <-answer; !errors.Is(err, loop.ErrStopped) {
		t.Error(err)
	}
	server.Signal(syscall.SIGCONT)
}

// TestNoLane says where calls go the way of those outside of loops.
func TestNoLane(t *testing.T) {
	s := openTasked(t, at(redistest.Start(t)))
	if s.In(loam.NewRequest(t.Context()).Task()) != nil {
		t.Error("a goroutine has a lane")
	}
	for what, server := range map[string]*Server{
		"TLS": {Host: "a", TLS: true}, "sentinels": {Host: "a", Failover: true, MasterName: "m"}, "a cluster": {Host: "a", Type: "cluster"}, "several": {Host: "a,b"},
	} {
		o, err := server.options("x", 1)
		if err != nil {
			t.Fatal(err)
		}
		db := redis.NewUniversalClient(o)
		if laneOptions(db, server) != nil {
			t.Error(what)
		}
		_ = db.Close()
	}
}

// TestStrangeAnswers has somebody answer who is no Redis.
func TestStrangeAnswers(t *testing.T) {
	for says, answer := range map[string]string{
		"no answer of Redis": "HTTP/1.1 400 Bad Request\r\n\r\n",
		"more answers":       "*2\r\n$1\r\nv\r\n$1\r\n1\r\n:-1\r\n+more\r\n",
		"EOF":                "$5\r\nab",
	} {
		t.Run(says, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var serving sync.WaitGroup
			serving.Go(func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					serving.Go(func() {
						defer c.Close()
						in := bufio.NewReader(c)
						for n := 0; ; n++ {
							v, err := readAnswer(in, maxDepth) // a command is a list of strings too
							if err != nil {
								return
							}
							if list, _ := v.([]any); n == 0 && list[0] == "client" {
								_, _ = io.WriteString(c, "+OK\r\n") // its failure is the caller's too
								continue
							}
							_, _ = io.WriteString(c, answer)
							return
						}
					})
				}
			})
			t.Cleanup(func() { ln.Close(); serving.Wait() })
			e := loops(t, 1)
			o := &redis.Options{Network: "tcp", Addr: ln.Addr().String(), ClientName: "x", ReadBufferSize: 4096, ReadTimeout: time.Minute, DialTimeout: time.Minute}
			c := &client{own: o, lanes: map[int]*lane{}}
			done := make(chan error, 1)
			e.Go(func(task loam.Task) {
				l, err := c.enter(task)
				if err == nil {
					var w *wire
					if w, err = l.dial(task, time.Time{}); err == nil {
						ctx := context.Background()
						err = w.exchange(task, time.Time{}, []redis.Cmder{redis.NewCmd(ctx, "hmget", "k"), redis.NewCmd(ctx, "pttl", "k")})
						_ = w.conn.Close()
					}
				}
				c.flying.Done()
				done <- err
			})
			if err := <-done; err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%v", err)
			}
			for _, l := range c.lanes {
				l.close()
			}
		})
	}
}

func TestCommandIsWritten(t *testing.T) {
	got := appendCommand(nil, []any{"set", []byte("k\r\n"), "", 12, int64(math.MinInt64)})
	list, err := readAnswer(bufio.NewReader(strings.NewReader(string(got))), 1)
	if want := []any{"set", "k\r\n", "", "12", "-9223372036854775808"}; err != nil || !reflect.DeepEqual(list, want) {
		t.Errorf("%q: %q, %v", got, list, err)
	}
}

// FuzzAnswer reads what a server may send: it ends, takes no more memory than came, and what it reads can be written.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		"+OK\r\n", "-ERR no\r\n", ":12\r\n", "$-1\r\n", "$3\r\nabc\r\n", "*2\r\n$1\r\na\r\n*-1\r\n", "*1\r\n*1\r\n:1\r\n", "$536870912\r\n", "*1048576\r\n", "*9999999999\r\n", "$1\r\nab\r\n", "\r\n", ":\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := readAnswer(bufio.NewReaderSize(strings.NewReader(string(b)), 64), maxDepth)
		if err != nil {
			return
		}
		size(t, v, len(b), maxDepth+1)
	})
}

// size checks that a value is no larger than what it was read from.
func size(t *testing.T, v any, left, depth int) int {
	switch v := v.(type) {
	case string:
		left -= len(v)
	case refused:
		left -= len(v)
	case []any:
		for _, one := range v {
			left = size(t, one, left-3, depth-1)
		}
	}
	if left < 0 || depth < 0 {
		t.Errorf("%v is larger than what came", v)
	}
	return left
}
