package resource_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/loam-run/loam/resource"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestBroken shows what a person is told about each kind of broken YAML.
func TestBroken(t *testing.T) {
	files, err := filepath.Glob("testdata/broken/*.yaml")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d files, %v; want at least 50", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			objects, problems := resource.Decode(filepath.Base(file), data)
			if len(problems) == 0 {
				t.Fatal("no problem was found")
			}
			var out strings.Builder
			for _, p := range problems {
				fmt.Fprintf(&out, "%s:%d:%d", p.File, p.Line, p.Column)
				if p.Key != "" {
					fmt.Fprintf(&out, " (%s)", p.Key)
				}
				fmt.Fprintf(&out, "\n  what: %s\n  hint: %s\n", strings.TrimPrefix(p.Path+": "+p.What, ": "), p.Hint)
				if p.Hint == "" || p.What == "" {
					t.Errorf("%v: does not say what to do", p)
				}
			}
			for _, o := range objects {
				fmt.Fprintf(&out, "goes on: %s\n", o.Key())
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".golden", out.String())
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s\nrun with -update where the new one is right", file, got, want)
	}
}
