package event

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol/cloudevents"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var created = loam.Event{
	ID: "e1", Source: "orders", Type: "OrderCreated", Subject: "order 7 \"€\" 100%", Time: time.Date(2026, 11, 21, 7, 0, 0, 5, time.FixedZone("", 3600)),
	ContentType: "application/json", Topic: "orders", Attributes: map[string]string{"traceparent": "00-ab-cd-01", "zone": "eu west", "attempted": "no"},
	Data: []byte(`{"id": 7, "price": 12345678901234567890}`),
}

// got is what a target saw of one delivery.
type got struct {
	method, path, id, body string
	header                 loam.Header
	length                 int64
}

func record(to *got, status int, answer string) loam.Target {
	return loam.TargetFunc(func(r *loam.Request) (*loam.Response, error) {
		b, err := io.ReadAll(r.Body)
		*to = got{r.Method, r.Path, r.ID, string(b), append(loam.Header(nil), r.Header...), r.Length}
		return loam.NewResponse(status, "application/json", []byte(answer)), err
	})
}

func TestBinary(t *testing.T) {
	var g got
	r := Route{Target: record(&g, 200, ""), Path: "/on/order"}
	if err := r.Deliver(t.Context(), created, 3); err != nil {
		t.Fatal(err)
	}
	want := got{"POST", "/on/order", "e1", string(created.Data), loam.Header{
		{Name: "Ce-Specversion", Value: "1.0"}, {Name: "Ce-Id", Value: "e1"}, {Name: "Ce-Source", Value: "orders"}, {Name: "Ce-Type", Value: "OrderCreated"},
		{Name: "Ce-Time", Value: "2026-11-21T06:00:00.000000005Z"}, {Name: "Ce-Topic", Value: "orders"},
		{Name: "Ce-Subject", Value: "order%207%20%22%E2%82%AC%22%20100%25"}, {Name: "Ce-attempted", Value: "no"}, {Name: "Ce-zone", Value: "eu%20west"},
		{Name: "Content-Type", Value: "application/json"}, {Name: "X-Request-Id", Value: "e1"}, {Name: "Traceparent", Value: "00-ab-cd-01"}, {Name: "Ce-Attempt", Value: "3"},
	}, int64(len(created.Data))}
	if diff := cmp.Diff(want, g, cmp.AllowUnexported(got{})); diff != "" {
		t.Error(diff)
	}
}

func TestStructured(t *testing.T) {
	for name, c := range map[string]struct {
		contentType string
		data        string
		want        string // how data stands in the object
	}{
		"json":         {"application/json; charset=utf-8", `{"n": 12345678901234567890}`, `"data":{"n": 12345678901234567890}`},
		"json suffix":  {"application/vnd.x+json", `[1]`, `"data":[1]`},
		"broken json":  {"application/json", `{"n":`, `"data":"{\"n\":"`},
		"text":         {"text/plain", `hi`, `"data":"hi"`},
		"bytes":        {"application/octet-stream", "\xff\x00", `"data_base64":"/wA="`},
		"none":         {"", "", `"data":""`},
		"json as text": {"text/plain", `{"a":1}`, `"data":"{\"a\":1}"`},
	} {
		var g got
		e := loam.Event{ID: "e", Source: "s", Type: "t", Topic: "orders", ContentType: c.contentType, Data: []byte(c.data),
			Attributes: map[string]string{"traceparent": "00-1", "id": "forged", "data": "forged", "data_base64": "forged"}}
		r := Route{Target: record(&g, 200, ""), Path: "/o", Structured: true, Component: "bus"}
		if err := r.Deliver(t.Context(), e, 1); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(g.body, c.want) || strings.Contains(g.body, "forged") || g.header.Get("Content-Type") != "application/cloudevents+json" || g.header.Has("Ce-Attempt") {
			t.Errorf("%s: %s %v", name, g.body, g.header)
		}
		var m map[string]any
		if err := json.Unmarshal([]byte(g.body), &m); err != nil {
			t.Fatal(err)
		}
		for field, want := range map[string]string{"specversion": "1.0", "id": "e", "source": "s", "type": "t", "topic": "orders", "pubsubname": "bus", "datacontenttype": c.contentType, "traceparent": "00-1"} {
			if m[field] != want {
				t.Errorf("%s: %s is %v", name, field, m[field])
			}
		}
	}
}

func TestVerdict(t *testing.T) {
	const ack, retry, drop = "ack", "retry", "drop"
	for _, c := range []struct {
		status        int
		answer        string
		fromFn, fromA string // a function's body says nothing, an app's does
	}{
		{0, "", ack, ack}, {200, "", ack, ack}, {204, "", ack, ack}, {299, "no json", ack, ack},
		{200, `{}`, ack, ack}, {200, `{"status":"SUCCESS"}`, ack, ack}, {200, `{"status":7}`, ack, ack}, {200, `[]`, ack, ack},
		{200, `{"status":"RETRY"}`, ack, retry}, {200, `{"status":"DROP"}`, ack, drop}, {200, `{"status":"WHAT"}`, ack, retry},
		{404, "", drop, drop}, {301, "", retry, retry}, {400, `{"status":"DROP"}`, retry, retry}, {500, "", retry, retry}, {503, strings.Repeat("x", 1000), retry, retry},
	} {
		for structured, want := range map[bool]string{false: c.fromFn, true: c.fromA} {
			var g got
			err := Route{Target: record(&g, c.status, c.answer), Path: "/o", Structured: structured}.Deliver(t.Context(), created, 1)
			is := retry
			var d interface{ Drop() bool }
			switch {
			case err == nil:
				is = ack
			case errors.As(err, &d) && d.Drop():
				is = drop
			}
			if is != want {
				t.Errorf("%d %s (structured: %v): %s, want %s: %v", c.status, short([]byte(c.answer)), structured, is, want, err)
			}
			if err != nil && len(err.Error()) > 400 {
				t.Errorf("%d bytes of error", len(err.Error()))
			}
		}
	}
}

