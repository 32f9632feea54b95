package loam

import (
	"encoding/json"
	"strconv"

	"github.com/loam-run/loam/sdk/go/internal/api"
)

// A PubsubBus is a component of the pubsub capability.
type PubsubBus struct{ component string }

// Pubsub is the component of that name, the default one for "".
func Pubsub(component string) PubsubBus { return PubsubBus{component} }

// Publish appends one event to topic, durably once it returns nil. data is sent as it is where it is []byte
// (application/octet-stream) or string (text/plain), else as JSON. To publish with a write, use Tx.Publish.
func (p PubsubBus) Publish(topic string, data any, opts ...EventOption) error {
	pub, err := publication(p.component, topic, data, opts)
	if err != nil {
		return err
	}
	return call("pubsub.Publish", &api.PubsubPublishRequest{Events: []api.Publication{pub}}, nil)
}

// An EventOption sets an attribute of the event published.
type EventOption struct{ name, value string }

// WithID gives the event an id of its own instead of one that Loam makes.
func WithID(id string) EventOption { return EventOption{"id", id} }

// WithType says what kind of thing happened; the topic's name where nobody says.
func WithType(t string) EventOption { return EventOption{"type", t} }

// WithSubject says what it happened to.
func WithSubject(s string) EventOption { return EventOption{"subject", s} }

// WithContentType says what data is.
func WithContentType(t string) EventOption { return EventOption{"datacontenttype", t} }

// WithAttribute sets an extension attribute; CloudEvents wants lower-case letters and digits for its name.
func WithAttribute(name, value string) EventOption { return EventOption{name, value} }

func publication(component, topic string, data any, opts []EventOption) (api.Publication, error) {
	p := api.Publication{Component: component, Topic: topic}
	switch d := data.(type) {
	case []byte:
		p.Data, p.ContentType = d, "application/octet-stream"
	case string:
		p.Data, p.ContentType = []byte(d), "text/plain; charset=utf-8"
	default:
		var err error
		if p.Data, err = json.Marshal(data); err != nil {
			return p, Errorf(InvalidArgument, "event for %s: %w", strconv.Quote(topic), err)
		}
		p.ContentType = "application/json"
	}
	for _, o := range opts {
		switch o.name {
		case "id":
			p.Id = o.value
		case "type":
			p.Type = o.value
		case "subject":
			p.Subject = o.value
		case "datacontenttype":
			p.ContentType = o.value
		default:
			p.Attributes = append(p.Attributes, api.Attribute{Name: o.name, Value: o.value})
		}
	}
	return p, nil
}
