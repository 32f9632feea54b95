// Package event turns events, jobs and what bindings read into requests: what a source delivers ends at a target by the same
// path as any request.
// To a function an event comes in CloudEvents' binary mode (attributes as headers, data as the body), to an app in the
// structured mode that Dapr uses, one JSON object.
package event

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol/cloudevents"
)

// A Subscription is what a program wants to be told of, declared or said by the program itself.
type Subscription struct {
	Name       string // of the resource; "": the program said so itself
	Component  string // the pubsub component
	Topic      string
	Group      string // consumer group
	Rules      []Rule // the first that matches says where an event goes
	Default    string // where it goes where none does; "": it is dropped
	DeadLetter string
	Bulk       *Bulk // nil: one at a time
	Raw        bool  // events are published without an envelope by others
	Metadata   map[string]string

	rules    []rule
	compiled bool // rules are those of Rules
}

// A Rule sends events to a path of the program.
type Rule struct {
	Match string // in CEL, over event
	Path  string
}

// Bulk says how many events come together.
type Bulk struct {
	Max  int
	Wait time.Duration // for so many to be there
}

// A Route is where a subscription's events go.
type Route struct {
	Target     loam.Target
	Structured bool          // one JSON object, as apps written for Dapr expect
	Path       string        // that the event is posted to
	Rules      *Subscription // compiled, where the path depends on the event: by its rules, and Default; Path is not looked at then
	Component  string        // the pubsub component, for Dapr's field pubsubname
	Timeout    time.Duration // of one delivery; 0: a minute
}

// Deliver posts one event. nil acknowledges it; an error with Drop() true means that it must not come again; any other
// error, that it should; a target's panic is one of those.
func (r Route) Deliver(ctx context.Context, e loam.Event, attempt int) (err error) {
	path := r.Path
	if r.Rules != nil {
		if path, err = r.Rules.Path(&e); err != nil {
			return err
		}
	}
	status, answer, err := post(ctx, r.Target, r.Timeout, maxVerdict, func(req *loam.Request) []byte {
		req.Path, req.ID = path, escape(e.ID)
		body := e.Data
		if r.Structured {
			body = Envelope(&e, r.Component)
			req.Header.Add("Content-Type", cloudevents.ContentType)
		} else {
			binary(req, e)
		}
		req.Header.Add("X-Request-Id", req.ID)
		if parent := e.Attributes["traceparent"]; parent != "" {
			req.Header.Add("Traceparent", escape(parent))
		}
		if attempt > 1 {
			req.Header.Add("Ce-Attempt", strconv.Itoa(attempt))
		}
		return body
	})
	if err != nil {
		return err
	}
	return verdict(status, answer, r.Structured, path)
}

const maxVerdict = 64 << 10 // bytes of an answer that are looked at

