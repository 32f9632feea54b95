package localstorage

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/binding"
	"github.com/loam-run/loam/capability/file"
	"github.com/loam-run/loam/capability/file/filetest"
)

func openStore(t testing.TB, dir string) file.Driver {
	t.Helper()
	d, err := OpenStore(t.Context(), "files", StoreConfig{Root: dir, UploadAge: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestStore(t *testing.T) {
	filetest.Run(t, func(t *testing.T) file.Driver { return openStore(t, t.TempDir()) })
}

func write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What others put into the folder, or change there, is there as it is; nothing outside of it ever is.
func TestFolderOfOthers(t *testing.T) {
	outside := t.TempDir()
	write(t, filepath.Join(outside, "secret"), "secret")
	dir := t.TempDir()
	d := openStore(t, dir)
	write(t, filepath.Join(dir, "theirs"), "theirs")
	i, err := d.Stat(t.Context(), "theirs")
	if err != nil || i.Size != 6 || i.ETag == "" {
		t.Errorf("%+v, %v", i, err)
	}
	if _, err := d.Put(t.Context(), "ours", strings.NewReader("ours"), file.Attributes{ContentType: "a/b"}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "ours")); err != nil || string(b) != "ours" {
		t.Errorf("%q, %v", b, err)
	}
	write(t, filepath.Join(dir, "ours"), "changed by them")
	if i, err = d.Stat(t.Context(), "ours"); err != nil || i.Size != 15 || i.ContentType != "" {
		t.Errorf("%+v, %v", i, err)
	}
	for link, to := range map[string]string{"link": filepath.Join(outside, "secret"), "dir": outside, "up": ".."} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"link", "dir/secret", "up/" + filepath.Base(outside) + "/secret", ".loam/meta/x", ".loam"} {
		if r, _, err := d.Get(t.Context(), name, 0, -1); err == nil {
			t.Errorf("%s can be read", name)
			_ = r.Close()
		}
		if name == "link" {
			continue // to put there replaces the link
		}
		if _, err := d.Put(t.Context(), name, strings.NewReader("x"), file.Attributes{}); err == nil {
			t.Errorf("%s can be written", name)
		}
		if err := d.Delete(t.Context(), name); err == nil {
			t.Errorf("%s can be deleted", name)
		}
		if _, err := d.Copy(t.Context(), "ours", name, nil); err == nil {
			t.Errorf("%s can be copied to", name)
		}
	}
	if _, err := d.Put(t.Context(), "link", strings.NewReader("mine"), file.Attributes{}); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(outside, "secret")); err != nil || string(b) != "secret" {
		t.Errorf("outside: %q, %v", b, err)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("outside: %v, %v", entries, err)
	}
	p, err := d.List(t.Context(), file.Query{Limit: 10})
	if err != nil || len(p.Objects) != 3 { // link is a file now
		t.Errorf("%+v, %v", p, err)
	}
}

