package dapr

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/telemetry"
)

// Metrics count what a program asks of the API, what the API asks of it, and what components were asked for it, by the names
// and labels that daprd 1.18 has for them. nil counts nothing. One is the program's for as long as the process lives: an API
// that is made anew counts on. docs/dapr.md lists the names.
type Metrics struct {
	app, namespace string
	shards         int
	families       [families]family
}

// The families of calls. What is said of an API's routes is known before it serves; the others are found as they are used.
const (
	httpServer = iota
	httpClient
	httpProbes
	grpcServer
	grpcClient
	grpcProbes
	stateCalls
	secretCalls
	configCalls
	cryptoCalls
	bindingCalls
	bindingReads
	published
	publishedBulk
	delivered
	deliveredBulk
	deliveredEntries
	jobsDone
	jobsFailed
	jobsTriggered
	callsSent
	callsReceived
	answersSent
	answersReceived
	answersAwaited
	families
)

// A family is calls that are counted under the same names.
type family struct {
	counts     []string // the names of counters, without what all begin with
	latency    string   // the histogram's; "": there is none
	labels     [2]string
	namespaced bool
	outcome    func(code int) string // the labels that say what became of a call; nil: none does

	mu     sync.Mutex
	meters atomic.Pointer[[]*meter] // replaced by one that is longer
}

// NewMetrics makes those of a program, for tasks of as many shards. The namespace is Dapr's, "" where nobody says one.
func NewMetrics(app, namespace string, shards int) *Metrics {
	m := &Metrics{app: app, namespace: namespace, shards: shards}
	status := func(code int) string { return `status="` + strconv.Itoa(code) + `"` }
	success := func(code int) string { return `success="` + strconv.FormatBool(code == 0) + `"` }
	component := func(name, second string, outcome func(int) string) family {
		return family{
			counts: []string{"component_" + name + "_count"}, latency: "component_" + name + "_latencies",
			labels: [2]string{"component", second}, namespaced: true, outcome: outcome,
		}
	}
	m.families = [families]family{
		httpServer:    {counts: []string{"http_server_request_count", "http_server_response_count"}, latency: "http_server_latency", labels: [2]string{"method", "path"}, outcome: status},
		httpClient:    {counts: []string{"http_client_completed_count"}, latency: "http_client_roundtrip_latency", labels: [2]string{"method", "path"}, outcome: status},
		httpProbes:    {counts: []string{"http_healthprobes_completed_count"}, latency: "http_healthprobes_roundtrip_latency", outcome: status},
		grpcServer:    {counts: []string{"grpc_io_server_completed_rpcs"}, latency: "grpc_io_server_server_latency", labels: [2]string{"grpc_server_method"}, outcome: grpcStatus("grpc_server_status")},
		grpcClient:    {counts: []string{"grpc_io_client_completed_rpcs"}, latency: "grpc_io_client_roundtrip_latency", labels: [2]string{"grpc_client_method"}, outcome: grpcStatus("grpc_client_status")},
		grpcProbes:    {counts: []string{"grpc_io_healthprobes_completed_count"}, latency: "grpc_io_healthprobes_roundtrip_latency", outcome: grpcStatus("grpc_client_status")},
		stateCalls:    component("state", "operation", success),
		secretCalls:   component("secret", "operation", success),
		configCalls:   component("configuration", "operation", success),
		cryptoCalls:   component("crypto", "operation", success),
		bindingCalls:  component("output_binding", "operation", success),
		bindingReads:  component("input_binding", "", success),
		published:     component("pubsub_egress", "topic", success),
		publishedBulk: component("pubsub_egress_bulk", "topic", success),
		delivered: component("pubsub_ingress", "topic", func(code int) string {
			return `process_status="` + verdicts[code].process + `",status="` + verdicts[code].status + `"`
		}),
		deliveredBulk: component("pubsub_ingress_bulk", "topic", func(int) string { return `process_status=""` }),
		deliveredEntries: {
			counts: []string{"component_pubsub_ingress_bulk_event_count"}, labels: [2]string{"component", "topic"}, namespaced: true,
			outcome: func(code int) string { return `process_status="` + verdicts[code].process + `"` },
		},
		jobsDone:      {counts: []string{"component_job_success_count"}, labels: [2]string{"operation"}, namespaced: true},
		jobsFailed:    {counts: []string{"component_job_failure_count"}, labels: [2]string{"operation"}, namespaced: true},
		jobsTriggered: {latency: "component_job_latencies", labels: [2]string{"operation"}, namespaced: true, outcome: success},

		callsSent:     {counts: []string{"runtime_service_invocation_req_sent_total"}, labels: [2]string{"dst_app_id"}, outcome: func(int) string { return `type="unary"` }},
		callsReceived: {counts: []string{"runtime_service_invocation_req_recv_total"}, labels: [2]string{"src_app_id"}},
		answersSent:   {counts: []string{"runtime_service_invocation_res_sent_total"}, labels: [2]string{"dst_app_id"}, outcome: status},
		answersReceived: {
			counts: []string{"runtime_service_invocation_res_recv_total"}, labels: [2]string{"src_app_id"},
			outcome: func(code int) string { return status(code) + `,type="unary"` },
		},
		answersAwaited: {latency: "runtime_service_invocation_res_recv_latency_ms", labels: [2]string{"src_app_id"}, outcome: status},
	}
	for i := range m.families {
		m.families[i].meters.Store(new([]*meter))
	}
	return m
}

