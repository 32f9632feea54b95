package component_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/component"
)

type config struct {
	Path   string          `meta:"path,loam.db"`
	Sync   bool            `meta:"sync,true"`
	Most   int             `meta:"maxItems"`
	Keep   time.Duration   `meta:"retention,168h"`
	Size   component.Bytes `meta:"size,64Mi"`
	Hidden string
}

func factory(opened *config, name *string) loam.Factory {
	return component.New("state.test", func(_ context.Context, n string, c config) (string, error) {
		*opened, *name = c, n
		return "driver", nil
	})
}

func TestDecode(t *testing.T) {
	var got config
	var name string
	f := factory(&got, &name)
	if f.Type != "state.test" || f.Capability() != "state" {
		t.Errorf("type %s of capability %s", f.Type, f.Capability())
	}
	for _, c := range []struct {
		metadata map[string]string
		want     config
	}{
		{nil, config{Path: "loam.db", Sync: true, Keep: 168 * time.Hour, Size: 64 << 20}},
		{
			map[string]string{"path": "x.db", "SYNC": "false", "maxitems": "7", "retention": "90s", "size": "1Gi"},
			config{Path: "x.db", Most: 7, Keep: 90 * time.Second, Size: 1 << 30},
		},
	} {
		if err := f.Check(c.metadata); err != nil {
			t.Errorf("Check: %v", err)
		}
		driver, err := f.Open(t.Context(), "orders", c.metadata)
		if err != nil || driver != "driver" || name != "orders" || got != c.want {
			t.Errorf("%v opened %v %q with %+v, %v; want %+v", c.metadata, driver, name, got, err, c.want)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	f := factory(new(config), new(string))
	for what, c := range map[string]struct {
		metadata map[string]string
		says     []string
	}{
		"a slip of the pen":     {map[string]string{"retenton": "1h"}, []string{"metadata retenton: unknown", "did you mean retention?"}},
		"something else":        {map[string]string{"colour": "red"}, []string{"metadata colour: unknown", "it takes maxItems, path, retention, size, sync"}},
		"no duration":           {map[string]string{"retention": "a week"}, []string{"metadata retention", `"a week"`, "168h"}},
		"a negative duration":   {map[string]string{"retention": "-1s"}, []string{"metadata retention", `"-1s"`}},
		"no number":             {map[string]string{"maxItems": "many"}, []string{"metadata maxItems", `"many"`, "whole number"}},
		"a negative number":     {map[string]string{"maxItems": "-1"}, []string{"metadata maxItems", "whole number from 0"}},
		"neither true or false": {map[string]string{"sync": "perhaps"}, []string{"metadata sync", "neither true nor false"}},
		"no size":               {map[string]string{"size": "big"}, []string{"metadata size", "big"}},
		"two at once":           {map[string]string{"sync": "perhaps", "colour": "red"}, []string{"sync", "colour"}},
	} {
		err := f.Check(c.metadata)
		_, openErr := f.Open(t.Context(), "x", c.metadata)
		if loam.CodeOf(err) != loam.InvalidArgument || loam.CodeOf(openErr) != loam.InvalidArgument {
			t.Errorf("%s: Check %v, Open %v", what, err, openErr)
			continue
		}
		for _, say := range c.says {
			if !strings.Contains(err.Error(), say) {
				t.Errorf("%s: %q does not say %q", what, err, say)
			}
		}
	}
}

func TestNothingToChoose(t *testing.T) {
	f := component.New("state.none", func(context.Context, string, struct{}) (any, error) { return nil, nil })
	if err := f.Check(map[string]string{"x": "1"}); err == nil || !strings.Contains(err.Error(), "it takes none") {
		t.Errorf("%v", err)
	}
}

type common struct {
	Host string        `meta:"redisHost" also:"host,url" need:"yes"`
	Read time.Duration `meta:"readTimeout,3s" unit:"1ms" min:"-1"`
}

type rich struct {
	common
	Most  int           `meta:"most" min:"-1"`
	Large int64         `meta:"large"`
	Every time.Duration `meta:"every" unit:"1s"`
}

// Check has its say about the whole.
func (c *rich) Check() error {
	if c.Most > 7 {
		return errors.New("more than seven")
	}
	return nil
}

func TestTags(t *testing.T) {
	var got rich
	f := component.New("state.rich", func(_ context.Context, _ string, c rich) (string, error) { got = c; return "", nil })
	for _, c := range []struct {
		metadata map[string]string
		want     rich
	}{
		{map[string]string{"host": "a"}, rich{common: common{Host: "a", Read: 3 * time.Second}}},
		{map[string]string{"URL": "c", "host": "b", "redisHost": "a", "readTimeout": "250"}, rich{common: common{Host: "a", Read: 250 * time.Millisecond}}},
		{
			map[string]string{"url": "c", "readTimeout": "-1", "most": "-5", "large": "9000000000", "every": "90"},
			rich{common: common{Host: "c", Read: -1}, Most: -1, Large: 9_000_000_000, Every: 90 * time.Second},
		},
		{map[string]string{"url": "c", "readTimeout": "-3s", "every": "1m"}, rich{common: common{Host: "c", Read: -1}, Every: time.Minute}},
	} {
		if _, err := f.Open(t.Context(), "x", c.metadata); err != nil || got != c.want {
			t.Errorf("%v: %+v, %v; want %+v", c.metadata, got, err, c.want)
		}
	}
	for want, metadata := range map[string]map[string]string{
		"metadata redisHost: missing":  {"most": "1"},
		"metadata every":               {"host": "a", "every": "-1"},
		"metadata large":               {"host": "a", "large": "-1"},
		"more than seven":              {"host": "a", "most": "8"},
		"metadata readTimeout: \"9999": {"host": "a", "readTimeout": "9999999999999999"},
	} {
		if err := f.Check(metadata); loam.CodeOf(err) != loam.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", metadata, err, want)
		}
	}
}
