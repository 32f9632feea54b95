package dapr

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/binding"
	"github.com/loam-run/loam/capability/jobs"
	"github.com/loam-run/loam/capability/state"
	"github.com/loam-run/loam/dialect"
	"github.com/loam-run/loam/event"
	"github.com/loam-run/loam/policy"
	"github.com/loam-run/loam/protocol/grpc"
)

// A channel is the program, as it is called: for invocations (call), and for what happens (dialect.Callback). Over HTTP and
// over gRPC the same is said in other words, which are those of channel_http.go and channel_grpc.go.
type channel struct {
	opts      dialect.Options
	settings  Settings
	target    loam.Target // with the bound on calls at once
	direct    loam.Target // without, for probes
	authority string
	grpc      *grpc.Client
	health    *health // nil: the program is not probed
	inputs    grpcInputs
	meters    *byVerb // of invocations; nil: they are not counted
}

// Bounds of what a program answers to what it is told of, and how long it may take where nobody says otherwise.
const (
	maxAnswer        = 4 << 20
	maxSubscriptions = 10_000
	callTimeout      = time.Minute

	// waiting is how many calls may wait for the program where their number at once is bounded.
	waiting = 10_000
)

var (
	errNoApp     = grpc.NewStatus(loam.Internal, "app channel is not initialized")
	errUnhealthy = grpc.NewStatus(loam.Internal, "app is not in a healthy state")
	errVerb      = grpc.NewStatus(loam.InvalidArgument, "missing HTTP extension field")
	errConnect   = grpc.NewStatus(loam.InvalidArgument, "invalid HTTP verb")
)

