package dapr

import (
	"context"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/jobs"
	"github.com/loam-run/loam/event"
	"github.com/loam-run/loam/protocol/cloudevents"
	"github.com/loam-run/loam/protocol/grpc"
)

const (
	callback      = "/dapr.proto.runtime.v1.AppCallback/"
	callbackAlpha = "/dapr.proto.runtime.v1.AppCallbackAlpha/"
)

// callGRPC calls a method of the program's services. header is metadata.
func (c *channel) callGRPC(ctx context.Context, target loam.Target, method string, in []byte, header loam.Header) ([]byte, error) {
	if target == nil {
		return nil, errNoApp
	}
	if c.health != nil && !c.health.ok.Load() && target == c.target {
		return nil, errUnhealthy
	}
	req := loam.NewRequest(ctx)
	defer req.Release()
	req.ID = randomID()
	req.Header = append(req.Header, header...)
	if token := c.opts.App.AppToken; token != "" {
		req.Header = append(req.Header, loam.Field{Name: tokenHeader, Value: token})
	}
	message, out := grpc.Raw(in), grpc.Raw(nil)
	client := *c.grpc
	client.Target = target
	err := client.Call(req, method, &message, &out, nil)
	return out, err
}

// newer calls a method by its present name, and by its older one where the program knows only that.
func (c *channel) newer(ctx context.Context, name string, in []byte, header loam.Header) ([]byte, error) {
	out, err := c.callGRPC(ctx, c.target, callback+name, in, header)
	if err != nil && loam.CodeOf(err) == loam.Unimplemented {
		return c.callGRPC(ctx, c.target, callbackAlpha+name+"Alpha1", in, header)
	}
	return out, err
}