// verdicts are what may become of an event, by the codes of verdict: a program that says DROP has succeeded in that.
var verdicts = [...]struct{ process, status string }{{"success", "success"}, {"retry", "retry"}, {"drop", "drop"}, {"drop", "success"}}

func verdict(err error) int {
	if err == nil {
		return 0
	}
	d, ok := errors.AsType[dropped](err)
	switch {
	case !ok:
		return 1
	case loam.CodeOf(d.error) == loam.Aborted:
		return 3
	}
	return 2
}

func succeeded(err error) int {
	if err != nil {
		return 1
	}
	return 0
}

// grpcStatus makes a label of a call's code, by the names that Go's gRPC has for them.
func grpcStatus(label string) func(code int) string {
	return func(code int) string {
		return label + `="` + codeName(loam.Code(code)) + `"`
	}
}

const (
	// maxMeters bounds a family: what is beyond is counted together, with empty labels. A program may publish to any topic.
	maxMeters = 200
	maxLabel  = 256 // bytes, of what else is empty
)

// A meter counts calls that have the same labels, by what became of them.
type meter struct {
	metrics  *Metrics
	family   *family
	values   [2]string
	mu       sync.Mutex
	outcomes atomic.Pointer[[]*outcomes]
}

// outcomes are the calls of a meter that ended in one way.
type outcomes struct {
	code   int
	labels string // as they are written
	shards []tally
}

// tally is what the tasks of one shard write.
type tally struct {
	count, nanos atomic.Uint64
	latency      [len(latencyBounds) + 1]atomic.Uint64
}

// latencyBounds are where daprd's histograms have theirs, in milliseconds.
var latencyBounds = [...]int{
	1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 30, 40, 50, 65, 80, 100, 130, 160, 200, 250, 300, 400, 500, 650, 800, 1000, 2000, 5000, 10000, 20000, 50000, 100000,
}

// meter finds or makes the one of those labels. There are few: looking at each is quicker than hashing two strings.
func (m *Metrics) meter(of int, first, second string) *meter {
	f := &m.families[of]
	if one := f.find(first, second); one != nil {
		return one
	}
	if len(*f.meters.Load()) >= maxMeters || len(first) > maxLabel || len(second) > maxLabel {
		if one := f.find("", ""); one != nil {
			return one
		}
		first, second = "", ""
	}
	return m.known(of, first, second)
}

