package layotto

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/loam-run/loam/dialect"
)

// docs/layotto.md tells of every method that Layotto's contracts have, and says what is true: what is not done is
// Unimplemented, and what is done is served.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/layotto.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{} // verdicts by method
	section := ""
	row := regexp.MustCompile("^\\| `([^`]+)` \\| ([a-z ]+) \\|")
	for line := range strings.SplitSeq(string(text), "\n") {
		if name, ok := strings.CutPrefix(line, "## "); ok {
			section = name
		}
		if m := row.FindStringSubmatch(line); m != nil {
			name := "/" + section + "/" + m[1]
			if told[name] != "" {
				t.Errorf("%s has two rows", name)
			}
			told[name] = m[2]
		}
	}
	a, err := New(dialect.Options{App: dialect.App{ID: "app1"}})
	if err != nil {
		t.Fatal(err)
	}
	declared := contracts(t)
	for name := range declared {
		verdict := told[name]
		if verdict != "same" && verdict != "differs" && verdict != "not done" {
			t.Errorf("%s: docs/layotto.md says %q of it, want same, differs or not done", name, verdict)
		}
		method, served := a.server.Methods[name]
		if called := strings.Contains(name, ".AppCallback/"); served == called {
			t.Errorf("%s: served %v", name, served)
		}
		if strings.Contains(name, ".AppCallback/") {
			continue
		}
		if _, not := method.(notDone); not != (verdict == "not done") {
			t.Errorf("%s: not done is %v, and docs/layotto.md says %q", name, not, verdict)
		}
	}
	for name, verdict := range told {
		if !declared[name] && !strings.HasPrefix(name, "/HTTP/") {
			t.Errorf("docs/layotto.md tells of %s (%s), which no contract declares", name, verdict)
		}
	}
	for _, route := range []string{"GET /actuator/health/liveness", "GET /actuator/health/readiness", "GET /actuator/info", "POST /actuator/logger"} {
		if told["/HTTP/"+route] == "" {
			t.Errorf("docs/layotto.md does not tell of %s", route)
		}
	}
	for name := range a.server.Methods {
		if !declared[name] && !strings.HasPrefix(name, oldObjects) && !strings.Contains(name, ".EmailTemplateService/") {
			t.Errorf("%s is served, and no contract declares it", name)
		}
	}
}

// contracts are the methods that the .proto files declare.
func contracts(t *testing.T) map[string]bool {
	files, err := filepath.Glob("../../api/layotto/*.proto")
	if err != nil || len(files) != 9 {
		t.Fatalf("%d contracts, %v: want 9", len(files), err)
	}
	methods := map[string]bool{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		pkg := regexp.MustCompile(`(?m)^package ([\w.]+);`).FindSubmatch(text)[1]
		for _, s := range regexp.MustCompile(`(?s)\nservice (\w+) \{\n(.*?)\n\}`).FindAllSubmatch(text, -1) {
			for _, m := range regexp.MustCompile(`(?m)^  rpc (\w+)\(`).FindAllSubmatch(s[2], -1) {
				methods["/"+string(pkg)+"."+string(s[1])+"/"+string(m[1])] = true
			}
		}
	}
	if len(methods) < 60 {
		t.Fatalf("only %d methods were found", len(methods))
	}
	return methods
}
