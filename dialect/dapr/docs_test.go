package dapr

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// docs/dapr.md lists every route and every method of Dapr 1.18, and says of those that are not built that they are not; and
// the metrics that there are.
func TestDocs(t *testing.T) {
	b, err := os.ReadFile("../../docs/dapr.md")
	if err != nil {
		t.Fatal(err)
	}
	api, metrics, _ := strings.Cut(string(b), "\n## Metrics\n")
	said := map[string]string{} // by what the first cell names
	for line := range strings.SplitSeq(api, "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 5 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		name := strings.Trim(cells[1], " `")
		said[name] = strings.TrimSpace(cells[2])
		switch said[name] {
		case "same", "not yet":
		case "differs":
			if strings.TrimSpace(cells[3]) == "" {
				t.Errorf("%s differs, and it does not say how", name)
			}
		default:
			t.Errorf("%s: %q is not one of same, differs, not yet", name, said[name])
		}
	}
	known := map[string]bool{}
	check := func(name string, built bool) {
		known[name] = true
		if (said[name] == "not yet") == built || said[name] == "" {
			t.Errorf("%s is built: %t; docs/dapr.md says %q", name, built, said[name])
		}
	}
	for _, r := range httpRoutes() {
		if r.group == "workflows" && r.version != v1 {
			continue // they stand beside those of v1.0
		}
		methods := r.methods
		if methods == "" {
			methods = "*"
		}
		check(methods+" /"+r.version+"/"+r.pattern, r.group != "actors" && r.group != "workflows" && r.group != "conversation")
	}
	a := newAPI(t, nil)
	methods := map[string]bool{"InvokeService": true}
	for _, m := range a.grpcMethods() {
		methods[m.name] = true
		group, _, _ := strings.Cut(m.group, ".")
		check(m.name, group != "actors" && group != "workflows" && group != "conversation")
	}
	check("InvokeService", true)
	for name := range said {
		if !known[name] {
			t.Errorf("docs/dapr.md tells of %s, which there is not", name)
		}
	}
	counted := map[string]bool{"runtime_component_loaded": true, "runtime_component_init_total": true, "runtime_component_init_fail_total": true}
	m := NewMetrics("", "", 1)
	for i := range m.families {
		for _, name := range append(m.families[i].counts, m.families[i].latency) {
			counted[name] = name != ""
		}
	}
	for line := range strings.SplitSeq(metrics, "\n") {
		if cells := strings.Split(line, "|"); len(cells) == 5 {
			for _, name := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(cells[1], -1) {
				if !counted[name[1]] {
					t.Errorf("docs/dapr.md tells of a metric %s twice, or there is none", name[1])
				}
				delete(counted, name[1])
			}
		}
	}
	for name, is := range counted {
		if is {
			t.Errorf("docs/dapr.md does not tell of the metric %s", name)
		}
	}
	// What the contract has messages for, is served.
	contract, err := os.ReadFile("../../api/dapr/runtime.proto")
	if err != nil {
		t.Fatal(err)
	}
	rpcs := regexp.MustCompile(`(?m)^\s*rpc (\w+)`).FindAllSubmatch(contract, -1)
	if len(rpcs) < 40 {
		t.Errorf("the contract has %d methods", len(rpcs))
	}
	for _, m := range rpcs {
		if !methods[string(m[1])] {
			t.Errorf("%s is in the contract and not served", m[1])
		}
	}
}
