package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/admin"
	"github.com/loam-run/loam/capability/invoke"
	"github.com/loam-run/loam/component/all"
	"github.com/loam-run/loam/component/mdns"
	"github.com/loam-run/loam/component/pluggable"
	"github.com/loam-run/loam/dialect/dapr"
	"github.com/loam-run/loam/internal/size"
	"github.com/loam-run/loam/internal/suggest"
	"github.com/loam-run/loam/provider/file"
	"github.com/loam-run/loam/resource"
	"github.com/loam-run/loam/server"
)

// sidecarCmd is daprd's command line: its flags are its own, whatever kong makes of flags.
type sidecarCmd struct {
	Args []string `arg:"" optional:"" passthrough:"" help:"daprd's flags: --app-id, --app-port, --resources-path, --config…"`
}

func (sidecarCmd) Help() string {
	return `Serves Dapr's API to one app, by daprd's flags, environment and files; invoked under the name daprd, loam is this command.
What the app publishes, reads and calls goes where the components in --resources-path say; calls to other apps find them by
multicast DNS. Jobs are kept in a data directory of the app's own: --data DIR.

Examples:
  loam sidecar --app-id orders --app-port 8080 --resources-path ./components
  ln -s loam daprd && ./daprd -app-id=orders -app-port=8080
  loam sidecar --help`
}

func (c sidecarCmd) Run(ctx context.Context, o out) error { return runSidecar(ctx, c.Args, o) }

// sidecarFlags are those of daprd that mean something here.
type sidecarFlags struct {
	appID, appPort, appProtocol, appAddress     string
	httpPort, grpcPort, internalPort            string
	publicPort, publicAddress, internalAddress  string
	listenAddresses, socketDir                  string
	resources, configs, disableInit             list
	maxConcurrency                              int
	healthCheck                                 bool
	healthPath                                  string
	healthInterval, healthTimeout, healthFailed int
	maxBody                                     string
	maxBodyMB                                   int
	origins                                     string
	mode                                        string
	graceSeconds                                int
	block                                       time.Duration
	mtls, ssl, logCalls                         bool
	metrics                                     bool
	metricsPort, metricsAddress                 string
	logLevel, logFile                           string
	logJSON                                     bool
	version, buildInfo, wait                    bool
	data                                        string
}

// list is a flag that may be given several times, and holds several values with commas between them.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(v string) error {
	for part := range strings.SplitSeq(v, ",") {
		if part = strings.TrimSpace(part); part != "" {
			*l = append(*l, part)
		}
	}
	return nil
}

// withoutEffect are daprd's other flags, and what becomes of them.
var withoutEffect = map[string]string{
	"placement-host-address":           "there are no actors yet, and they will need no placement service",
	"actors-service":                   "there are no actors yet, and they will need no placement service",
	"actors-disseminate-timeout":       "there are no actors yet, and they will need no placement service",
	"reminders-service":                "jobs are kept by the sidecar itself",
	"scheduler-host-address":           "jobs are kept by the sidecar itself, in its data directory",
	"scheduler-job-streams":            "jobs are kept by the sidecar itself, in its data directory",
	"hot-reload-reconcile-interval":    "changes of the files are seen as they come",
	"app-binding-options-timeout":      "the app has 10 seconds to say whether it wants a binding, and is asked again",
	"read-buffer-size":                 "a request's header may have 64 KiB",
	"dapr-http-read-buffer-size":       "a request's header may have 64 KiB",
	"control-plane-address":            "there is no control plane",
	"control-plane-namespace":          "there is no control plane",
	"control-plane-trust-domain":       "there is no control plane",
	"sentry-address":                   "sidecars do not prove who they are to each other yet",
	"sentry-request-jwt-audiences":     "sidecars do not prove who they are to each other yet",
	"disable-builtin-k8s-secret-store": "there is no built-in secret store",
	"enable-profiling":                 "profiles are at the admin endpoint: loam profile",
	"profile-port":                     "profiles are at the admin endpoint: loam profile",
}

