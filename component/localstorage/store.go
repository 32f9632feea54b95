package localstorage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/file"
)

// StoreConfig is the metadata of file.localstorage.
type StoreConfig struct {
	Root      string        `meta:"rootPath" also:"path" need:"yes"` // the folder; it is made where there is none
	UploadAge time.Duration `meta:"uploadAge,168h"`                  // after which an upload that nobody completed is forgotten
}

// OpenStore opens file.localstorage. Files that others put into the folder are there too, without attributes.
func OpenStore(_ context.Context, _ string, c StoreConfig) (file.Driver, error) {
	f, err := openFolder("file.localstorage", c.Root, 0o600, 0o700)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{meta, uploads} {
		if err := f.root.MkdirAll(dir, 0o700); err != nil {
			return nil, errors.Join(explain(err), f.Close())
		}
	}
	if err := errors.Join(f.sweep(temp, 24*time.Hour), f.sweep(uploads, c.UploadAge)); err != nil {
		return nil, errors.Join(explain(err), f.Close())
	}
	return &store{f}, nil
}

type store struct{ *folder }

// A note is what is kept of a file beside its bytes. It is of the file with that size and time, and of no other: who
// changed the file knew nothing of the note.
type note struct {
	Name     string
	Size     int64
	Modified time.Time
	ETag     string
	file.Attributes
}

// notePath does not depend on what is a directory: a/b is a file after a was one.
func notePath(name string) string {
	sum := sha256.Sum256([]byte(name))
	return meta + "/" + hex.EncodeToString(sum[:])
}

// etag is the part of a hash that is told.
func etag(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)[:16]) }

func checkOwn(name string) error {
	if first, _, _ := strings.Cut(name, "/"); first == own {
		return loam.Errorf(loam.InvalidArgument, "", "%s is not for files", own)
	}
	return nil
}

func (s *store) Put(_ context.Context, name string, body io.Reader, a file.Attributes) (file.Info, error) {
	if err := checkOwn(name); err != nil {
		return file.Info{}, err
	}
	h := sha256.New()
	staged, err := s.stage(body, h)
	if err != nil {
		return file.Info{}, explain(err)
	}
	return s.commit(staged, name, etag(h), a)
}

// commit gives a staged file its name and keeps a note of it.
func (s *store) commit(staged, name, tag string, a file.Attributes) (file.Info, error) {
	fail := func(err error) (file.Info, error) {
		if e := s.root.Remove(staged); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
		return file.Info{}, explain(err)
	}
	info, err := s.root.Stat(staged)
	if err != nil {
		return fail(err)
	}
	n := note{Name: name, Size: info.Size(), Modified: info.ModTime(), ETag: tag, Attributes: a}
	text, err := json.Marshal(n)
	if err != nil {
		return fail(err)
	}
	written, err := s.stage(strings.NewReader(string(text)))
	if err != nil {
		return fail(err)
	}
	s.mu.Lock()
	changed, err := s.place(staged, name)
	if err == nil {
		err = s.root.Rename(written, notePath(name))
	}
	s.mu.Unlock()
	if err != nil {
		return fail(errors.Join(err, s.root.Remove(written)))
	}
	if err := s.sync(append(changed, meta)...); err != nil {
		return file.Info{}, explain(err)
	}
	return n.info(), nil
}

func (n *note) info() file.Info {
	return file.Info{Name: n.Name, Size: n.Size, Modified: n.Modified, ETag: n.ETag, Attributes: n.Attributes}
}

// describe tells what is known of a file; under mu.
func (s *store) describe(name string, info fs.FileInfo) file.Info {
	text, err := s.root.ReadFile(notePath(name))
	var n note
	if err == nil && json.Unmarshal(text, &n) == nil && n.Name == name && n.Size == info.Size() && n.Modified.Equal(info.ModTime()) {
		return n.info()
	}
	return file.Info{
		Name: name, Size: info.Size(), Modified: info.ModTime(),
		ETag: fmt.Sprintf("%x-%x", info.ModTime().UnixNano(), info.Size()),
	}
}

