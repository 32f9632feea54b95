package snapshot_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/resource"
	"github.com/loam-run/loam/snapshot"
)

// TestDocs: the reference of resources declares nothing that is broken, and every kind there is.
func TestDocs(t *testing.T) {
	page, err := os.ReadFile("../docs/resources.md")
	if err != nil {
		t.Fatal(err)
	}
	var objects []*resource.Object
	kinds := map[string]bool{}
	for _, block := range regexp.MustCompile("(?s)\n```yaml\n(.*?)```").FindAllSubmatchIndex(page, -1) {
		before := strings.Repeat("\n", strings.Count(string(page[:block[2]]), "\n")) // so that lines are the page's
		os, problems := resource.Decode("docs/resources.md", append([]byte(before), page[block[2]:block[3]]...))
		for _, p := range problems {
			t.Error(p)
		}
		for _, o := range os {
			kinds[o.Kind] = true
		}
		objects = append(objects, os...)
	}
	if len(kinds) != 14 { // all but Secret and ConfigMap: a page is no place for a key
		t.Errorf("the page shows the kinds %v, want 14", kinds)
	}
	e := env()
	e.Factories = append(e.Factories, loam.Factory{Type: "pubsub.sqlite", Check: func(map[string]string) error { return nil }})
	for _, s := range snapshot.Build(objects, nil, nil, e).Statuses {
		if !s.Ready || len(s.Warnings) > 0 {
			t.Error(s.Key, s.Problems, s.Warnings)
		}
	}
}

// TestTraffic: each golden test that the table of features names is there, and it names all of the data path's.
func TestTraffic(t *testing.T) {
	page, err := os.ReadFile("../docs/traffic.md")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, line := range strings.Split(string(page), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) != 6 || strings.HasPrefix(cells[1], " **") || strings.Contains(cells[1], "---") || strings.TrimSpace(cells[4]) == "test" {
			continue
		}
		tests := strings.TrimSpace(cells[4])
		if yes := strings.HasPrefix(strings.TrimSpace(cells[3]), "yes"); yes != (tests != "") {
			t.Errorf("%s: done, and no test, or the other way round", line)
		}
		for name := range strings.SplitSeq(tests, ", ") {
			if name == "" {
				continue
			}
			named[name] = true
			if _, err := os.Stat("testdata/" + name + ".in.yaml"); err != nil {
				t.Error(err)
			}
		}
	}
	files, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(named) < 20 {
		t.Fatal(len(named), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".in.yaml")
		if regexp.MustCompile(`^(http|grpc|tls|tcp|listener|policy|services)(-|$)`).MatchString(name) && !named[name] {
			t.Errorf("docs/traffic.md does not name %s", name)
		}
	}
}
