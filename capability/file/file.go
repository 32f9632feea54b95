// Package file is the file capability: objects of any size under names, put and read as streams, listed by prefix, taken
// in parts. It is what S3 offers, cut down to what stores have in common. Store holds what is the same for every component
// (names, bounds, grants, errors), a Driver what is not.
package file

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/loam-run/loam"
)

// Bounds of what a caller may ask.
const (
	MaxName   = 1024 // bytes
	MaxPage   = 1000 // names of a list, and of DeleteAll
	MaxParts  = 10_000
	MaxSize   = 5 << 40            // bytes of an object, as in S3
	MaxSigned = 7 * 24 * time.Hour // that a signed URL holds, as in S3
	maxMeta   = 64 << 10           // bytes of attributes
)

// A Store is one component's files.
type Store struct {
	name   string
	driver Driver
}

// New makes a Store of the component called name.
func New(name string, d Driver) *Store { return &Store{name, d} }

// Put stores what body holds under name, whole or not at all. It reads body itself, in the calling goroutine.
func (s *Store) Put(ctx context.Context, caller *loam.Caller, name string, body io.Reader, a Attributes) (Info, error) {
	op, err := s.check("file.Put", caller, name, true)
	if err != nil {
		return Info{}, err
	}
	if err := checkAttributes(op, &a); err != nil {
		return Info{}, err
	}
	i, err := s.driver.Put(ctx, name, bounded(body), a)
	return i, wrap(op, err)
}

// Get opens length bytes of an object from offset on, to its end where length is below 0. Who gets the reader closes it.
func (s *Store) Get(ctx context.Context, caller *loam.Caller, name string, offset, length int64) (io.ReadCloser, Info, error) {
	op, err := s.check("file.Get", caller, name, false)
	if err != nil {
		return nil, Info{}, err
	}
	if offset < 0 {
		return nil, Info{}, loam.Errorf(loam.InvalidArgument, op, "an offset of %d", offset)
	}
	r, i, err := s.driver.Get(ctx, name, offset, length)
	return r, i, wrap(op, err)
}

// Stat tells what an object is. NotFound: there is none.
func (s *Store) Stat(ctx context.Context, caller *loam.Caller, name string) (Info, error) {
	op, err := s.check("file.Stat", caller, name, false)
	if err != nil {
		return Info{}, err
	}
	i, err := s.driver.Stat(ctx, name)
	return i, wrap(op, err)
}

// List returns names that begin with a prefix. It needs a grant for all of them: one that names the prefix, or a shorter
// one, with an asterisk. A limit of 0 is the most there may be, MaxPage.
func (s *Store) List(ctx context.Context, caller *loam.Caller, q Query) (Page, error) {
	op := "file.List " + strconv.Quote(q.Prefix)
	if q.Limit == 0 {
		q.Limit = MaxPage
	}
	if q.Limit < 0 || len(q.Prefix) > MaxName || len(q.After) > MaxName || len(q.Delimiter) > 16 {
		return Page{}, loam.Errorf(loam.InvalidArgument, op, "a limit is 0 to %d, a prefix at most %d bytes", MaxPage, MaxName)
	}
	q.Limit = min(q.Limit, MaxPage)
	if err := caller.Check("file", s.name, q.Prefix+"*", false); err != nil { // no grant of one name alone matches that
		return Page{}, err
	}
	p, err := s.driver.List(ctx, q)
	return p, wrap(op, err)
}

// Copy stores what is under from under to as well, with its attributes unless a is not nil.
func (s *Store) Copy(ctx context.Context, caller *loam.Caller, from, to string, a *Attributes) (Info, error) {
	if _, err := s.check("file.Copy", caller, from, false); err != nil {
		return Info{}, err
	}
	op, err := s.check("file.Copy", caller, to, true)
	if err != nil {
		return Info{}, err
	}
	if a != nil {
		if err := checkAttributes(op, a); err != nil {
			return Info{}, err
		}
	}
	i, err := s.driver.Copy(ctx, from, to, a)
	return i, wrap(op, err)
}

// SetTags replaces an object's tags.
func (s *Store) SetTags(ctx context.Context, caller *loam.Caller, name string, tags map[string]string) error {
	op, err := s.check("file.SetTags", caller, name, true)
	if err != nil {
		return err
	}
	if err := checkAttributes(op, &Attributes{Tags: tags}); err != nil {
		return err
	}
	i, err := s.driver.Stat(ctx, name)
	if err != nil {
		return wrap(op, err)
	}
	i.Tags = tags
	_, err = s.driver.Copy(ctx, name, name, &i.Attributes)
	return wrap(op, err)
}

// Delete removes an object. NotFound: there is none.
func (s *Store) Delete(ctx context.Context, caller *loam.Caller, name string) error {
	op, err := s.check("file.Delete", caller, name, true)
	if err != nil {
		return err
	}
	return wrap(op, s.driver.Delete(ctx, name))
}

