package localstorage

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/file"
)

// An upload is a directory of its own: a head, and a file for each part, whose name is its number and ETag.
const head = "upload.json"

type uploadHead struct {
	Name    string
	Started time.Time
	file.Attributes
}

func (s *store) CreateUpload(_ context.Context, name string, a file.Attributes) (string, error) {
	if err := checkOwn(name); err != nil {
		return "", err
	}
	id := rand.Text()
	text, err := json.Marshal(uploadHead{name, time.Now(), a})
	if err != nil {
		return "", err
	}
	return id, s.put(path.Join(uploads, id, head), strings.NewReader(string(text)))
}

// upload finds one; dir is where it is.
func (s *store) upload(name, id string) (dir string, h uploadHead, err error) {
	none := loam.Errorf(loam.NotFound, "", "there is no such upload")
	if !validID(id) {
		return "", h, none
	}
	dir = path.Join(uploads, id)
	text, err := s.root.ReadFile(path.Join(dir, head))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = none
		}
		return "", h, explain(err)
	}
	if err := json.Unmarshal(text, &h); err != nil {
		return "", h, &loam.Error{Code: loam.DataLoss, Err: err}
	}
	if h.Name != name {
		return "", h, none
	}
	return dir, h, nil
}

// validID keeps to what rand.Text makes.
func validID(id string) bool {
	return len(id) >= 26 && len(id) <= 64 && !strings.ContainsFunc(id, func(r rune) bool { return (r < 'A' || r > 'Z') && (r < '2' || r > '7') })
}

func partName(number int, tag string) string { return fmt.Sprintf("%05d-%s", number, tag) }

func parsePart(name string) (number int, tag string, ok bool) {
	digits, tag, ok := strings.Cut(name, "-")
	if !ok || len(digits) != 5 || len(tag) != 32 {
		return 0, "", false
	}
	number, err := strconv.Atoi(digits)
	return number, tag, err == nil && number > 0 && partName(number, tag) == name
}

func (s *store) UploadPart(_ context.Context, name, id string, number int, body io.Reader) (file.Part, error) {
	dir, _, err := s.upload(name, id)
	if err != nil {
		return file.Part{}, err
	}
	h := sha256.New()
	staged, err := s.stage(body, h)
	if err != nil {
		return file.Part{}, explain(err)
	}
	p, err := s.placePart(staged, dir, name, id, number, etag(h))
	if err != nil {
		return p, explain(errors.Join(err, s.root.Remove(staged)))
	}
	return p, explain(s.sync(dir))
}

// placePart gives a staged part its name, in place of one of that number.
func (s *store) placePart(staged, dir, name, id string, number int, tag string) (p file.Part, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, _, err := s.upload(name, id); err != nil { // ended meanwhile
		return p, err
	}
	info, err := s.root.Stat(staged)
	if err != nil {
		return p, err
	}
	old, err := s.partNames(dir)
	if err != nil {
		return p, err
	}
	if err := s.root.Rename(staged, path.Join(dir, partName(number, tag))); err != nil {
		return p, err
	}
	for _, o := range old {
		if n, was, ok := parsePart(o); ok && n == number && was != tag {
			if err := s.root.Remove(path.Join(dir, o)); err != nil {
				return p, err
			}
		}
	}
	return file.Part{Number: number, Size: info.Size(), ETag: tag, Modified: info.ModTime()}, nil
}

