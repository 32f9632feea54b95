package resource

import (
	"reflect"
	"time"
)

// defaults sets what a struct holds before its fields are decoded.
func defaults(v any) {
	switch v := v.(type) {
	case *Function:
		v.ABI, v.Isolation, v.Timeout, v.Memory, v.Concurrency = "loam", "request", 30*time.Second, 128<<20, 64
	case *Grant:
		v.Component, v.Access = "default", "write"
	case *Component:
		v.Version = "v1"
	case *Subscription:
		v.Pubsubname = "default"
	case *subscriptionV1:
		v.Pubsubname = "default"
	case *SubscriptionMetadata:
		v.MaxDeliveries, v.MaxInFlight, v.RetryAfter = 5, 10, 500*time.Millisecond
	case *Listener:
		v.Protocol = "HTTP"
	case *Address:
		v.Type = "IPAddress"
	case *ParentRef:
		v.Group, v.Kind = "gateway.networking.k8s.io", "Gateway"
	case *PathMatch:
		v.Type, v.Value = "PathPrefix", "/"
	case *ValueMatch:
		v.Type = "Exact"
	case *BackendRef:
		v.Group, v.Kind, v.Weight = "loam.dev", "Function", 1
	}
}

// fillIn sets the defaults of a struct and of the structs in it.
func fillIn(v reflect.Value) {
	defaults(v.Addr().Interface())
	for i := range v.NumField() {
		if v.Type().Field(i).IsExported() && v.Field(i).Kind() == reflect.Struct {
			fillIn(v.Field(i))
		}
	}
}

// complete sets the defaults that depend on other fields, and turns older versions of a kind into the newest.
func complete(o *Object) {
	switch s := o.Spec.(type) {
	case *Function:
		if s.File == "" {
			s.File = "build/" + o.Name + ".wasm"
		}
	case *Gateway:
		if len(s.Addresses) == 0 {
			s.Addresses = []Address{{Type: "IPAddress", Value: "127.0.0.1"}}
		}
	case *HTTPRoute:
		for i := range s.Rules {
			if len(s.Rules[i].Matches) == 0 {
				s.Rules[i].Matches = []HTTPMatch{{Path: PathMatch{Type: "PathPrefix", Value: "/"}}}
			}
		}
	case *subscriptionV1:
		o.Spec = &Subscription{
			Pubsubname: s.Pubsubname, Topic: s.Topic, Routes: Routes{Default: s.Route},
			DeadLetterTopic: s.DeadLetterTopic, Metadata: s.Metadata,
		}
		if at, ok := o.places["spec.route"]; ok {
			o.places["spec.routes.default"] = at
		}
	}
}