// DeleteAll removes several objects and answers one error for each name; one that is not there is none. The error beside
// them is about the call as a whole.
func (s *Store) DeleteAll(ctx context.Context, caller *loam.Caller, names ...string) ([]error, error) {
	if len(names) == 0 || len(names) > MaxPage {
		return nil, loam.Errorf(loam.InvalidArgument, "file.DeleteAll", "%d names: 1 to %d at once", len(names), MaxPage)
	}
	errs := make([]error, len(names))
	for i, n := range names {
		if errs[i] = s.Delete(ctx, caller, n); loam.CodeOf(errs[i]) == loam.NotFound {
			errs[i] = nil
		}
	}
	return errs, nil
}

// Append adds to an object's end, which must be at offset: 0 makes a new one.
func (s *Store) Append(ctx context.Context, caller *loam.Caller, name string, offset int64, body io.Reader, a Attributes) (Info, error) {
	op, err := s.check("file.Append", caller, name, true)
	if err != nil {
		return Info{}, err
	}
	if err := checkAttributes(op, &a); err != nil {
		return Info{}, err
	}
	d, ok := s.driver.(Appender)
	if !ok {
		return Info{}, s.unimplemented(op, "cannot append")
	}
	if offset < 0 || offset > MaxSize {
		return Info{}, loam.Errorf(loam.InvalidArgument, op, "an offset of %d", offset)
	}
	i, err := d.Append(ctx, name, offset, bounded(body), a)
	return i, wrap(op, err)
}

// Sign makes a URL with which anybody may do method, GET or PUT, until expires has passed.
func (s *Store) Sign(ctx context.Context, caller *loam.Caller, method, name string, expires time.Duration) (string, map[string]string, error) {
	op, err := s.check("file.Sign", caller, name, method != "GET")
	if err != nil {
		return "", nil, err
	}
	if method != "GET" && method != "PUT" || expires <= 0 || expires > MaxSigned {
		return "", nil, loam.Errorf(loam.InvalidArgument, op, "a URL is signed for GET or PUT, for up to %s", MaxSigned)
	}
	d, ok := s.driver.(Signer)
	if !ok {
		return "", nil, s.unimplemented(op, "cannot sign URLs")
	}
	url, header, err := d.Sign(ctx, method, name, expires)
	return url, header, wrap(op, err)
}

// CreateUpload begins an object that comes in parts.
func (s *Store) CreateUpload(ctx context.Context, caller *loam.Caller, name string, a Attributes) (id string, err error) {
	d, op, err := s.uploader("file.CreateUpload", caller, name, true)
	if err != nil {
		return "", err
	}
	if err := checkAttributes(op, &a); err != nil {
		return "", err
	}
	id, err = d.CreateUpload(ctx, name, a)
	return id, wrap(op, err)
}

// UploadPart stores one part, replacing one of the same number. Numbers are 1 to MaxParts.
func (s *Store) UploadPart(ctx context.Context, caller *loam.Caller, name, id string, number int, body io.Reader) (Part, error) {
	d, op, err := s.uploader("file.UploadPart", caller, name, true)
	if err != nil {
		return Part{}, err
	}
	if number < 1 || number > MaxParts {
		return Part{}, loam.Errorf(loam.InvalidArgument, op, "part %d: they are 1 to %d", number, MaxParts)
	}
	p, err := d.UploadPart(ctx, name, id, number, bounded(body))
	return p, wrap(op, err)
}

// CopyPart stores length bytes of another object from offset on as a part; below 0: to its end.
func (s *Store) CopyPart(ctx context.Context, caller *loam.Caller, name, id string, number int, from string, offset, length int64) (Part, error) {
	body, _, err := s.Get(ctx, caller, from, offset, length)
	if err != nil {
		return Part{}, err
	}
	defer func() { _ = body.Close() }() // it was only read
	return s.UploadPart(ctx, caller, name, id, number, body)
}

// CompleteUpload makes the object of its parts, in ascending order of their numbers. An empty ETag is not compared.
func (s *Store) CompleteUpload(ctx context.Context, caller *loam.Caller, name, id string, parts []Part) (Info, error) {
	d, op, err := s.uploader("file.CompleteUpload", caller, name, true)
	if err != nil {
		return Info{}, err
	}
	if len(parts) == 0 || len(parts) > MaxParts || !slices.IsSortedFunc(parts, func(a, b Part) int { return a.Number - b.Number }) {
		return Info{}, loam.Errorf(loam.InvalidArgument, op, "%d parts: 1 to %d in the order of their numbers", len(parts), MaxParts)
	}
	for i, p := range parts {
		if p.Number < 1 || p.Number > MaxParts || i > 0 && parts[i-1].Number == p.Number {
			return Info{}, loam.Errorf(loam.InvalidArgument, op, "part %d: each comes once and is 1 to %d", p.Number, MaxParts)
		}
	}
	i, err := d.CompleteUpload(ctx, name, id, parts)
	return i, wrap(op, err)
}

