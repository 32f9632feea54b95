package local

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
	"github.com/loam-run/loam/capability/secret"
	"github.com/loam-run/loam/capability/secret/secrettest"
)

func TestEnv(t *testing.T) {
	secrettest.Run(t, func(t *testing.T, secrets map[string]string) (secret.Driver, func(name, value string)) {
		put := func(name, value string) { t.Setenv("TEST_SECRET_"+name, value) }
		for name, value := range secrets {
			put(name, value)
		}
		d, err := OpenEnv(t.Context(), "default", EnvConfig{Prefix: "TEST_SECRET_"})
		if err != nil {
			t.Fatal(err)
		}
		return d, put
	})
}

func openFiles(t *testing.T, secrets map[string]string) (secret.Driver, func(name, value string)) {
	t.Helper()
	dir := t.TempDir()
	put := func(name, value string) {
		temp := filepath.Join(dir, ".new")
		if err := os.WriteFile(temp, []byte(value), 0o600); err != nil {
			t.Error(err)
		}
		if err := os.Rename(temp, filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	for name, value := range secrets {
		put(name, value)
	}
	d, err := OpenFile(t.Context(), "default", FileConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, put
}

func TestFile(t *testing.T) { secrettest.Run(t, openFiles) }

func TestFileDetails(t *testing.T) {
	d, put := openFiles(t, map[string]string{"line": "one line\n", "windows": "one line\r\n", "lines": "two\nlines\n\n"})
	for name, want := range map[string]string{"line": "one line", "windows": "one line", "lines": "two\nlines\n"} {
		if v, err := d.Get(t.Context(), name); err != nil || string(v) != want {
			t.Errorf("%s: %q %v", name, v, err)
		}
	}
	put("huge", strings.Repeat("x", secret.MaxValue+2))
	if _, err := d.Get(t.Context(), "huge"); loam.CodeOf(err) != loam.ResourceExhausted {
		t.Error(err)
	}
	dir := d.(files).root.Name()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if v, err := d.Get(t.Context(), "link"); err == nil {
		t.Errorf("a link leads out: %q", v)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Get(t.Context(), "folder"); loam.CodeOf(err) != loam.NotFound {
		t.Error(err)
	}
	for _, c := range []FileConfig{{}, {Dir: filepath.Join(dir, "nothing")}} {
		if _, err := OpenFile(t.Context(), "default", c); err == nil || loam.HintOf(err) == "" {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// The capability over a driver: grants, names, and what a carrier is answered.
func TestSecrets(t *testing.T) {
	d, _ := openFiles(t, map[string]string{"token": "s3cret", "other": "x"})
	s := secret.New("default", d)
	get := secret.Methods(func(component string) (*secret.Store, error) {
		if component != "" {
			return nil, loam.Errorf(loam.NotFound, "secret", "no component %s", component)
		}
		return s, nil
	})["secret.Get"]
	caller := &loam.Caller{Name: "orders", Grants: []loam.Grant{{Capability: "secret", Component: "default", Names: []string{"token", "gone"}, ReadOnly: true}}}
	for _, c := range []struct {
		component, name string
		caller          *loam.Caller
		code            loam.Code
	}{
		{"", "token", caller, loam.OK},
		{"", "gone", caller, loam.NotFound},
		{"", "other", caller, loam.PermissionDenied},
		{"", "token", nil, loam.PermissionDenied},
		{"second", "token", caller, loam.NotFound},
		{"", "", caller, loam.InvalidArgument},
		{"", "../token", caller, loam.InvalidArgument},
		{"", ".token", caller, loam.InvalidArgument},
		{"", "to\x00ken", caller, loam.InvalidArgument},
		{"", strings.Repeat("x", secret.MaxName+1), caller, loam.InvalidArgument},
	} {
		out, err := get(t.Context(), c.caller, (&api.SecretGetRequest{Component: c.component, Name: c.name}).AppendProto(nil))
		if loam.CodeOf(err) != c.code || err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s %q: %v, want %v", c.component, c.name, err, c.code)
		}
		var resp api.SecretGetResponse
		if err == nil && (resp.ParseProto(out) != nil || string(resp.Value) != "s3cret") {
			t.Errorf("%+v", resp)
		}
	}
	if _, err := get(t.Context(), caller, []byte{0xff}); loam.CodeOf(err) != loam.InvalidArgument {
		t.Error(err)
	}
}

// Whatever name a guest asks for, it gets what was granted and nothing else.
func FuzzName(f *testing.F) {
	f.Add("token")
	f.Add("../x")
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("s3cret"), 0o600); err != nil {
		f.Fatal(err)
	}
	d, err := OpenFile(f.Context(), "default", FileConfig{Dir: dir})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = d.Close() })
	s := secret.New("default", d)
	all := &loam.Caller{Name: "x", Grants: []loam.Grant{{Capability: "secret", Component: "default"}}}
	f.Fuzz(func(t *testing.T, name string) {
		if v, err := s.Get(t.Context(), all, name); (err == nil) != (name == "token") {
			t.Errorf("%q: %q, %v", name, v, err)
		}
	})
}
