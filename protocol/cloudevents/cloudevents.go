// Package cloudevents writes events as JSON and reads them (CloudEvents 1.0, JSON format 1.0), with the members that Dapr
// adds: topic, pubsubname, traceid. Drivers whose broker carries bytes keep events by it, so that what Dapr published there
// is read, and the other way round; apps are told of events by it.
package cloudevents

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/loam-run/loam"
)

// ContentType is that of an event in JSON.
const ContentType = "application/cloudevents+json"

// MaxMembers is how many members an envelope has at most.
const MaxMembers = 128

// Encode is the event as one JSON object; pubsub is the component that it is, or was, published by. An event that is Raw
// is its data.
func Encode(e *loam.Event, pubsub string) []byte {
	if e.Raw {
		return e.Data
	}
	return Append(make([]byte, 0, 256+len(e.Data)), e, pubsub)
}

// Append writes what Encode returns behind b; of an event that is Raw too it makes an envelope.
func Append(b []byte, e *loam.Event, pubsub string) []byte {
	b = append(b, '{')
	b = member(b, "specversion", "1.0")
	b = member(b, "id", e.ID)
	b = member(b, "source", e.Source)
	b = member(b, "type", e.Type)
	if e.Subject != "" {
		b = member(b, "subject", e.Subject)
	}
	if !e.Time.IsZero() {
		b = append(appendString(b, "time"), `:"`...)
		b = append(e.Time.UTC().AppendFormat(b, time.RFC3339Nano), `",`...)
	}
	b = member(b, "datacontenttype", e.ContentType)
	topic := e.Attributes["topic"] // of an event that was moved: where it was published first
	if topic == "" {
		topic = e.Topic
	}
	b = member(b, "topic", topic)
	b = member(b, "pubsubname", pubsub)
	if len(e.Attributes) > 0 {
		for _, name := range slices.Sorted(maps.Keys(e.Attributes)) {
			if !own(name) {
				b = member(b, name, e.Attributes[name])
			}
		}
	}
	if len(e.Extra) > 0 {
		for _, name := range slices.Sorted(maps.Keys(e.Extra)) {
			if value := e.Extra[name]; !own(name) && json.Valid(value) {
				b = append(appendString(b, name), ':')
				b = append(append(b, value...), ',')
			}
		}
	}
	switch {
	case e.Data == nil:
		b = b[:len(b)-1] // the comma: an event may be without data
	case isBinary(e.ContentType):
		b = appendBase64(b, e.Data)
	case IsJSON(e.ContentType) && json.Valid(e.Data):
		b = append(append(b, `"data":`...), e.Data...)
	case utf8.Valid(e.Data):
		b = appendString(append(b, `"data":`...), string(e.Data))
	default:
		b = appendBase64(b, e.Data)
	}
	return append(b, '}')
}

func appendBase64(b, data []byte) []byte {
	b = append(b, `"data_base64":"`...)
	return append(base64.StdEncoding.AppendEncode(b, data), '"')
}

func member(b []byte, name, value string) []byte {
	b = append(appendString(b, name), ':')
	return append(appendString(b, value), ',')
}

