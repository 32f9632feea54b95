package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/snapshot"
	"github.com/loam-run/loam/target/function"
	"github.com/loam-run/loam/wasm"
)

// startFunction makes a version of a function; where quick is wanted, one that is interpreted, which a compiled one
// takes over from as soon as it is there.
func (s *server) startFunction(ctx context.Context, hash string, module []byte, f snapshot.Function) (*version, error) {
	config := wasm.Config{
		ABI: f.ABI, Isolation: f.Isolation, Env: f.Env, Settings: []byte(f.Settings), Timeout: f.Timeout, CPU: f.CPU, Memory: f.Memory,
		Concurrency: f.Concurrency, Queue: f.Queue, MaxRequest: f.MaxRequest, MaxResponse: f.MaxResponse, MaxCalls: f.MaxCalls, MaxEgress: f.MaxEgress, Idle: f.Idle,
		Caller: &loam.Caller{Name: f.Name, Grants: f.Grants, Denied: f.Denied}, Methods: s.methods, InTask: s.inTask, Interpret: s.o.Quick,
	}
	if n := f.Session; n != nil {
		config.Session = wasm.Session{Header: n.Header, Cookie: n.Cookie, Max: n.Max, Idle: n.Idle}
	}
	if w := f.Warmup; w != nil {
		config.Warmup = &wasm.Warmup{Method: w.Method, Path: w.Path, Body: []byte(w.Body)}
	}
	fn, err := function.New(ctx, s.host, f.Name, module, config)
	if err != nil {
		return nil, err
	}
	v := newVersion(hash, fn, fn.Close)
	if !config.Interpret {
		return v, nil
	}
	config.Interpret = false
	v.improve = func(h *handle) {
		compiled, err := function.New(s.life, s.host, f.Name, module, config)
		if err != nil {
			if s.life.Err() == nil {
				s.o.Log.Error("not compiled, it is interpreted from now on", "function", f.Name, "error", err)
			}
			return
		}
		better := newVersion(hash, compiled, compiled.Close)
		if h.current.CompareAndSwap(v, better) {
			s.endLater(v.end, "function", f.Name)
		} else { // a further change, or the end, came first
			s.endLater(better.end, "function", f.Name)
		}
	}
	return v, nil
}

// A digest is a file's content as it was when it was last looked at.
type digest struct {
	size    int64
	changed time.Time
	sum     string
	used    bool
}

func (d digest) stale(path string) bool {
	info, err := os.Stat(path)
	if err != nil {
		return d.sum != ""
	}
	return info.Size() != d.size || !info.ModTime().Equal(d.changed)
}

// digest tells a file's content from another's; the file is read only where its size or time changed.
func (s *server) digest(path string) (string, error) {
	d := s.digests[path]
	if d.sum == "" || d.stale(path) {
		info, err := os.Stat(path)
		if err != nil {
			s.digests[path] = digest{used: true}
			return "", err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			s.digests[path] = digest{used: true}
			return "", err
		}
		sum := sha256.Sum256(b)
		d = digest{size: info.Size(), changed: info.ModTime(), sum: hex.EncodeToString(sum[:])}
	}
	d.used = true
	s.digests[path] = d
	return d.sum, nil
}
