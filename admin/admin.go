// Package admin is how an operator talks to a running process: status of every resource, calls of a function, profiles.
// It listens on loopback and asks for a token that only the data directory's owner can read; the CLI finds both there.
package admin

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
	"github.com/loam-run/loam/protocol/nethttp"
	"github.com/loam-run/loam/target/service"
)

// Files of the data directory.
const (
	tokenFile   = "admin.token"
	addressFile = "admin.json"
)

// Status is all an operator asks for first.
type Status struct {
	Version   string     `json:"version"`
	PID       int        `json:"pid"`
	Started   time.Time  `json:"started"`
	URLs      []string   `json:"urls"` // where it listens
	Resources []Resource `json:"resources"`
}

// Resource is one declared resource and what became of it.
type Resource struct {
	Kind     string   `json:"kind"`
	Name     string   `json:"name"`
	Ready    bool     `json:"ready"`
	Reason   string   `json:"reason"`
	Message  string   `json:"message,omitempty"` // what is wrong, with what to do
	Detail   string   `json:"detail,omitempty"`  // how it is: an address, a state
	Warnings []string `json:"warnings,omitempty"`
	File     string   `json:"file,omitempty"`
	Line     int      `json:"line,omitempty"`
}

// A Server is what the endpoint speaks for.
type Server interface {
	Status() Status
	// Target is a function or app by kind and name, nil where there is none.
	Target(kind, name string) loam.Target
	// Services tells how every service and its endpoints are.
	Services() []service.Status
	// Registry is the embedded registry of services over HTTP.
	Registry() http.Handler
	Telemetry
	// Upgrade replaces the process by one of another binary, "" for the same one, that has to serve within patience (0: as
	// the process was told), and tells of its progress. It returns once that serves; an error leaves this one serving.
	Upgrade(ctx context.Context, binary string, patience time.Duration, progress func(string)) error
	// Backup writes a copy of a component's store, as it is at one moment, to a new file at path.
	Backup(ctx context.Context, component, path string) error
}

// Options of Listen.
type Options struct {
	Address string // "" is any free port of loopback
	// Socket and Token are those of an endpoint in another process whose place this one takes; nil and "": it is a new one.
	Socket  *os.File
	Token   string
	DataDir string
	Log     *slog.Logger
}

// An Endpoint is an admin listener that is being served.
type Endpoint struct {
	http    *http.Server
	socket  net.Listener
	token   string
	dir     string
	stopped chan struct{}
}

// Listen writes a new token and the address to the data directory and serves until Close.
func Listen(ctx context.Context, o Options, s Server) (*Endpoint, error) {
	if o.Address == "" {
		o.Address = "127.0.0.1:0"
	}
	var socket net.Listener
	var err error
	if o.Socket != nil {
		socket, err = net.FileListener(o.Socket)
		o.Socket.Close()
	} else {
		var lc net.ListenConfig
		socket, err = lc.Listen(ctx, "tcp", o.Address)
	}
	if err != nil {
		return nil, &loam.Error{Code: loam.Unavailable, Op: "admin endpoint on " + o.Address, Err: err, Hint: "choose another address: --admin HOST:PORT"}
	}
	token := cmp.Or(o.Token, rand.Text())
	e := &Endpoint{
		socket: socket, token: token, dir: o.DataDir,
		http: &http.Server{
			Handler: authorized(token, handler(s, o.DataDir, o.Log)), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
			ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
		},
		stopped: make(chan struct{}),
	}
	if err := e.Announce(); err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	go func() {
		defer close(e.stopped)
		if err := e.http.Serve(socket); !errors.Is(err, http.ErrServerClosed) {
			o.Log.Error("admin endpoint ended", "error", err)
		}
	}()
	return e, nil
}