func TestFailures(t *testing.T) {
	deliver := func(f loam.TargetFunc) error {
		return Route{Target: f, Path: "/o"}.Deliver(t.Context(), created, 1)
	}
	if err := deliver(func(*loam.Request) (*loam.Response, error) { return nil, io.EOF }); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if err := deliver(func(*loam.Request) (*loam.Response, error) { panic("boom") }); loam.CodeOf(err) != loam.Internal || !strings.Contains(err.Error(), "boom") {
		t.Errorf("a panic must be this delivery's failure only: %v", err)
	}
	closed := 0
	broken := func(*loam.Request) (*loam.Response, error) {
		return &loam.Response{Status: 200, Length: -1, Body: closer{io.MultiReader(strings.NewReader("x"), failing{}), &closed}}, nil
	}
	if err := deliver(broken); loam.CodeOf(err) != loam.Unavailable || closed != 1 {
		t.Errorf("%v, closed %d times", err, closed)
	}
}

type closer struct {
	io.Reader
	closed *int
}

func (c closer) Close() error { *c.closed++; return nil }

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("cut") }

func TestDeliveryIsBounded(t *testing.T) {
	for given, want := range map[time.Duration]time.Duration{0: time.Minute, time.Second: time.Second} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			err := Route{Timeout: given, Target: loam.TargetFunc(func(r *loam.Request) (*loam.Response, error) {
				<-r.Context().Done()
				return nil, r.Context().Err()
			})}.Deliver(context.Background(), created, 1)
			if loam.CodeOf(err) != loam.DeadlineExceeded || time.Since(start) != want {
				t.Errorf("%v after %s", err, time.Since(start))
			}
		})
	}
}

// FuzzDeliver: whatever a publisher puts into an event, a function can read its attributes back, no header can be
// forged, and an app gets one JSON object with the same data.
func FuzzDeliver(f *testing.F) {
	f.Add("id", "subject", "application/json", []byte(`{"a":1}`))
	f.Add("a\r\nX: y", "100%\n", "text/plain\r\nX: y", []byte("\xff"))
	f.Add("\x80", "€", "application/json", []byte(`"\ud800"`))
	f.Add("", "", "a/b+json", []byte("\"\xff\""))
	f.Fuzz(func(t *testing.T, id, subject, contentType string, data []byte) {
		e := loam.Event{ID: id, Source: subject, Type: id, Topic: subject, Subject: subject, ContentType: contentType, Data: data, Attributes: map[string]string{"x": id, "traceparent": subject}}
		var g got
		if err := (Route{Target: record(&g, 200, ""), Path: "/"}).Deliver(t.Context(), e, 1); err != nil {
			t.Fatal(err)
		}
		if g.body != string(data) {
			t.Fatalf("%q became %q", data, g.body)
		}
		for _, field := range g.header {
			if strings.ContainsFunc(field.Value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
				t.Fatalf("%s: %q", field.Name, field.Value)
			}
		}
		for name, want := range map[string]string{"ce-id": id, "ce-source": subject, "ce-subject": subject, "ce-x": id} {
			if is, err := url.PathUnescape(g.header.Get(name)); err != nil || is != want {
				t.Fatalf("%s: %q, want %q", name, is, want)
			}
		}
		if err := (Route{Target: record(&g, 200, ""), Path: "/", Structured: true, Component: "bus"}).Deliver(t.Context(), e, 1); err != nil {
			t.Fatal(err)
		}
		var m struct {
			ID     string
			Data   any
			Base64 *string `json:"data_base64"`
		}
		if err := json.Unmarshal([]byte(g.body), &m); err != nil {
			t.Fatalf("%s: %v", g.body, err)
		}
		if utf8.ValidString(id) && m.ID != id {
			t.Fatalf("id %q became %q", id, m.ID)
		}
		switch s, text := m.Data.(string); {
		case m.Base64 != nil:
			if b, err := base64.StdEncoding.DecodeString(*m.Base64); err != nil || string(b) != string(data) {
				t.Fatalf("%q became %q", data, b)
			}
		case cloudevents.IsJSON(contentType) && json.Valid(data):
			var want any
			if err := json.Unmarshal(data, &want); err == nil && !cmp.Equal(want, m.Data) {
				t.Fatalf("%s became %v", data, m.Data)
			}
		case !text || s != string(data):
			t.Fatalf("%q became %v", data, m.Data)
		}
	})
}