// flags declares them all.
func (f *sidecarFlags) flags(w io.Writer) *flag.FlagSet {
	s := flag.NewFlagSet("loam sidecar", flag.ContinueOnError)
	s.SetOutput(w)
	s.StringVar(&f.appID, "app-id", "", "the app's `id`, by which others find it")
	s.StringVar(&f.appPort, "app-port", "", "the `port` that the app listens on; none: it only asks")
	s.StringVar(&f.appProtocol, "app-protocol", "http", "what the app speaks: http, https, h2c, grpc, grpcs")
	s.StringVar(&f.appAddress, "app-channel-address", "127.0.0.1", "the `address` that the app listens on")
	s.BoolVar(&f.ssl, "app-ssl", false, "the app speaks TLS (older than --app-protocol https)")
	s.IntVar(&f.maxConcurrency, "app-max-concurrency", -1, "calls of the app at once; -1: no bound")
	s.BoolVar(&f.healthCheck, "enable-app-health-check", false, "ask the app how it is, and bring it nothing while it is unwell")
	s.StringVar(&f.healthPath, "app-health-check-path", "/healthz", "where to ask it, over HTTP")
	s.IntVar(&f.healthInterval, "app-health-probe-interval", 5, "`seconds` between two probes")
	s.IntVar(&f.healthTimeout, "app-health-probe-timeout", 500, "`milliseconds` that one may take")
	s.IntVar(&f.healthFailed, "app-health-threshold", 3, "probes in a row that fail before it counts as unwell")
	s.StringVar(&f.httpPort, "dapr-http-port", "3500", "`port` of the API over HTTP")
	s.StringVar(&f.grpcPort, "dapr-grpc-port", "50001", "`port` of the API over gRPC")
	s.StringVar(&f.internalPort, "dapr-internal-grpc-port", "", "`port` for other sidecars; none: a free one")
	s.StringVar(&f.internalAddress, "dapr-internal-grpc-listen-address", "", "`address` for other sidecars; none: all there are")
	s.StringVar(&f.publicPort, "dapr-public-port", "", "`port` of health and metadata alone; none: not served")
	s.StringVar(&f.publicAddress, "dapr-public-listen-address", "", "its `address`; none: all there are")
	s.StringVar(&f.listenAddresses, "dapr-listen-addresses", "[::1],127.0.0.1", "`addresses` of the API, with commas between them")
	s.StringVar(&f.socketDir, "unix-domain-socket", "", "`folder` of Unix sockets to serve the API at, in place of ports")
	s.Var(&f.resources, "resources-path", "`folder` or file with resources; may be given several times")
	s.Var(&f.resources, "components-path", "older name of --resources-path")
	s.Var(&f.configs, "config", "`file` with a Configuration; may be given several times")
	s.Var(&f.disableInit, "disable-init-endpoints", "what the app is not asked at the start: config, subscribe")
	s.StringVar(&f.maxBody, "max-body-size", "4Mi", "`size` of a message at most")
	s.IntVar(&f.maxBodyMB, "dapr-http-max-request-size", 0, "older name of --max-body-size, in `megabytes`")
	s.StringVar(&f.origins, "allowed-origins", "", "`origins` whose pages may ask over HTTP, with commas between them")
	s.StringVar(&f.mode, "mode", "standalone", "standalone")
	s.IntVar(&f.graceSeconds, "dapr-graceful-shutdown-seconds", 5, "`seconds` for what is under way at the end; -1: as long as it takes")
	s.DurationVar(&f.block, "dapr-block-shutdown-duration", 0, "how long to serve on after SIGTERM, at most until the app is unwell")
	s.BoolVar(&f.mtls, "enable-mtls", false, "other sidecars are to prove who they are, which is not done yet: none is talked to")
	s.BoolVar(&f.logCalls, "enable-api-logging", false, "log every call of the API")
	s.BoolVar(&f.metrics, "enable-metrics", true, "serve Prometheus metrics")
	s.StringVar(&f.metricsPort, "metrics-port", "9090", "their `port`")
	s.StringVar(&f.metricsAddress, "metrics-listen-address", "0.0.0.0", "their `address`")
	s.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn, error or fatal")
	s.StringVar(&f.logFile, "log-file", "", "`file` to log to; none: stderr")
	s.BoolVar(&f.logJSON, "log-as-json", false, "log in JSON")
	s.BoolVar(&f.version, "version", false, "print the version of Dapr whose API this is")
	s.BoolVar(&f.buildInfo, "build-info", false, "print the versions of both")
	s.BoolVar(&f.wait, "wait", false, "wait until the sidecar on --dapr-http-port is ready, and end")
	s.StringVar(&f.data, "data", os.Getenv("LOAM_DATA"), "`folder` of what the sidecar keeps; none: one of the app's own below ~/.local/state/loam")
	for name, why := range withoutEffect {
		if name == "enable-profiling" || name == "disable-builtin-k8s-secret-store" {
			s.Bool(name, false, "no effect: "+why)
		} else {
			s.String(name, "", "no effect: "+why)
		}
	}
	return s
}

