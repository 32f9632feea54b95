package dapr

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/dialect"
)

// what is written of a metric: its lines, in their order.
func lines(t *testing.T, m *Metrics, name string) (found []string) {
	t.Helper()
	var b strings.Builder
	if err := m.WritePrometheus(&b, []Loaded{{"store", "state.redis", 1, 0}, {"other", "state.redis", 2, 3}, {"none", "pubsub.kafka", 0, 1}}); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if strings.HasPrefix(line, "dapr_"+name+"{") {
			found = append(found, strings.TrimSpace(strings.TrimPrefix(line, "dapr_"+name)))
		}
	}
	return found
}

// What is counted of an API's requests, and of the components behind it.
func TestMetrics(t *testing.T) {
	m := NewMetrics("me", "prod", 2)
	a := newAPI(t, func(_ *dialect.Options, s *Settings) { s.Metrics = m })
	run(t, a.HTTP(), []step{
		{do: "POST /v1.0/state/store", body: `[{"key":"a","value":1}]`, status: 204},
		{do: "GET /v1.0/state/store/a", status: 200, want: "1"},
		{do: "GET /v1.0/state/store/a", status: 200, want: "1"},
		{do: "GET /v1.0/state/store/a%7C%7Cb", status: 400, want: "*"}, // of which the store is not asked
		{do: "DELETE /v1.0/state/store/a", header: []string{"If-Match: 77"}, status: 409, want: "*"},
	})
	want := []string{
		`{app_id="me",namespace="prod",component="store",operation="set",success="true"} 1`,
		`{app_id="me",namespace="prod",component="store",operation="get",success="true"} 2`,
		`{app_id="me",namespace="prod",component="store",operation="delete",success="false"} 1`,
	}
	if got := lines(t, m, "component_state_count"); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
	if got := lines(t, m, "component_state_latencies_bucket"); len(got) != 3*(len(latencyBounds)+1) {
		t.Errorf("%d lines of buckets", len(got))
	}
	for name, want := range map[string]string{
		"runtime_component_loaded":          `{app_id="me"} 2`,
		"runtime_component_init_total":      `{app_id="me",component="state.redis"} 3`,
		"runtime_component_init_fail_total": `{app_id="me",component="state.redis",componentName="other",reason="init"} 3|{app_id="me",component="pubsub.kafka",componentName="none",reason="init"} 1`,
	} {
		if got := strings.Join(lines(t, m, name), "|"); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// An API that is made anew counts on, and what is beyond the bound is counted without labels.
func TestMetricsBounds(t *testing.T) {
	m := NewMetrics("a\"b\\\n", "", 1)
	first, second := m.verbs(httpServer, "/v1.0/x", "GET"), m.verbs(httpServer, "/v1.0/x", "GET")
	if first.of("GET") == nil || first.of("GET") != second.of("GET") || first.of("POST") != nil {
		t.Error("the same path has two meters, or one for a method that it does not take")
	}
	for i := range 10 * maxMeters {
		timing := m.begin(nil)
		timing.end(published, "bus", fmt.Sprint("topic ", i), 0)
		timing.end(published, "bus", strings.Repeat("x", maxLabel+1), 1)
	}
	got := lines(t, m, "component_pubsub_egress_count")
	if n := len(got); n > maxMeters+2 {
		t.Errorf("%d series", n)
	}
	if all := strings.Join(got, "\n"); !strings.Contains(all, `{app_id="a\"b\\\n",namespace="",component="",topic="",success="false"} 2000`) {
		t.Errorf("%s", all)
	}
	var none *Metrics
	timing := none.begin(nil)
	timing.end(published, "bus", "topic", 0) // does nothing
	if none.verbs(httpServer, "", "") != nil {
		t.Error("nothing counts")
	}
}

func TestMetricsBuckets(t *testing.T) {
	m := NewMetrics("me", "", 1)
	of := m.known(httpProbes, "", "")
	for _, took := range []time.Duration{-1, 0, time.Millisecond, time.Millisecond + 1, 13 * time.Millisecond, time.Hour} {
		of.add(0, 200, 1, took)
	}
	got := strings.Join(lines(t, m, "http_healthprobes_roundtrip_latency_bucket"), "\n")
	for _, want := range []string{`le="1"} 3`, `le="2"} 4`, `le="10"} 4`, `le="13"} 5`, `le="100000"} 5`, `le="+Inf"} 6`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}

// Both sidecars of a call count it, each with the other's app.
func TestMetricsOfInvocation(t *testing.T) {
	f := newFleet(t)
	front, back := NewMetrics("front", "", 64), NewMetrics("back", "", 64)
	f.start("back", app(t, http.HandlerFunc(mirror)), func(_ *dialect.Options, s *Settings) { s.Metrics = back })
	caller := f.start("front", "", func(_ *dialect.Options, s *Settings) { s.Metrics = front })
	for _, status := range []string{"200", "418"} {
		if res, b := send(t, "POST", "http://"+caller.http+"/v1.0/invoke/back/method/x", "{}", "X-Status: "+status); fmt.Sprint(res.StatusCode) != status {
			t.Fatalf("%d %s", res.StatusCode, b)
		}
	}
	for _, c := range []struct {
		of         *Metrics
		name, want string
	}{
		{front, "req_sent_total", `{app_id="front",dst_app_id="back",type="unary"} 2`},
		{front, "res_recv_total", `{app_id="front",src_app_id="back",status="200",type="unary"} 1|{app_id="front",src_app_id="back",status="418",type="unary"} 1`},
		{front, "res_recv_latency_ms_count", `{app_id="front",src_app_id="back",status="200"} 1|{app_id="front",src_app_id="back",status="418"} 1`},
		{back, "req_recv_total", `{app_id="back",src_app_id="front"} 2`},
		{back, "res_sent_total", `{app_id="back",dst_app_id="front",status="200"} 1|{app_id="back",dst_app_id="front",status="418"} 1`},
	} {
		if got := strings.Join(lines(t, c.of, "runtime_service_invocation_"+c.name), "|"); got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
	}
	if got := lines(t, back, "http_client_completed_count"); len(got) != 2 {
		t.Errorf("calls of the app: %v", got)
	}
}

func TestVerdict(t *testing.T) {
	no := loam.Errorf(loam.NotFound, "deliver", "no route")
	for want, err := range []error{nil, errors.New("not now"), fmt.Errorf("in: %w", dropped{no}), outcome("DROP")} {
		if got := verdict(err); got != want {
			t.Errorf("%v: %v", err, verdicts[got])
		}
	}
}

// Counting costs no memory.
func TestMetricsAllocate(t *testing.T) {
	m := NewMetrics("me", "", 1)
	task, end := loam.NewTask(t.Context())
	defer end()
	verbs := m.verbs(httpServer, "/v1.0/x", "")
	req := loam.NewRequest(t.Context())
	defer req.Release()
	if n := testing.AllocsPerRun(100, func() {
		timing := m.begin(task)
		timing.end(stateCalls, "store", "get", 0)
		verbs.of("GET").Observe(req, 200, 0, time.Millisecond)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
