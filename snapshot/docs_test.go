package snapshot_test

import (
	"os"
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
	if len(kinds) != 6 {
		t.Errorf("the page shows the kinds %v, want all 6", kinds)
	}
	e := env()
	e.Factories = append(e.Factories, loam.Factory{Type: "pubsub.sqlite", Check: func(map[string]string) error { return nil }})
	for _, s := range snapshot.Build(objects, nil, nil, e).Statuses {
		if !s.Ready || len(s.Warnings) > 0 {
			t.Error(s.Key, s.Problems, s.Warnings)
		}
	}
}