// post sends a request and reads at most so many bytes of what is answered; fill writes its head and returns its body. A
// timeout of 0 is a minute. A panic of the target is its error.
func post(ctx context.Context, to loam.Target, timeout time.Duration, most int64, fill func(req *loam.Request) []byte) (status int, answer []byte, err error) {
	if timeout == 0 {
		timeout = time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req := loam.NewRequest(ctx)
	defer req.Release()
	req.Method, req.Scheme, req.Authority = http.MethodPost, "http", "loam"
	body := fill(req)
	req.Length, req.Body = int64(len(body)), io.NopCloser(strings.NewReader(string(body)))
	defer func() {
		if p := recover(); p != nil {
			err = loam.Errorf(loam.Internal, "deliver", "the target panicked: %v\n%s", p, debug.Stack())
		}
	}()
	res, err := to.Serve(req)
	if err != nil {
		return 0, nil, err
	}
	if res.Body != nil {
		answer, err = io.ReadAll(io.LimitReader(res.Body, most))
	}
	status = res.Status
	if err := errors.Join(err, res.Close()); err != nil {
		return 0, nil, loam.Errorf(loam.Unavailable, "deliver", "the answer broke off: %w", err)
	}
	return status, answer, nil
}

// dropped is the error of an event that its target does not want again.
type dropped struct{ error }

func (dropped) Drop() bool { return true }

// verdict reads a target's answer as Dapr does: 2xx acknowledges unless the body names a
// status other than SUCCESS (DROP drops, RETRY and unknown ones do not), 404 drops.
func verdict(status int, answer []byte, structured bool, path string) error {
	switch {
	case status == http.StatusNotFound:
		return dropped{loam.Errorf(loam.NotFound, "deliver", "the target has no route %q", path)}
	case status != 0 && (status < 200 || status > 299):
		return loam.Errorf(loam.Unavailable, "deliver", "the target answered %d: %s", status, short(answer))
	case !structured:
		return nil
	}
	var body struct{ Status string }
	if json.Unmarshal(answer, &body) != nil {
		return nil // an answer that is no JSON says nothing
	}
	switch body.Status {
	case "", "SUCCESS":
		return nil
	case "DROP":
		return dropped{errors.New("deliver: the app answered DROP")}
	}
	return loam.Errorf(loam.Unavailable, "deliver", "the app answered %q", short([]byte(body.Status)))
}

func short(b []byte) string {
	const most = 200
	if len(b) > most {
		b = append(b[:most:most], "…"...)
	}
	return strings.TrimSpace(string(b))
}

// binary puts an event's attributes into headers (CloudEvents 1.0, HTTP binding, section 3.1).
func binary(req *loam.Request, e loam.Event) {
	h := &req.Header
	h.Add("Ce-Specversion", "1.0")
	h.Add("Ce-Id", escape(e.ID))
	h.Add("Ce-Source", escape(e.Source))
	h.Add("Ce-Type", escape(e.Type))
	h.Add("Ce-Time", e.Time.UTC().Format(time.RFC3339Nano))
	h.Add("Ce-Topic", escape(e.Topic))
	if e.Subject != "" {
		h.Add("Ce-Subject", escape(e.Subject))
	}
	for _, name := range slices.Sorted(maps.Keys(e.Attributes)) {
		switch {
		case name == "traceparent": // it has a header of its own
		case name == "topic" || !token(name):
		default:
			h.Add("Ce-"+name, escape(e.Attributes[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.Extra)) {
		if c := e.Extra[name]; token(name) && len(c) > 0 && c[0] != '{' && c[0] != '[' { // numbers and booleans; nothing else has a form here
			h.Add("Ce-"+name, escape(string(c)))
		}
	}
	contentType := e.ContentType
	if contentType == "" && e.Raw {
		contentType = "application/octet-stream"
	}
	if strings.ContainsFunc(contentType, func(c rune) bool { return c < ' ' || c > '~' }) {
		contentType = "application/octet-stream" // no header could hold it, and no escape is defined for it
	}
	h.Add("Content-Type", contentType)
}

// escape writes what a header cannot hold by percent signs (section 3.1.3.2).
func escape(s string) string {
	clean := func(c byte) bool { return c > ' ' && c <= '~' && c != '"' && c != '%' }
	for i := range len(s) {
		if !clean(s[i]) {
			var b strings.Builder
			for j := range len(s) {
				if clean(s[j]) {
					b.WriteByte(s[j])
				} else {
					fmt.Fprintf(&b, "%%%02X", s[j])
				}
			}
			return b.String()
		}
	}
	return s
}

// token tells whether a header may be called so.
func token(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.'
	})
}

// Envelope is an event as one JSON object, as apps written for Dapr are told of it; component is the pubsub component that
// it comes from. One that came without an envelope is its data where that is a JSON object, whatever it holds, as Dapr has
// it; else its data stands in an envelope, as bytes of a kind that nobody knows.
func Envelope(e *loam.Event, component string) []byte {
	if !e.Raw {
		return cloudevents.Encode(e, component)
	}
	if text := bytes.TrimLeft(e.Data, " \t\r\n"); len(text) > 0 && text[0] == '{' && json.Valid(text) {
		return e.Data
	}
	raw := *e
	raw.Source, raw.Type, raw.ContentType = cmp.Or(e.Source, "Dapr"), cmp.Or(e.Type, "com.dapr.event.sent"), "application/octet-stream"
	return cloudevents.Append(nil, &raw, component)
}
