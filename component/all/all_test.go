package all

import (
	"slices"
	"testing"
)

// needed is the metadata that a type cannot do without.
var needed = map[string]map[string]string{
	"config.redis": host, "lock.redis": host, "pubsub.redis": host, "sequence.redis": host, "state.redis": host,
}

var host = map[string]string{"redisHost": "localhost"}

// Each capability that stores something comes in each technology that does, and no type is there twice.
func TestFactories(t *testing.T) {
	var types []string
	for _, f := range Factories() {
		types = append(types, f.Type)
		if err := f.Check(needed[f.Type]); err != nil {
			t.Errorf("%s does not do with what it needs at least: %v", f.Type, err)
		}
	}
	want := []string{"secret.env", "secret.file"} // read only, so there is nothing to store
	for _, technology := range []string{"memory", "redis", "sqlite"} {
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
