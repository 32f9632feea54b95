package dapr

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/capability/state"
	"github.com/loam-run/loam/protocol/cloudevents"
)

// A publication is what a request publishes to.
type publication struct {
	api      *API
	bus      *pubsub.Bus
	pubsub   string
	topic    string
	metadata map[string]string
	trace    state.Trace
}

// traceOf is the trace context of a request.
func traceOf(h loam.Header) state.Trace {
	return state.Trace{Parent: strings.Clone(h.Get("traceparent")), State: strings.Clone(h.Get("tracestate"))}
}

// publication checks what a request says of where it publishes.
func (a *API) publication(name, topic string, metadata map[string]string, t state.Trace) (*publication, error) {
	p := &publication{api: a, pubsub: name, topic: topic, metadata: metadata, trace: t}
	var err error
	if name == "" {
		return nil, p.failure(errPubsubEmpty, metadata, "pubsub name is empty")
	}
	if p.bus, err = a.opts.Capabilities.Pubsub(name); err != nil {
		return nil, a.missing("pubsub", err, errPubsubNotConfigured, errPubsubNotFound, "pubsub "+name, metadata)
	}
	if topic == "" {
		return nil, p.failure(errTopicEmpty, metadata, "topic is empty in pubsub %s", name)
	}
	if _, err := pubsub.RawPayload(metadata); err != nil {
		return nil, p.failure(errPubsubMetadata, metadata, "failed deserializing metadata. Error: %s", err)
	}
	return p, nil
}

// failure makes one that names the component.
func (p *publication) failure(k kind, info map[string]string, format string, args ...any) *failure {
	f := k.failure(format, args...)
	f.info = info
	f.resource = &resourceInfo{typ: "pubsub", name: p.pubsub, description: f.message}
	return f
}

// event makes the event of a message.
func (p *publication) event(data []byte, contentType string, metadata map[string]string) (loam.Event, error) {
	m := pubsub.Publication{
		Topic: p.topic, Data: data, ContentType: contentType, Metadata: metadata, Source: p.api.opts.App.ID,
		TraceParent: p.trace.Parent, TraceState: p.trace.State,
	}
	e, err := m.Event()
	if err == nil {
		return e, nil
	}
	cause := err
	var known *loam.Error
	if errors.As(err, &known) && known.Err != nil {
		cause = known.Err
	}
	if !errors.Is(err, cloudevents.ErrEnvelope) {
		return e, p.failure(errPubsubMetadata, metadata, "failed deserializing metadata. Error: %s", cause)
	}
	return e, p.failure(errCloudEvent, map[string]string{"appID": p.api.opts.App.ID, "error": cause.Error()}, "cannot create cloudevent")
}

// publish hands one event on.
func (p *publication) publish(req *loam.Request, e loam.Event) error {
	var err error
	timing := p.api.settings.Metrics.begin(req.Task())
	awaitUnless(p.bus.Instant(), req, func(ctx context.Context) { err = p.bus.Publish(ctx, p.api.opts.App.Caller, []loam.Event{e}) })
	timing.end(published, p.pubsub, p.topic, succeeded(err))
	if err != nil {
		return p.failed(err)
	}
	return nil
}

// failed is the failure of what was not published.
func (p *publication) failed(err error) error {
	info := map[string]string{"topic": p.topic, "error": words(err)}
	if loam.CodeOf(err) == loam.PermissionDenied {
		return p.failure(errPubsubForbidden, info, "topic %s is not allowed for app id %s", p.topic, p.api.opts.App.ID)
	}
	f := errPublish.caused(err, "error when publishing to topic %s in pubsub %s: %s", p.topic, p.pubsub, words(err))
	f.info, f.resource = info, &resourceInfo{typ: "pubsub", name: p.pubsub, description: f.message}
	return f
}

// A publishEntry is one message of several that are published together.
type publishEntry struct {
	id, contentType string
	data            []byte
	metadata        map[string]string
}

// A failedEntry is one that was not published.
type failedEntry struct {
	ID    string `json:"entryId"`
	Error string `json:"error,omitempty"`
}

// publishAll publishes entries, each for itself and with the request's metadata where it has none of its own of that name.
// It answers those that were not published; an error says that none was.
func (p *publication) publishAll(req *loam.Request, entries []publishEntry) ([]failedEntry, error) {
	seen := make(map[string]struct{}, len(entries))
	events := make([]loam.Event, len(entries))
	for i := range entries {
		b := &entries[i]
		if _, twice := seen[b.id]; twice || b.id == "" {
			const why = "entryId is duplicated or not present for entry"
			return nil, p.failure(errEventsOut, map[string]string{"appID": p.api.opts.App.ID, "error": why},
				"error marshaling events to bytes for topic %s pubsub %s. error: %s", p.topic, p.pubsub, why)
		}
		seen[b.id] = struct{}{}
		metadata := p.metadata
		if b.metadata != nil {
			metadata = make(map[string]string, len(p.metadata)+len(b.metadata))
			maps.Copy(metadata, p.metadata)
			maps.Copy(metadata, b.metadata)
		}
		var err error
		if events[i], err = p.event(b.data, b.contentType, metadata); err != nil {
			return nil, err
		}
	}
	if len(events) == 0 {
		return nil, nil
	}
	var errs []error
	timing := p.api.settings.Metrics.begin(req.Task())
	await(req, func() { errs = p.bus.PublishEach(req.Context(), p.api.opts.App.Caller, events) })
	var failed []failedEntry
	var first error
	for i, err := range errs {
		if err != nil {
			first = cmp.Or(first, err)
			failed = append(failed, failedEntry{entries[i].id, words(err)})
		}
	}
	timing.end(publishedBulk, p.pubsub, p.topic, succeeded(first))
	if first != nil && loam.CodeOf(first) == loam.PermissionDenied && len(failed) == len(entries) {
		return nil, p.failed(first)
	}
	return failed, nil
}
