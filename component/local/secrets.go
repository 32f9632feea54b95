package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/secret"
)

// SecretsConfig is the metadata of secret.local.
type SecretsConfig struct {
	File      string `meta:"secretsFile" need:"yes"` // of JSON
	Separator string `meta:"nestedSeparator,:"`      // between the names of objects within each other
	Multiple  bool   `meta:"multiValued"`            // an object at the top is one secret with several values
}

// OpenSecrets opens secret.local, Dapr's secretstores.local.file: a JSON file. It is read again when it changed; while what
// is there then cannot be read, what was there holds.
func OpenSecrets(_ context.Context, _ string, c SecretsConfig) (secret.Driver, error) {
	s := &secrets{config: c}
	if err := s.load(); err != nil {
		return nil, &loam.Error{Code: loam.FailedPrecondition, Op: "secret.local", Err: err, Hint: "secretsFile must name a file that can be read and holds a JSON object"}
	}
	return s, nil
}

// maxFile bounds the file, in bytes.
const maxFile = 8 << 20

// tick is how coarse the clocks of file systems may be: who reads a file so soon after it was written could miss that it is
// written again.
const tick = 100 * time.Millisecond

type secrets struct {
	config SecretsConfig

	mu       sync.Mutex
	loaded   time.Time
	modified time.Time // of the file
	size     int64
	all      map[string]map[string]string // never changed, only replaced
}

func (s *secrets) Close() error { return nil }

// current is what the file holds now.
func (s *secrets) current() map[string]map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.load() // what was there holds
	return s.all
}

// load reads the file if it changed.
func (s *secrets) load() error {
	info, err := os.Stat(s.config.File)
	if err != nil {
		return err
	}
	if s.all != nil && info.ModTime().Equal(s.modified) && info.Size() == s.size && s.loaded.Sub(s.modified) > tick {
		return nil
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return fmt.Errorf("%s is no file of up to %d bytes", s.config.File, maxFile)
	}
	text, err := os.ReadFile(s.config.File)
	if err != nil {
		return err
	}
	all, err := parseSecrets(text, s.config.Separator, s.config.Multiple)
	if err != nil {
		return err
	}
	s.all, s.loaded, s.modified, s.size = all, time.Now(), info.ModTime(), info.Size()
	return nil
}

// parseSecrets reads a JSON object. What is nested gets the names on the way to it, with the separator between them; items
// of arrays are named by their number.
func parseSecrets(text []byte, separator string, multiple bool) (map[string]map[string]string, error) {
	var top map[string]any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // so that numbers stay as they are written
	if err := d.Decode(&top); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, fmt.Errorf("no JSON, at byte %d", syntax.Offset) // other words could be a secret's
		}
		return nil, errors.New("no JSON object")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON object")
	}
	all := map[string]map[string]string{}
	for name, value := range top {
		fields := map[string]string{}
		if _, object := value.(map[string]any); object && multiple {
			flatten(fields, "", separator, value)
			all[name] = fields
			continue
		}
		flatten(fields, name, separator, value)
		for n, v := range fields {
			if all[n] != nil {
				return nil, fmt.Errorf("%q is there twice", n)
			}
			all[n] = map[string]string{n: v}
		}
	}
	return all, nil
}

func flatten(into map[string]string, name, separator string, value any) {
	within := func(key string, value any) {
		if name != "" {
			key = name + separator + key
		}
		flatten(into, key, separator, value)
	}
	switch v := value.(type) {
	case map[string]any:
		for k, v := range v {
			within(k, v)
		}
	case []any:
		for i, v := range v {
			within(strconv.Itoa(i), v)
		}
	case nil:
		into[name] = ""
	default:
		into[name] = fmt.Sprint(v)
	}
}

func (s *secrets) Get(_ context.Context, name string) ([]byte, error) {
	fields, ok := s.current()[name]
	if !ok {
		return nil, s.none(name)
	}
	if value, ok := fields[name]; ok && len(fields) == 1 {
		return []byte(value), nil
	}
	return json.Marshal(fields) // several values in one
}

func (s *secrets) GetFields(_ context.Context, name string, _ map[string]string) (map[string]string, error) {
	fields, ok := s.current()[name]
	if !ok {
		return nil, s.none(name)
	}
	return maps.Clone(fields), nil
}

func (s *secrets) GetAll(context.Context, map[string]string) (map[string]map[string]string, error) {
	all := maps.Clone(s.current())
	for name, fields := range all {
		all[name] = maps.Clone(fields)
	}
	return all, nil
}

func (s *secrets) none(name string) error {
	return &loam.Error{Code: loam.NotFound, Err: fmt.Errorf("there is no secret %s", name), Hint: "put it into " + s.config.File}
}