// known is meter for labels of which there are as many as the API has.
func (m *Metrics) known(of int, first, second string) *meter {
	f := &m.families[of]
	f.mu.Lock()
	defer f.mu.Unlock()
	if one := f.find(first, second); one != nil {
		return one
	}
	all := *f.meters.Load()
	one := &meter{metrics: m, family: f, values: [2]string{strings.Clone(first), strings.Clone(second)}}
	one.outcomes.Store(new([]*outcomes))
	longer := append(all[:len(all):len(all)], one)
	f.meters.Store(&longer)
	return one
}

func (f *family) find(first, second string) *meter {
	for _, one := range *f.meters.Load() {
		if one.values[0] == first && one.values[1] == second {
			return one
		}
	}
	return nil
}

// add counts n calls.
func (m *meter) add(shard, code, n int, took time.Duration) {
	t := &m.of(code).shards[shard]
	t.count.Add(uint64(n))
	if m.family.latency == "" {
		return
	}
	took = max(took, 0)
	i := 0
	for i < len(latencyBounds) && took > time.Duration(latencyBounds[i])*time.Millisecond {
		i++ // most take less than the first few
	}
	t.nanos.Add(uint64(took))
	t.latency[i].Add(1)
}

// of finds or makes the outcomes of a code.
func (m *meter) of(code int) *outcomes {
	find := func() *outcomes {
		for _, o := range *m.outcomes.Load() {
			if o.code == code {
				return o
			}
		}
		return nil
	}
	if o := find(); o != nil {
		return o
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if o := find(); o != nil {
		return o
	}
	var b strings.Builder
	fmt.Fprintf(&b, "app_id=%s", telemetry.Label(m.metrics.app))
	if m.family.namespaced {
		fmt.Fprintf(&b, ",namespace=%s", telemetry.Label(m.metrics.namespace))
	}
	for i, name := range m.family.labels {
		if name != "" {
			fmt.Fprintf(&b, ",%s=%s", name, telemetry.Label(m.values[i]))
		}
	}
	if m.family.outcome != nil {
		b.WriteString("," + m.family.outcome(code))
	}
	o := &outcomes{code: code, labels: b.String(), shards: make([]tally, m.metrics.shards)}
	all := *m.outcomes.Load()
	longer := append(all[:len(all):len(all)], o)
	m.outcomes.Store(&longer)
	return o
}

// Observe counts a request that was answered.
func (m *meter) Observe(req *loam.Request, status int, _ int64, took time.Duration) {
	if status < 100 || status > 999 {
		status = 500
	}
	m.add(req.Task().Shard(), status, 1, took)
}

// A timing is one call while it lasts.
type timing struct {
	m     *Metrics
	task  loam.Task // nil: it is a goroutine
	start time.Time
}

// begin begins one in a task, or in none.
func (m *Metrics) begin(t loam.Task) timing {
	if m == nil {
		return timing{}
	}
	b := timing{m: m, task: t}
	b.start = b.now()
	return b
}

func (t *timing) now() time.Time {
	if t.task == nil {
		return time.Now()
	}
	return t.task.Now()
}

// end counts the call, by labels that may be found only now.
func (t *timing) end(of int, first, second string, code int) { t.endAll(of, first, second, code, 1) }

// endAll counts it as n.
func (t *timing) endAll(of int, first, second string, code, n int) {
	if t.m != nil && n > 0 {
		t.endOf(t.m.meter(of, first, second), code, n)
	}
}

// endOf counts it in a meter that was found before.
func (t *timing) endOf(m *meter, code, n int) {
	if m == nil {
		return
	}
	shard := 0
	if t.task != nil {
		shard = t.task.Shard()
	}
	m.add(shard, code, n, t.now().Sub(t.start))
}

// byVerb are the meters of one path, one for each method.
type byVerb [10]*meter

// httpVerbs are the methods that are told apart; the last is any other.
var httpVerbs = [len(byVerb{})]string{"GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "CONNECT", "TRACE", "UNKNOWN"}

// of finds the meter of a method.
func (v *byVerb) of(method string) *meter {
	for i, name := range httpVerbs[:len(httpVerbs)-1] {
		if name == method {
			return v[i]
		}
	}
	return v[len(v)-1]
}

// verbs are the meters of a path for the methods that it takes, which have commas between them; "": all.
func (m *Metrics) verbs(of int, path, methods string) *byVerb {
	if m == nil {
		return nil
	}
	var v byVerb
	for i, name := range httpVerbs {
		if methods == "" || strings.Contains(","+methods+",", ","+name+",") {
			v[i] = m.known(of, name, path)
		}
	}
	return &v
}

// Loaded says of a component how often it was opened, and how often it did not open.
type Loaded struct {
	Name, Type     string
	Opened, Failed uint64
}

// WritePrometheus writes what was counted in Prometheus' text format. The components are those that the program may find.
func (m *Metrics) WritePrometheus(w io.Writer, components []Loaded) error {
	var b strings.Builder
	app := telemetry.Label(m.app)
	loaded, opened := 0, map[string]uint64{}
	var types []string
	for _, c := range components {
		if c.Opened > 0 {
			loaded++
			if opened[c.Type] == 0 {
				types = append(types, c.Type)
			}
			opened[c.Type] += c.Opened
		}
	}
	b.WriteString("# TYPE dapr_runtime_component_loaded counter\n")
	fmt.Fprintf(&b, "dapr_runtime_component_loaded{app_id=%s} %d\n", app, loaded)
	b.WriteString("# TYPE dapr_runtime_component_init_total counter\n")
	for _, t := range types {
		fmt.Fprintf(&b, "dapr_runtime_component_init_total{app_id=%s,component=%s} %d\n", app, telemetry.Label(t), opened[t])
	}
	b.WriteString("# TYPE dapr_runtime_component_init_fail_total counter\n")
	for _, c := range components {
		if c.Failed > 0 {
			fmt.Fprintf(&b, "dapr_runtime_component_init_fail_total{app_id=%s,component=%s,componentName=%s,reason=\"init\"} %d\n", app, telemetry.Label(c.Type), telemetry.Label(c.Name), c.Failed)
		}
	}
	for i := range m.families {
		m.families[i].write(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (f *family) write(b *strings.Builder) {
	var all []*outcomes
	for _, m := range *f.meters.Load() {
		all = append(all, *m.outcomes.Load()...)
	}
	if len(all) == 0 {
		return // daprd writes no name that it has not counted yet
	}
	for _, name := range f.counts {
		fmt.Fprintf(b, "# TYPE dapr_%s counter\n", name)
		for _, o := range all {
			n := uint64(0)
			for i := range o.shards {
				n += o.shards[i].count.Load()
			}
			fmt.Fprintf(b, "dapr_%s{%s} %d\n", name, o.labels, n)
		}
	}
	if f.latency == "" {
		return
	}
	fmt.Fprintf(b, "# TYPE dapr_%s histogram\n", f.latency)
	for _, o := range all {
		var buckets [len(latencyBounds) + 1]uint64
		var nanos uint64
		for i := range o.shards {
			t := &o.shards[i]
			nanos += t.nanos.Load()
			for j := range t.latency {
				buckets[j] += t.latency[j].Load()
			}
		}
		n := uint64(0)
		for i, bound := range latencyBounds {
			n += buckets[i]
			fmt.Fprintf(b, "dapr_%s_bucket{%s,le=\"%d\"} %d\n", f.latency, o.labels, bound, n)
		}
		n += buckets[len(latencyBounds)]
		fmt.Fprintf(b, "dapr_%s_bucket{%s,le=\"+Inf\"} %d\n", f.latency, o.labels, n)
		fmt.Fprintf(b, "dapr_%s_sum{%s} %g\n", f.latency, o.labels, float64(nanos)/1e6)
		fmt.Fprintf(b, "dapr_%s_count{%s} %d\n", f.latency, o.labels, n)
	}
}