// appendString writes a string as JSON does. Most need no escape.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			text, err := json.Marshal(s)
			if err != nil {
				panic("cloudevents: " + err.Error()) // there is no string that cannot be written
			}
			return append(b, text...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// own tells whether an envelope's member is a field of loam.Event, or written by who delivers.
func own(name string) bool {
	switch name {
	case "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data", "data_base64", "topic", "pubsubname":
		return true
	}
	return false
}

// ErrEnvelope is the error of bytes that are no event in JSON.
var ErrEnvelope = errors.New("not a CloudEvents 1.0 object")

// Decode reads an event. Members that are missing leave their field zero, but for datacontenttype, which is JSON then; what
// topic and pubsubname say is left to who knows better, unless topic is not the one given: then it is kept as an attribute.
// The event refers to b.
func Decode(b []byte, topic string) (loam.Event, error) {
	e := loam.Event{Topic: topic}
	members, err := object(b)
	if err != nil {
		return e, err
	}
	if _, ok := text(members["specversion"]); !ok {
		return e, fmt.Errorf("%w: it has no specversion", ErrEnvelope)
	}
	return e, fill(&e, members)
}

// Complete reads an envelope that a publisher wrote, as Dapr does: whatever JSON object it is, the members that are missing
// are for others to fill in.
func Complete(b []byte, topic string) (loam.Event, error) {
	e := loam.Event{Topic: topic}
	members, err := object(b)
	if err != nil {
		return e, err
	}
	delete(members, "topic")
	return e, fill(&e, members)
}

// Message is a broker's message as an event: decoded, or where raw is wanted or it is no envelope, as it is.
func Message(b []byte, topic string, raw bool) loam.Event {
	if !raw {
		if e, err := Decode(b, topic); err == nil {
			return e
		}
	}
	return loam.Event{Topic: topic, Raw: true, Data: b}
}

func object(b []byte) (map[string]json.RawMessage, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEnvelope, err)
	}
	if members == nil || len(members) > MaxMembers {
		return nil, fmt.Errorf("%w: null, or more than %d members", ErrEnvelope, MaxMembers)
	}
	return members, nil
}

// fill puts an envelope's members where they belong.
func fill(e *loam.Event, members map[string]json.RawMessage) error {
	e.ContentType = "application/json"
	for name, value := range members {
		s, isText := text(value)
		switch name {
		case "specversion", "pubsubname", "data", "data_base64":
		case "id":
			e.ID = scalar(s, isText, value)
		case "source":
			e.Source = scalar(s, isText, value)
		case "type":
			e.Type = scalar(s, isText, value)
		case "subject":
			e.Subject = scalar(s, isText, value)
		case "time":
			if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
				e.Time = t
			}
		case "datacontenttype":
			if isText && s != "" {
				e.ContentType = s
			}
		case "topic":
			if isText && s != "" && s != e.Topic {
				set(&e.Attributes, name, s)
			}
		default:
			switch {
			case isText:
				set(&e.Attributes, name, s)
			case string(value) != "null":
				set(&e.Extra, name, value)
			}
		}
	}
	if encoded, ok := text(members["data_base64"]); ok {
		data, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return fmt.Errorf("%w: data_base64: %w", ErrEnvelope, err)
		}
		e.Data = data
		return nil
	}
	data, there := members["data"]
	if !there || string(data) == "null" && !IsJSON(e.ContentType) {
		return nil
	}
	if s, ok := text(data); ok && !IsJSON(e.ContentType) {
		e.Data = []byte(s)
		return nil
	}
	e.Data = data
	return nil
}

func set[T any](m *map[string]T, name string, value T) {
	if *m == nil {
		*m = map[string]T{}
	}
	(*m)[name] = value
}

// text is what a JSON string says.
func text(value json.RawMessage) (s string, ok bool) {
	if len(value) < 2 || value[0] != '"' {
		return "", false
	}
	if in := value[1 : len(value)-1]; !slices.ContainsFunc(in, func(c byte) bool { return c == '\\' || c >= utf8.RuneSelf }) {
		return string(in), true
	}
	return s, json.Unmarshal(value, &s) == nil
}

// scalar is a member that should be a string.
func scalar(s string, isText bool, value json.RawMessage) string {
	if !isText && string(value) != "null" {
		return string(value)
	}
	return s
}

// IsEnvelope tells whether a content type says that the content is an event in JSON.
func IsEnvelope(contentType string) bool { return mediaType(contentType) == ContentType }

// IsJSON tells whether a content type is JSON's.
func IsJSON(contentType string) bool {
	t := mediaType(contentType)
	return t == "application/json" || strings.HasSuffix(t, "+json")
}

// isBinary tells whether data of a content type is never text.
func isBinary(contentType string) bool {
	switch mediaType(contentType) {
	case "application/octet-stream", "application/cloudevents+protobuf":
		return true
	}
	return false
}

// mediaType is a content type without its parameters; "" where it is none.
func mediaType(contentType string) string {
	switch contentType {
	case "application/json", "application/octet-stream", "text/plain", ContentType:
		return contentType
	}
	t, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return ""
	}
	return t
}
