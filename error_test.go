package loam_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"

	"github.com/loam-run/loam"
)

func TestCodeOf(t *testing.T) {
	coded := loam.Errorf(loam.Aborted, "state.Apply", "%w", fs.ErrNotExist)
	for _, c := range []struct {
		err  error
		want loam.Code
	}{
		{nil, loam.OK},
		{io.EOF, loam.Unknown},
		{coded, loam.Aborted},
		{fmt.Errorf("while: %w", coded), loam.Aborted},
		{errors.Join(io.EOF, coded), loam.Aborted},
		{&loam.Error{Code: loam.Unavailable, Err: coded}, loam.Unavailable},
		{&loam.Error{}, loam.Unknown}, // an error is never a success
		{fmt.Errorf("x: %w", context.DeadlineExceeded), loam.DeadlineExceeded},
		{context.Canceled, loam.Canceled},
		{fs.ErrNotExist, loam.NotFound},
		{fs.ErrPermission, loam.PermissionDenied},
	} {
		if got := loam.CodeOf(c.err); got != c.want {
			t.Errorf("CodeOf(%v) = %v, want %v", c.err, got, c.want)
		}
	}
}

func TestErrorWords(t *testing.T) {
	for want, err := range map[string]*loam.Error{
		`state.Get "a": not found`:      {Code: loam.NotFound, Op: `state.Get "a"`},
		`state.Get "a": not found: EOF`: loam.Errorf(loam.NotFound, `state.Get "a"`, "%w", io.EOF),
		"internal":                      {Code: loam.Internal, Hint: "not printed"},
		"code 99":                       {Code: 99},
		"op: unauthenticated: it: unavailable: no": loam.Errorf(loam.Unauthenticated, "op", "it: %w", loam.Errorf(loam.Unavailable, "", "no")),
	} {
		if got := err.Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if err := loam.Errorf(loam.NotFound, "x", "y: %w", io.EOF); !errors.Is(err, io.EOF) {
		t.Error("the cause is lost")
	}
}

func TestHintOf(t *testing.T) {
	inner := &loam.Error{Code: loam.NotFound, Hint: "inner"}
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{io.EOF, ""},
		{inner, "inner"},
		{fmt.Errorf("x: %w", inner), "inner"},
		{&loam.Error{Err: fmt.Errorf("x: %w", inner)}, "inner"},
		{&loam.Error{Hint: "outer", Err: inner}, "outer"},
		{&loam.Error{Err: io.EOF}, ""},
		{&loam.Error{}, ""},
	} {
		if got := loam.HintOf(c.err); got != c.want {
			t.Errorf("HintOf(%v) = %q, want %q", c.err, got, c.want)
		}
	}
}
