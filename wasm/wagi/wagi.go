// Package wagi is the guest ABI of programs that read standard input and write standard output: CGI (RFC 3875) with what
// WAGI adds, over WASI. A request is a run of _start in a clean instance. The program finds the request's head in its
// environment and the query's parts in its arguments, reads the body from stdin, writes a header, an empty line and a
// body to stdout, and what it has to say to its operator to stderr. It can make no capability calls.
package wagi

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/guest"
	"github.com/loam-run/loam/wasm/wasi"
	"github.com/tetratelabs/wazero"
	wasmapi "github.com/tetratelabs/wazero/api"
)

// Name is what a Function's spec.abi says.
const Name = "wagi"

const start = "_start"

// ABI is this ABI. It implements [guest.ABI] and [guest.Once].
type ABI struct{}

// Modules implements guest.ABI: WASI is all there is.
func (ABI) Modules() []string { return nil }

// Exports implements guest.ABI.
func (ABI) Exports() []guest.Export { return []guest.Export{{Name: start}} }

// Define implements guest.ABI.
func (ABI) Define(context.Context, wazero.Runtime) error { return nil }

// Once implements guest.Once.
func (ABI) Once() {}

// Bind implements guest.ABI.
func (ABI) Bind(m wasmapi.Module) guest.Server { return &server{run: m.ExportedFunction(start)} }

// A server serves the requests of one instance.
type server struct {
	run  wasmapi.Function
	in   bytes.Reader
	out  output
	env  []string
	args []string
}

// output is what the program prints, as much of it as a response may be.
type output struct {
	call *guest.Call
	b    []byte
}

func (o *output) Write(p []byte) (int, error) {
	o.call.Respond(max(len(o.b)-maxHeader, 0), len(p))
	o.b = append(o.b, p...)
	return len(p), nil
}

// Serve implements guest.Server.
func (s *server) Serve(c *guest.Call) (*loam.Response, error) {
	s.in.Reset(c.Body)
	s.out = output{call: c}
	s.env = append(environment(s.env[:0], c.Request, c.Body), c.Env...)
	s.args = arguments(append(s.args[:0], c.Request.Path), c.Request.RawQuery)
	c.Stdin, c.Stdout, c.Env, c.Args = &s.in, &s.out, s.env, s.args
	err := s.run.CallWithStack(c, nil)
	b := s.out.b
	s.in.Reset(nil)
	s.out = output{}
	clear(s.env) // the request's strings
	clear(s.args)
	if exit := (*wasi.Exit)(nil); errors.As(err, &exit) && exit.Status == 0 {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	resp := new(guest.Response)
	if err := parse(resp, b); err != nil {
		return nil, &loam.Error{
			Code: loam.Internal, Err: fmt.Errorf("what it printed is no CGI response: %w", err),
			Hint: `it prints "Content-Type: text/plain" and an empty line before its body; what is for the log goes to stderr`,
		}
	}
	if err := c.Room(0, len(resp.Data)); err != nil {
		return nil, err
	}
	return resp.Done(), nil
}
