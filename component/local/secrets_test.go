package local

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/secret"
	"github.com/loam-run/loam/capability/secret/secrettest"
)

func writeFile(t testing.TB, path string, content any) {
	t.Helper()
	text, ok := content.(string)
	if !ok {
		b, err := json.Marshal(content)
		if err != nil {
			t.Fatal(err)
		}
		text = string(b)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func openSecrets(t testing.TB, content any, metadata map[string]string) (secret.Driver, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secrets.json")
	writeFile(t, path, content)
	if metadata == nil {
		metadata = map[string]string{}
	}
	metadata["secretsFile"] = path
	for _, f := range Factories() {
		if f.Type == "secret.local" {
			d, err := f.Open(t.Context(), "default", metadata)
			if err != nil {
				t.Fatal(err)
			}
			return d.(secret.Driver), path
		}
	}
	t.Fatal("there is no secret.local")
	return nil, ""
}

func TestSecretsFile(t *testing.T) {
	for what, metadata := range map[string]map[string]string{"single": nil, "multiple": {"multiValued": "true"}} {
		t.Run(what, func(t *testing.T) {
			secrettest.Run(t, func(t *testing.T, secrets map[string]string) (secret.Driver, func(name, value string)) {
				d, path := openSecrets(t, secrets, maps.Clone(metadata))
				return d, func(name, value string) {
					secrets[name] = value
					b, err := json.Marshal(secrets)
					if err != nil {
						t.Error(err)
					}
					// As a whole, since others read meanwhile.
					if err := os.WriteFile(path+".new", b, 0o600); err != nil {
						t.Error(err)
					}
					if err := os.Rename(path+".new", path); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

const nested = `{"redis":{"user":"u","pass":{"old":"1","new":2.50}},"list":["a",{"b":true}],"plain":"p","none":null}`

func TestNested(t *testing.T) {
	for _, c := range []struct {
		metadata map[string]string
		want     map[string]map[string]string
	}{
		{nil, map[string]map[string]string{
			"redis:user": {"redis:user": "u"}, "redis:pass:old": {"redis:pass:old": "1"}, "redis:pass:new": {"redis:pass:new": "2.50"},
			"list:0": {"list:0": "a"}, "list:1:b": {"list:1:b": "true"}, "plain": {"plain": "p"}, "none": {"none": ""},
		}},
		{map[string]string{"nestedSeparator": ".", "multiValued": "true"}, map[string]map[string]string{
			"redis":  {"user": "u", "pass.old": "1", "pass.new": "2.50"},
			"list.0": {"list.0": "a"}, "list.1.b": {"list.1.b": "true"}, "plain": {"plain": "p"}, "none": {"none": ""},
		}},
	} {
		d, _ := openSecrets(t, nested, c.metadata)
		got, err := d.(secret.Lister).GetAll(t.Context(), nil)
		if err != nil || len(got) != len(c.want) {
			t.Errorf("%v: %v, %v", c.metadata, got, err)
		}
		for name, want := range c.want {
			one, err := d.(secret.Fielded).GetFields(t.Context(), name, nil)
			if err != nil || !maps.Equal(one, want) || !maps.Equal(got[name], want) {
				t.Errorf("%s: %v, %v, of all %v; want %v", name, one, err, got[name], want)
			}
		}
	}
	d, _ := openSecrets(t, nested, map[string]string{"multiValued": "true"})
	if b, err := d.Get(t.Context(), "redis"); err != nil || string(b) != `{"pass:new":"2.50","pass:old":"1","user":"u"}` {
		t.Errorf("%s, %v", b, err)
	}
	fields, err := d.(secret.Fielded).GetFields(t.Context(), "redis", nil)
	if err != nil {
		t.Fatal(err)
	}
	clear(fields)
	if again, err := d.(secret.Fielded).GetFields(t.Context(), "redis", nil); err != nil || len(again) != 3 {
		t.Errorf("%v, %v", again, err)
	}
	if _, err := d.(secret.Fielded).GetFields(t.Context(), "nosuch", nil); loam.CodeOf(err) != loam.NotFound {
		t.Error(err)
	}
}

// While a file that changed cannot be read, what was there holds.
func TestSecretsThatBreak(t *testing.T) {
	d, path := openSecrets(t, `{"token":"s3cret"}`, nil)
	for _, content := range []string{`{"token":"half`, `[]`, `{} {}`, ``, `{"a":{"b":"1"},"a:b":"2"}`} {
		writeFile(t, path, content)
		if b, err := d.Get(t.Context(), "token"); err != nil || string(b) != "s3cret" {
			t.Errorf("%s: %q, %v", content, b, err)
		}
		if d, err := OpenSecrets(t.Context(), "new", SecretsConfig{File: path, Separator: ":"}); loam.CodeOf(err) != loam.FailedPrecondition {
			t.Errorf("%s: %v, %v", content, d, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if b, err := d.Get(t.Context(), "token"); err != nil || string(b) != "s3cret" {
		t.Errorf("%q, %v", b, err)
	}
	writeFile(t, path, `{"token":"new"}`)
	if b, err := d.Get(t.Context(), "token"); err != nil || string(b) != "new" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestEnvironment(t *testing.T) {
	secrettest.Run(t, func(t *testing.T, secrets map[string]string) (secret.Driver, func(name, value string)) {
		put := func(name, value string) { t.Setenv("TEST_"+name, value) }
		for name, value := range secrets {
			t.Setenv("TEST_"+name, value) // which puts back what was there at the end
		}
		d, err := OpenEnvironment(t.Context(), "default", EnvironmentConfig{Prefix: "TEST_"})
		if err != nil {
			t.Fatal(err)
		}
		return d, put
	})
}

// As Dapr has it: all variables but the runtime's, and an empty one where there is none.
func TestEnvironmentOfDapr(t *testing.T) {
	for _, name := range []string{"APP_API_TOKEN", "DAPR_API_TOKEN", "dapr_x", "LOAM_X", "PLAIN", "APP_API_TOKENS"} {
		t.Setenv(name, "value")
	}
	d, err := OpenEnvironment(t.Context(), "default", EnvironmentConfig{})
	if err != nil {
		t.Fatal(err)
	}
	all, err := d.(secret.Lister).GetAll(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"PLAIN": "value", "APP_API_TOKENS": "value", "APP_API_TOKEN": "", "DAPR_API_TOKEN": "", "dapr_x": "", "LOAM_X": "", "NOSUCH": "",
	} {
		got, err := d.(secret.Fielded).GetFields(t.Context(), name, nil)
		if err != nil || len(got) != 1 || got[name] != want || all[name][name] != want || (want == "") != (all[name] == nil) {
			t.Errorf("%s: %v, %v, of all %v", name, got, err, all[name])
		}
		if _, err := d.Get(t.Context(), name); (want == "") != (loam.CodeOf(err) == loam.NotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if all["PATH"]["PATH"] != os.Getenv("PATH") {
		t.Errorf("PATH is %v", all["PATH"])
	}
	// A prefix cannot be used to reach what is hidden.
	d, err = OpenEnvironment(t.Context(), "default", EnvironmentConfig{Prefix: "DAPR_"})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := d.Get(t.Context(), "API_TOKEN"); loam.CodeOf(err) != loam.NotFound {
		t.Errorf("%q, %v", v, err)
	}
}

func FuzzParseSecrets(f *testing.F) {
	f.Add(nested, ":", true)
	f.Add(`{"a":{"b":[1,2,{"c":null}]}}`, "", false)
	f.Fuzz(func(t *testing.T, text, separator string, multiple bool) {
		all, err := parseSecrets([]byte(text), separator, multiple)
		if err != nil {
			return
		}
		for name, fields := range all {
			if _, ok := fields[name]; !multiple && (!ok || len(fields) != 1) {
				t.Errorf("%q: %v", name, fields)
			}
		}
	})
}
