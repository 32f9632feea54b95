package binding_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/binding"
)

// fake is an output that takes any operation, and an input that brings what it is made with.
type fake struct {
	events []binding.Event
	fails  error
}

func (fake) Close() error         { return nil }
func (fake) Operations() []string { return nil }

func (f fake) Invoke(_ context.Context, r binding.Request) (binding.Response, error) {
	return binding.Response{Data: append([]byte(r.Operation+" "), r.Data...), Metadata: r.Metadata}, f.fails
}

func (f fake) Read(ctx context.Context, handle binding.Handler) error {
	for _, e := range f.events {
		if _, err := handle(ctx, e); err != nil {
			return err
		}
	}
	return f.fails
}

func anyone() *loam.Caller {
	return &loam.Caller{Grants: []loam.Grant{{Capability: "binding", Component: "b"}}}
}

func TestInvoke(t *testing.T) {
	b := binding.New("b", fake{})
	r, err := b.Invoke(t.Context(), anyone(), binding.Request{Operation: "Any-Thing", Data: []byte("x")})
	if err != nil || string(r.Data) != "any-thing x" {
		t.Errorf("%q, %v", r.Data, err)
	}
	many := map[string]string{}
	for i := range binding.MaxMetadata + 1 {
		many[strings.Repeat("k", i)] = ""
	}
	for what, r := range map[string]binding.Request{
		"no operation": {}, "a long one": {Operation: strings.Repeat("x", 257)}, "much data": {Operation: "x", Data: make([]byte, binding.MaxData+1)},
		"much metadata": {Operation: "x", Metadata: map[string]string{"k": strings.Repeat("v", 64<<10)}}, "many": {Operation: "x", Metadata: many},
	} {
		if _, err := b.Invoke(t.Context(), anyone(), r); loam.CodeOf(err) != loam.InvalidArgument {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// An error keeps its code and hint, and what the system outside said comes beside it.
func TestErrors(t *testing.T) {
	cause := &loam.Error{Code: loam.Unavailable, Err: errors.New("gone"), Hint: "start it"}
	b := binding.New("b", fake{fails: cause})
	r, err := b.Invoke(t.Context(), anyone(), binding.Request{Operation: "x"})
	if loam.CodeOf(err) != loam.Unavailable || loam.HintOf(err) != "start it" || string(r.Data) != "x " || !strings.Contains(err.Error(), `binding "b" "x"`) {
		t.Errorf("%q, %v", r.Data, err)
	}
	if err := b.Read(t.Context(), nil); loam.CodeOf(err) != loam.Unavailable || loam.HintOf(err) != "start it" {
		t.Error(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Read(ended, nil); err != nil {
		t.Errorf("at the end: %v", err)
	}
}

func TestRead(t *testing.T) {
	b := binding.New("b", fake{events: []binding.Event{{Data: []byte("1")}, {Data: []byte("2")}}})
	got := ""
	if err := b.Read(t.Context(), func(_ context.Context, e binding.Event) ([]byte, error) { got += string(e.Data); return nil, nil }); err != nil || got != "12" {
		t.Errorf("%q, %v", got, err)
	}
}
