package file_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/file"
	"github.com/loam-run/loam/component/localstorage"
)

func open(t testing.TB) *file.Store {
	t.Helper()
	d, err := localstorage.OpenStore(context.Background(), "files", localstorage.StoreConfig{Root: t.TempDir(), UploadAge: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return file.New("files", d)
}

func caller(readOnly bool, names ...string) *loam.Caller {
	return &loam.Caller{Name: "app", Grants: []loam.Grant{{Capability: "file", Component: "files", Names: names, ReadOnly: readOnly}}}
}

// calls are all that a caller can do with a name, and whether it changes something.
func calls(ctx context.Context, s *file.Store, name string) map[string]struct {
	write bool
	do    func(c *loam.Caller) error
} {
	type call = struct {
		write bool
		do    func(c *loam.Caller) error
	}
	body := func() io.Reader { return strings.NewReader("x") }
	return map[string]call{
		"put":      {true, func(c *loam.Caller) error { _, err := s.Put(ctx, c, name, body(), file.Attributes{}); return err }},
		"stat":     {false, func(c *loam.Caller) error { _, err := s.Stat(ctx, c, name); return err }},
		"list":     {false, func(c *loam.Caller) error { _, err := s.List(ctx, c, file.Query{Prefix: name}); return err }},
		"copy":     {true, func(c *loam.Caller) error { _, err := s.Copy(ctx, c, name, name, nil); return err }},
		"tags":     {true, func(c *loam.Caller) error { return s.SetTags(ctx, c, name, map[string]string{"k": "v"}) }},
		"delete":   {true, func(c *loam.Caller) error { return s.Delete(ctx, c, name) }},
		"append":   {true, func(c *loam.Caller) error { _, err := s.Append(ctx, c, name, 0, body(), file.Attributes{}); return err }},
		"sign":     {true, func(c *loam.Caller) error { _, _, err := s.Sign(ctx, c, "PUT", name, time.Hour); return err }},
		"upload":   {true, func(c *loam.Caller) error { _, err := s.CreateUpload(ctx, c, name, file.Attributes{}); return err }},
		"part":     {true, func(c *loam.Caller) error { _, err := s.UploadPart(ctx, c, name, "id", 1, body()); return err }},
		"copypart": {true, func(c *loam.Caller) error { _, err := s.CopyPart(ctx, c, name, "id", 1, name, 0, -1); return err }},
		"complete": {true, func(c *loam.Caller) error {
			_, err := s.CompleteUpload(ctx, c, name, "id", []file.Part{{Number: 1}})
			return err
		}},
		"abort":   {true, func(c *loam.Caller) error { return s.AbortUpload(ctx, c, name, "id") }},
		"uploads": {false, func(c *loam.Caller) error { _, err := s.Uploads(ctx, c, name, "", "", 0); return err }},
		"parts":   {false, func(c *loam.Caller) error { _, err := s.Parts(ctx, c, name, "id", 0, 0); return err }},
		"get": {false, func(c *loam.Caller) error {
			r, _, err := s.Get(ctx, c, name, 0, -1)
			if err != nil {
				return err
			}
			return r.Close()
		}},
	}
}

func TestGrants(t *testing.T) {
	s := open(t)
	if _, err := s.Put(t.Context(), caller(false), "secret/x", strings.NewReader("x"), file.Attributes{}); err != nil {
		t.Fatal(err)
	}
	for what, call := range calls(t.Context(), s, "secret/x") {
		for who, c := range map[string]*loam.Caller{"nobody": nil, "another's": caller(false, "open/*"), "without grants": {}} {
			if err := call.do(c); loam.CodeOf(err) != loam.PermissionDenied {
				t.Errorf("%s by %s: %v", what, who, err)
			}
		}
		if err := call.do(caller(true)); call.write != (loam.CodeOf(err) == loam.PermissionDenied) {
			t.Errorf("%s by who may only read: %v", what, err)
		}
	}
	if _, err := s.Copy(t.Context(), caller(false, "open/*"), "secret/x", "open/x", nil); loam.CodeOf(err) != loam.PermissionDenied {
		t.Errorf("copied out: %v", err)
	}
	if _, err := s.CopyPart(t.Context(), caller(false, "open/*"), "open/x", "id", 1, "secret/x", 0, -1); loam.CodeOf(err) != loam.PermissionDenied {
		t.Errorf("copied out as a part: %v", err)
	}
	errs, err := s.DeleteAll(t.Context(), caller(false, "open/*"), "open/none", "secret/x")
	if err != nil || errs[0] != nil || loam.CodeOf(errs[1]) != loam.PermissionDenied {
		t.Errorf("%v, %v", errs, err)
	}
	if _, err := s.List(t.Context(), caller(false, "open/*"), file.Query{}); loam.CodeOf(err) != loam.PermissionDenied {
		t.Errorf("listed all: %v", err)
	}
	if _, err := s.Stat(t.Context(), caller(true), "secret/x"); err != nil {
		t.Error(err)
	}
}

func TestNames(t *testing.T) {
	s := open(t)
	for _, name := range []string{
		"", "/etc/passwd", "../x", "a/../b", "a/..", "..", ".", "./a", "a//b", "a/", "a\x00b", "a\nb", "a\\b", "..\\x", "\xff",
		strings.Repeat("n", file.MaxName+1),
	} {
		for what, call := range calls(t.Context(), s, name) {
			if what == "list" || what == "uploads" { // which take beginnings of names
				continue
			}
			if err := call.do(caller(false)); loam.CodeOf(err) != loam.InvalidArgument {
				t.Errorf("%s %q: %v", what, name, err)
			}
		}
	}
}

func TestBounds(t *testing.T) {
	ctx, s, c := t.Context(), open(t), caller(false)
	large := file.Attributes{Metadata: map[string]string{"k": strings.Repeat("v", 64<<10)}}
	for what, err := range map[string]error{
		"much metadata":       second(s.Put(ctx, c, "x", strings.NewReader(""), large)),
		"an offset before it": second(0, third(s.Get(ctx, c, "x", -1, 1))),
		"a limit below 0":     second(s.List(ctx, c, file.Query{Limit: -1})),
		"a long prefix":       second(s.List(ctx, c, file.Query{Prefix: strings.Repeat("p", file.MaxName+1)})),
		"part 0":              second(s.UploadPart(ctx, c, "x", "id", 0, nil)),
		"part 10001":          second(s.UploadPart(ctx, c, "x", "id", file.MaxParts+1, nil)),
		"no parts":            second(s.CompleteUpload(ctx, c, "x", "id", nil)),
		"parts in disorder":   second(s.CompleteUpload(ctx, c, "x", "id", []file.Part{{Number: 2}, {Number: 1}})),
		"a part twice":        second(s.CompleteUpload(ctx, c, "x", "id", []file.Part{{Number: 1}, {Number: 1}})),
		"no names":            second(s.DeleteAll(ctx, c)),
		"many names":          second(s.DeleteAll(ctx, c, make([]string, file.MaxPage+1)...)),
		"append before 0":     second(s.Append(ctx, c, "x", -1, nil, file.Attributes{})),
		"sign for DELETE":     second(0, third(s.Sign(ctx, c, "DELETE", "x", time.Hour))),
		"sign for long":       second(0, third(s.Sign(ctx, c, "GET", "x", 1000*time.Hour))),
	} {
		if loam.CodeOf(err) != loam.InvalidArgument {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, _, err := s.Sign(ctx, c, "GET", "x", time.Hour); loam.CodeOf(err) != loam.Unimplemented {
		t.Errorf("sign: %v", err)
	}
	if i, err := s.Put(ctx, c, "x", strings.NewReader(""), file.Attributes{Metadata: map[string]string{"X-Own": "v"}}); err != nil || i.Metadata["x-own"] != "v" {
		t.Errorf("%+v, %v", i, err)
	}
	if err := s.SetTags(ctx, c, "x", map[string]string{"k": "v"}); err != nil {
		t.Error(err)
	}
	if i, err := s.Stat(ctx, c, "x"); err != nil || i.Tags["k"] != "v" || i.Metadata["x-own"] != "v" {
		t.Errorf("%+v, %v", i, err)
	}
	if err := s.SetTags(ctx, c, "none", nil); loam.CodeOf(err) != loam.NotFound {
		t.Error(err)
	}
	p, err := s.List(ctx, c, file.Query{Limit: 1 << 30})
	if err != nil || len(p.Objects) != 1 {
		t.Errorf("%+v, %v", p, err)
	}
}

func second[T any](_ T, err error) error        { return err }
func third[T, U any](_ T, _ U, err error) error { return err }

// However a name is written, it is a path below its root, or refused.
func FuzzCheckName(f *testing.F) {
	for _, n := range []string{"a/b", "../x", "a//b", "a\\b", "ü", "/", "a/./b"} {
		f.Add(n)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if file.CheckName(name) != nil {
			return
		}
		for part := range strings.SplitSeq(name, "/") {
			if part == "" || part == "." || part == ".." || strings.ContainsAny(part, "\\\x00") {
				t.Errorf("%q", name)
			}
		}
	})
}
