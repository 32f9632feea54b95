package main

import (
	"os"
	"strings"
	"testing"

	"github.com/loam-run/loam/component/all"
	"github.com/loam-run/loam/resource"
)

// FuzzConvert has strangers' configurations: what is made of one are resources that can be read again.
func FuzzConvert(f *testing.F) {
	script, err := os.ReadFile("testdata/convert.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for part := range strings.SplitSeq(string(script), "\n-- ") {
		if name, text, ok := strings.Cut(part, " --\n"); ok && strings.HasSuffix(name, ".json") {
			f.Add(text)
		}
	}
	f.Add(strings.Repeat("[", 1000))
	f.Add(`{"servers":` + strings.Repeat(`[{"listeners":`, 500))
	factories := all.Factories()
	f.Fuzz(func(t *testing.T, text string) {
		c, err := convertLayotto([]byte(text), factories)
		if err != nil {
			return
		}
		for _, r := range append(c.components, c.app) {
			doc, err := asDocument(r)
			if err != nil {
				t.Fatalf("%+v: %v", r, err)
			}
			objects, problems := resource.Decode("convert.yaml", doc)
			for _, p := range problems {
				if !strings.HasPrefix(p.Path, "spec.") { // what a setting says may be wrong there already
					t.Errorf("%v\n%s", p, doc)
				}
			}
			if len(problems) == 0 && len(objects) != 1 {
				t.Errorf("%d objects\n%s", len(objects), doc)
			}
		}
	})
}
