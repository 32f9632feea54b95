package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/loam-run/loam/api/dapr"
)

// A kind is one way to call. caller prepares a turn: what each worker calls, and what ends it.
type kind struct {
	name   string
	redis  bool
	grpc   bool
	pids   func(*contender) []int
	caller func(c *contender, a *app, n int) (call func(worker int) error, done func(), err error)
	floor  floor // the way of what is least
}

var kinds = []kind{
	{name: "HTTP GET state, memory", pids: theCallee, caller: overHTTP(getState("memory"))},
	{name: "HTTP POST state, memory", pids: theCallee, caller: overHTTP(postState("memory"))},
	{grpc: true, name: "gRPC GetState, memory", pids: theCallee, caller: overGRPC(grpcGet("memory"))},
	{grpc: true, name: "gRPC SaveState, memory", pids: theCallee, caller: overGRPC(grpcSave("memory"))},
	{name: "HTTP GET state, Redis", redis: true, pids: theCallee, caller: overHTTP(getState("redis"))},
	{name: "HTTP POST state, Redis", redis: true, pids: theCallee, caller: overHTTP(postState("redis"))},
	{grpc: true, name: "gRPC GetState, Redis", redis: true, pids: theCallee, caller: overGRPC(grpcGet("redis"))},
	{grpc: true, name: "gRPC SaveState, Redis", redis: true, pids: theCallee, caller: overGRPC(grpcSave("redis"))},
	{name: "publish to delivery, memory", pids: theCallee, caller: publish, floor: posts},
	{name: "invoke, two sidecars", pids: both, caller: overHTTP(func(c *contender, _ int) ([]byte, bool) { return c.invocation(), true }), floor: relays},
}

func theCallee(c *contender) []int { return []int{c.callee.pid()} }
func both(c *contender) []int      { return []int{c.caller.pid(), c.callee.pid()} }

func key(worker int) string { return "key-" + strconv.Itoa(worker) }

// getState and postState make a worker's request, and tell whether the calling app's sidecar gets it or the other one.
func getState(store string) func(c *contender, worker int) ([]byte, bool) {
	return func(_ *contender, worker int) ([]byte, bool) {
		return request("GET", "/v1.0/state/"+store+"/"+key(worker), ""), false
	}
}

func postState(store string) func(c *contender, worker int) ([]byte, bool) {
	return func(_ *contender, worker int) ([]byte, bool) {
		return request("POST", "/v1.0/state/"+store, `[{"key":"`+key(worker)+`","value":"`+payload+`"}]`), false
	}
}

// overHTTP has each worker send its request on a connection of its own.
func overHTTP(prepare func(c *contender, worker int) (request []byte, caller bool)) func(*contender, *app, int) (func(int) error, func(), error) {
	return func(c *contender, _ *app, n int) (func(int) error, func(), error) {
		var conns []*httpConn
		var requests [][]byte
		done := func() {
			for _, h := range conns {
				h.close()
			}
		}
		for i := range n {
			b, caller := prepare(c, i)
			address := c.callee.http
			if caller {
				address = c.caller.http
			}
			h, err := dialHTTP(address)
			if err != nil {
				done()
				return nil, nil, err
			}
			conns, requests = append(conns, h), append(requests, b)
		}
		// What is read was written before.
		for _, store := range []string{"memory", "redis"} {
			for i := range n {
				b, _ := getState(store)(c, i)
				if string(b) != string(requests[i]) {
					continue
				}
				b, _ = postState(store)(c, i)
				if err := conns[i].do(b); err != nil {
					done()
					return nil, nil, err
				}
			}
		}
		return func(worker int) error { return conns[worker].do(requests[worker]) }, done, nil
	}
}

// publish publishes an event and waits until the app has it.
func publish(c *contender, a *app, n int) (func(int) error, func(), error) {
	return publishTo(c.callee.http, "/v1.0/publish/bus/orders", a, n)
}

func publishTo(address, path string, a *app, n int) (func(int) error, func(), error) {
	conns, done, err := dialAll(address, n)
	if err != nil {
		return nil, nil, err
	}
	timers := make([]*time.Timer, n)
	for i := range timers {
		timers[i] = time.NewTimer(time.Hour)
	}
	return func(worker int) error {
			number, came := a.expect()
			if err := conns[worker].do(request("POST", path, fmt.Sprintf(`{"n":%d,"text":%q}`, number, payload))); err != nil {
				return err
			}
			return wait(came, timers[worker])
		}, func() {
			done()
			for _, t := range timers {
				t.Stop()
			}
		}, nil
}

// dialAll opens n connections, and gives what closes them.
func dialAll(address string, n int) (conns []*httpConn, done func(), err error) {
	done = func() {
		for _, h := range conns {
			h.close()
		}
	}
	for range n {
		h, err := dialHTTP(address)
		if err != nil {
			done()
			return nil, nil, err
		}
		conns = append(conns, h)
	}
	return conns, done, nil
}

// ---- gRPC

// raw is a codec of messages that are bytes: what is measured is the server, not the client's marshalling.
type raw struct{}

func (raw) Name() string                  { return "proto" }
func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), b...)
	return nil
}

type grpcCall struct {
	method  string
	message []byte
	before  *grpcCall // is done once before
}

func grpcGet(store string) func(worker int) grpcCall {
	return func(worker int) grpcCall {
		before := grpcSave(store)(worker)
		return grpcCall{dapr.MethodDaprGetState, (&dapr.GetStateRequest{StoreName: store, Key: key(worker)}).AppendProto(nil), &before}
	}
}

func grpcSave(store string) func(worker int) grpcCall {
	return func(worker int) grpcCall {
		m := dapr.SaveStateRequest{StoreName: store, States: []dapr.StateItem{{Key: key(worker), Value: []byte(payload)}}}
		return grpcCall{dapr.MethodDaprSaveState, m.AppendProto(nil), nil}
	}
}

// overGRPC has workers share a connection, as SDKs do.
func overGRPC(prepare func(worker int) grpcCall) func(*contender, *app, int) (func(int) error, func(), error) {
	return func(c *contender, _ *app, n int) (func(int) error, func(), error) {
		var calls []grpcCall
		for i := range n {
			calls = append(calls, prepare(i))
		}
		return callGRPC(c.callee.grpc, calls)
	}
}

func callGRPC(address string, calls []grpcCall) (func(int) error, func(), error) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	done := func() { _ = conn.Close() }
	ctx := context.Background()
	for _, call := range calls {
		if call.before != nil {
			var out []byte
			if err := conn.Invoke(ctx, call.before.method, &call.before.message, &out, grpc.ForceCodec(raw{})); err != nil {
				done()
				return nil, nil, err
			}
		}
	}
	return func(worker int) error {
		call := &calls[worker]
		var out []byte
		if err := conn.Invoke(ctx, call.method, &call.message, &out, grpc.ForceCodec(raw{})); err != nil {
			return err
		}
		if call.before != nil && len(out) < len(payload) {
			return errors.New("an answer without the value")
		}
		return nil
	}, done, nil
}
