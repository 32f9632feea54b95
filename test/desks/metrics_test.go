//go:build daprd

package desks

import (
	"bytes"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// uncounted are the names of daprd that Loam does not have; docs/dapr.md says so.
var uncounted = []string{
	"dapr_http_server_request_bytes", "dapr_http_server_response_bytes", "dapr_http_client_sent_bytes", "dapr_http_client_received_bytes",
	"dapr_grpc_io_server_received_bytes_per_rpc", "dapr_grpc_io_server_sent_bytes_per_rpc",
}

// The same calls are counted by the same names, labels and buckets beside daprd and beside Loam, and as often. A path is
// the route's pattern here.
func TestMetricsAsOfDaprd(t *testing.T) {
	daprd := os.Getenv("DAPRD")
	if daprd == "" {
		t.Fatal("DAPRD does not say where daprd is: make test-daprd builds it")
	}
	theirs, ours := counted(t, daprd), counted(t, loam(t), "sidecar")
	for name := range theirs {
		if i := strings.IndexByte(name, '{'); slices.ContainsFunc(uncounted, func(u string) bool { return strings.HasPrefix(name[:i], u) }) {
			delete(theirs, name)
		}
	}
	if len(theirs) < 100 {
		t.Errorf("daprd tells of %d series", len(theirs))
	}
	for _, name := range slices.Sorted(maps.Keys(theirs)) {
		if n, ok := ours[name]; !ok || n != theirs[name] {
			t.Errorf("%s: %v beside daprd, %v beside Loam (%v)", name, theirs[name], n, ok)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		if _, ok := theirs[name]; !ok {
			t.Errorf("only beside Loam: %s", name)
		}
	}
}

var series = regexp.MustCompile(`(?m)^(dapr_\w+)\{(.*)\} (\S+)$`)

// counted is what a sidecar has counted of the calls: by a series' name and sorted labels but for the path, how much. What
// took how long is no number that is the same twice, nor is how often a clock or a probe came: those are 1.
func counted(t *testing.T, sidecar ...string) map[string]float64 {
	got := map[string]float64{}
	t.Run(filepath.Base(sidecar[0]), func(t *testing.T) {
		app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/dapr/config", "/dapr/subscribe":
				w.WriteHeader(404)
			case "/teapot":
				w.WriteHeader(418)
			case "/dropped":
				_, _ = w.Write([]byte(`{"status":"DROP"}`))
			default:
				_, _ = w.Write([]byte(`{}`))
			}
		}))
		t.Cleanup(app.Close)
		resources := t.TempDir()
		yaml, err := os.ReadFile("testdata/metrics.yaml")
		if err == nil {
			yaml = bytes.ReplaceAll(yaml, []byte("APP"), []byte(app.URL))
			err = os.WriteFile(filepath.Join(resources, "all.yaml"), yaml, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		p := ports(t, 4)
		api, metrics := "http://127.0.0.1:"+p[0], "http://127.0.0.1:"+p[3]+"/"
		start(t, resources, []string{"LOAM_DATA=" + t.TempDir()}, sidecar[0], append(sidecar[1:],
			"--app-id", "shop", "--app-port", app.URL[strings.LastIndexByte(app.URL, ':')+1:], "--resources-path", resources, "--dapr-http-port", p[0], "--dapr-grpc-port", p[1],
			"--dapr-internal-grpc-port", p[2], "--metrics-port", p[3], "--dapr-listen-addresses", "127.0.0.1", "--enable-app-health-check", "--app-health-probe-interval", "1")...)
		until(t, api+"/v1.0/healthz", "204")
		until(t, metrics, "dapr_component_input_binding_count") // the app is known to be well
		for _, c := range []struct{ do, path, body string }{
			{"POST", "/v1.0/state/store", `[{"key":"a","value":1}]`},
			{"GET", "/v1.0/state/store/a", ""},
			{"GET", "/v1.0/state/store/none", ""},
			{"GET", "/v1.0/state/nowhere/a", ""},
			{"POST", "/v1.0/state/store", `[{"key":"a","value":1,"etag":"7"}]`},
			{"POST", "/v1.0/state/store/bulk", `{"keys":["a","b"]}`},
			{"POST", "/v1.0/state/store/transaction", `{"operations":[{"operation":"upsert","request":{"key":"z","value":1}}]}`},
			{"DELETE", "/v1.0/state/store/a", ""},
			{"GET", "/v1.0/secrets/env/PATH", ""},
			{"GET", "/v1.0/secrets/env/bulk", ""},
			{"POST", "/v1.0/publish/bus/orders", `{"a":1}`},
			{"POST", "/v1.0/publish/bus/dropped", `{"a":1}`},
			{"POST", "/v1.0/publish/bulk/bus/orders", `[{"entryId":"1","event":"x","contentType":"text/plain"}]`},
			{"POST", "/v1.0/bindings/web", `{"operation":"get"}`},
			{"GET", "/v1.0/invoke/shop/method/hello", ""},
			{"GET", "/v1.0/invoke/shop/method/teapot", ""},
			{"GET", "/v1.0/nothing", ""},
		} {
			t.Log(c.do, c.path, ask(c.do, api+c.path, c.body)[:3]) // the environment is nothing to print
		}
		call(t, "127.0.0.1:"+p[1], "GetState", "\x0a\x05store\x12\x01a")
		call(t, "127.0.0.1:"+p[1], "GetState", "\x0a\x07nowhere\x12\x01a")
		call(t, "127.0.0.1:"+p[1], "SaveState", "\x0a\x05store\x12\x06\x0a\x01g\x12\x011")
		until(t, metrics, `process_status="drop"`)
		text := ""
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(time.Minute); time.Now().Before(end); <-tick.C {
			text = ask("GET", metrics, "")
			if m := regexp.MustCompile(`(?m)^dapr_component_pubsub_ingress_count.*topic="orders".* 2$`); m.MatchString(text) && strings.Contains(text, "dapr_http_healthprobes_completed_count") {
				break
			}
		}
		for _, m := range series.FindAllStringSubmatch(text, -1) {
			labels := strings.Split(m[2], ",")
			slices.Sort(labels)
			if slices.Contains(labels, `path="/v1.0/healthz"`) {
				continue
			}
			labels = slices.DeleteFunc(labels, func(l string) bool { return strings.HasPrefix(l, "path=") })
			n, err := strconv.ParseFloat(m[3], 64)
			if err != nil {
				t.Error(err)
			}
			if strings.Contains(m[1], "input_binding") || strings.Contains(m[1], "healthprobes") || strings.Contains(m[1], "http_client") || strings.HasSuffix(m[1], "_sum") || strings.HasSuffix(m[1], "_bucket") && !slices.Contains(labels, `le="+Inf"`) {
				n = 1
				got[m[1]+"{"+strings.Join(labels, ",")+"}"] = 0
			}
			got[m[1]+"{"+strings.Join(labels, ",")+"}"] += n
		}
	})
	return got
}

// call calls a method of Dapr's gRPC service with a message.
func call(t *testing.T, address, method, message string) {
	t.Helper()
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	req, err := http.NewRequest("POST", "http://"+address+"/dapr.proto.runtime.v1.Dapr/"+method, strings.NewReader("\x00\x00\x00\x00"+string(rune(len(message)))+message))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	res, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	var body bytes.Buffer
	if _, err := body.ReadFrom(res.Body); err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	t.Log(method, res.Header.Get("Grpc-Status"), res.Trailer.Get("Grpc-Status"))
}
