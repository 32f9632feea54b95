package resource

import (
	"encoding/base64"
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
	case *App:
		v.Protocol = "http"
	case *Health:
		v.Timeout, v.Threshold = 500*time.Millisecond, 3
	case *DaprAPI:
		v.MaxBody, v.Namespace = 4<<20, "default"
	case *LayottoAPI:
		v.MaxBody = 4 << 20
	case *DaprRetry:
		v.Policy, v.Duration, v.MaxInterval = "constant", 5*time.Second, time.Minute
	case *SecretsScope:
		v.DefaultAccess = "allow"
	case *AccessControl:
		v.DefaultAction = "allow"
	case *AccessOperation:
		v.Action = "allow"
	case *NameResolution:
		v.Component = "mdns"
	case *Subscription:
		v.Pubsubname = "default"
	case *subscriptionV1:
		v.Pubsubname = "default"
	case *SubscriptionMetadata:
		v.MaxInFlight, v.RetryAfter = 10, 500*time.Millisecond
	case *Listener:
		v.Protocol = "HTTP"
	case *ListenerTLS:
		v.Mode = "Terminate"
	case *ObjectRef:
		v.Kind = "Secret"
	case *RouteNamespaces:
		v.From = "Same"
	case *RouteKind:
		v.Group = "gateway.networking.k8s.io"
	case *ClientValidation:
		v.Mode = "AllowValidOnly"
	case *Secret:
		v.Type = "Opaque"
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
	case *BackendObject:
		v.Group, v.Kind = "loam.dev", "Function"
	case *ExtensionRef:
		v.Group, v.Kind = "loam.dev", "Policy"
	case *MethodMatch:
		v.Type = "Exact"
	case *Retry:
		v.Attempts, v.Backoff = 1, 25*time.Millisecond
	case *SessionPersistence:
		v.Type = "Cookie"
	case *CookieConfig:
		v.LifetimeType = "Session"
	case *Redirect:
		v.StatusCode = 302
	case *Fraction:
		v.Denominator = 100
	case *CORS:
		v.MaxAge = 5
	default:
		serviceDefaults(v)
		policyDefaults(v)
	}
}

func serviceDefaults(v any) {
	switch v := v.(type) {
	case *Service:
		v.Protocol = "http"
	case *Endpoint:
		v.Weight = 1
	case *DNS:
		v.Refresh = 30 * time.Second
	case *LoadBalancer:
		v.Algorithm = "least-request"
	case *ActiveHealth:
		v.Type, v.Path = "http", "/"
		v.Interval, v.Timeout, v.Healthy, v.Unhealthy = 10*time.Second, 2*time.Second, 2, 3
	case *PassiveHealth:
		v.ConsecutiveErrors, v.MinRequests, v.Interval, v.Ejection, v.MaxEjected = 5, 20, 10*time.Second, 30*time.Second, 50
	case *Pool:
		v.MaxConnections, v.MaxIdle, v.IdleTimeout, v.ConnectTimeout, v.MaxPending = 1024, 256, time.Minute, 5*time.Second, 1024
	}
}

func policyDefaults(v any) {
	switch v := v.(type) {
	case *PolicyRetry:
		v.Attempts, v.Backoff, v.MaxBackoff = 2, 25*time.Millisecond, 250*time.Millisecond
	case *RetryBudget:
		v.Percent, v.MinPerSecond = 20, 10
	case *Hedge:
		v.Max = 1
	case *Breaker:
		v.Failures, v.MinRequests, v.Window, v.Rest, v.HalfOpen = 5, 20, 10*time.Second, 5*time.Second, 1
	case *RateLimit:
		v.Per, v.By = time.Second, "all"
	case *SharedLimit:
		v.Component = "default"
	case *AdaptiveConcurrency:
		v.Min, v.Max, v.Initial = 1, 1000, 20
	case *FaultDelay:
		v.Percent = 100
	case *FaultAbort:
		v.Percent = 100
	case *Compression:
		v.Algorithms, v.MinSize = []string{"gzip"}, 1024
		v.Types = []string{"text/*", "application/json", "application/javascript", "application/xml", "application/wasm", "image/svg+xml"}
	case *AccessLog:
		v.Format = "json"
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
	case *GRPCRoute:
		for i := range s.Rules {
			if len(s.Rules[i].Matches) == 0 {
				s.Rules[i].Matches = []GRPCMatch{{}}
			}
		}
	case *Service:
		if s.Registry != nil && s.Registry.Name == "" {
			s.Registry.Name = o.Name
		}
		if h := s.Health.Active; h != nil {
			if _, written := o.places["spec.health.active.type"]; !written && (s.Protocol == "grpc" || s.Protocol == "tcp") {
				h.Type = s.Protocol
			}
		}
	case *Secret:
		complete64(s)
	case *subscriptionV1:
		o.Spec = &Subscription{
			Pubsubname: s.Pubsubname, Topic: s.Topic, Routes: Routes{Default: s.Route},
			DeadLetterTopic: s.DeadLetterTopic, BulkSubscribe: s.BulkSubscribe, Metadata: s.Metadata,
		}
		if at, ok := o.places["spec.route"]; ok {
			o.places["spec.routes.default"] = at
		}
	}
}

// complete64 decodes what stands in data; what is no base64 is left for validate to tell.
func complete64(s *Secret) {
	if s.StringData == nil {
		s.StringData = map[string]Sensitive{}
	}
	for name, value := range s.Data {
		if _, there := s.StringData[name]; there {
			continue
		}
		if text, err := base64.StdEncoding.DecodeString(string(value)); err == nil {
			s.StringData[name] = Sensitive(text)
		}
	}
}
