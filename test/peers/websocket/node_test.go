package websocket

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// ws of Node.js is the client.
func TestNode(t *testing.T) {
	if _, err := os.Stat("ws/node_modules/ws"); err != nil {
		t.Fatalf("%v: make test-peers installs it", err)
	}
	for name, goroutines := range map[string]bool{"loops": false, "goroutines": true} {
		t.Run(name, func(t *testing.T) {
			f := start(t, upstream(t, gorillaEcho), goroutines)
			for _, args := range [][]string{{"ws://" + f.plain}, {"wss://" + f.secure, f.ca}} {
				out, err := exec.CommandContext(t.Context(), "node", append([]string{"ws/client.mjs"}, args...)...).CombinedOutput()
				if err != nil {
					t.Errorf("%v: %v: %s", args, err, out)
				}
				if n := strings.Count(string(out), "\n"); err == nil && n != 5 {
					t.Errorf("%d cases: %s", n, out)
				}
			}
		})
	}
}
