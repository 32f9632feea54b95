//go:build sdk

package proxywasm_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/internal/build"
	"github.com/loam-run/loam/wasm"
)

// built runs a compiler that leaves a module at the path it is given.
func built(t testing.TB, with func(out string) error) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "guest.wasm")
	if err := with(out); err != nil {
		t.Fatalf("%v: test/sdk/install.sh installs what is needed", err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A guest of the AssemblyScript SDK of the time of Layotto, with that time's compiler and module names: both are as npm
// has them.
func TestStranger(t *testing.T) {
	binary := built(t, func(out string) error {
		asc := exec.Command("node_modules/.bin/asc", "index.ts", "--use", "abort=abort_proc_exit", "-O3", "-b", out)
		asc.Dir = "testdata/stranger"
		said, err := asc.CombinedOutput()
		if err != nil {
			t.Logf("%s", said)
		}
		return err
	})
	shop(t, binary, binary)
}

// The example's guests in C.
func TestLayottoC(t *testing.T) {
	c := func(dir string) []byte {
		return built(t, func(out string) error {
			return build.Run(t.Context(), build.Job{Name: dir, Dir: "../../examples/layotto-guest/" + dir, Out: out, Wasm: true})
		})
	}
	shop(t, c("client"), c("server"))
}

// shop asks a client's guest, whose service is a server's guest, which reads state.
func shop(t *testing.T, client, server []byte) {
	t.Helper()
	var sent []string
	methods := capabilities(&sent)
	grants := caller(loam.Grant{Capability: "state", Component: "redis", Names: []string{"book*"}}, loam.Grant{Capability: "invoke", Component: "default", Names: []string{"id-2"}})
	m := compile(t, client, wasm.Config{Methods: methods, Caller: grants})
	s := compile(t, server, wasm.Config{Methods: methods, Caller: grants})
	denied := compile(t, client, wasm.Config{Methods: methods, Caller: caller()})
	for range 3 {
		sent = nil
		if a, err := send(t, m, "GET", "/?name=book1", "", "id", "id_1"); err != nil || a.status != 200 || a.body != "There are 100 inventories for book1.\n" || len(a.header) != 0 {
			t.Errorf("%v %v", a, err)
		}
		if got := strings.Join(sent, "\n"); got != "id-2 POST / book1 [{id id_2}]" {
			t.Errorf("it asked %s", got)
		}
		if a, err := send(t, m, "POST", "/", "name=book1"); err != nil || a.body != "There are 100 inventories for book1.\n" {
			t.Errorf("%v %v", a, err)
		}
		if a, err := send(t, s, "POST", "/", "book1"); err != nil || a.status != 200 || a.body != "100" {
			t.Errorf("%v %v", a, err)
		}
		if a, err := send(t, s, "POST", "/", "book2"); err != nil || a.status != 200 || a.body != "" { // it is not there
			t.Errorf("%v %v", a, err)
		}
		if _, err := send(t, s, "POST", "/", "secret"); loam.CodeOf(err) != loam.PermissionDenied {
			t.Errorf("%v", err)
		}
		if a, err := send(t, denied, "GET", "/?name=book1", ""); err == nil && strings.Contains(a.body, "100") {
			t.Errorf("%v", a)
		}
	}
	for _, m := range []*wasm.Module{m, s} {
		if st := m.State(); !st.Image {
			t.Errorf("there is no image: %s", st.Reason)
		}
	}
}

// What the SDK itself does beside Layotto's calls.
func TestStrangerSDK(t *testing.T) {
	binary := built(t, func(out string) error {
		asc := exec.Command("node_modules/.bin/asc", "index.ts", "--use", "abort=abort_proc_exit", "-O3", "-b", out)
		asc.Dir = "testdata/stranger"
		return asc.Run()
	})
	m := compile(t, binary, wasm.Config{Settings: []byte("blue")})
	if a, err := send(t, m, "GET", "/", "", "X-Greet", "you"); err != nil || a.status != 418 || a.body != "hello you" {
		t.Errorf("%v %v", a, err)
	}
	if _, err := send(t, m, "POST", "/", "abort=1"); loam.CodeOf(err) != loam.Internal || !strings.Contains(err.Error(), "unreachable") {
		t.Errorf("%v", err)
	}
}

func BenchmarkC(b *testing.B) {
	binary := built(b, func(out string) error {
		return build.Run(b.Context(), build.Job{Name: "server", Dir: "../../examples/layotto-guest/server", Out: out, Wasm: true})
	})
	var sent []string
	m := compile(b, binary, wasm.Config{Methods: capabilities(&sent), Caller: caller(loam.Grant{Capability: "state", Component: "redis"})})
	for b.Loop() {
		if _, err := send(b, m, "POST", "/", "book1"); err != nil {
			b.Fatal(err)
		}
	}
}
