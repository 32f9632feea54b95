package main

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/loam-run/loam/admin"
	"github.com/loam-run/loam/resource"
	"github.com/loam-run/loam/server"
	"github.com/loam-run/loam/snapshot"
)

// sourcePoll is how often sources are looked at. A look costs a stat for each file of the module; a reload stays well
// under a second.
const sourcePoll = 100 * time.Millisecond

type devCmd struct {
	Dir string `arg:"" default:"." type:"path" help:"The project: a folder or file with resources (.)."`
	serveFlags
}

func (devCmd) Help() string {
	return `Builds what has a source, serves the project, and prints one log of everything in it. When a source changes it is built
and takes over while requests under way finish; when a build fails, what was built before serves on.

Examples:
  loam dev
  loam dev examples/shop
  loam dev --log-level debug`
}

func (c devCmd) Run(ctx context.Context, o out) error {
	if err := exist([]string{c.Dir}); err != nil {
		return err
	}
	opts := c.options([]string{c.Dir})
	opts.Log = c.logger(o.err, "text")
	p := &project{Provider: opts.Provider, out: o, built: map[string]built{}}
	opts.Provider, opts.Prepare, opts.Changed, opts.Quick = p, p.prepare, p.changed, true
	return server.Run(ctx, opts)
}

// A project is what loam dev serves: a provider that also watches the sources of what the resources declare.
type project struct {
	server.Provider
	out out

	mu      sync.Mutex
	jobs    []job
	tries   []string
	built   map[string]built // by resource key
	welcome bool             // was printed
	broken  string           // what was last said to be broken
}

// built is what a job was last built from, and how that went.
type built struct {
	stamp string
	err   error
}

// Load reads the resources, and what they say is worth trying.
func (p *project) Load(ctx context.Context) ([]*resource.Object, []resource.Problem, error) {
	objects, problems, err := p.Provider.Load(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tries = nil
	for _, o := range objects {
		if try := strings.TrimSpace(o.Annotations[resource.TryAnnotation]); try != "" {
			p.tries = append(p.tries, strings.Split(try, "\n")...)
		}
	}
	return objects, problems, err
}

// Watch watches resources and sources.
func (p *project) Watch(ctx context.Context, changed func()) error {
	ctx, cancel := context.WithCancel(ctx)
	var polling sync.WaitGroup
	polling.Go(func() { p.poll(ctx, changed) })
	err := p.Provider.Watch(ctx, changed)
	if err != nil {
		cancel()
	}
	polling.Wait()
	cancel()
	return err
}

func (p *project) poll(ctx context.Context, changed func()) {
	tick := time.NewTicker(sourcePoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.mu.Lock()
		jobs := p.jobs
		stale := slices.ContainsFunc(stamps(jobs), func(s stamped) bool { return s.stamp != p.built[s.key].stamp })
		p.mu.Unlock()
		if stale {
			changed()
		}
	}
}

// prepare builds what changed since it was last built.
func (p *project) prepare(ctx context.Context, plan *snapshot.Plan) map[string]error {
	jobs := sources(plan)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.jobs = jobs
	failures := map[string]error{}
	var building sync.WaitGroup
	var mu sync.Mutex
	slots := make(chan struct{}, 2)
	for i, s := range stamps(jobs) {
		j := jobs[i]
		if _, err := os.Stat(j.Out); err == nil && p.built[s.key].stamp == s.stamp {
			if err := p.built[s.key].err; err != nil {
				failures[s.key] = err
			}
			continue
		}
		building.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			err := asHinted(buildOne(ctx, p.out.err, j.Job))
			mu.Lock()
			defer mu.Unlock()
			if p.built[s.key] = (built{s.stamp, err}); err != nil {
				failures[s.key] = err
			}
		})
	}
	building.Wait()
	return failures
}

// changed tells where the project is served, once it is, and what is broken, whenever that changes.
func (p *project) changed(s admin.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var broken strings.Builder
	for _, r := range s.Resources {
		if !r.Ready && !strings.Contains(r.Message, "\n\n") {
			fmt.Fprintf(&broken, "%s %s/%s: %s\n", paint(p.out, red, "not ready"), r.Kind, r.Name, r.Message)
		}
	}
	if b := broken.String(); b != p.broken {
		p.broken = b
		fmt.Fprint(p.out, b)
	}
	if p.welcome || len(s.URLs) == 0 {
		return
	}
	p.welcome = true
	fmt.Fprintf(p.out, "%s    %s/\n", paint(p.out, bold, "Open"), s.URLs[0])
	for _, try := range p.tries {
		fmt.Fprintf(p.out, "%s     %s\n", paint(p.out, bold, "Try"), strings.ReplaceAll(try, "{url}", s.URLs[0]))
	}
	fmt.Fprintf(p.out, "%s     %s get    (in another terminal; Ctrl-C here ends it)\n", paint(p.out, bold, "See"), command())
}

// command is this program as the user called it.
func command() string { return cmp.Or(os.Args[0], "loam") }

type stamped struct{ key, stamp string }

// stamps tell the sources of each job from what they were: those in its own folder, and those of the rest of its module
// that are in no other job's.
func stamps(jobs []job) []stamped {
	all := make([]stamped, len(jobs))
	rest := map[string]string{}
	var own []string
	for _, j := range jobs {
		own = append(own, filepath.Clean(j.Dir))
	}
	for i, j := range jobs {
		root := moduleRoot(j.Dir)
		if _, ok := rest[root]; !ok {
			rest[root] = stamp(root, own)
		}
		all[i] = stamped{j.key, stamp(filepath.Clean(j.Dir), nil) + rest[root]}
	}
	return all
}

// moduleRoot is the nearest folder upwards with a go.mod.
func moduleRoot(dir string) string {
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d
		}
		if d == filepath.Dir(d) {
			return dir
		}
	}
}

// stamp is the newest change below dir and how many files there are, without what lies below skip.
func stamp(dir string, skip []string) string {
	var newest time.Time
	files, size := 0, int64(0)
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error { // a file that goes away meanwhile is a change seen next time
		if err != nil {
			return nil
		}
		if d.IsDir() {
			name := d.Name()
			if path != dir && (strings.HasPrefix(name, ".") || name == "build" || name == "node_modules" || name == "bin" || slices.Contains(skip, path)) {
				return filepath.SkipDir
			}
			return nil
		}
		if info, err := d.Info(); err == nil {
			files, size = files+1, size+info.Size()
			if info.ModTime().After(newest) {
				newest = info.ModTime()
			}
		}
		return nil
	})
	return fmt.Sprintf("%d/%d/%d;", newest.UnixNano(), files, size)
}
