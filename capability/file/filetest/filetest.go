// Package filetest is what every driver of the file capability must do. A component's own test calls Run.
package filetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/file"
)

// Run tests the drivers that open returns: each call one with no files.
func Run(t *testing.T, open func(t *testing.T) file.Driver) {
	t.Run("put and get", func(t *testing.T) { putAndGet(t, open(t)) })
	t.Run("ranges", func(t *testing.T) { ranges(t, open(t)) })
	t.Run("attributes", func(t *testing.T) { attributes(t, open(t)) })
	t.Run("what breaks changes nothing", func(t *testing.T) { broken(t, open(t)) })
	t.Run("list", func(t *testing.T) { list(t, open(t)) })
	t.Run("copy", func(t *testing.T) { copies(t, open(t)) })
	t.Run("delete", func(t *testing.T) { deletes(t, open(t)) })
	t.Run("many at once", func(t *testing.T) { many(t, open(t)) })
	t.Run("parts", func(t *testing.T) {
		d, ok := open(t).(file.Uploader)
		if !ok {
			t.Fatal("the driver takes no parts")
		}
		parts(t, d)
	})
	t.Run("append", func(t *testing.T) {
		d := open(t)
		if a, ok := d.(file.Appender); ok {
			appends(t, d, a)
		}
	})
}

func put(t *testing.T, d file.Driver, name, text string) file.Info {
	t.Helper()
	i, err := d.Put(t.Context(), name, strings.NewReader(text), file.Attributes{})
	if err != nil || i.Size != int64(len(text)) || i.ETag == "" || i.Name != name {
		t.Fatalf("put %s: %+v, %v", name, i, err)
	}
	return i
}

func get(t *testing.T, d file.Driver, name string, offset, length int64) (string, file.Info, error) {
	t.Helper()
	r, i, err := d.Get(t.Context(), name, offset, length)
	if err != nil {
		return "", i, err
	}
	b, err := io.ReadAll(r)
	return string(b), i, errors.Join(err, r.Close())
}

func want(t *testing.T, d file.Driver, name, text string) {
	t.Helper()
	if got, i, err := get(t, d, name, 0, -1); err != nil || got != text || i.Size != int64(len(text)) {
		t.Errorf("%s: %.40q, %+v, %v; want %.40q", name, got, i, err, text)
	}
}

func wantCode(t *testing.T, what string, err error, code loam.Code) {
	t.Helper()
	if loam.CodeOf(err) != code {
		t.Errorf("%s: %v, want %v", what, err, code)
	}
}

