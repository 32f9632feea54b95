package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/admin"
	"github.com/loam-run/loam/component/all"
	"github.com/loam-run/loam/component/pluggable"
	"github.com/loam-run/loam/provider/file"
	"github.com/loam-run/loam/server"
)

// serveFlags are what run and dev have in common.
type serveFlags struct {
	Data    string        `default:".loam" env:"LOAM_DATA" type:"path" help:"Data directory: loam.db, the compile cache, the admin token."`
	Listen  string        `default:"127.0.0.1:8080" env:"LOAM_LISTEN" placeholder:"HOST:PORT" help:"Where to listen when no Gateway is declared (127.0.0.1:8080)."`
	Admin   string        `default:"127.0.0.1:0" placeholder:"HOST:PORT" help:"Where the admin endpoint listens (any free port of loopback)."`
	Metrics string        `placeholder:"HOST:PORT" help:"Where to serve Prometheus metrics to whoever asks (nowhere; the admin endpoint has them too)."`
	Grace   time.Duration `default:"30s" help:"How long requests under way may take when it ends."`
	logFlags
}

func (f serveFlags) options(paths []string) server.Options {
	o := server.Options{
		Provider: file.New(paths), Factories: all.Factories(), DataDir: f.Data, Version: version,
		Address: f.Listen, Admin: f.Admin, Metrics: f.Metrics, Grace: f.Grace,
	}
	if os.Getenv(pluggable.FolderVariable) != "" {
		o.Programs = pluggable.New(pluggable.Folder(), "")
	}
	return o
}

type runCmd struct {
	Paths    []string      `arg:"" name:"path" type:"path" help:"Files and folders with resources."`
	Patience time.Duration `default:"30s" help:"How long a new process may take in an upgrade until it serves."`
	serveFlags
}

func (runCmd) Help() string {
	return `Serves what the files declare until SIGTERM, then finishes the requests under way; a second SIGTERM ends it at once.
It takes in changes of the files as they come. A resource that is broken is reported (loam get) and serves nothing, or
goes on serving its previous version; it never stops the others. Sources are not built: that is loam build, or loam dev.
SIGUSR2 replaces it by the binary that stands where it was started from, as loam upgrade does.

Examples:
  loam run app.yaml
  loam run --data /var/lib/loam /etc/loam
  LOAM_LISTEN=0.0.0.0:80 loam run deploy/`
}

func (c runCmd) Run(ctx context.Context, o out) error {
	if err := exist(c.Paths); err != nil {
		return err
	}
	opts := c.options(c.Paths)
	opts.Log = c.logger(o.err, "json")
	var err error
	if opts.Predecessor, err = server.Predecessor(); err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR2)
	defer signal.Stop(signals)
	opts.Upgrade, opts.Successor, opts.Patience = signals, successor(os.Getpid()), c.Patience
	tell := func(state string) {
		if err := notify(state); err != nil {
			opts.Log.Warn("the service manager was not told", "state", state, "error", err)
		}
	}
	opts.Upgraded = func(pid int) { tell("MAINPID=" + strconv.Itoa(pid)) }
	said := false
	opts.Changed = func(s admin.Status) {
		reportBroken(opts.Log.Error, s)
		if !said {
			said = true
			tell("READY=1")
			opts.Log.Info("serving", "version", version, "urls", s.URLs, "data", c.Data)
		}
	}
	if err := server.Run(ctx, opts); err != nil {
		return err
	}
	opts.Log.Info("ended, nothing is left under way")
	return nil
}

// reportBroken logs what is not ready.
func reportBroken(log func(string, ...any), s admin.Status) {
	for _, r := range s.Resources {
		if !r.Ready {
			log("not ready", "resource", r.Kind+"/"+r.Name, "reason", r.Reason, "problem", r.Message)
		}
	}
}

// exist refuses a path that is not there before anything is started: it is a slip of the keyboard. One that vanishes
// later is a problem of its resources only.
func exist(paths []string) error {
	for _, p := range paths {
		if _, err := os.Stat(p); err != nil {
			return &loam.Error{Code: loam.NotFound, Op: fmt.Sprintf("resources %q", p), Err: err, Hint: "name a file or folder that is there; loam new starts one"}
		}
	}
	return nil
}
