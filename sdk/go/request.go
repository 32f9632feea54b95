package loam

import (
	"context"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam/sdk/go/internal/api"
)

// A Field is one header line.
type Field struct{ Name, Value string }

// A Header is the ordered list of a message's fields. Names compare without regard to case. The zero value is ready.
type Header []Field

// Get returns the first value of name, "" where there is none.
func (h Header) Get(name string) string {
	for i := range h {
		if strings.EqualFold(h[i].Name, name) {
			return h[i].Value
		}
	}
	return ""
}

// Values returns every value of name.
func (h Header) Values(name string) []string {
	var v []string
	for i := range h {
		if strings.EqualFold(h[i].Name, name) {
			v = append(v, h[i].Value)
		}
	}
	return v
}

// Add appends a field.
func (h *Header) Add(name, value string) { *h = append(*h, Field{name, value}) }

// Set replaces every field of that name by one.
func (h *Header) Set(name, value string) {
	h.Del(name)
	h.Add(name, value)
}

// Del removes every field of that name.
func (h *Header) Del(name string) {
	kept := (*h)[:0]
	for _, f := range *h {
		if !strings.EqualFold(f.Name, name) {
			kept = append(kept, f)
		}
	}
	*h = kept
}

// A Request is what a handler answers. It is the handler's until that returns.
type Request struct {
	Method   string
	Host     string // as the Host header names it
	Path     string // as sent, with its escapes
	RawQuery string // without the question mark
	Header   Header
	ID       string    // names this request in logs
	Deadline time.Time // when the answer is worth nothing any more; zero: never

	length int64
	query  url.Values
	names  []string // of the pattern's wildcards, beside values
	values []string
	body   []byte
	read   bool
	err    error // of reading the body
}

func newRequest(head *api.RequestHead) *Request {
	r := &Request{
		Method: head.Method, Host: head.Authority, Path: head.Path, RawQuery: head.Query, ID: head.Id,
		Header: headerOf(head.Headers), length: head.Length,
	}
	if head.DeadlineUnixMs != 0 {
		r.Deadline = time.UnixMilli(head.DeadlineUnixMs)
	}
	return r
}

// Context carries nothing: Loam itself ends a function whose deadline has passed. It is there for what asks for one.
func (r *Request) Context() context.Context { return context.Background() }

// Query is the parsed query; what is malformed in it is left out.
func (r *Request) Query() url.Values {
	if r.query == nil {
		r.query, _ = url.ParseQuery(r.RawQuery)
	}
	return r.query
}

// PathValue is what the wildcard called name matched, unescaped; "" where the pattern has none of that name.
func (r *Request) PathValue(name string) string {
	for i, n := range r.names {
		if n == name {
			return r.values[i]
		}
	}
	return ""
}

// Body reads the whole body, once; later calls return the same bytes.
func (r *Request) Body() ([]byte, error) {
	if r.read {
		return r.body, r.err
	}
	r.read = true
	if r.length == 0 {
		return nil, nil
	}
	b := make([]byte, 0, bodySize(r.length))
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n := hostRequestBody(b[len(b):cap(b)])
		if n < 0 {
			r.err = Errorf(InvalidArgument, "the request's body could not be read to its end, or is too large")
			return nil, r.err
		}
		if n == 0 {
			r.body = b
			return b, nil
		}
		b = b[:len(b)+n]
	}
}

// bodySize is the buffer to begin with: one byte more than announced, so that the end is seen without growing.
func bodySize(length int64) int64 {
	if length < 0 {
		return 4 << 10
	}
	return min(length+1, 1<<20)
}

// JSON decodes the body into v. What cannot be decoded is InvalidArgument: returned, it answers 400.
func (r *Request) JSON(v any) error {
	b, err := r.Body()
	if err != nil {
		return err
	}
	return decodeJSON("the request's body", b, v)
}

func decodeJSON(what string, b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return Errorf(InvalidArgument, "%s is not the JSON expected: %w", what, err)
	}
	return nil
}

// An Event is one message of a topic, with the attributes of CloudEvents 1.0.
type Event struct {
	ID          string // unique within Source; the same for every delivery of the event
	Source      string // who published it
	Type        string // what kind of thing happened
	Subject     string // what it happened to; may be empty
	Topic       string
	Time        time.Time
	ContentType string // of Data
	Data        []byte
	Attributes  map[string]string // extensions; nil where there are none
}

// JSON decodes the event's data into v.
func (e Event) JSON(v any) error { return decodeJSON("event "+strconv.Quote(e.ID), e.Data, v) }

// Event reads the request as a CloudEvent in binary mode; it is false where the request is none.
func (r *Request) Event() (Event, bool) {
	if r.Header.Get("ce-specversion") == "" {
		return Event{}, false
	}
	data, err := r.Body()
	if err != nil {
		return Event{}, false
	}
	e := Event{ContentType: r.Header.Get("Content-Type"), Data: data}
	for _, f := range r.Header {
		if len(f.Name) < 4 || !strings.EqualFold(f.Name[:3], "ce-") {
			continue
		}
		// What a header cannot hold comes by percent signs (CloudEvents 1.0, HTTP binding, section 3.1.3.2).
		value, err := url.PathUnescape(f.Value)
		if err != nil {
			value = f.Value
		}
		switch name := strings.ToLower(f.Name[3:]); name {
		case "specversion":
		case "id":
			e.ID = value
		case "source":
			e.Source = value
		case "type":
			e.Type = value
		case "subject":
			e.Subject = value
		case "topic":
			e.Topic = value
		case "time":
			e.Time, _ = time.Parse(time.RFC3339Nano, value)
		default:
			if e.Attributes == nil {
				e.Attributes = make(map[string]string)
			}
			e.Attributes[name] = value
		}
	}
	return e, true
}
