package cron

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/binding"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// times runs a schedule for a while and tells when it was due, in seconds from the start.
func times(t *testing.T, schedule string, forHow, took time.Duration) (due []float64) {
	t.Helper()
	d, err := Open(t.Context(), "clock", Config{Schedule: schedule})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), forHow)
	defer cancel()
	start := time.Now()
	err = binding.New("clock", d).Read(ctx, func(_ context.Context, e binding.Event) ([]byte, error) {
		due = append(due, time.Since(start).Seconds())
		if len(e.Data) > 0 || e.Metadata["timeZone"] == "" || e.Metadata["readTimeUTC"] == "" {
			t.Errorf("%+v", e)
		}
		<-time.After(took)
		return nil, errors.New("which changes nothing")
	})
	if err != nil {
		t.Error(err)
	}
	return due
}

func TestRead(t *testing.T) {
	for _, c := range []struct {
		schedule     string
		forHow, took time.Duration
		want         []float64
	}{
		{"@every 10s", 35 * time.Second, 0, []float64{10, 20, 30}},
		{"*/15 * * * * *", 50 * time.Second, 0, []float64{15, 30, 45}}, // the time of a bubble begins at midnight
		{"* * * * *", 150 * time.Second, time.Second, []float64{60, 120}},
		{"@every 10s", 65 * time.Second, 15 * time.Second, []float64{10, 30, 50}}, // 20, 40 and 60 pass meanwhile
		{"@hourly", 2*time.Hour + time.Second, 0, []float64{3600, 7200}},
	} {
		synctest.Test(t, func(t *testing.T) {
			got := times(t, c.schedule, c.forHow, c.took)
			if len(got) != len(c.want) {
				t.Fatalf("%s: %v, want %v", c.schedule, got, c.want)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Errorf("%s: %v, want %v", c.schedule, got, c.want)
				}
			}
		})
	}
}

func TestCloseEndsRead(t *testing.T) {
	d, err := Open(t.Context(), "clock", Config{Schedule: "@yearly"})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		ended <- d.(binding.Input).Read(t.Context(), func(context.Context, binding.Event) ([]byte, error) { return nil, nil })
	}()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestRefuses(t *testing.T) {
	f := Factories()[0]
	for _, schedule := range []string{"", "every day", "* * *", "0 0 0 30 2 *"} {
		metadata := map[string]string{"schedule": schedule}
		checked := f.Check(metadata)
		_, err := f.Open(t.Context(), "clock", metadata)
		if loam.CodeOf(err) != loam.InvalidArgument || schedule != "0 0 0 30 2 *" && checked == nil {
			t.Errorf("%q: %v, %v", schedule, checked, err)
		}
	}
	d, err := f.Open(t.Context(), "clock", map[string]string{"schedule": "@daily"})
	if err != nil {
		t.Fatal(err)
	}
	caller := &loam.Caller{Grants: []loam.Grant{{Capability: "*", Component: "*"}}}
	b := binding.New("clock", d.(binding.Driver))
	if _, err := b.Invoke(t.Context(), caller, binding.Request{Operation: "create"}); loam.CodeOf(err) != loam.Unimplemented {
		t.Errorf("invoked: %v", err)
	}
	if b.Output() || !b.Input() || b.Operations() != nil {
		t.Errorf("%t %t %v", b.Output(), b.Input(), b.Operations())
	}
}
