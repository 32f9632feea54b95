package event

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/loam-run/loam"
)

func TestInput(t *testing.T) {
	var g got
	in := Input{Target: record(&g, 200, "taken"), Path: "/reports"}
	answer, err := in.Read(t.Context(), []byte("x=1"), map[string]string{
		"readTimeUTC": "2026-11-21 07:00:00 +0000 UTC", "Content-Length": "9", "content-type": "forged", "x-request-id": "forged",
		"topic": "50% €\r\nx: y", "a name": "dropped", "traceparent": "00-ab",
	}, "text/plain")
	if err != nil || string(answer) != "taken" {
		t.Fatalf("%q %v", answer, err)
	}
	if len(g.id) < 16 || g.header.Get("x-request-id") != g.id {
		t.Errorf("id %q, header %v", g.id, g.header)
	}
	g.header.Del("x-request-id")
	want := got{"POST", "/reports", g.id, "x=1", loam.Header{
		{Name: "readTimeUTC", Value: "2026-11-21 07:00:00 +0000 UTC"}, {Name: "topic", Value: "50%25 %E2%82%AC%0D%0Ax: y"},
		{Name: "traceparent", Value: "00-ab"}, {Name: "Content-Type", Value: "text/plain"},
	}, 3}
	if diff := cmp.Diff(want, g, cmp.AllowUnexported(got{})); diff != "" {
		t.Error(diff)
	}
	for status, answer := range map[int]string{404: "", 500: "no", 302: ""} {
		in.Target = record(&g, status, answer)
		if _, err := in.Read(t.Context(), nil, nil, ""); loam.CodeOf(err) != loam.Unavailable {
			t.Errorf("%d: %v", status, err)
		}
	}
	in.Target = loam.TargetFunc(func(*loam.Request) (*loam.Response, error) {
		return &loam.Response{Status: 200, Length: -1, Body: io.NopCloser(io.LimitReader(endless{}, maxAnswer+2))}, nil
	})
	if answer, err := in.Read(t.Context(), nil, nil, ""); loam.CodeOf(err) != loam.ResourceExhausted || answer != nil {
		t.Errorf("%d bytes, %v", len(answer), err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestJobs(t *testing.T) {
	var g got
	for _, c := range []struct {
		status        int
		contentType   string
		want          string // of the content type
		failed, again bool
	}{
		{204, "", "application/octet-stream", false, false},
		{200, "application/json", "application/json", false, false},
		{200, "a\r\nx: y", "application/octet-stream", false, false},
		{404, "", "application/octet-stream", true, false},
		{500, "", "application/octet-stream", true, true},
	} {
		err := Jobs{Target: record(&g, c.status, "why")}.Run(t.Context(), "a/b c?%", c.contentType, []byte("data"))
		var d interface{ Drop() bool }
		if (err != nil) != c.failed || c.failed && c.again == (errors.As(err, &d) && d.Drop()) {
			t.Errorf("%d: %v", c.status, err)
		}
		if g.method != "POST" || g.path != "/job/a/b%20c%3F%25" || g.body != "data" || g.header.Get("content-type") != c.want || len(g.header) != 2 {
			t.Errorf("%+v", g)
		}
	}
}

// FuzzInput: whatever a binding reads, no header can be forged and the data come as they are.
func FuzzInput(f *testing.F) {
	f.Add("name", "value", "text/plain", []byte("x"))
	f.Add("a\r\nb", "1\r\nx: y\x00", "text/plain\r\nX: y", []byte("\xff"))
	f.Add("Transfer-Encoding", "chunked", "", []byte(nil))
	f.Fuzz(func(t *testing.T, name, value, contentType string, data []byte) {
		var g got
		if _, err := (Input{Target: record(&g, 200, ""), Path: "/in"}).Read(t.Context(), data, map[string]string{name: value}, contentType); err != nil {
			t.Fatal(err)
		}
		if g.body != string(data) || len(g.header) > 3 {
			t.Fatalf("%+v", g)
		}
		for _, h := range g.header {
			if !token(h.Name) || strings.ContainsFunc(h.Value, func(c rune) bool { return c < ' ' || c > '~' }) || strings.EqualFold(h.Name, "transfer-encoding") {
				t.Fatalf("%q: %q", h.Name, h.Value)
			}
		}
	})
}