// find opens a file with what is known of it.
func (s *store) find(name string) (*os.File, file.Info, error) {
	if err := checkOwn(name); err != nil {
		return nil, file.Info{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	in, err := s.open(name)
	if err != nil {
		return nil, file.Info{}, explain(err)
	}
	info, err := in.Stat()
	if err != nil {
		return nil, file.Info{}, explain(errors.Join(err, in.Close()))
	}
	return in, s.describe(name, info), nil
}

func (s *store) Get(_ context.Context, name string, offset, length int64) (io.ReadCloser, file.Info, error) {
	in, info, err := s.find(name)
	if err != nil {
		return nil, info, err
	}
	if offset > info.Size {
		return nil, info, errors.Join(loam.Errorf(loam.OutOfRange, "", "it has %d bytes", info.Size), in.Close())
	}
	if length < 0 || length > info.Size-offset {
		length = info.Size - offset
	}
	return &part{io.NewSectionReader(in, offset, length), in}, info, nil
}

// part is some of a file's bytes.
type part struct {
	*io.SectionReader
	file *os.File
}

func (p *part) Close() error { return p.file.Close() }

func (s *store) Stat(_ context.Context, name string) (file.Info, error) {
	in, info, err := s.find(name)
	if err != nil {
		return info, err
	}
	return info, in.Close()
}

func (s *store) List(ctx context.Context, q file.Query) (file.Page, error) {
	var p file.Page
	last := ""
	full := false
	add := func(entry string) bool {
		if len(p.Objects)+len(p.Prefixes) == q.Limit {
			full = true
			return false
		}
		last = entry
		return true
	}
	gathered := "" // the prefix that was added last, or that After names
	if q.Delimiter != "" && strings.HasSuffix(q.After, q.Delimiter) {
		gathered = q.After
	}
	start := "."
	if i := strings.LastIndexByte(q.Prefix, '/'); i > 0 && path.Clean(q.Prefix[:i]) == q.Prefix[:i] {
		if start = q.Prefix[:i]; checkOwn(start) != nil || strings.HasPrefix(start, "../") || start == ".." || start[0] == '/' {
			return p, nil // no name begins like that
		}
	}
	if info, err := s.root.Stat(start); err != nil || !info.IsDir() {
		return p, nil
	}
	_, err := s.walk(ctx, start, func(dir string) bool {
		return (strings.HasPrefix(dir, q.Prefix) || strings.HasPrefix(q.Prefix, dir)) && // names below may begin so
			(dir > q.After || strings.HasPrefix(q.After, dir)) && // and come after that
			(gathered == "" || !strings.HasPrefix(dir, gathered))
	}, func(name string, e fs.DirEntry) bool {
		if name <= q.After || !strings.HasPrefix(name, q.Prefix) {
			return true
		}
		if q.Delimiter != "" {
			if i := strings.Index(name[len(q.Prefix):], q.Delimiter); i >= 0 {
				group := name[:len(q.Prefix)+i+len(q.Delimiter)]
				if group == gathered {
					return true
				}
				if !add(group) {
					return false
				}
				gathered = group
				p.Prefixes = append(p.Prefixes, group)
				return true
			}
		}
		info, err := e.Info()
		if err != nil {
			return true // removed since
		}
		if !add(name) {
			return false
		}
		s.mu.RLock()
		o := s.describe(name, info)
		s.mu.RUnlock()
		p.Objects = append(p.Objects, file.Info{Name: o.Name, Size: o.Size, Modified: o.Modified, ETag: o.ETag})
		return true
	})
	if full {
		p.Next = last
	}
	return p, explain(err)
}

func (s *store) Copy(ctx context.Context, from, to string, a *file.Attributes) (file.Info, error) {
	in, info, err := s.find(from)
	if err != nil {
		return info, err
	}
	defer func() { _ = in.Close() }() // it was only read
	if a == nil {
		a = &info.Attributes
	}
	if from != to {
		return s.Put(ctx, to, io.NewSectionReader(in, 0, info.Size), *a)
	}
	// Only the note is new.
	n := note{Name: to, Size: info.Size, Modified: info.Modified, ETag: info.ETag, Attributes: *a}
	text, err := json.Marshal(n)
	if err != nil {
		return info, err
	}
	if err := s.put(notePath(to), strings.NewReader(string(text))); err != nil {
		return info, err
	}
	return n.info(), nil
}

func (s *store) Delete(_ context.Context, name string) error {
	if err := checkOwn(name); err != nil {
		return err
	}
	s.mu.Lock()
	err := s.remove(name)
	if err == nil {
		if err = s.root.Remove(notePath(name)); errors.Is(err, fs.ErrNotExist) {
			err = nil // others put the file there
		}
	}
	s.mu.Unlock()
	if err != nil {
		return explain(err)
	}
	return explain(s.sync(path.Dir(name)))
}

// Append writes to the file itself. Where the process ends meanwhile, a part of body is there.
func (s *store) Append(ctx context.Context, name string, offset int64, body io.Reader, a file.Attributes) (file.Info, error) {
	old, err := s.Stat(ctx, name)
	if loam.CodeOf(err) == loam.NotFound && offset == 0 {
		return s.Put(ctx, name, body, a)
	}
	if err != nil {
		return old, err
	}
	h := sha256.New()
	_, _ = io.WriteString(h, old.ETag) // a hash takes everything
	staged, err := s.stage(body, h)    // whole, before the file is touched: a stream may take long, or break
	if err != nil {
		return old, explain(err)
	}
	defer func() { _ = s.root.Remove(staged) }() // sweep gets it otherwise
	in, err := s.root.Open(staged)
	if err != nil {
		return old, explain(err)
	}
	defer func() { _ = in.Close() }() // it was only read
	n, err := s.extend(name, offset, in)
	if err != nil {
		return old, explain(err)
	}
	n.Name, n.ETag, n.Attributes = name, etag(h), old.Attributes
	text, err := json.Marshal(n)
	if err != nil {
		return old, err
	}
	return n.info(), s.put(notePath(name), strings.NewReader(string(text)))
}

// extend adds to a file's end, all or nothing, if that is where it is said to be.
func (s *store) extend(name string, offset int64, body io.Reader) (n note, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.regular(name); err != nil {
		return n, err
	}
	out, err := s.root.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return n, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	info, err := out.Stat()
	if err != nil {
		return n, err
	}
	if info.Size() != offset {
		return n, loam.Errorf(loam.FailedPrecondition, "", "it has %d bytes, not %d", info.Size(), offset)
	}
	if _, err = out.Seek(offset, io.SeekStart); err == nil {
		if _, err = io.Copy(out, body); err == nil {
			err = out.Sync()
		}
	}
	if err != nil {
		return n, errors.Join(err, out.Truncate(offset))
	}
	if info, err = out.Stat(); err != nil {
		return n, err
	}
	return note{Size: info.Size(), Modified: info.ModTime()}, nil
}
