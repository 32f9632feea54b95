package secret

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/loam-run/loam"
)

// single is a driver of secrets with one value each.
type single map[string]string

func (s single) Get(_ context.Context, name string) ([]byte, error) {
	v, ok := s[name]
	if !ok {
		return nil, loam.Errorf(loam.NotFound, "driver", "there is none")
	}
	return []byte(v), nil
}

func (single) Close() error { return nil }

// vault is one of secrets with fields.
type vault struct {
	single
	all map[string]map[string]string
	err error
}

func (v vault) GetFields(_ context.Context, name string, metadata map[string]string) (map[string]string, error) {
	if metadata["version"] == "old" {
		return map[string]string{"user": "before"}, nil
	}
	fields, ok := v.all[name]
	if !ok {
		return nil, loam.Errorf(loam.NotFound, "driver", "there is none")
	}
	return fields, nil
}

func (v vault) GetAll(context.Context, map[string]string) (map[string]map[string]string, error) {
	return v.all, v.err
}

func TestGetFields(t *testing.T) {
	caller := &loam.Caller{Name: "app", Grants: []loam.Grant{{Capability: "secret", Component: "s"}}, Denied: []loam.Grant{{Capability: "secret", Component: "s", Names: []string{"root"}}}}
	v := vault{single: single{"token": "x"}, all: map[string]map[string]string{"db": {"user": "u", "password": "p"}, "root": {"key": "k"}}}
	one, many := New("s", v.single), New("s", v)
	if f, err := one.GetFields(t.Context(), caller, "token", nil); err != nil || !maps.Equal(f, map[string]string{"token": "x"}) {
		t.Errorf("%v, %v", f, err)
	}
	if f, err := many.GetFields(t.Context(), caller, "db", nil); err != nil || !maps.Equal(f, v.all["db"]) {
		t.Errorf("%v, %v", f, err)
	}
	if f, err := many.GetFields(t.Context(), caller, "db", map[string]string{"version": "old"}); err != nil || f["user"] != "before" {
		t.Errorf("%v, %v", f, err)
	}
	for name, want := range map[string]loam.Code{"none": loam.NotFound, "root": loam.PermissionDenied, "../x": loam.InvalidArgument} {
		if _, err := many.GetFields(t.Context(), caller, name, nil); loam.CodeOf(err) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	all, err := many.GetAll(t.Context(), caller, nil)
	if err != nil || len(all) != 1 || !maps.Equal(all["db"], v.all["db"]) {
		t.Errorf("what may be read: %v, %v", all, err)
	}
	if _, err := one.GetAll(t.Context(), caller, nil); loam.CodeOf(err) != loam.Unimplemented {
		t.Errorf("a driver that cannot list: %v", err)
	}
	if _, err := New("s", vault{err: errors.New("away")}).GetAll(t.Context(), caller, nil); err == nil {
		t.Error("a driver that fails")
	}
	large := vault{all: map[string]map[string]string{"large": {"a": strings.Repeat("x", MaxValue), "b": "x"}}}
	if _, err := New("s", large).GetFields(t.Context(), caller, "large", nil); loam.CodeOf(err) != loam.ResourceExhausted {
		t.Errorf("a secret that is too large: %v", err)
	}
	for i := range 5 {
		large.all[strings.Repeat("n", i+1)] = large.all["large"]
	}
	if _, err := New("s", large).GetAll(t.Context(), caller, nil); loam.CodeOf(err) != loam.ResourceExhausted {
		t.Errorf("secrets that are too large together: %v", err)
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"token": true, "db.password": true, "redis:password": true, "path/to/it": true, "A-1_b": true, strings.Repeat("n", MaxName): true,
		"": false, ".": false, "..": false, "-x": false, ".x": false, "a/../b": false, "a//b": false, "/a": false, "a/": false, "a/.b": false, "a b": false, "a\x00": false, "ä": false,
		`a\b`: false, strings.Repeat("n", MaxName+1): false,
	} {
		if validName(name) != want {
			t.Errorf("%q is %t", name, !want)
		}
	}
}
