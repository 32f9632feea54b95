package pubsub

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/keys"
	"github.com/loam-run/loam/protocol/cloudevents"
)

// A Publication is what a program publishes in a dialect, before it is an event.
type Publication struct {
	Topic       string
	Data        []byte
	ContentType string // of Data; "": text/plain, as Dapr has it
	// Metadata: rawPayload publishes Data without an envelope; ttlInSeconds or ttl ends the event's life;
	// cloudevent.id, .source, .type, .subject, .traceparent, .traceid and .tracestate say what the envelope does not; all of
	// it is the driver's to read as well.
	Metadata    map[string]string
	Source      string // the app; "": Dapr
	Type        string // "": com.dapr.event.sent
	TraceParent string // of the request that publishes, as W3C has it; may be empty
	TraceState  string
}

// The types of events that programs publish without saying one.
const (
	EventType     = "com.dapr.event.sent"
	BulkEventType = "com.dapr.event.sent.bulk"
)

// Event makes the event of a publication, as Dapr does: data of the content type application/cloudevents+json is an
// envelope already, of which what is missing is filled in; any other is put into one.
func (p *Publication) Event() (loam.Event, error) {
	e := loam.Event{Topic: p.Topic, Data: p.Data, ContentType: p.ContentType, Metadata: p.Metadata, Time: time.Now(), Source: p.Source, Type: p.Type}
	fail := func(err error) (loam.Event, error) {
		return e, &loam.Error{Code: loam.InvalidArgument, Op: "pubsub.Publish " + strconv.Quote(p.Topic), Err: err}
	}
	raw, err := RawPayload(p.Metadata)
	if err != nil {
		return fail(err)
	}
	if raw {
		e.Raw, e.Source, e.Type = true, "", ""
		if e.ContentType == "" {
			e.ContentType = "application/octet-stream"
		}
		return e, nil
	}
	trace, state := p.TraceParent, p.TraceState
	if cloudevents.IsEnvelope(p.ContentType) {
		given, err := cloudevents.Complete(p.Data, p.Topic)
		if err != nil {
			return fail(err)
		}
		given.Metadata = p.Metadata
		if given.Time.IsZero() {
			given.Time = e.Time
		}
		if _, has := given.Attributes["traceid"]; has {
			trace = ""
		}
		if _, has := given.Attributes["tracestate"]; has {
			state = ""
		}
		e = given
	} else {
		for name, value := range p.Metadata {
			if len(name) < 11 || !strings.EqualFold(name[:11], "cloudevent.") {
				continue
			}
			switch strings.ToLower(name[11:]) {
			case "id":
				e.ID = value
			case "source":
				e.Source = value
			case "type":
				e.Type = value
			case "subject":
				e.Subject = value
			case "tracestate":
				state = value
			case "traceid":
				if keys.Setting(p.Metadata, "cloudevent.traceparent") == "" {
					trace = value
				}
			case "traceparent":
				if value != "" {
					trace = value
				}
			}
		}
		if e.ContentType == "" {
			e.ContentType = "text/plain"
		}
	}
	if e.Source == "" {
		e.Source = "Dapr"
	}
	if e.Type == "" {
		e.Type = EventType
	}
	if trace != "" {
		set(&e, "traceid", trace) // what traceparent was called before
		set(&e, "traceparent", trace)
	}
	if state != "" {
		set(&e, "tracestate", state)
	}
	ttl, err := TTL(p.Metadata)
	if err != nil {
		return fail(err)
	}
	if ttl > 0 {
		set(&e, expiration, time.Now().Add(ttl).UTC().Format(time.RFC3339))
	}
	return e, nil
}

func set(e *loam.Event, name, value string) {
	if e.Attributes == nil {
		e.Attributes = map[string]string{}
	}
	e.Attributes[name] = value
}

// RawPayload reads the metadata rawPayload, of publications and of subscriptions.
func RawPayload(metadata map[string]string) (bool, error) {
	text := keys.Setting(metadata, "rawPayload")
	if text == "" {
		return false, nil
	}
	raw, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("rawPayload value must be a valid boolean: actual is '%s'", text)
	}
	return raw, nil
}

// TTL reads the metadata ttl or ttlInSeconds, seconds or a duration such as 1m; 0: there is none.
func TTL(metadata map[string]string) (time.Duration, error) {
	text := keys.Setting(metadata, "ttl")
	if text == "" {
		text = keys.Setting(metadata, "ttlInSeconds")
	}
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("ttl value must be a valid integer: actual is '%s'", text)
		}
		d = 1<<63 - 1
		if n < int64(d/time.Second) {
			d = time.Duration(n) * time.Second
		}
	}
	if d <= 0 {
		return 0, fmt.Errorf("ttl value must be higher than zero: actual is '%s'", text)
	}
	return d, nil
}

// expiration is the attribute that ends an event's life, as Dapr writes it, where a driver does not do that itself.
const expiration = "expiration"

// expired tells whether an event's life has ended.
func expired(e *loam.Event, now time.Time) bool {
	text := e.Attributes[expiration]
	if text == "" {
		return false
	}
	end, err := time.Parse(time.RFC3339, text)
	return err == nil && now.After(end)
}