// Announce writes into the data directory how to find the endpoint.
func (e *Endpoint) Announce() error {
	where, err := json.Marshal(contact{Address: e.socket.Addr().String(), PID: os.Getpid()})
	if err == nil {
		err = errors.Join(writePrivate(filepath.Join(e.dir, tokenFile), []byte(e.token)), writePrivate(filepath.Join(e.dir, addressFile), where))
	}
	if err != nil {
		return &loam.Error{Code: loam.PermissionDenied, Op: "admin token", Err: err, Hint: "choose a data directory that can be written: --data DIR"}
	}
	return nil
}

// File is a duplicate of the endpoint's socket, for another process to go on with.
func (e *Endpoint) File() (*os.File, error) {
	return e.socket.(interface{ File() (*os.File, error) }).File()
}

// Token is what callers have to know.
func (e *Endpoint) Token() string { return e.token }

// Leave ends the endpoint where another process goes on with it: calls under way are answered, or end with ctx, and the
// files stay.
func (e *Endpoint) Leave(ctx context.Context) {
	if e.http.Shutdown(ctx) != nil {
		_ = e.http.Close() // their answers are lost
	}
	<-e.stopped
}

// Close stops the endpoint and removes its files.
func (e *Endpoint) Close() error {
	err := e.http.Close()
	<-e.stopped
	for _, name := range []string{tokenFile, addressFile} {
		err = errors.Join(err, os.Remove(filepath.Join(e.dir, name)))
	}
	return err
}

// writePrivate replaces a file by one that only its owner can read, whatever stood there, in one step.
func writePrivate(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // its mode is 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// authorized lets in who knows the token.
// A web page cannot: it does not know the token.
func authorized(token string, next http.Handler) http.Handler {
	want := []byte("Bearer " + token)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "the token of the data directory is missing or wrong: use the loam command, or send Authorization: Bearer $(cat DATADIR/admin.token)", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func handler(s Server, dataDir string, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.Status()) // who went away needs no answer
	})
	mux.HandleFunc("GET /v1/services", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.Services()) // who went away needs no answer
	})
	handleTelemetry(mux, s, log)
	mux.Handle("/v1/registry/", http.StripPrefix("/v1/registry", s.Registry()))
	mux.HandleFunc("/v1/invoke/{kind}/{name}/{path...}", func(w http.ResponseWriter, r *http.Request) {
		t := s.Target(r.PathValue("kind"), r.PathValue("name"))
		if t == nil {
			http.Error(w, fmt.Sprintf("there is no %s %q; see loam get", r.PathValue("kind"), r.PathValue("name")), http.StatusNotFound)
			return
		}
		r.Header.Del("Authorization") // the token is not the function's to see
		prefix := "/v1/invoke/" + r.PathValue("kind") + "/" + r.PathValue("name")
		http.StripPrefix(prefix, nethttp.Handler(t, protocol.Options{Log: log, MaxBody: 64 << 20})).ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /v1/backup/{component}", func(w http.ResponseWriter, r *http.Request) {
		if err := sendBackup(w, r, s, dataDir); err != nil {
			log.Error("backup failed", "component", r.PathValue("component"), "error", err)
			http.Error(w, err.Error(), protocol.HTTPStatus(loam.CodeOf(err))) // of no effect once the copy is being sent
		}
	})
	mux.HandleFunc("POST /v1/upgrade", func(w http.ResponseWriter, r *http.Request) { upgrade(w, r, s) })
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	return mux
}

// sendBackup makes a copy in the data directory, which is on the disk that has room for it if any has, and sends it.
func sendBackup(w http.ResponseWriter, r *http.Request, s Server, dataDir string) (err error) {
	dir, err := os.MkdirTemp(dataDir, "backup-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "copy")
	if err := s.Backup(r.Context(), r.PathValue("component"), path); err != nil {
		return err
	}
	http.ServeFile(w, r, path)
	return nil
}

// contact is how the CLI finds a process.
type contact struct {
	Address string `json:"address"`
	PID     int    `json:"pid"`
}
