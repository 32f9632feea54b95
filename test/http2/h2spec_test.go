// Package http2 tests Loam's HTTP/2 with what others have written: h2spec, and gRPC's own client, server and interop
// cases. It is a module of its own, so that nothing of theirs enters Loam's.
package http2

import (
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/summerwind/h2spec/client"
	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"

	"github.com/loam-run/loam"
	loamhttp2 "github.com/loam-run/loam/protocol/http2"
)

// unlike are the cases that we fail on purpose, each with the reason.
var unlike = map[string]string{
	"generic/5/14": "our settings leave the dynamic table no room, so an update that gives it some is an error (RFC 7541, section 6.3)",
	"generic/5/15": "likewise",
}

func TestH2Spec(t *testing.T) {
	engines(t, func(t *testing.T, e *engine) {
		address := e.serve(t, loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			if req.Body != nil {
				buf := make([]byte, 4096)
				for {
					if _, err := req.Body.Read(buf); err != nil {
						break
					}
				}
			}
			return loam.NewResponse(200, "text/plain", []byte("hello, h2spec")), nil
		}))
		_, p, _ := net.SplitHostPort(address)
		port, _ := strconv.Atoi(p)
		c := &config.Config{Host: "127.0.0.1", Port: port, Path: "/", Timeout: 2 * time.Second, MaxHeaderLen: 4000, Strict: true, Sections: nil}
		for _, group := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
			run(t, c, group)
		}
	})
}

// run runs a group's cases and those below it.
func run(t *testing.T, c *config.Config, group *spec.TestGroup) {
	for i, test := range append(group.Tests[:len(group.Tests):len(group.Tests)], group.StrictTests...) {
		id := group.ID() + "/" + strconv.Itoa(i+1)
		t.Run(id, func(t *testing.T) {
			conn, err := spec.Dial(c)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			err = test.Run(c, conn)
			switch why := unlike[id]; {
			case why != "" && err == nil:
				t.Errorf("%s: passes, which it should not: %s", test.Desc, why)
			case why == "" && err != nil: // h2spec.ErrSkipped too
				t.Errorf("%s: %v", test.Desc, err)
			}
		})
	}
	for _, g := range group.Groups {
		run(t, c, g)
	}
}

// Our client asks h2spec's servers, which do what no server should.
func TestH2SpecClient(t *testing.T) {
	engines(t, func(t *testing.T, e *engine) {
		c := &config.Config{Host: "127.0.0.1", Path: "/", Timeout: 2 * time.Second, MaxHeaderLen: 4000}
		runClient(t, e, c, client.Spec())
	})
}

func runClient(t *testing.T, e *engine, c *config.Config, group *spec.ClientTestGroup) {
	for i, test := range group.Tests {
		t.Run(group.ID()+"/"+strconv.Itoa(i+1), func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			cl := loamhttp2.NewClient(ln.Addr().String(), loamhttp2.ClientConfig{Hub: e.hub})
			defer cl.Close()
			asked := make(chan struct{})
			e.Go(func(task loam.Task) {
				defer close(asked)
				var req loam.Request
				req.Begin(task)
				req.SetDeadline(time.Now().Add(10 * time.Second))
				req.Method, req.Scheme, req.Authority, req.Path = "GET", "http", "localhost", "/"
				if res, err := cl.Serve(&req); err == nil && res.Body != nil {
					for buf := make([]byte, 4096); err == nil; {
						_, err = res.Body.Read(buf)
					}
					_ = res.Close() // what it says is h2spec's to judge
				}
			})
			base, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			conn, err := spec.Accept(c, base)
			if err != nil {
				t.Fatal(err)
			}
			if err := test.Run(c, conn); err != nil {
				t.Errorf("%s: %v", test.Desc, err)
			}
			conn.Close()
			<-asked
		})
	}
	for _, g := range group.Groups {
		runClient(t, e, c, g)
	}
}
