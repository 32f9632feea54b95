package all

import (
	"slices"
	"testing"
)

// Each capability that stores something comes in each technology that does, and no type is there twice.
func TestFactories(t *testing.T) {
	var types []string
	for _, f := range Factories() {
		types = append(types, f.Type)
		if err := f.Check(nil); err != nil {
			t.Errorf("%s does not do without metadata: %v", f.Type, err)
		}
	}
	want := []string{"secret.env", "secret.file"} // read only, so there is nothing to store
	for _, technology := range []string{"memory", "sqlite"} {
		for _, capability := range []string{"config", "lock", "pubsub", "sequence", "state"} {
			want = append(want, capability+"."+technology)
		}
	}
	slices.Sort(types)
	slices.Sort(want)
	if !slices.Equal(types, want) {
		t.Errorf("the binary has %q, want %q", types, want)
	}
}
