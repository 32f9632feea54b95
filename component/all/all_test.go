package all

import (
	"slices"
	"testing"
)

// needed is the metadata that a type cannot do without.
var needed = map[string]map[string]string{
	"binding.cron": {"schedule": "@hourly"}, "binding.http": {"url": "http://localhost"}, "binding.localstorage": {"rootPath": "files"},
	"crypto.jwks": {"jwks": "{}"}, "crypto.localstorage": {"path": "keys"}, "file.localstorage": {"rootPath": "files"},
	"secret.local": {"secretsFile": "secrets.json"},
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
	want := []string{
		"binding.cron", "binding.http", "binding.localstorage", "crypto.jwks", "crypto.localstorage", "file.localstorage", "jobs.memory", "jobs.sqlite",
		"secret.env", "secret.environment", "secret.file", "secret.local", // read only, so there is nothing to store
	}
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