// parseSidecar reads daprd's arguments. It returns nil flags where there is nothing more to do.
func parseSidecar(args []string, o out) (*sidecarFlags, []string, error) {
	f := &sidecarFlags{}
	s := f.flags(io.Discard)
	err := s.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		s.SetOutput(o)
		fmt.Fprint(o, sidecarCmd{}.Help(), "\n\nFlags, which may have one dash or two:\n")
		s.PrintDefaults()
		return nil, nil, nil
	case err != nil:
		return nil, nil, sidecarMistake(s, err)
	case s.NArg() > 0:
		return nil, nil, loam.Errorf(loam.InvalidArgument, "sidecar", "%q is no flag; values stand behind their flag, with a space or =", s.Arg(0))
	}
	var notes []string
	s.Visit(func(g *flag.Flag) {
		if why := withoutEffect[g.Name]; why != "" {
			notes = append(notes, "--"+g.Name+" has no effect: "+why)
		}
		if g.Name == "components-path" {
			notes = append(notes, "--components-path is an older name of --resources-path")
		}
	})
	return f, notes, nil
}

// sidecarMistake says what is wrong with the arguments, and what was meant.
func sidecarMistake(s *flag.FlagSet, err error) error {
	name, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	if !unknown {
		return &loam.Error{Code: loam.InvalidArgument, Op: "sidecar", Err: err, Hint: "see loam sidecar --help"}
	}
	var known []string
	s.VisitAll(func(g *flag.Flag) { known = append(known, g.Name) })
	hint := "see loam sidecar --help"
	if near := suggest.Nearest(strings.TrimPrefix(name, "-"), known); near != "" {
		hint = "did you mean --" + near + "?"
	}
	return &loam.Error{Code: loam.InvalidArgument, Op: "sidecar", Err: fmt.Errorf("there is no flag --%s", strings.TrimPrefix(name, "-")), Hint: hint}
}

