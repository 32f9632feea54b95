package file

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	quiet   = 50 * time.Millisecond  // without a change, before it is told: editors write in several steps
	longest = 500 * time.Millisecond // a change waits, be there ever more
)

// Watch calls changed after files changed, once for changes that come together, until ctx ends; then it returns nil.
// changed is called from one goroutine, this one. Folders are watched, never files, and the nearest one above a path
// too: so it sees what editors and Kubernetes put in a file's place, and what comes again after it was removed.
func (p *Provider) Watch(ctx context.Context, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch files: %w", err)
	}
	defer w.Close() // nothing to lose
	written := p.follow(w)
	p.once.Do(func() { p.loaded = p.print() })
	last := p.loaded
	var first time.Time             // of the changes that are not told yet
	settled := time.NewTimer(quiet) // for what changed before the folders were watched
	defer settled.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.Events:
			if !ok {
				return fmt.Errorf("watch files: the watcher ended")
			}
			if e.Op&^(fsnotify.Write|fsnotify.Chmod) == 0 && !isResource(e.Name) && !written[filepath.Clean(e.Name)] {
				continue // somebody's log or database beside the resources
			}
		case _, ok := <-w.Errors: // an overflow of events, or a folder that went: both end in looking anew
			if !ok {
				return fmt.Errorf("watch files: the watcher ended")
			}
		case <-settled.C:
			first = time.Time{}
			written = p.follow(w)
			if now := p.print(); now != last {
				last = now
				changed()
			}
			continue
		}
		if first.IsZero() {
			first = time.Now()
		}
		settled.Reset(min(quiet, max(longest-time.Since(first), 0)))
	}
}

// follow watches every folder that matters now and lets go those that do no more. It returns the files that were given
// by name, and what they link to.
func (p *Provider) follow(w *fsnotify.Watcher) map[string]bool {
	given := map[string]bool{}
	for range 2 { // what came to be in a folder before it was watched is found by the second look
		files, want, _ := p.find()
		for _, path := range p.paths {
			want = append(want, above(path)...)
		}
		for _, f := range files {
			want = append(want, above(f.path)...)
			if real, err := filepath.EvalSymlinks(f.path); f.given && err == nil {
				given[f.path], given[real] = true, true
			}
		}
		slices.Sort(want)
		want = slices.Compact(want)
		for _, dir := range w.WatchList() {
			if _, ok := slices.BinarySearch(want, dir); !ok {
				_ = w.Remove(dir) // it may be gone already
			}
		}
		for _, dir := range want {
			// A folder that was removed and made again has lost its watch: adding is idempotent, and one that
			// cannot be watched is a problem that Load tells.
			_ = w.Add(dir)
		}
	}
	return given
}

// above are the folders whose changes can make path another file: its own and, where path is a link, those that the
// link leads through; where there is none, the nearest one that is there.
func above(path string) []string {
	var dirs []string
	for range 16 { // links
		dir := filepath.Dir(filepath.Clean(path))
		for !isDir(dir) && dir != filepath.Dir(dir) {
			dir = filepath.Dir(dir)
		}
		dirs = append(dirs, dir)
		target, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	return dirs
}

// print is a digest of what Load would read: events that change none of it are nobody's news.
func (p *Provider) print() [sha256.Size]byte {
	h := sha256.New()
	files, _, problems := p.find()
	for _, f := range files {
		data, err := read(f.path)
		fmt.Fprintf(h, "%s %d %v\n", f.path, len(data), err)
		h.Write(data)
	}
	fmt.Fprint(h, problems)
	return [sha256.Size]byte(h.Sum(nil))
}
