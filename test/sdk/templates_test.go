//go:build sdk

package sdk

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/loam-run/loam/sdk"
	"github.com/loam-run/loam/wasm"
)

// What loam new makes, in whatever language, builds where nothing but it is, and serves.
func TestTemplates(t *testing.T) {
	dir := t.TempDir()
	command := filepath.Join(dir, "loam")
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	run("go", "build", "-o", command, "../../cmd/loam")
	for _, language := range sdk.Languages() {
		t.Run(language, func(t *testing.T) {
			project := filepath.Join(dir, "hello-"+strings.ReplaceAll(language, "assembly", "a-"))
			run(command, "new", "function", project, "--lang", language)
			if language == "assemblyscript" {
				example, err1 := os.ReadFile("../../examples/languages/assemblyscript/package-lock.json")
				template, err2 := os.ReadFile(filepath.Join(project, "package-lock.json"))
				if err1 != nil || err2 != nil || string(example) != string(template) {
					t.Errorf("the template pins another compiler than the example (%v, %v)", err1, err2)
				}
				withCompiler(t, project)
			}
			if out := run(command, "check", project); !strings.Contains(out, "no problems") {
				t.Error(out)
			}
			run(command, "build", project)
			binary, err := os.ReadFile(filepath.Join(project, "build", filepath.Base(project)+".wasm"))
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, binary, wasm.Config{}, map[string][]string{"state": {"visits/*"}})
			for _, want := range []string{"Hello, Ada! Visit 1.\n", "Hello, Ada! Visit 2.\n"} {
				w.check(t, exchange{method: "GET", target: "/hello/Ada", status: 200, want: want})
			}
		})
	}
}