// runSidecar is daprd.
func runSidecar(ctx context.Context, args []string, o out) error {
	f, notes, err := parseSidecar(args, o)
	if f == nil {
		return err
	}
	switch {
	case f.version:
		_, err := fmt.Fprintln(o, dapr.RuntimeVersion)
		return err
	case f.buildInfo:
		_, err := fmt.Fprintf(o, "Version: %s\nLoam: %s\n", dapr.RuntimeVersion, version)
		return err
	case f.wait:
		return f.await(ctx)
	}
	app, err := f.app()
	if err != nil {
		return err
	}
	log, level, err := f.logger(o)
	if err != nil {
		return err
	}
	for _, n := range notes {
		log.Warn(n)
	}
	paths := append(slices.Clone(f.resources), f.configs...)
	if err := exist(paths); err != nil {
		return err
	}
	p := &sidecarFiles{Provider: file.New(paths), app: app, folders: f.resources}
	if err := p.configurations(ctx, f.configs); err != nil {
		return err
	}
	data, instances := f.data, 1
	if data == "" {
		data, instances = stateDir(os.Getenv("NAMESPACE"), f.appID), 64
	}
	opts := server.Options{
		App: f.appID, Provider: p, Factories: all.Factories(), Programs: pluggable.New(pluggable.Folder(), f.appID), DataDir: data, Instances: instances, Version: version, Admin: "127.0.0.1:0",
		Grace: time.Duration(f.graceSeconds) * time.Second, Log: log, SetLevel: level,
		Resolver: func(name string, _ map[string]string) (invoke.Resolver, error) {
			if name != "mdns" {
				return nil, loam.Errorf(loam.Unimplemented, "name resolution", "%q is not in this binary", name)
			}
			return mdns.New(mdns.Config{Log: log}), nil
		},
	}
	if f.graceSeconds < 0 {
		opts.Grace = 365 * 24 * time.Hour
	}
	if f.metrics {
		opts.Metrics = net.JoinHostPort(f.metricsAddress, f.metricsPort)
	}
	if opts.Predecessor, err = server.Predecessor(); err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR2)
	defer signal.Stop(signals)
	opts.Upgrade, opts.Successor = signals, successor(os.Getpid())
	said := false
	opts.Changed = func(s admin.Status) {
		reportBroken(log.Error, s)
		if !said {
			said = true
			log.Info("serving", "app", f.appID, "version", version, "dapr", dapr.RuntimeVersion, "data", data)
		}
	}
	if f.block > 0 {
		ctx = f.blocked(ctx, log)
	}
	if err := server.Run(ctx, opts); err != nil {
		return err
	}
	log.Info("ended, nothing is left under way")
	return nil
}

// app is what the flags say of the app, as a resource.
func (f *sidecarFlags) app() (*resource.Object, error) {
	wrong := func(hint, format string, args ...any) (*resource.Object, error) {
		return nil, &loam.Error{Code: loam.InvalidArgument, Op: "sidecar", Err: fmt.Errorf(format, args...), Hint: hint}
	}
	if f.appID == "" {
		return wrong("write --app-id orders", "the app has no id")
	}
	if strings.ContainsAny(f.appID, "./\\ \t\n") || len(f.appID) > 253 {
		return wrong("write letters, digits, - and _", "%q is no app id", f.appID)
	}
	if f.mode != "standalone" {
		return wrong("leave --mode out, and give the files by --resources-path and --config", "mode %q is not done yet", f.mode)
	}
	protocols := []string{"http", "https", "h2c", "grpc", "grpcs"}
	protocol := strings.ToLower(f.appProtocol)
	if f.ssl && (protocol == "http" || protocol == "grpc") {
		protocol += "s"
	}
	if !slices.Contains(protocols, protocol) {
		return wrong("write one of "+strings.Join(protocols, ", "), "app-protocol %q is not known", f.appProtocol)
	}
	a := &resource.App{Protocol: protocol, Grants: []resource.Grant{{Capability: "*", Component: "*", Access: "write"}}}
	if f.appPort != "" && f.appPort != "0" {
		if err := port("app-port", f.appPort); err != nil {
			return nil, err
		}
		a.Address = net.JoinHostPort(f.appAddress, f.appPort)
	}
	a.MaxConcurrency = max(f.maxConcurrency, 0)
	if f.healthCheck {
		if f.healthInterval <= 0 || f.healthTimeout <= 0 || f.healthFailed <= 0 {
			return wrong("write numbers greater than 0", "the app's health checks have an interval, a timeout and a threshold")
		}
		if f.healthTimeout > f.healthInterval*1000 {
			return wrong("write a longer --app-health-probe-interval, or a shorter --app-health-probe-timeout", "a probe would take longer than the time between two")
		}
		a.Health = resource.Health{
			Path: f.healthPath, Interval: time.Duration(f.healthInterval) * time.Second, Timeout: time.Duration(f.healthTimeout) * time.Millisecond, Threshold: f.healthFailed,
		}
	}
	d := &resource.DaprAPI{
		SocketDir: f.socketDir, TokenEnv: "DAPR_API_TOKEN", AppTokenEnv: "APP_API_TOKEN", Namespace: cmp.Or(os.Getenv("NAMESPACE"), "default"),
		AllowedOrigins: f.origins, MTLS: f.mtls, LogCalls: f.logCalls, NoSubscriptions: slices.Contains(f.disableInit, "subscribe"),
	}
	a.API.Dapr = d
	b, err := size.Parse(f.maxBody)
	if f.maxBodyMB != 0 {
		b, err = int64(f.maxBodyMB)<<20, nil
	}
	if err != nil {
		return wrong("write one such as 4Mi", "max-body-size: %v", err)
	}
	d.MaxBody = resource.Bytes(max(b, 0))
	for _, p := range []struct{ name, value string }{
		{"dapr-http-port", f.httpPort}, {"dapr-grpc-port", f.grpcPort}, {"dapr-internal-grpc-port", f.internalPort}, {"dapr-public-port", f.publicPort}, {"metrics-port", f.metricsPort},
	} {
		if err := port(p.name, p.value); err != nil {
			return nil, err
		}
	}
	for _, host := range hosts(f.listenAddresses, f.httpPort == "0" || f.grpcPort == "0") {
		d.HTTP = append(d.HTTP, net.JoinHostPort(host, f.httpPort))
		d.GRPC = append(d.GRPC, net.JoinHostPort(host, f.grpcPort))
	}
	if f.internalPort == "" || f.internalPort == "0" {
		if f.internalPort = os.Getenv(internalPortEnv); f.internalPort == "" {
			if f.internalPort, err = unusedPort(f.internalAddress); err != nil {
				return nil, err
			}
			if err := os.Setenv(internalPortEnv, f.internalPort); err != nil {
				return nil, err
			}
		}
	}
	d.Internal = []string{net.JoinHostPort(f.internalAddress, f.internalPort)}
	if f.publicPort != "" {
		d.Public = []string{net.JoinHostPort(f.publicAddress, f.publicPort)}
	}
	return &resource.Object{APIVersion: "loam.dev/v1alpha1", Kind: "App", Name: f.appID, Spec: a, File: "flags", Line: 1}, nil
}