// AbortUpload forgets an upload and its parts.
func (s *Store) AbortUpload(ctx context.Context, caller *loam.Caller, name, id string) error {
	d, op, err := s.uploader("file.AbortUpload", caller, name, true)
	if err != nil {
		return err
	}
	return wrap(op, d.AbortUpload(ctx, name, id))
}

// Uploads lists those under way whose name begins with prefix, as List does, after the one given.
func (s *Store) Uploads(ctx context.Context, caller *loam.Caller, prefix, afterName, afterID string, limit int) ([]Upload, error) {
	op := "file.Uploads " + strconv.Quote(prefix)
	if limit == 0 {
		limit = MaxPage
	}
	if limit < 0 || len(prefix) > MaxName || len(afterName) > MaxName || len(afterID) > MaxName {
		return nil, loam.Errorf(loam.InvalidArgument, op, "a limit is 0 to %d, a prefix at most %d bytes", MaxPage, MaxName)
	}
	if err := caller.Check("file", s.name, prefix+"*", false); err != nil {
		return nil, err
	}
	d, ok := s.driver.(Uploader)
	if !ok {
		return nil, s.unimplemented(op, "takes no uploads in parts")
	}
	u, err := d.Uploads(ctx, prefix, afterName, afterID, min(limit, MaxPage))
	return u, wrap(op, err)
}

// Parts lists the parts of an upload whose numbers are above after. A limit of 0 is MaxPage.
func (s *Store) Parts(ctx context.Context, caller *loam.Caller, name, id string, after, limit int) ([]Part, error) {
	d, op, err := s.uploader("file.Parts", caller, name, false)
	if err != nil {
		return nil, err
	}
	if limit == 0 {
		limit = MaxPage
	}
	if limit < 0 || after < 0 {
		return nil, loam.Errorf(loam.InvalidArgument, op, "a limit is 0 to %d", MaxPage)
	}
	p, err := d.Parts(ctx, name, id, after, min(limit, MaxPage))
	return p, wrap(op, err)
}

func (s *Store) uploader(method string, caller *loam.Caller, name string, write bool) (Uploader, string, error) {
	op, err := s.check(method, caller, name, write)
	if err != nil {
		return nil, "", err
	}
	d, ok := s.driver.(Uploader)
	if !ok {
		return nil, "", s.unimplemented(op, "takes no uploads in parts")
	}
	return d, op, nil
}

func (s *Store) unimplemented(op, what string) error {
	return loam.Errorf(loam.Unimplemented, op, "component %q %s", s.name, what)
}

func (s *Store) check(method string, caller *loam.Caller, name string, write bool) (op string, err error) {
	op = method + " " + strconv.Quote(name)
	if err := CheckName(name); err != nil {
		return op, &loam.Error{Code: loam.InvalidArgument, Op: op, Err: err}
	}
	return op, caller.Check("file", s.name, name, write)
}

// CheckName tells what is wrong with an object's name: nil where nothing is. Names that a file system would read as
// something else than a path below its root (an empty part, . or .., a backslash, NUL) are refused everywhere, so that a
// name means the same in every store.
func CheckName(name string) error {
	if name == "" || len(name) > MaxName || !utf8.ValidString(name) {
		return fmt.Errorf("a name takes 1 to %d bytes of UTF-8", MaxName)
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }) {
		return fmt.Errorf("a name has neither control characters nor backslashes")
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("no part of a name's path is empty, . or .. itself")
		}
	}
	return nil
}

// checkAttributes bounds them and brings the names of metadata into lower case, as S3 has them.
func checkAttributes(op string, a *Attributes) error {
	n := len(a.ContentType) + len(a.ContentEncoding) + len(a.ContentLanguage) + len(a.ContentDisposition) + len(a.CacheControl)
	for k, v := range a.Metadata {
		n += len(k) + len(v)
	}
	for k, v := range a.Tags {
		n += len(k) + len(v)
	}
	if n > maxMeta {
		return loam.Errorf(loam.InvalidArgument, op, "attributes of %d bytes: at most %d", n, maxMeta)
	}
	for k := range a.Metadata {
		if k != strings.ToLower(k) {
			lower := make(map[string]string, len(a.Metadata))
			for k, v := range a.Metadata {
				lower[strings.ToLower(k)] = v
			}
			a.Metadata = lower
			break
		}
	}
	return nil
}

// bounded fails a body that is larger than an object may be.
func bounded(r io.Reader) io.Reader { return &bounds{r, MaxSize} }

type bounds struct {
	io.Reader
	left int64
}

func (b *bounds) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, loam.Errorf(loam.ResourceExhausted, "file", "it is larger than %d bytes", int64(MaxSize))
	}
	return n, err
}

func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return &loam.Error{Code: loam.CodeOf(err), Op: op, Err: err, Hint: loam.HintOf(err)}
}
