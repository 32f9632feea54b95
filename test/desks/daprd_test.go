//go:build daprd

package desks

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The desk that was written for Dapr answers the same beside daprd and beside Loam, started from the same files with
// the same flags.
func TestSameAsBesideDaprd(t *testing.T) {
	daprd := os.Getenv("DAPRD")
	if daprd == "" {
		t.Fatal("DAPRD does not say where daprd is: make test-daprd builds it")
	}
	bin := filepath.Join(t.TempDir(), "desk")
	run(t, source(t), "go", "build", "-o", bin, "./dapr")
	theirs := business(t, bin, daprd)
	ours := business(t, bin, loam(t), "sidecar")
	if len(theirs) < 10 || !slices.Equal(theirs, ours) {
		for i := range theirs {
			t.Errorf("beside daprd %s\nbeside Loam  %s", theirs[i], ours[i])
		}
	}
	for _, line := range theirs {
		t.Log(line)
	}
}

// business is what the desk answers beside a sidecar.
func business(t *testing.T, desk string, sidecar ...string) (said []string) {
	t.Helper()
	t.Run(filepath.Base(sidecar[0]), func(t *testing.T) {
		p := ports(t, 6)
		url := "http://127.0.0.1:" + p[0]
		start(t, source(t), []string{"PORT=" + p[0], "DAPR_HTTP_PORT=" + p[1]}, desk)
		until(t, url+"/none", "404")
		start(t, source(t), nil, sidecar[0], append(sidecar[1:],
			"--app-id", "dapr-desk", "--app-port", p[0], "--resources-path", "resources", "--dapr-http-port", p[1], "--dapr-grpc-port", p[2],
			"--dapr-internal-grpc-port", p[3], "--metrics-port", p[4], "--dapr-listen-addresses", "127.0.0.1")...)
		until(t, url+"/greeting", "hello")
		until(t, "http://127.0.0.1:"+p[1]+"/v1.0/healthz", "204")
		tell := func(method, path, body string) { said = append(said, method+" "+path+" "+ask(method, url+path, body)) }
		tell("POST", "/orders", `{"id":"a1","item":"apple","count":2}`)
		tell("POST", "/orders", `{"id":"a1","item":"pear","count":1}`)
		tell("POST", "/orders", `{"id":"","item":"pear"}`)
		tell("POST", "/orders", `{"id":"b/2 ü","item":"pear","count":1}`)
		until(t, url+"/orders/a1", "confirmed")
		until(t, url+"/seen/b%2F2%20%C3%BC", "desk")
		tell("GET", "/orders/a1", "")
		tell("GET", "/seen/a1", "")
		tell("GET", "/orders/b%2F2%20%C3%BC", "")
		tell("GET", "/orders/none", "")
		tell("GET", "/ask/dapr-desk/a1", "")
		tell("GET", "/ask/dapr-desk/none", "")
		tell("GET", "/greeting", "")
	})
	return said
}
