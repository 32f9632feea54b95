package loam

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFakeFiles(t *testing.T) {
	fake := NewFake(t)
	f := File("")
	if _, _, err := f.Get("a/x"); !IsNotFound(err) {
		t.Errorf("missing: %v", err)
	}
	data := []byte("green tea")
	etag, err := f.Put("a/x", data, WithFileType("text/plain"), WithMetadata("by", "me"))
	data[0] = 'G' // what was put is a copy
	got, info, err2 := f.Get("a/x")
	if errors.Join(err, err2) != nil || string(got) != "green tea" || info.ETag != etag || info.Size != 9 || info.ContentType != "text/plain" || info.Metadata["by"] != "me" || time.Since(info.Modified) > time.Hour {
		t.Errorf("%q %+v %v %v", got, info, err, err2)
	}
	for _, c := range []struct {
		offset, length int64
		want           string
		code           Code
	}{
		{2, 3, "een", OK}, {6, 100, "tea", OK}, {9, 0, "", OK}, {10, 0, "", OutOfRange}, {-1, 0, "", InvalidArgument}, {0, -1, "", InvalidArgument},
	} {
		if part, _, err := f.GetRange("a/x", c.offset, c.length); string(part) != c.want || CodeOf(err) != c.code {
			t.Errorf("%d, %d: %q %v", c.offset, c.length, part, err)
		}
	}
	if _, err := f.Append("a/x", 3, nil); CodeOf(err) != FailedPrecondition {
		t.Error(err)
	}
	if end, err := f.Append("a/x", 9, []byte("!")); end != 10 || err != nil {
		t.Error(end, err)
	}
	if info, err := f.Stat("a/x"); info.Size != 10 || info.ETag == etag || info.ContentType != "text/plain" || err != nil {
		t.Error(info, err)
	}
	if end, err := f.Append("a/b/y", 0, []byte("1"), WithMetadata("n", "1")); end != 1 || err != nil {
		t.Error(end, err)
	}
	fake.Files["a/b/z"] = []byte("there already")
	var names []string
	for after := ""; ; {
		list, err := f.List(FileQuery{Prefix: "a/", Delimiter: "/", After: after, Limit: 1})
		if err != nil || len(list.Files)+len(list.Prefixes) > 1 {
			t.Fatal(list, err)
		}
		names = append(names, list.Prefixes...)
		for _, i := range list.Files {
			names = append(names, i.Name)
		}
		if after = list.Next; after == "" {
			break
		}
	}
	if want := []string{"a/b/", "a/x"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	if list, err := f.List(FileQuery{}); len(list.Files) != 3 || err != nil {
		t.Error(list, err)
	}
	if err := f.Delete("a/x"); err != nil {
		t.Error(err)
	}
	if err := f.Delete("a/x"); !IsNotFound(err) {
		t.Error(err)
	}
}

func TestFakeCrypto(t *testing.T) {
	NewFake(t)
	c := Crypto("")
	sealed, err := c.Seal("k", "AES", []byte("a message"))
	again, err2 := c.Seal("k", "AES", []byte("a message"))
	if errors.Join(err, err2) != nil || strings.Contains(string(sealed), "message") || string(sealed) == string(again) {
		t.Errorf("%q %q %v %v", sealed, again, err, err2)
	}
	for _, key := range []string{"", "k"} {
		if m, err := c.Open(key, sealed); string(m) != "a message" || err != nil {
			t.Errorf("%q: %q %v", key, m, err)
		}
	}
	sealed[len(sealed)-1] ^= 1
	for what, b := range map[string][]byte{"changed": sealed, "cut": again[:len(again)-1], "nothing": nil, "no message": []byte("k\nshort")} {
		if m, err := c.Open("", b); m != nil || CodeOf(err) != InvalidArgument {
			t.Errorf("%s: %q %v", what, m, err)
		}
	}
	if _, err := c.Open("other", again); CodeOf(err) != InvalidArgument {
		t.Error(err)
	}
	by := Cipher{Key: "k", Algorithm: "A256GCM", Nonce: []byte("n"), Associated: []byte("a")}
	secret, tag, err := c.Encrypt(by, []byte("x"))
	wrapped, wrapTag, err2 := c.Wrap(by, []byte("key"))
	if errors.Join(err, err2) != nil || len(secret) != 1 || len(tag) != 16 {
		t.Error(secret, tag, err, err2)
	}
	if plain, err := c.Decrypt(by, secret, tag); string(plain) != "x" || err != nil {
		t.Error(plain, err)
	}
	if key, err := c.Unwrap(by, wrapped, wrapTag); string(key) != "key" || err != nil {
		t.Error(key, err)
	}
	by.Associated = nil
	if _, err := c.Decrypt(by, secret, tag); CodeOf(err) != InvalidArgument {
		t.Error(err)
	}
	signature, err := c.Sign("k", "EdDSA", []byte("x"))
	good, err2 := c.Verify("k", "EdDSA", []byte("x"), signature)
	bad, err3 := c.Verify("k", "EdDSA", []byte("y"), signature)
	if errors.Join(err, err2, err3) != nil || !good || bad {
		t.Error(good, bad, err, err2, err3)
	}
	pem, err := c.PublicKey("k")
	jwk, err2 := c.PublicJWK("k")
	if errors.Join(err, err2) != nil || pem == "" || jwk == "" {
		t.Error(pem, jwk, err, err2)
	}
}

func TestFakeBindings(t *testing.T) {
	fake := NewFake(t)
	if _, _, err := Bind("mail").Invoke("create", nil, nil); !IsNotFound(err) {
		t.Error(err)
	}
	fake.Bind = func(component, operation string, data []byte, metadata map[string]string) ([]byte, map[string]string, error) {
		if operation == "burn" {
			return nil, nil, Errorf(Unavailable, "not now")
		}
		return []byte(component + operation + string(data)), metadata, nil
	}
	data, metadata, err := Bind("mail").Invoke("create", []byte("hi"), map[string]string{"to": "you", "cc": "me"})
	if string(data) != "mailcreatehi" || fmt.Sprint(metadata) != "map[cc:me to:you]" || err != nil {
		t.Error(data, metadata, err)
	}
	if _, _, err := Bind("mail").Invoke("burn", nil, nil); CodeOf(err) != Unavailable {
		t.Error(err)
	}
}

func TestJobs(t *testing.T) {
	fake := NewFake(t)
	before := slices.Clone(routes)
	t.Cleanup(func() { routes = before })
	var got string
	var result error
	HandleJob("mail/{id}", func(r *Request, data []byte) error {
		got = r.PathValue("id") + " " + r.Header.Get("content-type") + " " + string(data)
		return result
	})
	j := Jobs("")
	job := Job{
		Name: "mail/7 €", Schedule: "@daily", Due: "1h", TTL: "72h", Repeats: 3, Data: []byte("hi"), ContentType: "text/plain",
		RetryAfter: 50 * time.Millisecond, Retries: -1,
	}
	if err := j.Schedule(job); err != nil {
		t.Fatal(err)
	}
	if err := j.Schedule(job); CodeOf(err) != AlreadyExists {
		t.Error(err)
	}
	job.DropFailed = true
	if err := j.Replace(job); err != nil {
		t.Error(err)
	}
	if back, err := j.Get(job.Name); fmt.Sprint(back) != fmt.Sprint(job) || err != nil {
		t.Errorf("%+v came back as %+v, %v", job, back, err)
	}
	if err := j.Schedule(Job{Name: "never"}); CodeOf(err) != InvalidArgument {
		t.Error(err)
	}
	for _, c := range []struct {
		err  error
		done bool
	}{
		{nil, true}, {errors.New("again"), false}, {Errorf(NotFound, "a key, not the job"), false}, {fmt.Errorf("%w: not for us", ErrDrop), true},
	} {
		if result = c.err; fake.RunJob(job.Name) != c.done || got != "7 € text/plain hi" {
			t.Errorf("%v: done is not %t; %q", c.err, c.done, got)
		}
	}
	if err := j.Delete(job.Name); err != nil {
		t.Error(err)
	}
	if err := j.Delete(job.Name); !IsNotFound(err) {
		t.Error(err)
	}
	if _, err := j.Get(job.Name); !IsNotFound(err) {
		t.Error(err)
	}
}
