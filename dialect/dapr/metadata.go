package dapr

import (
	"maps"
	"net/http"
	"strings"
	"sync"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/event"
)

// RuntimeVersion is the version of Dapr's API that is spoken here, which clients ask for to know what there is.
const RuntimeVersion = "1.18.3"

// A Subscription is one that is active, as metadata tells it.
type Subscription struct {
	event.Subscription
	Type string // DECLARATIVE, PROGRAMMATIC or STREAMING
}

// Bounds of what the program may say of itself.
const (
	maxExtended = 1000      // entries
	maxMetadata = 256 << 10 // bytes of them altogether
)

// selfMetadata is what the program says of itself.
type selfMetadata struct {
	mu       sync.Mutex
	extended map[string]string
	size     int
}

// set keeps one entry; with an empty key it does nothing.
func (m *selfMetadata) set(key, value string) error {
	if key == "" {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old, there := m.extended[key]
	size := m.size + len(key) + len(value)
	if there {
		size -= len(key) + len(old)
	}
	if size > maxMetadata || !there && len(m.extended) >= maxExtended {
		f := errBadRequest.failure("invalid request: metadata takes at most %d entries and %d bytes", maxExtended, maxMetadata)
		f.code = loam.ResourceExhausted
		return f
	}
	if m.extended == nil {
		m.extended = map[string]string{}
	}
	// What came lies in the request's buffers, which are used again.
	m.extended[strings.Clone(key)], m.size = strings.Clone(value), size
	return nil
}

// extendedMetadata is what the program said, with the versions.
func (a *API) extendedMetadata() map[string]string {
	a.self.mu.Lock()
	m := maps.Clone(a.self.extended)
	a.self.mu.Unlock()
	if m == nil {
		m = map[string]string{}
	}
	m["daprRuntimeVersion"] = RuntimeVersion
	if a.opts.Version != "" {
		m["loamVersion"] = a.opts.Version
	}
	return m
}

// subscriptions are all that are active.
func (a *API) subscriptions() []Subscription {
	var all []Subscription
	if a.settings.Subscriptions != nil {
		all = a.settings.Subscriptions()
	}
	return append(all, a.streaming.list()...)
}

func (c *call) getMetadata() error {
	type component struct {
		Name         string   `json:"name,omitempty"`
		Type         string   `json:"type,omitempty"`
		Version      string   `json:"version,omitempty"`
		Capabilities []string `json:"capabilities,omitempty"`
	}
	type rule struct {
		Match string `json:"match,omitempty"`
		Path  string `json:"path,omitempty"`
	}
	type subscription struct {
		Pubsub     string            `json:"pubsubname"`
		Topic      string            `json:"topic"`
		Metadata   map[string]string `json:"metadata,omitempty"`
		Rules      []rule            `json:"rules,omitempty"`
		DeadLetter string            `json:"deadLetterTopic"`
		Type       string            `json:"type"`
	}
	type health struct {
		Path      string `json:"healthCheckPath,omitempty"`
		Interval  string `json:"healthProbeInterval,omitempty"`
		Timeout   string `json:"healthProbeTimeout,omitempty"`
		Threshold int    `json:"healthThreshold,omitempty"`
	}
	type connection struct {
		Port           int     `json:"port,omitempty"`
		Protocol       string  `json:"protocol,omitempty"`
		Address        string  `json:"channelAddress,omitempty"`
		MaxConcurrency int     `json:"maxConcurrency,omitempty"`
		Health         *health `json:"health,omitempty"`
	}
	type actors struct {
		Status string `json:"runtimeStatus"`
		Ready  bool   `json:"hostReady"`
	}
	var out struct {
		ID            string            `json:"id,omitempty"`
		Version       string            `json:"runtimeVersion,omitempty"`
		Features      []string          `json:"enabledFeatures,omitempty"`
		Components    []component       `json:"components,omitempty"`
		Extended      map[string]string `json:"extended,omitempty"`
		Subscriptions []subscription    `json:"subscriptions,omitempty"`
		Connection    connection        `json:"appConnectionProperties,omitzero"`
		Actors        actors            `json:"actorRuntime"`
	}
	a := c.api
	out.ID, out.Version, out.Features, out.Extended = a.opts.App.ID, RuntimeVersion, a.settings.Features, a.extendedMetadata()
	for _, k := range a.opts.Capabilities.Components(a.opts.App.Caller) {
		out.Components = append(out.Components, component{k.Name, k.Type, k.Version, k.Features})
	}
	for _, s := range a.subscriptions() {
		sub := subscription{Pubsub: s.Component, Topic: s.Topic, Metadata: s.Metadata, DeadLetter: s.DeadLetter, Type: s.Type}
		for _, r := range s.Rules {
			sub.Rules = append(sub.Rules, rule{r.Match, r.Path})
		}
		if s.Default != "" {
			sub.Rules = append(sub.Rules, rule{Path: s.Default})
		}
		out.Subscriptions = append(out.Subscriptions, sub)
	}
	s := a.settings
	out.Connection = connection{Port: s.AppPort, Protocol: s.AppProtocol, Address: s.AppAddress, MaxConcurrency: s.MaxConcurrency}
	if h := s.Health; h != nil {
		out.Connection.Health = &health{h.Path, h.Interval.String(), h.Timeout.String(), h.Threshold}
	}
	out.Actors.Status = "DISABLED"
	return c.encode(out)
}

func (c *call) putMetadata() error {
	body, err := c.readBody()
	if err != nil {
		return err
	}
	if err := c.api.self.set(c.params[0], string(body)); err != nil {
		return err
	}
	c.empty()
	return nil
}

// ready tells whether the sidecar serves as declared.
func (a *API) ready() error {
	if a.opts.Healthy == nil {
		return nil
	}
	if err := a.opts.Healthy(); err != nil {
		return errNotReady.failure("dapr is not ready: [%s]", words(err))
	}
	return nil
}

// shutdown ends the process as a signal would.
func (a *API) shutdown() error {
	if a.opts.Shutdown == nil {
		f := errUnimplemented.failure("this process is not the program's to end")
		f.status = http.StatusForbidden
		f.code = loam.PermissionDenied
		return f
	}
	a.log.Info("shutdown asked for by the program", "app", a.opts.App.ID)
	a.opts.Shutdown()
	return nil
}
