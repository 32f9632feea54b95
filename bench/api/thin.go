package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"google.golang.org/grpc"

	"github.com/loam-run/loam/api/dapr"
)

// A floor is a way of calls that has as many steps as a sidecar's and as little in each as can be.
type floor int

const (
	answers floor = iota // a thin server answers by the same bytes each time
	posts                // a thin server answers, and posts what it was sent to the app
	relays               // a thin server asks another one, which asks the app
)

// thin is what is least. The far server asks the app, and the near one the far one. The bare one speaks no protocol at all:
// it waits for bytes, reads them and writes an answer, so that its figures are the system's alone.
type thin struct {
	far, near, bare *thinServer
	app             string // its address
}

// A thinServer is by net/http and grpc-go.
type thinServer struct {
	*process
	http, grpc string // addresses
}

func startThin(a *app) (*thin, error) {
	t := &thin{app: "127.0.0.1:" + a.port}
	var err error
	if t.far, err = startThinServer("thin", t.app+"/echo"); err == nil {
		if t.near, err = startThinServer("thin", t.far.http+"/relay"); err == nil {
			t.bare, err = startThinServer("bare", "")
		}
	}
	if err != nil {
		t.stop()
		return nil, err
	}
	return t, nil
}

func (t *thin) stop() {
	for _, s := range []*thinServer{t.far, t.near, t.bare} {
		if s != nil {
			s.stop()
		}
	}
}

func startThinServer(kind, next string) (*thinServer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	t := &thinServer{}
	for _, address := range []*string{&t.http, &t.grpc} {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		*address = "127.0.0.1:" + port
	}
	if t.process, err = begin(true, self, "-child", strings.Join([]string{kind, t.http, t.grpc, next}, ",")); err != nil {
		return nil, err
	}
	for _, address := range []string{t.http, t.grpc} {
		for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			c, err := net.Dial("tcp", address)
			if err == nil {
				_ = c.Close() // nothing was said
				break
			}
			if time.Since(began) > 10*time.Second {
				t.stop()
				return nil, errors.New("the " + kind + " server does not listen: " + t.said())
			}
		}
	}
	return t, nil
}

// caller prepares a turn of a kind's floor, and tells whose processor time it takes.
func (t *thin) caller(k kind, a *app, n int) (call func(int) error, done func(), pids []int, err error) {
	switch {
	case k.floor == posts:
		call, done, err = publishTo(t.far.http, "/publish", a, n)
		return call, done, []int{t.far.pid()}, err
	case k.floor == relays:
		call, done, err = repeat(t.near.http, "/relay", n)
		return call, done, []int{t.near.pid(), t.far.pid()}, err
	case k.grpc:
		var calls []grpcCall
		for i := range n {
			call := grpcGet("memory")(i)
			call.before = &grpcCall{call.method, call.message, nil}
			calls = append(calls, call)
		}
		call, done, err = callGRPC(t.far.grpc, calls)
	default:
		call, done, err = repeat(t.far.http, "/echo", n)
	}
	return call, done, []int{t.far.pid()}, err
}

// repeat has each worker send one request again and again.
func repeat(address, path string, n int) (func(int) error, func(), error) {
	conns, done, err := dialAll(address, n)
	if err != nil {
		return nil, nil, err
	}
	get := request("GET", path, "")
	return func(worker int) error { return conns[worker].do(get) }, done, nil
}

// serveChild is what a process of this program does that is measured.
func serveChild(what string) error {
	f := strings.Split(what, ",")
	if len(f) != 4 {
		return errors.New("-child is the benchmark's own")
	}
	if f[0] == "bare" {
		go func() { _ = serveBare(f[2]) }() // so that somebody listens there too
		return serveBare(f[1])
	}
	return serveThin(f[1], f[2], f[3])
}

func serveThin(overHTTP, overGRPC, next string) error {
	failed := make(chan error, 1)
	address, path, _ := strings.Cut(next, "/")
	kept := make(chan *httpConn, 128)
	ask := func(request []byte) error {
		var h *httpConn
		select {
		case h = <-kept:
		default:
			var err error
			if h, err = dialHTTP(address); err != nil {
				return err
			}
		}
		if err := h.do(request); err != nil {
			h.close()
			return err
		}
		select {
		case kept <- h:
		default:
			h.close()
		}
		return nil
	}
	relay := request("GET", "/"+path, "")
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(payload)) // who went away needs no answer
	})
	mux.HandleFunc("/relay", func(w http.ResponseWriter, _ *http.Request) {
		if err := ask(relay); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		_, _ = w.Write([]byte(payload)) // as above
	})
	mux.HandleFunc("/publish", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
		go func() { _ = ask(request("POST", "/orders", string(b))) }() // what is lost is missed by who waits for it
	})
	go func() { failed <- http.ListenAndServe(overHTTP, mux) }()
	ln, err := net.Listen("tcp", overGRPC)
	if err != nil {
		return err
	}
	answer := (&dapr.GetStateResponse{Data: []byte(payload), Etag: "1"}).AppendProto(nil)
	s := grpc.NewServer(grpc.ForceServerCodec(raw{}))
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "dapr.proto.runtime.v1.Dapr", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "GetState", Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var in []byte
			if err := decode(&in); err != nil {
				return nil, err
			}
			var m dapr.GetStateRequest
			if err := m.ParseProto(in); err != nil {
				return nil, err
			}
			return &answer, nil
		}}},
	}, struct{}{})
	go func() { failed <- s.Serve(ln) }()
	return <-failed
}

// serveBare answers whatever it reads, one connection after the other, with three system calls and nothing else: Go's
// scheduler does not know of its waits.
func serveBare(address string) error {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(len(payload)) + "\r\n\r\n" + payload)
	buf := make([]byte, 64<<10)
	events := make([]syscall.EpollEvent, 1)
	runtime.LockOSThread()
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		f, err := c.(*net.TCPConn).File()
		if err != nil {
			return err
		}
		_ = c.Close() // f is the same connection
		fd := f.Fd()
		epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
		if err != nil {
			return err
		}
		event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}
		if err := syscall.EpollCtl(epoll, syscall.EPOLL_CTL_ADD, int(fd), &event); err != nil {
			return err
		}
		for open := true; open; {
			minute := uintptr(60_000)
			if n, _, _ := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), 1, minute, 0, 0); int(n) <= 0 {
				continue
			}
			n, _, _ := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
			if open = int(n) > 0; open {
				_, _, _ = syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&answer[0])), uintptr(len(answer)), syscall.MSG_NOSIGNAL, 0, 0)
			}
		}
		_ = syscall.Close(epoll)
		_ = f.Close()
	}
}