// A file and files below its name have no place in one folder.
func TestFileOrDirectory(t *testing.T) {
	d := openStore(t, t.TempDir())
	for _, name := range []string{"a", "b/c"} {
		if _, err := d.Put(t.Context(), name, strings.NewReader(name), file.Attributes{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a/x", "b"} {
		if _, err := d.Put(t.Context(), name, strings.NewReader(name), file.Attributes{}); loam.CodeOf(err) != loam.FailedPrecondition {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := d.Put(t.Context(), strings.Repeat("n", 300), strings.NewReader(""), file.Attributes{}); loam.CodeOf(err) != loam.InvalidArgument {
		t.Errorf("a long name: %v", err)
	}
	p, err := d.List(t.Context(), file.Query{Limit: 10})
	if err != nil || len(p.Objects) != 2 {
		t.Errorf("%+v, %v", p, err)
	}
}

// What a process that was killed left behind is gone with time; what is whole stays.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	d := openStore(t, dir).(*store)
	old, err := d.CreateUpload(t.Context(), "old", file.Attributes{})
	if err != nil {
		t.Fatal(err)
	}
	young, err := d.CreateUpload(t.Context(), "young", file.Attributes{})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, temp, "half"), "half")
	write(t, filepath.Join(dir, "whole"), "whole")
	long := time.Now().Add(-48 * time.Hour)
	for _, name := range []string{temp + "/half", uploads + "/" + old, "whole"} {
		if err := os.Chtimes(filepath.Join(dir, name), long, long); err != nil {
			t.Fatal(err)
		}
	}
	d = openStore(t, dir).(*store)
	if left, err := d.Uploads(t.Context(), "", "", "", 10); err != nil || len(left) != 1 || left[0].ID != young {
		t.Errorf("%+v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(dir, temp, "half")); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
	if _, err := d.Stat(t.Context(), "whole"); err != nil {
		t.Error(err)
	}
}

func TestFoldersOfTheSystem(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/proc", link); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(t.TempDir(), "file")
	write(t, plain, "x")
	for _, dir := range []string{"/proc", "/sys/x", "/boot/../proc/1", "/var/run/secrets/x", link, plain} {
		if d, err := OpenBinding(t.Context(), "b", BindingConfig{Root: dir}); loam.CodeOf(err) != loam.FailedPrecondition {
			t.Errorf("%s: %v, %v", dir, d, err)
		}
	}
}

func TestBinding(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "below")
	d, err := OpenBinding(t.Context(), "b", BindingConfig{Root: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	b := binding.New("b", d)
	caller := &loam.Caller{Grants: []loam.Grant{{Capability: "binding", Component: "b"}}}
	do := func(operation, name, data string) (string, error) {
		t.Helper()
		r, err := b.Invoke(t.Context(), caller, binding.Request{Operation: operation, Data: []byte(data), Metadata: map[string]string{"fileName": name}})
		return string(r.Data), err
	}
	ok := func(operation, name, data, want string) {
		t.Helper()
		if got, err := do(operation, name, data); err != nil || got != want {
			t.Errorf("%s %s: %s, %v; want %s", operation, name, got, err, want)
		}
	}
	fails := func(operation, name string, code loam.Code) {
		t.Helper()
		if got, err := do(operation, name, "x"); loam.CodeOf(err) != code {
			t.Errorf("%s %s: %s, %v; want %v", operation, name, got, err, code)
		}
	}
	ok("list", "", "", "[]")
	ok("create", "a.txt", "plain text", `{"fileName":"a.txt"}`)
	ok("get", "a.txt", "", "plain text")
	ok("create", "dir/b", `"a JSON \"string\""`, `{"fileName":"dir/b"}`)
	ok("get", "dir/b", "", `a JSON "string"`)
	ok("create", "/dir/../dir/c", `"`+base64.StdEncoding.EncodeToString([]byte{0, 1, 255})+`"`, `{"fileName":"dir/c"}`)
	ok("get", "../../dir/c", "", "\x00\x01\xff") // as Dapr has it: below the folder, whatever it begins with
	ok("CREATE", "a.txt", "again", `{"fileName":"a.txt"}`)
	ok("get", "a.txt", "", "again")
	want, err := json.Marshal([]string{filepath.Join(dir, "a.txt"), filepath.Join(dir, "dir/b"), filepath.Join(dir, "dir/c")})
	if err != nil {
		t.Fatal(err)
	}
	ok("list", "", "", string(want))
	fails("list", "a.txt", loam.InvalidArgument)
	fails("list", "nosuch", loam.NotFound)
	fails("get", "nosuch", loam.NotFound)
	fails("get", "dir", loam.NotFound)
	fails("get", "", loam.NotFound)
	fails("delete", "nosuch", loam.NotFound)
	fails("delete", "dir", loam.NotFound)
	fails("delete", "", loam.NotFound)
	fails("get", ".loam/temp", loam.InvalidArgument)
	fails("create", "../.loam/temp/x", loam.InvalidArgument)
	fails("update", "a.txt", loam.InvalidArgument)
	ok("delete", "dir/b", "", "")
	ok("delete", "dir/c", "", "")
	ok("delete", "a.txt", "", "")
	ok("list", "", "", "[]")
	named, err := do("create", "", "without a name")
	var made struct{ FileName string }
	if err != nil || json.Unmarshal([]byte(named), &made) != nil || len(made.FileName) < 20 {
		t.Errorf("%s, %v", named, err)
	}
	ok("get", made.FileName, "", "without a name")
}

// However names are written, nothing but the folder changes.
func FuzzBindingName(f *testing.F) {
	for _, n := range []string{"a", "../a", "/etc/passwd", "a/../../b", ".loam/meta/x", "./.loam", "a//b", "a\x00b", "\\..\\x", ".."} {
		f.Add(n)
	}
	outside := f.TempDir()
	d, err := OpenBinding(f.Context(), "b", BindingConfig{Root: filepath.Join(outside, "root")})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = d.Close() })
	f.Fuzz(func(t *testing.T, name string) {
		for _, op := range []string{"create", "get", "list", "delete"} {
			_, _ = d.(binding.Output).Invoke(t.Context(), binding.Request{Operation: op, Data: []byte("x"), Metadata: map[string]string{"fileName": name}})
		}
		for dir, want := range map[string][]string{outside: {"root"}, filepath.Join(outside, "root", own): {"temp"}} {
			entries, err := os.ReadDir(dir)
			var names []string
			for _, e := range entries {
				names = append(names, e.Name())
			}
			if err != nil || !slices.Equal(names, want) {
				t.Fatalf("%q: %q in %s, %v", name, names, dir, err)
			}
		}
	})
}

func FuzzPartName(f *testing.F) {
	f.Add("00001-0123456789abcdef0123456789abcdef")
	f.Add("-1-x")
	f.Fuzz(func(t *testing.T, name string) {
		if n, tag, ok := parsePart(name); ok && (partName(n, tag) != name || n < 1) {
			t.Errorf("%q is part %d, %q", name, n, tag)
		}
		if validID(name) && strings.ContainsAny(name, "./\\") {
			t.Errorf("%q is an id", name)
		}
	})
}