func port(name, value string) error {
	if n, err := strconv.Atoi(value); value != "" && (err != nil || n < 0 || n > 65535) {
		return &loam.Error{Code: loam.InvalidArgument, Op: "sidecar", Err: fmt.Errorf("%s: %q is not a port", name, value), Hint: "write a number from 1 to 65535"}
	}
	return nil
}

// hosts are the addresses to listen on that this machine has; one of them where a free port is to be had.
func hosts(addresses string, one bool) []string {
	var all []string
	for a := range strings.SplitSeq(addresses, ",") {
		a = strings.Trim(strings.TrimSpace(a), "[]")
		if a == "::1" { // machines without IPv6 have no such loopback
			l, err := net.Listen("tcp", "[::1]:0")
			if err != nil {
				continue
			}
			l.Close()
		}
		all = append(all, a)
	}
	if len(all) == 0 || one {
		return []string{"127.0.0.1"}
	}
	return all
}

func unusedPort(host string) (string, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", &loam.Error{Code: loam.Unavailable, Op: "sidecar", Err: err, Hint: "name an address of this machine: --dapr-internal-grpc-listen-address"}
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// internalPortEnv tells a process that takes this one's place by which port others know the app.
const internalPortEnv = "LOAM_INTERNAL_PORT"

// logger is where the flags say that is logged, and how the level is changed.
func (f *sidecarFlags) logger(o out) (*slog.Logger, func(component, level string) error, error) {
	parse := func(text string) (slog.Level, error) {
		switch strings.ToLower(text) {
		case "debug":
			return slog.LevelDebug, nil
		case "info":
			return slog.LevelInfo, nil
		case "warn", "warning":
			return slog.LevelWarn, nil
		case "error", "fatal":
			return slog.LevelError, nil
		}
		return 0, &loam.Error{Code: loam.InvalidArgument, Op: "log level", Err: fmt.Errorf("%q is none", text), Hint: "write debug, info, warn or error"}
	}
	first, err := parse(f.logLevel)
	if err != nil {
		return nil, nil, err
	}
	w := o.err
	if f.logFile != "" {
		file, err := os.OpenFile(f.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, nil, err
		}
		w = file // it is closed with the process
	}
	level := new(slog.LevelVar)
	level.Set(first)
	set := func(_, text string) error {
		l, err := parse(text)
		if err == nil {
			level.Set(l)
		}
		return err
	}
	return newLogger(w, level, f.logJSON), set, nil
}

// stateDir is where a sidecar keeps what it must not forget, the jobs of its app: a folder for each app.
func stateDir(namespace, app string) string {
	base := os.Getenv("XDG_STATE_HOME")
	if home, err := os.UserHomeDir(); base == "" && err == nil {
		base = filepath.Join(home, ".local", "state")
	}
	dir := filepath.Join(base, "loam", "sidecar", cmp.Or(namespace, "default"), app)
	if base != "" && os.MkdirAll(dir, 0o700) == nil {
		if probe, err := os.CreateTemp(dir, ".probe"); err == nil && errors.Join(probe.Close(), os.Remove(probe.Name())) == nil {
			return dir
		}
	}
	return filepath.Join(os.TempDir(), "loam-sidecar-"+strconv.Itoa(os.Getuid()), cmp.Or(namespace, "default"), app) // nothing else can be written here
}

// await waits until a sidecar is ready, as daprd --wait does.
func (f *sidecarFlags) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	url := "http://127.0.0.1:" + f.httpPort + "/v1.0/healthz/outbound"
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			res.Body.Close()
			if res.StatusCode < 300 {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return loam.Errorf(loam.DeadlineExceeded, "sidecar", "nobody is ready at %s", url)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// blocked is a context that outlives ctx by the time that the end is blocked for, or until the app does not answer any more.
func (f *sidecarFlags) blocked(ctx context.Context, log *slog.Logger) context.Context {
	later, end := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer end()
		<-ctx.Done()
		log.Info("the end is blocked", "for", f.block)
		timer := time.NewTimer(f.block)
		defer timer.Stop()
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-timer.C:
				return
			case <-tick.C:
				if f.appPort == "" {
					continue
				}
				c, err := net.DialTimeout("tcp", net.JoinHostPort(f.appAddress, f.appPort), time.Second)
				if err != nil {
					log.Info("the app is gone: the end is blocked no longer")
					return
				}
				c.Close()
			}
		}
	}()
	return later
}

