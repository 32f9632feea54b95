package localstorage

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/binding"
)

// BindingConfig is the metadata of bindings.localstorage.
type BindingConfig struct {
	Root string `meta:"rootPath" need:"yes"` // the folder; it is made where there is none
}

// OpenBinding opens bindings.localstorage: files that are created, read, listed and deleted by the metadata fileName.
func OpenBinding(_ context.Context, _ string, c BindingConfig) (binding.Driver, error) {
	f, err := openFolder("bindings.localstorage", c.Root, 0o644, 0o755) // other programs are to find them, as with Dapr
	if err != nil {
		return nil, err
	}
	if err := f.sweep(temp, 24*time.Hour); err != nil {
		return nil, err
	}
	return output{f}, nil
}

type output struct{ *folder }

func (output) Operations() []string { return []string{"create", "get", "list", "delete"} }

func (o output) Invoke(ctx context.Context, r binding.Request) (binding.Response, error) {
	// A name is below the folder even if it begins with a slash or with .., as Dapr has it.
	name := path.Clean("/" + r.Metadata["fileName"])[1:]
	if r.Operation == "create" && name == "" {
		name = rand.Text()
	}
	name = cmp.Or(name, ".")
	if strings.ContainsRune(name, 0) {
		return binding.Response{}, loam.Errorf(loam.InvalidArgument, "", "no name of a file holds NUL")
	}
	if name == own || len(name) > len(own) && name[:len(own)+1] == own+"/" {
		return binding.Response{}, loam.Errorf(loam.InvalidArgument, "", "%s is not for files", own)
	}
	var data []byte
	var err error
	switch r.Operation {
	case "create":
		if err = o.put(name, bytes.NewReader(decoded(r.Data))); err == nil {
			data, err = json.Marshal(map[string]string{"fileName": name})
		}
	case "get":
		data, err = o.get(name, cmp.Or(r.MaxAnswer, binding.MaxData))
	case "delete":
		o.mu.Lock()
		err = o.remove(name)
		o.mu.Unlock()
		if err == nil {
			err = o.sync(path.Dir(name))
		}
	case "list":
		data, err = o.names(ctx, name)
	}
	return binding.Response{Data: data}, explain(err)
}

// decoded takes data that is a JSON string without its quotes, and out of base64 where it is that, as Dapr does: so binary
// data is sent through JSON.
func decoded(data []byte) []byte {
	if text, err := strconv.Unquote(string(data)); err == nil {
		data = []byte(text)
	}
	if b, err := base64.StdEncoding.DecodeString(string(data)); err == nil {
		data = b
	}
	return data
}

func (o output) get(name string, most int) ([]byte, error) {
	in, err := o.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(in, int64(most)+1))
	if err == nil && len(data) > most {
		err = loam.Errorf(loam.ResourceExhausted, "", "the file is larger than %d bytes", most)
	}
	return data, err
}

// maxNames bounds what list answers.
const maxNames = 100_000

// names is a JSON list of the paths of all files below a directory.
func (o output) names(ctx context.Context, dir string) ([]byte, error) {
	if info, err := o.root.Stat(dir); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, loam.Errorf(loam.InvalidArgument, "", "%s is not a directory", dir)
	}
	root, err := filepath.Abs(o.root.Name())
	if err != nil {
		return nil, err
	}
	names := []string{}
	_, err = o.walk(ctx, dir, func(string) bool { return true }, func(name string, _ fs.DirEntry) bool {
		names = append(names, filepath.Join(root, filepath.FromSlash(name)))
		return len(names) <= maxNames
	})
	if err == nil && len(names) > maxNames {
		err = fmt.Errorf("there are more than %d files", maxNames)
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(names)
}

// sortEntries puts a directory's entries in the byte order of the names of files: those below a directory come where its
// name with a slash does.
func sortEntries(entries []fs.DirEntry) {
	key := func(e fs.DirEntry) string {
		if e.IsDir() {
			return e.Name() + "/"
		}
		return e.Name()
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(key(a), key(b)) })
}