func putAndGet(t *testing.T, d file.Driver) {
	_, _, err := get(t, d, "a/b.txt", 0, -1)
	wantCode(t, "get what is not there", err, loam.NotFound)
	_, err = d.Stat(t.Context(), "a/b.txt")
	wantCode(t, "stat what is not there", err, loam.NotFound)
	before := time.Now().Add(-time.Minute)
	first := put(t, d, "a/b.txt", "hello")
	want(t, d, "a/b.txt", "hello")
	i, err := d.Stat(t.Context(), "a/b.txt")
	if err != nil || i.ETag != first.ETag || i.Size != 5 || i.Modified.Before(before) || i.Name != "a/b.txt" {
		t.Errorf("stat: %+v, %v", i, err)
	}
	if second := put(t, d, "a/b.txt", "world"); second.ETag == first.ETag {
		t.Errorf("the ETag of other bytes is the same: %s", second.ETag)
	}
	want(t, d, "a/b.txt", "world")
	put(t, d, "empty", "")
	want(t, d, "empty", "")
	large := strings.Repeat("0123456789abcdef", 1<<17)
	put(t, d, "large", large)
	want(t, d, "large", large)
	for _, name := range []string{"ünï cödé/文件", "a b", "-x", "x.", "%2e%2e", "c/d/e/f/g/h", ".hidden", "a/.loamy", "a..b/c..", strings.Repeat("n", 200)} {
		put(t, d, name, name)
		want(t, d, name, name)
	}
	// Who reads goes on reading what it opened.
	r, _, err := d.Get(t.Context(), "large", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	put(t, d, "large", "small")
	if b, err := io.ReadAll(r); err != nil || string(b) != large {
		t.Errorf("read while it was replaced: %d bytes, %v", len(b), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func ranges(t *testing.T, d file.Driver) {
	put(t, d, "digits", "0123456789")
	for _, c := range []struct {
		offset, length int64
		want           string
		code           loam.Code
	}{
		{0, -1, "0123456789", loam.OK}, {3, -1, "3456789", loam.OK}, {3, 4, "3456", loam.OK}, {8, 100, "89", loam.OK},
		{0, 0, "", loam.OK}, {10, -1, "", loam.OK}, {11, -1, "", loam.OutOfRange}, {1 << 60, 1 << 60, "", loam.OutOfRange},
		{2, 1<<63 - 1, "23456789", loam.OK},
	} {
		if got, _, err := get(t, d, "digits", c.offset, c.length); loam.CodeOf(err) != c.code || got != c.want {
			t.Errorf("%d bytes from %d: %q, %v", c.length, c.offset, got, err)
		}
	}
}

func attributes(t *testing.T, d file.Driver) {
	a := file.Attributes{
		ContentType: "text/plain", ContentEncoding: "gzip", ContentLanguage: "de", ContentDisposition: "inline", CacheControl: "no-store",
		Expires: time.Unix(2_000_000_000, 0).UTC(), Metadata: map[string]string{"k": "v", "ü": "\"\n"}, Tags: map[string]string{"t": "1"},
	}
	if _, err := d.Put(t.Context(), "x", strings.NewReader("x"), a); err != nil {
		t.Fatal(err)
	}
	same := func(what string, got, want file.Attributes) {
		t.Helper()
		if !got.Expires.Equal(want.Expires) || !maps.Equal(got.Metadata, want.Metadata) || !maps.Equal(got.Tags, want.Tags) ||
			got.ContentType != want.ContentType || got.ContentEncoding != want.ContentEncoding || got.ContentLanguage != want.ContentLanguage ||
			got.ContentDisposition != want.ContentDisposition || got.CacheControl != want.CacheControl {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	i, err := d.Stat(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	same("stat", i.Attributes, a)
	_, i, err = get(t, d, "x", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	same("get", i.Attributes, a)
	put(t, d, "x", "y")
	if i, err = d.Stat(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	same("replaced", i.Attributes, file.Attributes{})
}

func broken(t *testing.T, d file.Driver) {
	fails := errors.New("fails")
	bad := func() io.Reader {
		return io.MultiReader(strings.NewReader(strings.Repeat("x", 100_000)), iotest.ErrReader(fails))
	}
	if _, err := d.Put(t.Context(), "x", bad(), file.Attributes{}); !errors.Is(err, fails) {
		t.Errorf("%v", err)
	}
	_, _, err := get(t, d, "x", 0, -1)
	wantCode(t, "after a put that broke", err, loam.NotFound)
	put(t, d, "x", "old")
	if _, err := d.Put(t.Context(), "x", bad(), file.Attributes{}); !errors.Is(err, fails) {
		t.Errorf("%v", err)
	}
	want(t, d, "x", "old")
	if p, err := d.List(t.Context(), file.Query{Limit: 10}); err != nil || len(p.Objects) != 1 {
		t.Errorf("what broke is listed: %+v, %v", p, err)
	}
}

// pages lists all of it, limit at a time.
func pages(t *testing.T, d file.Driver, q file.Query) (entries []string) {
	t.Helper()
	for range 1000 {
		p, err := d.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		var page []string
		for _, o := range p.Objects {
			page = append(page, o.Name)
		}
		page = append(page, p.Prefixes...)
		if len(page) > q.Limit {
			t.Fatalf("%d entries, limit %d", len(page), q.Limit)
		}
		slices.Sort(page)
		entries = append(entries, page...)
		if q.After = p.Next; q.After == "" {
			return entries
		}
	}
	t.Fatal("the list has no end")
	return nil
}

func list(t *testing.T, d file.Driver) {
	if got := pages(t, d, file.Query{Limit: 10}); len(got) != 0 {
		t.Errorf("an empty store has %q", got)
	}
	names := []string{"a", "b-1", "b.txt", "b/1", "b/2", "b/c/1", "b/c/2", "b/c.d/1", "b0", "c/1/2/3", "d", "ü"}
	slices.Sort(names)
	for _, n := range names {
		put(t, d, n, n)
	}
	p, err := d.List(t.Context(), file.Query{Prefix: "b/1", Limit: 10})
	if s, _ := d.Stat(t.Context(), "b/1"); err != nil || len(p.Objects) != 1 || p.Objects[0].Size != 3 || p.Objects[0].ETag != s.ETag || p.Objects[0].Modified.IsZero() {
		t.Errorf("%+v, %v", p, err)
	}
	for _, c := range []struct {
		q    file.Query
		want []string
	}{
		{file.Query{}, names},
		{file.Query{Prefix: "b"}, []string{"b-1", "b.txt", "b/1", "b/2", "b/c.d/1", "b/c/1", "b/c/2", "b0"}},
		{file.Query{Prefix: "b/"}, []string{"b/1", "b/2", "b/c.d/1", "b/c/1", "b/c/2"}},
		{file.Query{Prefix: "b/c"}, []string{"b/c.d/1", "b/c/1", "b/c/2"}},
		{file.Query{Prefix: "nosuch/"}, nil},
		{file.Query{Prefix: "a/"}, nil}, // a is no directory
		{file.Query{Prefix: "../"}, nil}, {file.Query{Prefix: "/"}, nil}, {file.Query{Prefix: "/etc/"}, nil}, {file.Query{Prefix: "b/../"}, nil},
		{file.Query{After: "b/2"}, []string{"b/c.d/1", "b/c/1", "b/c/2", "b0", "c/1/2/3", "d", "ü"}},
		{file.Query{After: "b/c/1x"}, []string{"b/c/2", "b0", "c/1/2/3", "d", "ü"}},
		{file.Query{After: "zz"}, []string{"ü"}},
		{file.Query{Delimiter: "/"}, []string{"a", "b-1", "b.txt", "b/", "b0", "c/", "d", "ü"}},
		{file.Query{Prefix: "b/", Delimiter: "/"}, []string{"b/1", "b/2", "b/c.d/", "b/c/"}},
		{file.Query{Prefix: "b", Delimiter: "/"}, []string{"b-1", "b.txt", "b/", "b0"}},
		{file.Query{Delimiter: "/", After: "b/"}, []string{"b0", "c/", "d", "ü"}},
		{file.Query{Delimiter: "/", After: "b/1"}, []string{"b/", "b0", "c/", "d", "ü"}},
		{file.Query{Delimiter: "c"}, []string{"a", "b-1", "b.txt", "b/1", "b/2", "b/c", "b0", "c", "d", "ü"}},
	} {
		for limit := range 4 {
			c.q.Limit = []int{1, 2, 3, 1000}[limit]
			if got := pages(t, d, c.q); !slices.Equal(got, c.want) {
				t.Errorf("%+v: %q, want %q", c.q, got, c.want)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = d.List(ctx, file.Query{Limit: 10})
	wantCode(t, "when nobody waits", err, loam.Canceled)
}

func copies(t *testing.T, d file.Driver) {
	ctx := t.Context()
	_, err := d.Copy(ctx, "x", "y", nil)
	wantCode(t, "copy what is not there", err, loam.NotFound)
	if _, err := d.Put(ctx, "x", strings.NewReader("text"), file.Attributes{ContentType: "text/plain"}); err != nil {
		t.Fatal(err)
	}
	for to, a := range map[string]*file.Attributes{"y/1": nil, "y/2": {ContentType: "text/html"}} {
		i, err := d.Copy(ctx, "x", to, a)
		if err != nil || i.Name != to || i.Size != 4 {
			t.Errorf("%+v, %v", i, err)
		}
		want(t, d, to, "text")
		typ := "text/plain"
		if a != nil {
			typ = a.ContentType
		}
		if i, err = d.Stat(ctx, to); err != nil || i.ContentType != typ {
			t.Errorf("%+v, %v", i, err)
		}
	}
	// To itself, which is how attributes are changed.
	if _, err := d.Copy(ctx, "x", "x", &file.Attributes{Tags: map[string]string{"k": "v"}}); err != nil {
		t.Error(err)
	}
	want(t, d, "x", "text")
	if i, err := d.Stat(ctx, "x"); err != nil || i.Tags["k"] != "v" || i.ContentType != "" {
		t.Errorf("%+v, %v", i, err)
	}
}

func deletes(t *testing.T, d file.Driver) {
	wantCode(t, "delete what is not there", d.Delete(t.Context(), "x/y"), loam.NotFound)
	put(t, d, "x/y", "1")
	put(t, d, "x/z/w", "2")
	wantCode(t, "delete what only holds others", d.Delete(t.Context(), "x/z"), loam.NotFound)
	wantCode(t, "delete", d.Delete(t.Context(), "x/y"), loam.OK)
	wantCode(t, "delete again", d.Delete(t.Context(), "x/y"), loam.NotFound)
	want(t, d, "x/z/w", "2")
	wantCode(t, "delete the last", d.Delete(t.Context(), "x/z/w"), loam.OK)
	put(t, d, "x", "now a file") // nothing is left of what held it
	want(t, d, "x", "now a file")
	wantCode(t, "delete", d.Delete(t.Context(), "x"), loam.OK)
	if _, err := d.Put(t.Context(), "x", strings.NewReader("n"), file.Attributes{}); err != nil {
		t.Error(err)
	}
	if i, err := d.Stat(t.Context(), "x"); err != nil || len(i.Metadata) > 0 {
		t.Errorf("%+v, %v", i, err)
	}
}

// Whoever reads finds one of the texts that were put, whole, with the ETag of that text.
func many(t *testing.T, d file.Driver) {
	texts := map[string]string{} // by ETag
	for i := range 4 {
		text := strings.Repeat(fmt.Sprint(i), 10_000+i)
		texts[put(t, d, "dir/x", text).ETag] = text
	}
	var working sync.WaitGroup
	for _, text := range texts {
		working.Go(func() {
			for range 20 {
				if _, err := d.Put(t.Context(), "dir/x", strings.NewReader(text), file.Attributes{}); err != nil {
					t.Error(err)
				}
			}
		})
		working.Go(func() {
			for range 20 {
				got, i, err := get(t, d, "dir/x", 0, -1)
				if loam.CodeOf(err) == loam.NotFound {
					continue // deleted a moment ago
				}
				if err != nil || got != texts[i.ETag] {
					t.Errorf("%d bytes of %.3s with ETag %s of %d, %v", len(got), got, i.ETag, len(texts[i.ETag]), err)
				}
			}
		})
		working.Go(func() {
			for range 5 {
				if err := d.Delete(t.Context(), "dir/x"); err != nil && loam.CodeOf(err) != loam.NotFound {
					t.Error(err)
				}
			}
		})
	}
	working.Wait()
}

func parts(t *testing.T, u file.Uploader) {
	ctx, d := t.Context(), u.(file.Driver)
	id, err := u.CreateUpload(ctx, "dir/x", file.Attributes{ContentType: "text/plain"})
	if err != nil || id == "" {
		t.Fatal(id, err)
	}
	upload := func(number int, text string) file.Part {
		t.Helper()
		p, err := u.UploadPart(ctx, "dir/x", id, number, strings.NewReader(text))
		if err != nil || p.Number != number || p.Size != int64(len(text)) || p.ETag == "" {
			t.Fatalf("part %d: %+v, %v", number, p, err)
		}
		return p
	}
	three := upload(3, "three")
	old := upload(1, "won")
	one := upload(1, "one") // in place of the other
	two := upload(10_000, "two")
	_, err = d.Stat(ctx, "dir/x")
	wantCode(t, "before it is complete", err, loam.NotFound)
	if p, err := d.List(ctx, file.Query{Limit: 10}); err != nil || len(p.Objects)+len(p.Prefixes) > 0 {
		t.Errorf("parts are listed: %+v, %v", p, err)
	}
	got, err := u.Parts(ctx, "dir/x", id, 0, 10)
	if err != nil || len(got) != 3 || got[0].ETag != one.ETag || got[1].Number != 3 || got[2].Size != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err = u.Parts(ctx, "dir/x", id, 1, 1); err != nil || len(got) != 1 || got[0].Number != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	fails := errors.New("fails")
	if _, err := u.UploadPart(ctx, "dir/x", id, 3, iotest.ErrReader(fails)); !errors.Is(err, fails) {
		t.Errorf("%v", err)
	}

	other, err := u.CreateUpload(ctx, "dir/a", file.Attributes{})
	if err != nil {
		t.Fatal(err)
	}
	list := func(prefix, afterName, afterID string, limit int) (names []string) {
		t.Helper()
		found, err := u.Uploads(ctx, prefix, afterName, afterID, limit)
		for _, f := range found {
			if f.Started.IsZero() {
				t.Errorf("%+v", f)
			}
			names = append(names, f.Name)
		}
		if err != nil {
			t.Error(err)
		}
		return names
	}
	for _, c := range []struct{ got, want []string }{
		{list("", "", "", 10), []string{"dir/a", "dir/x"}}, {list("dir/x", "", "", 10), []string{"dir/x"}},
		{list("", "dir/a", "", 10), []string{"dir/x"}}, {list("", "dir/a", other, 10), []string{"dir/x"}}, {list("", "", "", 1), []string{"dir/a"}},
		{list("", "dir/x", "", 10), nil},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("uploads: %q, want %q", c.got, c.want)
		}
	}

	for _, c := range []struct {
		what, name, id string
		parts          []file.Part
		want           loam.Code
	}{
		{"another name", "dir/y", id, []file.Part{one}, loam.NotFound},
		{"another id", "dir/x", other, []file.Part{one}, loam.NotFound},
		{"no id", "dir/x", "", []file.Part{one}, loam.NotFound},
		{"a path", "dir/x", "../../" + id, []file.Part{one}, loam.NotFound},
		{"a part's former ETag", "dir/x", id, []file.Part{old}, loam.FailedPrecondition},
		{"a part that is not there", "dir/x", id, []file.Part{one, {Number: 2}}, loam.FailedPrecondition},
	} {
		_, err := u.CompleteUpload(ctx, c.name, c.id, c.parts)
		wantCode(t, "complete, "+c.what, err, c.want)
	}
	for _, hostile := range []string{"", ".", "..", "../..", "/", id + "/..", strings.Repeat("A", 1000)} {
		_, err := u.UploadPart(ctx, "dir/x", hostile, 1, strings.NewReader("x"))
		wantCode(t, "part for "+hostile, err, loam.NotFound)
		_, err = u.Parts(ctx, "dir/x", hostile, 0, 10)
		wantCode(t, "parts of "+hostile, err, loam.NotFound)
		wantCode(t, "abort "+hostile, u.AbortUpload(ctx, "dir/x", hostile), loam.NotFound)
	}

	i, err := u.CompleteUpload(ctx, "dir/x", id, []file.Part{{Number: 1}, three, two}) // an ETag may be left out
	if err != nil || i.Size != 11 || i.ETag == "" || i.ContentType != "text/plain" {
		t.Fatalf("%+v, %v", i, err)
	}
	want(t, d, "dir/x", "onethreetwo")
	if s, err := d.Stat(ctx, "dir/x"); err != nil || s.ETag != i.ETag || s.ContentType != "text/plain" {
		t.Errorf("%+v, %v", s, err)
	}
	_, err = u.CompleteUpload(ctx, "dir/x", id, []file.Part{one})
	wantCode(t, "complete twice", err, loam.NotFound)
	wantCode(t, "abort", u.AbortUpload(ctx, "dir/a", other), loam.OK)
	wantCode(t, "abort twice", u.AbortUpload(ctx, "dir/a", other), loam.NotFound)
	_, err = u.UploadPart(ctx, "dir/a", other, 1, strings.NewReader("x"))
	wantCode(t, "part for what was aborted", err, loam.NotFound)
	if left := list("", "", "", 10); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func appends(t *testing.T, d file.Driver, a file.Appender) {
	ctx := t.Context()
	step := func(offset int64, text string, code loam.Code) {
		t.Helper()
		_, err := a.Append(ctx, "log", offset, strings.NewReader(text), file.Attributes{ContentType: "text/plain"})
		wantCode(t, text, err, code)
	}
	step(3, "no", loam.NotFound)
	step(0, "one", loam.OK)
	step(0, "no", loam.FailedPrecondition)
	step(2, "no", loam.FailedPrecondition)
	before, err := d.Stat(ctx, "log")
	if err != nil {
		t.Fatal(err)
	}
	step(3, "two", loam.OK)
	want(t, d, "log", "onetwo")
	after, err := d.Stat(ctx, "log")
	if err != nil || after.ETag == before.ETag || after.ContentType != "text/plain" || after.Size != 6 {
		t.Errorf("%+v, %v", after, err)
	}
	fails := errors.New("fails")
	if _, err := a.Append(ctx, "log", 6, io.MultiReader(bytes.NewReader([]byte("x")), iotest.ErrReader(fails)), file.Attributes{}); !errors.Is(err, fails) {
		t.Errorf("%v", err)
	}
	want(t, d, "log", "onetwo")
}
