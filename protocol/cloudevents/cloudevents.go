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
	versioned, err := fill(&e, b, topic)
	if err == nil && !versioned {
		err = fmt.Errorf("%w: it has no specversion", ErrEnvelope)
	}
	return e, err
}

// Complete reads an envelope that a publisher wrote, as Dapr does: whatever JSON object it is, the members that are missing
// are for others to fill in. The event refers to b.
func Complete(b []byte, topic string) (loam.Event, error) {
	e := loam.Event{Topic: topic}
	_, err := fill(&e, b, "")
	return e, err
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

// fill puts an envelope's members where they belong, and tells whether it says a version. A topic that is not the one given
// is kept; given none, none is.
func fill(e *loam.Event, b []byte, topic string) (versioned bool, err error) {
	if !json.Valid(b) {
		return false, fmt.Errorf("%w: it is no JSON", ErrEnvelope)
	}
	whole := string(b) // what strings are parts of
	at := space(b, 0)
	if b[at] != '{' {
		return false, fmt.Errorf("%w: it is no JSON object", ErrEnvelope)
	}
	e.ContentType = "application/json"
	var data []byte
	var encoded string
	hasData, hasEncoded := false, false
	for n := 0; ; n++ {
		if at = space(b, at+1); b[at] == '}' {
			break
		}
		if n == MaxMembers {
			return false, fmt.Errorf("%w: more than %d members", ErrEnvelope, MaxMembers)
		}
		begin := at
		at = skip(b, at)
		name, _ := text(whole[begin:at])
		at = space(b, at) // the colon
		begin = space(b, at+1)
		end := skip(b, begin)
		value := whole[begin:end]
		s, isText := text(value)
		if !isText && value != "null" {
			s = value // of a member that should be a string
		}
		switch name {
		case "specversion":
			versioned = isText
		case "pubsubname":
		case "id":
			e.ID = s
		case "source":
			e.Source = s
		case "type":
			e.Type = s
		case "subject":
			e.Subject = s
		case "time":
			if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
				e.Time = t
			}
		case "datacontenttype":
			if isText && s != "" {
				e.ContentType = s
			}
		case "topic":
			if isText && s != "" && s != topic && topic != "" {
				set(&e.Attributes, name, s)
			}
		case "data":
			data, hasData = b[begin:end:end], true
		case "data_base64":
			encoded, hasEncoded = s, isText
		default:
			switch {
			case isText:
				set(&e.Attributes, name, s)
			case value != "null":
				set(&e.Extra, name, json.RawMessage(b[begin:end:end]))
			}
		}
		if at = space(b, end); b[at] == '}' {
			break
		}
	}
	switch {
	case hasEncoded:
		if e.Data, err = base64.StdEncoding.DecodeString(encoded); err != nil {
			return versioned, fmt.Errorf("%w: data_base64: %w", ErrEnvelope, err)
		}
	case !hasData || string(data) == "null" && !IsJSON(e.ContentType):
	case data[0] == '"' && !IsJSON(e.ContentType):
		s, _ := text(string(data))
		e.Data = []byte(s)
	default:
		e.Data = data
	}
	return versioned, nil
}

// space is where the first byte that is no white space stands, from at on; of valid JSON.
func space(b []byte, at int) int {
	for b[at] == ' ' || b[at] == '\n' || b[at] == '\t' || b[at] == '\r' {
		at++
	}
	return at
}

// skip is where the value ends that begins at at; of valid JSON.
func skip(b []byte, at int) int {
	depth := 0
	for {
		switch b[at] {
		case '"':
			for at++; b[at] != '"'; at++ {
				if b[at] == '\\' {
					at++
				}
			}
			at++
		case '{', '[':
			depth++
			at++
		case '}', ']':
			depth--
			at++
		case ',', ':', ' ', '\n', '\t', '\r': // between the parts of a list or an object
			at++
			continue
		default:
			for at < len(b) && strings.IndexByte(",:]} \n\t\r", b[at]) < 0 {
				at++
			}
		}
		if depth == 0 {
			return at
		}
	}
}

func set[T any](m *map[string]T, name string, value T) {
	if *m == nil {
		*m = map[string]T{}
	}
	(*m)[name] = value
}

// text is what a JSON string says: a part of value where nothing in it is escaped.
func text(value string) (s string, ok bool) {
	if value[0] != '"' {
		return "", false
	}
	s = value[1 : len(value)-1]
	if strings.IndexByte(s, '\\') < 0 && utf8.ValidString(s) {
		return s, true
	}
	return s, json.Unmarshal([]byte(value), &s) == nil
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