func newChannel(o dialect.Options, s Settings) (*channel, error) {
	c := &channel{opts: o, settings: s, target: o.App.Target, direct: o.App.Target, authority: "127.0.0.1", meters: s.Metrics.verbs(httpClient, "", "")}
	if s.AppAddress != "" {
		c.authority = s.AppAddress
	}
	if s.AppPort > 0 {
		c.authority = net.JoinHostPort(c.authority, strconv.Itoa(s.AppPort))
	}
	if c.target != nil && s.MaxConcurrency > 0 {
		c.target = policy.NewBulkhead(policy.BulkheadConfig{Concurrency: s.MaxConcurrency, Queue: waiting}).Policy()(c.target)
	}
	most := int(o.App.MaxBody)
	if most <= 0 || most < grpc.MaxMessage {
		most = grpc.MaxMessage
	}
	if c.target != nil {
		c.grpc = &grpc.Client{Target: c.target, Authority: c.authority, MaxMessage: most}
	}
	if s.Health != nil && c.target != nil {
		var err error
		if c.health, err = newHealth(*s.Health); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// call calls a method of the program. The request's path is the method, its fields are those of who calls. Where the
// program speaks gRPC, the answer has gRPC's status in fields of our own.
func (c *channel) call(req *loam.Request) (*loam.Response, error) {
	if err := c.ready(); err != nil {
		return nil, err
	}
	switch {
	case req.Header.Has(fieldProxy):
		req.Header.Del(fieldProxy)
		return c.proxy(req)
	case c.opts.App.GRPC:
		return c.onInvoke(req)
	case req.Method == "":
		return nil, errVerb
	case req.Method == http.MethodConnect:
		return nil, errConnect
	}
	if req.Header.Has(fieldGRPC) || req.Header.Has(fieldTypeURL) {
		fromGRPC(req)
	}
	c.prepare(req)
	if c.meters == nil {
		return c.target.Serve(req)
	}
	of, timing := c.meters.of(req.Method), c.settings.Metrics.begin(req.Task())
	res, err := c.target.Serve(req)
	status := 0
	if res != nil {
		status = res.Status
	}
	timing.endOf(of, answered(status, err), 1)
	return res, err
}

// ready tells whether the program may be called.
func (c *channel) ready() error {
	switch {
	case c.target == nil:
		return errNoApp
	case c.health != nil && !c.health.ok.Load():
		return errUnhealthy
	}
	return nil
}

// prepare makes a request one of ours.
func (c *channel) prepare(req *loam.Request) {
	req.Scheme, req.Authority, req.Remote = "http", c.authority, ""
	if token := c.opts.App.AppToken; token != "" {
		req.Header.Set(tokenHeader, token)
	} else {
		req.Header.Del(tokenHeader)
	}
}

// fromGRPC makes HTTP's fields of metadata.
func fromGRPC(req *loam.Request) {
	if req.Header.Get(fieldTypeURL) != "" {
		req.Header.Set("Content-Type", "application/x-protobuf")
	}
	req.Header = slices.DeleteFunc(req.Header, func(f loam.Field) bool {
		return private(f.Name) || strings.HasSuffix(f.Name, "-bin")
	})
	for i := range req.Header {
		if f := &req.Header[i]; strings.HasPrefix(f.Name, "grpc-") {
			f.Name = "dapr-" + f.Name
		}
	}
}

// Callback is how the program is told of events, bindings and jobs; nil where it has no port.
func (a *API) Callback() dialect.Callback {
	if a.channel.target == nil {
		return nil
	}
	return a.channel
}

// pushConfiguration posts a change of a configuration store to the program: POST /configuration/{store}/{key}.
func (a *API) pushConfiguration(store, key string, body []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	return a.opts.Guarded(ctx, "config", store, func(ctx context.Context) error {
		status, _, err := a.channel.post(ctx, "configuration/"+store+"/"+key, "application/json", body, nil)
		if err == nil && (status < 200 || status > 299) {
			err = loam.Errorf(loam.Unavailable, "configuration", "the app answered %d", status)
		}
		return err
	})
}

// dropped is the error of an event that the program does not want again.
type dropped struct{ error }

func (dropped) Drop() bool { return true }

// Subscriptions asks the program what it subscribes to by itself.
func (c *channel) Subscriptions(ctx context.Context) ([]event.Subscription, error) {
	if c.opts.App.GRPC {
		return c.subscriptionsGRPC(ctx)
	}
	return c.subscriptionsHTTP(ctx)
}

// take makes a subscription that the program asked for ready. It is false where a rule of it is none.
func (c *channel) take(s *event.Subscription) bool {
	s.Raw, _ = strconv.ParseBool(s.Metadata["rawPayload"]) // what is no truth is false
	if err := s.Compile(); err != nil {
		c.opts.Log.Error("subscription is left out", "component", s.Component, "topic", s.Topic, "error", err)
		return false
	}
	return true
}

// path is where in the program an event goes. A program that speaks gRPC needs no path.
func (c *channel) path(to *event.Subscription, e *loam.Event) (string, error) {
	if c.opts.App.GRPC && len(to.Rules) == 0 {
		return to.Default, nil
	}
	return to.Path(e)
}

// Deliver brings one event.
func (c *channel) Deliver(ctx context.Context, t loam.Task, to *event.Subscription, e loam.Event, _ int) error {
	path, err := c.path(to, &e)
	if err != nil {
		return err
	}
	timing := c.settings.Metrics.begin(t)
	if c.opts.App.GRPC {
		err = c.deliverGRPC(ctx, t, to, path, &e)
	} else {
		err = c.deliverHTTP(ctx, t, to, path, &e)
	}
	timing.end(delivered, to.Component, to.Topic, verdict(err))
	return err
}

// DeliverBulk brings several events, those for one path of the program together.
func (c *channel) DeliverBulk(ctx context.Context, to *event.Subscription, events []loam.Event) []error {
	errs := make([]error, len(events))
	paths := map[string][]int{}
	var order []string
	for i := range events {
		path, err := c.path(to, &events[i])
		if err != nil {
			errs[i] = err
			continue
		}
		if paths[path] == nil {
			order = append(order, path)
		}
		paths[path] = append(paths[path], i)
	}
	deliver := c.deliverBulkHTTP
	if c.opts.App.GRPC {
		deliver = c.deliverBulkGRPC
	}
	for _, path := range order {
		which := paths[path]
		batch := make([]loam.Event, len(which))
		for j, i := range which {
			batch[j] = events[i]
		}
		timing := c.settings.Metrics.begin(nil)
		var became [3]int
		for j, err := range deliver(ctx, to, path, batch) {
			errs[which[j]] = err
			became[min(verdict(err), 2)]++ // who dropped it is not told of here
		}
		timing.end(deliveredBulk, to.Component, to.Topic, 0)
		for code, n := range became {
			timing.endAll(deliveredEntries, to.Component, to.Topic, code, n)
		}
	}
	return errs
}

// enveloped is an event that has all that an envelope must have. One that came without an envelope gets what Dapr gives
// those: its bytes are of a type that nobody knows.
func enveloped(e *loam.Event) loam.Event {
	out := *e
	if out.Raw {
		out.Raw, out.ContentType = false, "application/octet-stream"
	}
	if out.ID == "" {
		out.ID = randomID()
	}
	if out.Source == "" {
		out.Source = "Dapr"
	}
	if out.Type == "" {
		out.Type = "com.dapr.event.sent"
	}
	return out
}

// Binding asks whether the program wants what an input binding reads.
func (c *channel) Binding(ctx context.Context, name string) (bool, error) {
	settings := c.bindingSettings(name)
	for direction := range strings.SplitSeq(settings["direction"], ",") {
		if strings.EqualFold(strings.TrimSpace(direction), "input") {
			return true, nil
		}
	}
	if c.opts.App.GRPC {
		return c.inputs.has(ctx, c, name)
	}
	return c.bindingHTTP(ctx, bindingRoute(name, settings))
}

func bindingRoute(name string, settings map[string]string) string {
	if route := settings["route"]; route != "" {
		return route
	}
	return name
}

// bindingSettings are the settings of a binding's component: route, direction.
func (c *channel) bindingSettings(name string) map[string]string {
	if c.opts.Capabilities == nil {
		return nil
	}
	for _, component := range c.opts.Capabilities.Components(c.opts.App.Caller) {
		if component.Name == name && component.Capability == "binding" {
			return component.Settings
		}
	}
	return nil
}

// Read brings what an input binding read, and does what the program answers: state to be saved, and data for output
// bindings.
func (c *channel) Read(ctx context.Context, name string, data []byte, metadata map[string]string) ([]byte, error) {
	var answer *bindingAnswer
	var body []byte
	var err error
	timing := c.settings.Metrics.begin(nil)
	if c.opts.App.GRPC {
		body, answer, err = c.readGRPC(ctx, name, data, metadata)
	} else {
		body, answer, err = c.readHTTP(ctx, bindingRoute(name, c.bindingSettings(name)), data, metadata)
	}
	if err == nil {
		err = c.follow(ctx, answer)
	} else {
		body = nil
	}
	timing.end(bindingReads, name, "", succeeded(err))
	return body, err
}

// bindingAnswer is what a program answers to what a binding read.
type bindingAnswer struct {
	Data        json.RawMessage `json:"data"`
	StoreName   string          `json:"storeName"`
	State       []stateAnswer   `json:"state"`
	To          []string        `json:"to"`
	Concurrency string          `json:"concurrency"` // parallel, sequential
}

type stateAnswer struct {
	Key      string            `json:"key"`
	Value    json.RawMessage   `json:"value"`
	ETag     *string           `json:"etag"`
	Metadata map[string]string `json:"metadata"`
}

const maxFollow = 100 // output bindings and items of state that one answer may be for

// follow does what the program answered.
func (c *channel) follow(ctx context.Context, a *bindingAnswer) error {
	switch {
	case a == nil || len(a.State) == 0 && len(a.To) == 0:
		return nil
	case len(a.State) > maxFollow || len(a.To) > maxFollow:
		return loam.Errorf(loam.ResourceExhausted, "binding", "the app's answer is for more than %d bindings or items of state", maxFollow)
	case c.opts.Capabilities == nil:
		return loam.Errorf(loam.FailedPrecondition, "binding", "there are no components that the app's answer could be for")
	}
	if len(a.State) > 0 {
		if err := c.save(ctx, a); err != nil {
			return err
		}
	}
	send := func(name string) error {
		b, err := c.opts.Capabilities.Binding(name)
		if err == nil {
			_, err = b.Invoke(ctx, c.opts.App.Caller, binding.Request{Operation: "create", Data: a.Data})
		}
		return err
	}
	if strings.EqualFold(a.Concurrency, "parallel") {
		errs := make(chan error, len(a.To))
		for _, name := range a.To {
			go func() { errs <- send(name) }()
		}
		var all error
		for range a.To {
			all = errors.Join(all, <-errs)
		}
		return all
	}
	for _, name := range a.To {
		if err := send(name); err != nil {
			return err
		}
	}
	return nil
}

func (c *channel) save(ctx context.Context, a *bindingAnswer) error {
	store, err := c.opts.Capabilities.State(a.StoreName)
	if err == nil {
		store, err = store.For(c.opts.App.ID, c.settings.Namespace)
	}
	if err != nil {
		return err
	}
	ops := make([]state.Op, len(a.State))
	for i, s := range a.State {
		ops[i] = state.Op{Key: s.Key, Value: s.Value}
		if s.ETag != nil {
			ops[i].IfMatch = *s.ETag
		}
		if ttl := s.Metadata["ttlInSeconds"]; ttl != "" {
			n, err := strconv.Atoi(ttl)
			if err != nil || n < 0 {
				return loam.Errorf(loam.InvalidArgument, "binding", "the state in the app's answer: ttlInSeconds %q", ttl)
			}
			ops[i].TTL = time.Duration(n) * time.Second
		}
	}
	if _, err = store.Apply(ctx, c.opts.App.Caller, ops, nil, nil); loam.CodeOf(err) != loam.Unimplemented {
		return err
	}
	for _, op := range ops { // a store without transactions
		if _, err := store.Apply(ctx, c.opts.App.Caller, []state.Op{op}, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// Job brings a job that is due.
func (c *channel) Job(ctx context.Context, job jobs.Job) error {
	timing := c.settings.Metrics.begin(nil)
	bring, counted := c.jobHTTP, jobsDone
	if c.opts.App.GRPC {
		bring = c.jobGRPC
	}
	err := bring(ctx, job)
	if err != nil {
		counted = jobsFailed
	}
	timing.end(counted, jobTrigger, "", 0)
	timing.end(jobsTriggered, jobTrigger, "", succeeded(err))
	return err
}

// jobTrigger is what bringing a job is called among operations.
const jobTrigger = "job_trigger_op"

// Healthy asks the program whether it is well.
func (c *channel) Healthy(ctx context.Context) error {
	if c.opts.App.GRPC {
		return c.healthyGRPC(ctx)
	}
	return c.healthyHTTP(ctx)
}

// readAnswer reads the body of a program's answer and closes it.
func readAnswer(res *loam.Response) ([]byte, error) {
	var b []byte
	var err error
	if res.Body != nil {
		if b, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer+1)); err == nil && len(b) > maxAnswer {
			err = loam.Errorf(loam.ResourceExhausted, "app", "its answer is longer than %d bytes", maxAnswer)
		}
	}
	return b, errors.Join(err, res.Close())
}