// fields calls fn for each field of a message.
func fields(b []byte, fn func(f wireField) error) error {
	for len(b) > 0 {
		f, rest, err := nextField(b)
		if err != nil {
			return err
		}
		if err := fn(f); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// entry reads an entry of a map of strings.
func entry(b []byte) (key, value string, err error) {
	err = fields(b, func(f wireField) error {
		switch f.number {
		case 1:
			key = string(f.bytes)
		case 2:
			value = string(f.bytes)
		}
		return nil
	})
	return key, value, err
}

// appendMap writes a map of strings.
func appendMap(b []byte, number int, m map[string]string) []byte {
	for _, k := range sortedKeys(m) {
		b2, e := open(b, number)
		b = shut(appendText(appendText(b2, 1, k), 2, m[k]), e)
	}
	return b
}

func sortedKeys(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// subscription makes one of what a program says.
func subscription(component, topic, deadLetter string, metadata map[string]string) event.Subscription {
	raw, _ := strconv.ParseBool(metadata["rawPayload"]) // what is no truth is false
	return event.Subscription{Component: component, Topic: topic, DeadLetter: deadLetter, Metadata: metadata, Raw: raw}
}

// Bounds of what comes together, where a program says none, and at most.
const (
	bulkMax   = 100
	bulkWait  = time.Second
	bulkMost  = 10_000
	bulkLater = time.Minute
)

func bulk(most, waitMs int32) *event.Bulk {
	b := &event.Bulk{Max: bulkMax, Wait: bulkWait}
	if most > 0 {
		b.Max = min(int(most), bulkMost)
	}
	if waitMs > 0 {
		b.Wait = min(time.Duration(waitMs)*time.Millisecond, bulkLater)
	}
	return b
}

func (c *channel) subscriptionsGRPC(ctx context.Context) ([]event.Subscription, error) {
	out, err := c.callGRPC(ctx, c.target, callback+"ListTopicSubscriptions", nil, nil)
	if err != nil {
		if loam.CodeOf(err) == loam.Unimplemented {
			return nil, nil
		}
		return nil, err
	}
	var all []event.Subscription
	err = fields(out, func(f wireField) error {
		if f.number != 1 {
			return nil
		}
		if len(all) == maxSubscriptions {
			return loam.Errorf(loam.ResourceExhausted, "ListTopicSubscriptions", "more than %d subscriptions", maxSubscriptions)
		}
		s, err := parseSubscription(f.bytes)
		all = append(all, s)
		return err
	})
	if err != nil {
		return nil, &loam.Error{Code: loam.InvalidArgument, Op: "ListTopicSubscriptions", Err: err}
	}
	return all, nil
}

// parseSubscription reads a TopicSubscription.
func parseSubscription(b []byte) (s event.Subscription, err error) {
	var component, topic, deadLetter, otherwise string
	var rules []event.Rule
	var together *event.Bulk
	metadata := map[string]string{}
	err = fields(b, func(f wireField) error {
		switch f.number {
		case 1:
			component = string(f.bytes)
		case 2:
			topic = string(f.bytes)
		case 3:
			k, v, err := entry(f.bytes)
			metadata[k] = v
			return err
		case 5:
			return fields(f.bytes, func(f wireField) error {
				switch f.number {
				case 1:
					match, path, err := entry(f.bytes) // a TopicRule has the numbers of an entry
					rules = append(rules, event.Rule{Match: strings.TrimSpace(match), Path: path})
					return err
				case 2:
					otherwise = string(f.bytes)
				}
				return nil
			})
		case 6:
			deadLetter = string(f.bytes)
		case 7:
			var on bool
			var most, wait int32
			err := fields(f.bytes, func(f wireField) error {
				switch f.number {
				case 1:
					on = f.value != 0
				case 2:
					most = int32(f.value)
				case 3:
					wait = int32(f.value)
				}
				return nil
			})
			if on {
				together = bulk(most, wait)
			}
			return err
		}
		return nil
	})
	s = subscription(component, topic, deadLetter, metadata)
	s.Rules, s.Default, s.Bulk = rules, otherwise, together
	return s, err
}

// callbackMetadata is what comes along with events and bindings.
func callbackMetadata(h loam.Header) loam.Header {
	for i := range h {
		h[i].Name = strings.ToLower(h[i].Name)
	}
	return carryTrace(slices.DeleteFunc(h, func(f loam.Field) bool { return strings.HasPrefix(f.Name, "grpc-") }))
}

// appendEvent writes the fields that TopicEventRequest and TopicEventCERequest have in common, and the data's with its
// number.
func appendEvent(b []byte, e *loam.Event, component string, data, extensions int) []byte {
	b = appendText(b, 1, e.ID)
	b = appendText(b, 2, e.Source)
	b = appendText(b, 3, e.Type)
	b = appendText(b, 4, "1.0")
	b = appendText(b, 5, e.ContentType)
	b = appendBytes(b, data, e.Data)
	b, s := open(b, extensions)
	text := func(name, value string) {
		b2, field := open(b, 1)
		b2 = appendText(b2, 1, name)
		b2, v := open(b2, 2)
		b2 = binary.AppendUvarint(append(b2, 3<<3|2), uint64(len(value))) // a string, be it empty
		b = shut(shut(append(b2, value...), v), field)
	}
	text("topic", e.Topic)
	text("pubsubname", component)
	if e.Subject != "" {
		text("subject", e.Subject)
	}
	if !e.Time.IsZero() {
		text("time", e.Time.UTC().Format(time.RFC3339Nano))
	}
	for _, name := range sortedKeys(e.Attributes) {
		switch name {
		case "topic", "pubsubname", "subject", "time", "id", "source", "type", "specversion", "datacontenttype", "data", "data_base64":
		default:
			text(name, e.Attributes[name])
		}
	}
	for name, value := range e.Extra {
		if encoded, err := valueOf(value); err == nil {
			b2, field := open(b, 1)
			b2 = appendText(b2, 1, name)
			b2, v := open(b2, 2)
			b = shut(shut(append(b2, encoded...), v), field)
		}
	}
	return shut(b, s)
}

func (c *channel) deliverGRPC(ctx context.Context, to *event.Subscription, path string, e *loam.Event) error {
	full := enveloped(e)
	b := appendEvent(nil, &full, to.Component, 7, 10)
	b = appendText(b, 6, to.Topic)
	b = appendText(b, 8, to.Component)
	b = appendText(b, 9, path)
	out, err := c.callGRPC(ctx, c.target, callback+"OnTopicEvent", b, callbackMetadata(cloudEventHeader(to, e)))
	if err != nil {
		if loam.CodeOf(err) == loam.Unimplemented {
			return dropped{err}
		}
		return err
	}
	status := uint64(0)
	err = fields(out, func(f wireField) error {
		if f.number == 1 {
			status = f.value
		}
		return nil
	})
	if err != nil {
		return loam.Errorf(loam.Unavailable, "deliver", "the app's answer: %w", err)
	}
	return outcomeNumber(status)
}

// outcomeNumber is outcome for TopicEventResponseStatus.
func outcomeNumber(status uint64) error {
	switch status {
	case 0:
		return nil
	case 1:
		return outcome("RETRY")
	case 2:
		return outcome("DROP")
	}
	return outcome(strconv.FormatUint(status, 10))
}

func (c *channel) deliverBulkGRPC(ctx context.Context, to *event.Subscription, path string, events []loam.Event) []error {
	errs := make([]error, len(events))
	all := func(err error) []error {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	ids := map[string]int{}
	b := appendText(nil, 1, randomID())
	for i := range events {
		e := &events[i]
		id := entryID(e, i)
		ids[id] = i
		var item int
		b, item = open(b, 2)
		b = appendText(b, 1, id)
		contentType := cloudevents.ContentType
		if e.Raw {
			if contentType = e.ContentType; contentType == "" {
				contentType = "application/octet-stream"
			}
			b = append(binary.AppendUvarint(append(b, 2<<3|2), uint64(len(e.Data))), e.Data...)
		} else {
			full := enveloped(e)
			b2, ce := open(b, 3)
			b = shut(appendEvent(b2, &full, to.Component, 6, 7), ce)
		}
		b = appendText(b, 4, contentType)
		b = shut(appendMap(b, 5, e.Metadata), item)
	}
	b = appendMap(b, 3, map[string]string{"pubsubName": to.Component})
	b = appendText(b, 4, to.Topic)
	b = appendText(b, 5, to.Component)
	b = appendText(b, 6, bulkType)
	b = appendText(b, 7, path)
	out, err := c.newer(ctx, "OnBulkTopicEvent", b, callbackMetadata(loam.Header{{Name: "pubsubName", Value: to.Component}}))
	if err != nil {
		if loam.CodeOf(err) == loam.Unimplemented {
			err = dropped{err}
		}
		return all(err)
	}
	all(loam.Errorf(loam.Unavailable, "deliver", "the app said nothing of this one of several events"))
	err = fields(out, func(f wireField) error {
		if f.number != 1 {
			return nil
		}
		id, status := "", uint64(0)
		err := fields(f.bytes, func(f wireField) error {
			switch f.number {
			case 1:
				id = string(f.bytes)
			case 2:
				status = f.value
			}
			return nil
		})
		if i, ok := ids[id]; ok && err == nil {
			errs[i] = outcomeNumber(status)
		}
		return err
	})
	if err != nil {
		return all(loam.Errorf(loam.Unavailable, "deliver", "the app's answer: %w", err))
	}
	return errs
}

// grpcInputs are the input bindings that a program wants, which it says all at once.
type grpcInputs struct {
	mu    sync.Mutex
	names []string
	known bool
}

// has asks whether the program wants a binding. It is asked anew where it did not say so before: it may be another
// program by now.
func (g *grpcInputs) has(ctx context.Context, c *channel, name string) (bool, error) {
	g.mu.Lock()
	has := g.known && slices.Contains(g.names, name)
	g.mu.Unlock()
	if has {
		return true, nil
	}
	out, err := c.callGRPC(ctx, c.target, callback+"ListInputBindings", nil, nil)
	if err != nil {
		if loam.CodeOf(err) == loam.Unimplemented {
			return false, nil
		}
		return false, err
	}
	var names []string
	err = fields(out, func(f wireField) error {
		if f.number == 1 && len(names) < maxSubscriptions {
			names = append(names, string(f.bytes))
		}
		return nil
	})
	if err != nil {
		return false, loam.Errorf(loam.InvalidArgument, "ListInputBindings", "the app's answer: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.names, g.known = names, true
	return slices.Contains(names, name), nil
}

func (c *channel) readGRPC(ctx context.Context, name string, data []byte, metadata map[string]string) ([]byte, *bindingAnswer, error) {
	b := appendText(nil, 1, name)
	b = appendBytes(b, 2, data)
	b = appendMap(b, 3, metadata)
	var h loam.Header
	for _, name := range [...]string{"traceparent", "tracestate", "baggage"} {
		if v := metadata[name]; v != "" && isValue(v) {
			h = append(h, loam.Field{Name: name, Value: v})
		}
	}
	out, err := c.callGRPC(ctx, c.target, callback+"OnBindingEvent", b, carryTrace(h))
	if err != nil {
		return nil, nil, err
	}
	answer := &bindingAnswer{}
	err = fields(out, func(f wireField) error {
		switch f.number {
		case 1:
			answer.StoreName = string(f.bytes)
		case 2:
			s, err := parseStateItem(f.bytes)
			answer.State = append(answer.State, s)
			return err
		case 3:
			answer.To = append(answer.To, string(f.bytes))
		case 4:
			answer.Data = f.bytes
		case 5:
			if f.value == 1 {
				answer.Concurrency = "parallel"
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, loam.Errorf(loam.Unavailable, "binding", "the app's answer: %w", err)
	}
	return answer.Data, answer, nil
}

// parseStateItem reads a StateItem.
func parseStateItem(b []byte) (s stateAnswer, err error) {
	err = fields(b, func(f wireField) error {
		switch f.number {
		case 1:
			s.Key = string(f.bytes)
		case 2:
			s.Value = f.bytes
		case 3:
			etag := ""
			s.ETag = &etag
			return fields(f.bytes, func(f wireField) error {
				if f.number == 1 {
					etag = string(f.bytes)
				}
				return nil
			})
		case 4:
			k, v, err := entry(f.bytes)
			if s.Metadata == nil {
				s.Metadata = map[string]string{}
			}
			s.Metadata[k] = v
			return err
		}
		return nil
	})
	return s, err
}

func (c *channel) jobGRPC(ctx context.Context, job jobs.Job) error {
	b := appendText(nil, 1, job.Name)
	if job.Type != "" || len(job.Data) > 0 {
		b2, data := open(b, 2)
		b = shut(appendBytes(appendText(b2, 1, job.Type), 2, job.Data), data)
	}
	b = appendText(b, 3, "job/"+job.Name)
	b = appendText(b, 4, job.Type)
	b, ext := open(b, 5)
	b = shut(appendVarint(b, 1, 3), ext)
	_, err := c.newer(ctx, "OnJobEvent", b, nil)
	return err
}

func (c *channel) healthyGRPC(ctx context.Context) error {
	_, err := c.callGRPC(ctx, c.direct, "/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck", nil, nil)
	return err
}

// pathOf is where in the program an event goes; false: nowhere.
func pathOf(to *event.Subscription, e *loam.Event) (string, bool) {
	return to.Default, true
}
