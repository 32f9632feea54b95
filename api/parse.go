package api

import (
	"maps"
	"slices"
	"time"

	"github.com/loam-run/loam"
)

// Message is any message of the contract.
type Message interface {
	AppendProto([]byte) []byte
	ParseProto([]byte) error
}

// Parse reads a request and then finds the component it names. Every Method of a capability begins so.
func Parse[C any](req Message, in []byte, find func() (C, error)) (C, error) {
	if err := req.ParseProto(in); err != nil {
		var none C
		return none, &loam.Error{Code: loam.InvalidArgument, Op: "api", Err: err}
	}
	return find()
}

// Millis is a duration of the contract, which counts milliseconds; what no Duration holds becomes the longest.
func Millis(ms int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Millisecond)
	return time.Duration(max(-most, min(most, ms))) * time.Millisecond
}

// UnixMilli is t as the contract writes it: 0 for the zero time.
func UnixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// Map is attributes by name, the last one of each; nil where there are none.
func Map(attributes []Attribute) map[string]string {
	if len(attributes) == 0 {
		return nil
	}
	m := make(map[string]string, len(attributes))
	for _, a := range attributes {
		m[a.Name] = a.Value
	}
	return m
}

// Attributes are what m holds in the order of names.
func Attributes(m map[string]string) []Attribute {
	var all []Attribute
	for _, name := range slices.Sorted(maps.Keys(m)) {
		all = append(all, Attribute{name, m[name]})
	}
	return all
}

// Events are the events of a call's publications, and the one pubsub component they all name.
func Events(publications []Publication) (events []loam.Event, component string, err error) {
	events = make([]loam.Event, len(publications))
	for i, p := range publications {
		if i > 0 && p.Component != component {
			return nil, "", loam.Errorf(loam.InvalidArgument, "publish", "events for two components, %q and %q: one call takes one", component, p.Component)
		}
		component = p.Component
		e := loam.Event{ID: p.Id, Type: p.Type, Subject: p.Subject, ContentType: p.ContentType, Topic: p.Topic, Data: p.Data}
		e.Attributes = Map(p.Attributes)
		events[i] = e
	}
	return events, component, nil
}
