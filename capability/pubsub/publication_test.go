package pubsub

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol/cloudevents"
)

func TestPublication(t *testing.T) {
	raw := func(s string) []byte { return []byte(s) }
	for name, c := range map[string]struct {
		in   Publication
		want loam.Event
	}{
		"plain": {
			Publication{Topic: "t", Data: raw("hi"), Source: "app"},
			loam.Event{Topic: "t", Data: raw("hi"), Source: "app", Type: "com.dapr.event.sent", ContentType: "text/plain"},
		},
		"traced": {
			Publication{Topic: "t", Data: raw("{}"), ContentType: "application/json", TraceParent: "00-1", TraceState: "a=b"},
			loam.Event{Topic: "t", Data: raw("{}"), Source: "Dapr", Type: "com.dapr.event.sent", ContentType: "application/json",
				Attributes: map[string]string{"traceid": "00-1", "traceparent": "00-1", "tracestate": "a=b"}},
		},
		"said otherwise": {
			Publication{Topic: "t", Source: "app", Type: BulkEventType, TraceParent: "00-1", Metadata: map[string]string{
				"cloudevent.id": "7", "CloudEvent.Source": "me", "cloudevent.type": "y", "cloudevent.subject": "j", "cloudevent.traceid": "00-2",
				"cloudevent.traceparent": "00-3", "cloudevent.tracestate": "c=d", "cloudevent.topic": "forged", "cloudevent.": "x", "key": "k"}},
			loam.Event{Topic: "t", ID: "7", Source: "me", Type: "y", Subject: "j", ContentType: "text/plain",
				Attributes: map[string]string{"traceid": "00-3", "traceparent": "00-3", "tracestate": "c=d"}},
		},
		"an envelope": {
			Publication{Topic: "t", Source: "app", TraceParent: "00-1", ContentType: "application/cloudevents+json; charset=utf-8", Data: raw(
				`{"specversion":"1.0","id":"1","type":"y","datacontenttype":"text/xml","data":"<a/>","mine":true,"topic":"other"}`), Metadata: map[string]string{"cloudevent.id": "unheard"}},
			loam.Event{Topic: "t", ID: "1", Source: "Dapr", Type: "y", ContentType: "text/xml", Data: raw("<a/>"),
				Attributes: map[string]string{"traceid": "00-1", "traceparent": "00-1"}, Extra: map[string]json.RawMessage{"mine": json.RawMessage("true")}},
		},
		"an envelope that was traced": {
			Publication{Topic: "t", TraceParent: "00-1", TraceState: "a=b", ContentType: cloudevents.ContentType, Data: raw(`{"id":"1","source":"s","traceid":"00-9","tracestate":"z=z"}`)},
			loam.Event{Topic: "t", ID: "1", Source: "s", Type: "com.dapr.event.sent", ContentType: "application/json", Attributes: map[string]string{"traceid": "00-9", "tracestate": "z=z"}},
		},
		"raw": {
			Publication{Topic: "t", Source: "app", Data: raw("\xff"), Metadata: map[string]string{"rawPayload": "true"}},
			loam.Event{Topic: "t", Data: raw("\xff"), ContentType: "application/octet-stream", Raw: true},
		},
		"not raw": {
			Publication{Topic: "t", Metadata: map[string]string{"rawPayload": "false"}},
			loam.Event{Topic: "t", Source: "Dapr", Type: "com.dapr.event.sent", ContentType: "text/plain"},
		},
	} {
		got, err := c.in.Event()
		if diff := cmp.Diff(c.want, got, cmpopts.IgnoreFields(loam.Event{}, "Time", "Metadata")); err != nil || diff != "" || time.Since(got.Time) > time.Minute || !cmp.Equal(got.Metadata, c.in.Metadata) {
			t.Errorf("%s: %v %v %s", name, err, got.Time, diff)
		}
	}
	for name, p := range map[string]Publication{
		"an envelope that is none": {ContentType: cloudevents.ContentType, Data: raw(`[]`)},
		"no boolean":               {Metadata: map[string]string{"rawPayload": "maybe"}},
		"no life":                  {Metadata: map[string]string{"ttlInSeconds": "0"}},
		"no number":                {Metadata: map[string]string{"ttlInSeconds": "long"}},
	} {
		if e, err := p.Event(); loam.CodeOf(err) != loam.InvalidArgument {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
}

func TestExpiration(t *testing.T) {
	for ttl, want := range map[string]time.Duration{"60": time.Minute, "90s": 90 * time.Second, "9223372036854775807": 1<<63 - 1} {
		p := Publication{Topic: "t", Metadata: map[string]string{"ttlInSeconds": ttl}}
		e, err := p.Event()
		at, parsed := time.Parse(time.RFC3339, e.Attributes["expiration"])
		if err != nil || parsed != nil || time.Until(at) > want || time.Until(at) < want-2*time.Second {
			t.Errorf("%s: %v, %v, %q", ttl, err, parsed, e.Attributes)
		}
		if expired(&e, time.Now()) || !expired(&e, at.Add(time.Second)) {
			t.Errorf("%s: expired is wrong round %v", ttl, at)
		}
	}
	if expired(&loam.Event{Attributes: map[string]string{"expiration": "soon"}}, time.Now()) {
		t.Error("a time that is none ends no life")
	}
}

func TestScopes(t *testing.T) {
	bus, err := Open("bus", nil, map[string]string{
		"publishingScopes": "shop=orders, created;silent=", "SubscriptionScopes": "shop=paid", "allowedTopics": "orders,created,paid,vault,misc", "protectedTopics": "vault",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		app, topic         string
		publish, subscribe bool
	}{
		{"shop", "orders", true, false}, {"shop", "created", true, false}, {"shop", "paid", false, true}, {"shop", "misc", false, false}, {"shop", "vault", false, false},
		{"silent", "orders", false, true}, {"silent", "misc", false, true},
		{"other", "orders", true, true}, {"other", "vault", false, false}, {"other", "unknown", false, false},
	} {
		caller := &loam.Caller{Name: c.app, Grants: []loam.Grant{{Capability: "*", Component: "*"}}}
		for _, err := range []error{bus.CheckPublish(caller, c.topic), bus.CheckSubscribe(caller, c.topic)} {
			if err != nil && (loam.CodeOf(err) != loam.PermissionDenied || loam.HintOf(err) == "") {
				t.Errorf("%+v: %v", c, err)
			}
		}
		if (bus.CheckPublish(caller, c.topic) == nil) != c.publish || (bus.CheckSubscribe(caller, c.topic) == nil) != c.subscribe {
			t.Errorf("%+v: publish %v, subscribe %v", c, bus.CheckPublish(caller, c.topic), bus.CheckSubscribe(caller, c.topic))
		}
	}
	if err := bus.CheckPublish(&loam.Caller{Name: "shop"}, "orders"); loam.CodeOf(err) != loam.PermissionDenied {
		t.Errorf("scopes are no grant: %v", err)
	}
	if _, err := Open("bus", nil, map[string]string{"publishingScopes": "shop"}); loam.CodeOf(err) != loam.InvalidArgument {
		t.Errorf("scopes that say nothing: %v", err)
	}
}
