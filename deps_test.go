package loam_test

import (
	"bytes"
	"flag"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/loam-run/loam"

// layers is the picture in ARCHITECTURE.md: which line a top-level folder stands on. A package imports lower lines
// and its own folder; folders of one line are strangers.
var layers = map[string]int{
	"cmd": 6, "examples": 6,
	"component": 5, "kube": 5, "server": 5,
	"admin": 4, "dialect": 4, "provider": 4, "snapshot": 4,
	"listener": 3, "policy": 3, "target": 3, "event": 3, "capability": 3, "workflow": 3,
	"protocol": 2, "route": 2, "wasm": 2,
	"resource": 1, "identity": 1, "telemetry": 1, "api": 1, "console": 1, "loop": 1,
	"": 0, // loam.go itself
}

// outside are the folders that are no part of the picture, and what stands in them. Nothing inside imports them, but
// for the SDK: cmd writes its sources out for a new project, and the guests of the examples are written with it.
var outside = map[string]string{
	"sdk":   "what guests import: the standard library only, so that a guest depends on nothing",
	"tools": "what makes and checks the code: never linked into it",
	"bench": "measures the program from outside",
	"test":  "tests of the whole: free to import anything",
}

var update = flag.Bool("update", false, "rewrite golden files")

func TestLayers(t *testing.T) {
	wrong, err := checkLayers(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wrong {
		t.Error(w)
	}
}

// checkLayers reads the import lines of every Go file below root and tells which of them point the wrong way.
func checkLayers(root string) (wrong []string, err error) {
	fset := token.NewFileSet()
	strangers := map[string]bool{}
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() {
			if name != root && (base[0] == '.' || base[0] == '_' || base == "testdata" || base == "bin" || base == "build") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		top := topOf(path.Dir(rel))
		_, inside := layers[top]
		if _, known := outside[top]; !inside && !known && top != "internal" {
			if !strangers[top] {
				strangers[top] = true
				wrong = append(wrong, fmt.Sprintf("%s: folder %s/ is on no line: add it to layers in deps_test.go and to the picture in ARCHITECTURE.md", rel, top))
			}
			return nil
		}
		file, err := parser.ParseFile(fset, name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if why := forbidden(rel, imported); why != "" {
				wrong = append(wrong, fmt.Sprintf("%s:%d: imports %s: %s", rel, fset.Position(spec.Pos()).Line, imported, why))
			}
		}
		return nil
	})
	return wrong, err
}

// forbidden says why file, a slash-separated path, must not import what it imports; "" if it may.
func forbidden(file, imported string) string {
	from := topOf(path.Dir(file))
	test := strings.HasSuffix(file, "_test.go")
	if imported != module && !strings.HasPrefix(imported, module+"/") {
		stdlib := !strings.Contains(strings.SplitN(imported, "/", 2)[0], ".")
		if stdlib || test {
			return ""
		}
		switch from {
		case "", "internal", "sdk":
			return "only the standard library is imported here"
		}
		return ""
	}

	dir := strings.TrimPrefix(strings.TrimPrefix(imported, module), "/")
	to := topOf(dir)
	switch {
	case from == to:
		if from == "" && !test {
			return "it is itself"
		}
		return ""
	case from == "sdk":
		return "the SDK knows nothing of the program it runs in"
	case from == "tools", from == "bench", from == "test":
		return ""
	case to == "internal":
		return ""
	case to == "sdk" && layers[from] == 6:
		return ""
	case outside[to] != "":
		return to + "/ is " + outside[to]
	case test && to != "cmd" && to != "examples":
		return "" // a test may look up: its arrows are in no binary
	case from == "internal":
		return "only the standard library is imported here"
	case to == "component" && from != "cmd" && from != "examples":
		return "nothing below cmd knows a component: take []loam.Factory"
	case layers[to] < layers[from]:
		return ""
	case layers[to] == layers[from]:
		return fmt.Sprintf("%s/ and %s/ are strangers on line %d: meet through the types of loam.go or a func handed in by server", from, to, layers[to])
	}
	return fmt.Sprintf("%s/ is on line %d and %s/ above it, on %d: imports point down", from, layers[from], to, layers[to])
}

// topOf is the first folder of a slash-separated path, "" for the root.
func topOf(dir string) string {
	if dir == "." {
		return ""
	}
	top, _, _ := strings.Cut(dir, "/")
	return top
}

// The rules are worth something only if they fail: a tree with one violation of each kind, and with what is allowed.
func TestLayersFindViolations(t *testing.T) {
	const yes = "" // allowed
	for file, c := range map[string]struct{ imported, want string }{
		"loam.go":                 {"golang.org/x/sync/errgroup", "only the standard library"},
		"error.go":                {module + "/api", "on line 0"},
		"internal/size/a.go":      {"golang.org/x/sys/unix", "only the standard library"},
		"internal/size/b.go":      {module + "/api", "only the standard library"},
		"internal/size/c.go":      {module + "/internal/suggest", yes},
		"internal/size/a_test.go": {"github.com/google/go-cmp/cmp", yes},
		"api/a.go":                {module, yes},
		"api/b.go":                {module + "/resource", "strangers on line 1"},
		"route/a.go":              {module + "/resource", yes},
		"route/b.go":              {module + "/policy", "imports point down"},
		"policy/a.go":             {module + "/internal/size", yes},
		"event/a.go":              {module + "/capability/pubsub", "strangers on line 3"},
		"target/app/a.go":         {module + "/target/function", yes},
		"target/app/a_test.go":    {module + "/server", yes},
		"target/app/b_test.go":    {module + "/cmd/loam", "imports point down"},
		"snapshot/a.go":           {module + "/component/sqlite", "nothing below cmd"},
		"server/a.go":             {module + "/component", "nothing below cmd"},
		"component/all/a.go":      {module + "/component/sqlite", yes},
		"cmd/loam/a.go":           {module + "/component/all", yes},
		"cmd/loam/b.go":           {module + "/tools/apigen", "never linked"},
		"cmd/loam/c.go":           {module + "/sdk", yes},
		"server/b.go":             {module + "/sdk/go", "what guests import"},
		"examples/shop/a.go":      {module + "/sdk/go", yes},
		"examples/shop/b.go":      {module + "/cmd/loam", "strangers on line 6"},
		"sdk/go/a.go":             {module, "the SDK knows nothing"},
		"sdk/go/b.go":             {"golang.org/x/sys/unix", "only the standard library"},
		"sdk/go/c.go":             {module + "/sdk/go/internal/api", yes},
		"bench/base/a.go":         {module + "/component/sqlite", yes},
		"admin/testdata/a.go":     {module + "/cmd/loam", yes},
		"helpers/a.go":            {"fmt", "add it to layers in deps_test.go"},
	} {
		t.Run(file, func(t *testing.T) {
			root := t.TempDir()
			name := filepath.Join(root, filepath.FromSlash(file))
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, []byte("package x\n\nimport _ "+strconv.Quote(c.imported)+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			wrong, err := checkLayers(root)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case c.want == yes && len(wrong) > 0:
				t.Errorf("allowed, but it says: %s", wrong)
			case c.want != yes && (len(wrong) != 1 || !strings.Contains(wrong[0], c.want)):
				t.Errorf("got %q, want one line with %q", wrong, c.want)
			}
		})
	}
}

// A dependency is a decision: this list shows in review what a change pulls into the binary. RATIONALE.md says why
// each one is there. The list is the one of Linux on amd64, whatever runs the test.
func TestBinaryDependencies(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}", "./cmd/loam")
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	modules := map[string]bool{}
	for line := range strings.FieldsSeq(string(out)) {
		modules[line] = true
	}
	got := strings.Join(slices.Sorted(maps.Keys(modules)), "\n") + "\n"

	const golden = "cmd/loam/deps.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatalf("%v: make it with: go test -run TestBinaryDependencies -update .", err)
	}
	if got != string(want) {
		t.Errorf("the binary's modules are not those of %s.\nIf they should be, say why in RATIONALE.md and run: go test -run TestBinaryDependencies -update .\ngot:\n%swant:\n%s", golden, got, want)
	}
}
