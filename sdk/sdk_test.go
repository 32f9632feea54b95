package sdk

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A project outside this repository builds, and runs its tests, with the sources written and nothing else.
func TestProjectBuildsOffline(t *testing.T) {
	dir := t.TempDir()
	if err := Write(filepath.Join(dir, "sdk"), "go"); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"go.mod": "module shop\n\ngo 1.24\n\nrequire " + GoModule + " v0.0.0\n\nreplace " + GoModule + " => ./sdk\n",
		"main.go": `package main

import loam "` + GoModule + `"

func init() {
	loam.Handle("GET /", func(*loam.Request) (*loam.Response, error) { return loam.Text(200, "hello"), nil })
}

func main() {}
`,
		"main_test.go": `package main

import (
	"testing"

	loam "` + GoModule + `"
)

func TestHello(t *testing.T) {
	if r := loam.NewFake(t).Serve("GET", "/", nil); string(r.Body) != "hello" {
		t.Errorf("%+v", r)
	}
}
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		env  []string
		args []string
	}{
		{[]string{"GOOS=wasip1", "GOARCH=wasm"}, []string{"build", "-buildmode=c-shared", "-o", "shop.wasm", "."}},
		{nil, []string{"test", "./..."}},
	} {
		cmd := exec.Command("go", c.args...)
		cmd.Dir = dir
		cmd.Env = append(append(os.Environ(), "GOPROXY=off", "GOFLAGS=-mod=readonly", "GOWORK=off"), c.env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("go %v: %v\n%s", c.args, err, out)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "shop.wasm")); err != nil {
		t.Error(err)
	}
}
