// Package secrettest is what every driver of the secret capability must do. A component's own test calls Run.
package secrettest

import (
	"strings"
	"sync"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/secret"
)

// Run tests the drivers that open returns: each call one with those secrets and no others. put changes one while the
// driver is open.
func Run(t *testing.T, open func(t *testing.T, secrets map[string]string) (d secret.Driver, put func(name, value string))) {
	want := func(t *testing.T, d secret.Driver, name, value string) {
		t.Helper()
		if got, err := d.Get(t.Context(), name); err != nil || string(got) != value {
			t.Errorf("%s: %q, %v, want %q", name, got, err, value)
		}
	}
	t.Run("what is there", func(t *testing.T) {
		large := strings.Repeat("0123456789abcdef", secret.MaxValue>>4)
		d, _ := open(t, map[string]string{"token": "s3cret", "lines": "a\nb", "DB_PASSWORD": "ünïcode", "large": large})
		want(t, d, "token", "s3cret")
		want(t, d, "lines", "a\nb")
		want(t, d, "DB_PASSWORD", "ünïcode")
		want(t, d, "large", large)
	})
	t.Run("what is not there", func(t *testing.T) {
		d, _ := open(t, map[string]string{"token": "s3cret"})
		for _, name := range []string{"toke", "token1", "TOKEN", "PATH", "HOME"} {
			if v, err := d.Get(t.Context(), name); loam.CodeOf(err) != loam.NotFound || v != nil {
				t.Errorf("%s: %q, %v, want not found", name, v, err)
			}
		}
	})
	t.Run("what changes", func(t *testing.T) {
		d, put := open(t, map[string]string{"token": "old"})
		want(t, d, "token", "old")
		put("token", "new")
		want(t, d, "token", "new")
	})
	t.Run("its bytes are the caller's", func(t *testing.T) {
		d, _ := open(t, map[string]string{"token": "s3cret"})
		if b, err := d.Get(t.Context(), "token"); err == nil {
			clear(b)
		}
		want(t, d, "token", "s3cret")
	})
	t.Run("many at once", func(t *testing.T) {
		d, put := open(t, map[string]string{"token": "s3cret", "other": "1"})
		var reading sync.WaitGroup
		for range 8 {
			reading.Go(func() {
				for range 50 {
					want(t, d, "token", "s3cret")
				}
			})
		}
		for range 20 {
			put("other", "2")
		}
		reading.Wait()
	})
}
