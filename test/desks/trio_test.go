//go:build sdk

package desks

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Three desks, written for Dapr, as a function and for Layotto, take orders, tell each other and ask each other through
// one Loam.
func TestThreeDesksThroughOneLoam(t *testing.T) {
	desks := source(t)
	run(t, filepath.Join(desks, "layotto"), "npm", "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock")
	p := ports(t, 6)
	// A copy with ports of its own: those of the example may be taken.
	dir := filepath.Join(t.TempDir(), "desks")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(desks, "resources"))); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(desks, "desks.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	moved := strings.NewReplacer("6001", p[0], "3500", p[1], "6003", p[2], "6004", p[3], "34904", p[4],
		"source: ./", "source: "+desks+"/", "dir: ./", "dir: "+desks+"/").Replace(string(text))
	if err := os.WriteFile(filepath.Join(dir, "desks.yaml"), []byte(moved), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, desks, nil, loam(t), "dev", "--data", t.TempDir(), "--listen", "127.0.0.1:"+p[5], dir)
	url := "http://127.0.0.1:" + p[5]
	names := []string{"dapr", "function", "layotto"}
	for _, name := range names {
		until(t, url+"/"+name+"/seen/none", "404")
	}
	for _, name := range names {
		id := name + "-1"
		if got := ask("POST", url+"/"+name+"/orders", `{"id":"`+id+`","item":"apple","count":2}`); !strings.HasPrefix(got, "200 ") || !strings.Contains(got, `"status":"open"`) {
			t.Errorf("an order at the %s desk: %s", name, got)
		}
		if got := ask("POST", url+"/"+name+"/orders", `{"id":"`+id+`","item":"pear","count":1}`); !strings.HasPrefix(got, "409 ") {
			t.Errorf("the same order at the %s desk again: %s", name, got)
		}
	}
	for _, taker := range names {
		id := taker + "-1"
		until(t, url+"/"+taker+"/orders/"+id, "confirmed")
		for _, name := range names {
			until(t, url+"/"+name+"/seen/"+id, `{"desk":"`+taker+`-desk"}`)
			got := ask("GET", url+"/"+name+"/ask/"+taker+"-desk/"+id, "")
			var order map[string]any
			if err := json.Unmarshal([]byte(strings.TrimPrefix(got, "200 ")), &order); err != nil ||
				order["id"] != id || order["item"] != "apple" || order["count"] != 2.0 || order["desk"] != taker+"-desk" || order["status"] != "confirmed" {
				t.Errorf("the %s desk asks the %s desk: %s", name, taker, got)
			}
		}
	}
	if got := ask("GET", url+"/dapr/greeting", ""); got != `200 {"greeting":"hello from the desk"}` {
		t.Errorf("a secret: %s", got)
	}
}