// sidecarFiles are the resources of a sidecar: those of the files, and the app.
type sidecarFiles struct {
	*file.Provider
	app     *resource.Object
	folders []string
}

// Load reads the files. Of a folder they are those that lie in it, not in folders below, as daprd has it.
func (p *sidecarFiles) Load(ctx context.Context) ([]*resource.Object, []resource.Problem, error) {
	objects, problems, err := p.Provider.Load(ctx)
	deeper := func(name string) bool {
		return slices.ContainsFunc(p.folders, func(folder string) bool {
			rel, err := filepath.Rel(folder, name)
			return err == nil && !strings.HasPrefix(rel, "..") && strings.ContainsRune(rel, filepath.Separator)
		})
	}
	objects = slices.DeleteFunc(objects, func(o *resource.Object) bool { return deeper(o.File) })
	problems = slices.DeleteFunc(problems, func(p resource.Problem) bool { return deeper(p.File) })
	return append(objects, p.app), problems, err
}

// configurations finds those in the files of --config, which hold for the app. One that is broken, or not there, says who
// may do what: a sidecar does not begin without it.
func (p *sidecarFiles) configurations(ctx context.Context, files []string) error {
	if len(files) == 0 {
		return nil
	}
	d := p.app.Spec.(*resource.App).API.Dapr
	for _, f := range files {
		objects, problems, err := file.New([]string{f}).Load(ctx)
		if err != nil {
			return err
		}
		for _, p := range problems {
			return &loam.Error{Code: loam.InvalidArgument, Op: "--config", Err: p}
		}
		n := 0
		for _, o := range objects {
			if o.Kind == "Configuration" {
				d.Configuration = append(d.Configuration, o.Name)
				n++
			}
		}
		if n == 0 {
			return &loam.Error{Code: loam.NotFound, Op: "--config " + f, Err: errors.New("it holds no Configuration"), Hint: "name a file with kind: Configuration of dapr.io/v1alpha1"}
		}
	}
	return nil
}