// partNames are the files of an upload's parts in the order of their numbers.
func (s *store) partNames(dir string) ([]string, error) {
	entries, err := s.list(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if _, _, ok := parsePart(e.Name()); ok {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

func (s *store) CompleteUpload(_ context.Context, name, id string, parts []file.Part) (file.Info, error) {
	dir, h, err := s.upload(name, id)
	if err != nil {
		return file.Info{}, err
	}
	names, err := s.partNames(dir)
	if err != nil {
		return file.Info{}, explain(err)
	}
	there := make(map[int]string, len(names))
	for _, n := range names {
		number, tag, _ := parsePart(n)
		there[number] = tag
	}
	sum := sha256.New() // of the parts' ETags, as S3 does
	chosen := make([]string, len(parts))
	for i, p := range parts {
		tag, ok := there[p.Number]
		if !ok || p.ETag != "" && strings.Trim(p.ETag, `"`) != tag {
			return file.Info{}, loam.Errorf(loam.FailedPrecondition, "", "part %d is not there, or has another ETag", p.Number)
		}
		raw, err := hex.DecodeString(tag)
		if err != nil {
			return file.Info{}, &loam.Error{Code: loam.DataLoss, Err: err}
		}
		_, _ = sum.Write(raw) // a hash takes everything
		chosen[i] = path.Join(dir, partName(p.Number, tag))
	}
	all := &chain{root: s.root, names: chosen}
	staged, err := s.stage(all)
	if err = errors.Join(err, all.Close()); err != nil {
		return file.Info{}, explain(err)
	}
	// Of two that complete it at once, one does: the other finds the upload gone.
	s.mu.Lock()
	err = s.root.Rename(path.Join(dir, head), path.Join(dir, "done"))
	s.mu.Unlock()
	if err != nil {
		return file.Info{}, errors.Join(loam.Errorf(loam.NotFound, "", "there is no such upload any more"), s.root.Remove(staged))
	}
	info, err := s.commit(staged, name, fmt.Sprintf("%s-%d", etag(sum), len(parts)), h.Attributes)
	if err != nil { // the upload is there again, for another try
		return info, errors.Join(err, s.root.Rename(path.Join(dir, "done"), path.Join(dir, head)))
	}
	_ = s.root.RemoveAll(dir) // sweep gets it otherwise
	return info, nil
}

// chain reads files one after the other, one open at a time.
type chain struct {
	root  *os.Root
	names []string
	file  *os.File
}

func (c *chain) Read(p []byte) (int, error) {
	for {
		if c.file == nil {
			if len(c.names) == 0 {
				return 0, io.EOF
			}
			var err error
			if c.file, err = c.root.Open(c.names[0]); err != nil {
				return 0, err
			}
			c.names = c.names[1:]
		}
		n, err := c.file.Read(p)
		if n > 0 || !errors.Is(err, io.EOF) {
			return n, err
		}
		if err := c.Close(); err != nil {
			return 0, err
		}
	}
}

func (c *chain) Close() error {
	if c.file == nil {
		return nil
	}
	f := c.file
	c.file = nil
	return f.Close()
}

func (s *store) AbortUpload(_ context.Context, name, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, _, err := s.upload(name, id)
	if err != nil {
		return err
	}
	return explain(s.root.RemoveAll(dir))
}

func (s *store) Uploads(_ context.Context, prefix, afterName, afterID string, limit int) ([]file.Upload, error) {
	entries, err := s.list(uploads)
	if err != nil {
		return nil, explain(err)
	}
	var found []file.Upload
	for _, e := range entries {
		text, err := s.root.ReadFile(path.Join(uploads, e.Name(), head))
		var h uploadHead
		if err != nil || json.Unmarshal(text, &h) != nil || !strings.HasPrefix(h.Name, prefix) {
			continue // it ended meanwhile, or is another's
		}
		if h.Name > afterName || h.Name == afterName && afterID != "" && e.Name() > afterID {
			found = append(found, file.Upload{Name: h.Name, ID: e.Name(), Started: h.Started})
		}
	}
	slices.SortFunc(found, func(a, b file.Upload) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return found[:min(limit, len(found))], nil
}

func (s *store) Parts(_ context.Context, name, id string, after, limit int) ([]file.Part, error) {
	dir, _, err := s.upload(name, id)
	if err != nil {
		return nil, err
	}
	names, err := s.partNames(dir)
	if err != nil {
		return nil, explain(err)
	}
	var parts []file.Part
	for _, n := range names {
		number, tag, _ := parsePart(n)
		if number <= after {
			continue
		}
		if len(parts) == limit {
			break
		}
		info, err := s.root.Stat(path.Join(dir, n))
		if err != nil {
			continue // replaced meanwhile
		}
		parts = append(parts, file.Part{Number: number, Size: info.Size(), ETag: tag, Modified: info.ModTime()})
	}
	return parts, nil
}
