// Command store kills the embedded store again and again while it is written to, and counts what is there afterwards.
//
// A child process writes state, transactions that publish too, and events, from many goroutines at once, and consumes
// what it publishes. Whatever was acknowledged to it, and whatever it was delivered, it says on its standard output; the
// pipe holds that when the child is gone. The parent kills it with SIGKILL at random moments, starts the next, and in
// the end checks that
//
//   - every acknowledged write is there, with the value that was written,
//   - no transaction is half there, and none is there without its event or the other way round,
//   - every acknowledged event was delivered at least once.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/capability/state"
	"github.com/loam-run/loam/component/sqlite"
)

func main() {
	kills := flag.Int("kills", 200, "how often to kill the store")
	dir := flag.String("dir", "", "folder for the database; a new one, removed at the end, where there is none")
	child := flag.Int("child", -1, "be the child of that number")
	flag.Parse()
	var err error
	if *child >= 0 {
		err = work(*dir, *child)
	} else {
		err = soak(*dir, *kills)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak-store: FAILED:", err)
		os.Exit(1)
	}
}

// A store is the embedded store as functions see it, with every grant.
type store struct {
	state  *state.Store
	bus    *pubsub.Bus
	caller *loam.Caller
	close  func() error
}

func open(dir string) (*store, error) {
	ctx := context.Background()
	files := sqlite.New()
	config := sqlite.Config{Path: filepath.Join(dir, "loam.db"), Retention: time.Hour, Sweep: time.Second}
	s, err := files.OpenState(ctx, "default", config)
	if err != nil {
		return nil, err
	}
	p, err := files.OpenPubsub(ctx, "default", config)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	grant := func(capability string) loam.Grant { return loam.Grant{Capability: capability, Component: "default"} }
	return &store{
		state: state.New("default", s), bus: pubsub.New("default", p),
		caller: &loam.Caller{Name: "soak", Grants: []loam.Grant{grant("state"), grant("pubsub")}},
		close:  func() error { return errors.Join(p.Close(), s.Close()) },
	}, nil
}

const (
	writers = 8 // goroutines of each kind
	topic   = "events"
)

// work is the child: it goes on until it is killed.
func work(dir string, run int) error {
	s, err := open(dir)
	if err != nil {
		return err
	}
	ctx := context.Background()
	var mu sync.Mutex
	say := func(what, id string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(what, id) // unbuffered: once it is written, the pipe has it
	}
	failed := make(chan error, 1)
	loop := func(kind string, do func(id string) error) {
		for g := range writers {
			go func() {
				for n := 0; ; n++ {
					id := fmt.Sprintf("%s-%03d-%d-%06d", kind, run, g, n)
					if err := do(id); err != nil {
						failed <- fmt.Errorf("%s: %w", id, err)
						return
					}
					say("acked", id)
				}
			}()
		}
	}
	loop("write", func(id string) error {
		_, err := s.state.Apply(ctx, s.caller, []state.Op{{Key: id, Value: []byte("value of " + id)}}, nil, nil)
		return err
	})
	loop("tx", func(id string) error {
		ops := []state.Op{{Key: id + "/a", Value: []byte(id), IfAbsent: true}, {Key: id + "/b", Value: []byte(id)}, {Key: id + "/c", Value: []byte(id)}}
		_, err := s.state.Apply(ctx, s.caller, ops, s.bus, []loam.Event{{ID: id, Topic: topic}})
		return err
	})
	loop("event", func(id string) error {
		return s.bus.Publish(ctx, s.caller, []loam.Event{{ID: id, Topic: topic}})
	})
	go func() { failed <- s.consume(ctx, func(id string) { say("got", id) }) }()
	return <-failed
}

func (s *store) consume(ctx context.Context, got func(id string)) error {
	return s.bus.Subscribe(ctx, pubsub.Options{Topic: topic, Group: "soak", InFlight: 64}, func(_ context.Context, e loam.Event, _ int) error {
		got(e.ID)
		if rand.IntN(50) == 0 {
			return errors.New("once more, please") // so that retries are under way when the end comes
		}
		return nil
	})
}

// seen is what the children said.
type seen struct {
	acked map[string]bool
	got   map[string]int
}

func soak(dir string, kills int) (err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "soak-store-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	started := time.Now()
	all := seen{map[string]bool{}, map[string]int{}}
	for run := range kills {
		if err := all.killOne(dir, run); err != nil {
			return fmt.Errorf("child %d: %w", run, err)
		}
		if term.IsTerminal(int(os.Stdout.Fd())) {
			fmt.Printf("\rkill %d of %d: %d acknowledged, %d delivered", run+1, kills, len(all.acked), len(all.got))
		}
	}
	if term.IsTerminal(int(os.Stdout.Fd())) {
		fmt.Println()
	}
	counts, err := all.check(dir)
	fmt.Printf("%d kills in %s: %d writes, %d transactions and %d events acknowledged; %d events delivered, %d of them more than once\n",
		kills, time.Since(started).Round(time.Second), counts["write"], counts["tx"], counts["event"], len(all.got), all.twice())
	if err != nil {
		return err
	}
	fmt.Println("soak-store: ok: all that was acknowledged is there, no transaction is half there, every event was delivered")
	return nil
}

func (a *seen) twice() (n int) {
	for _, times := range a.got {
		if times > 1 {
			n++
		}
	}
	return n
}

// killOne runs a child, kills it a random while after its first word, and takes in all it said.
func (a *seen) killOne(dir string, run int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "-child", fmt.Sprint(run), "-dir", dir)
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	r := bufio.NewReader(out)
	var killed sync.Once
	for {
		line, err := r.ReadString('\n')
		if err != nil { // what the child was about to say is nothing it said
			break
		}
		killed.Do(func() {
			time.AfterFunc(rand.N(300*time.Millisecond), func() { _ = cmd.Process.Kill() })
		})
		what, id, _ := strings.Cut(strings.TrimSpace(line), " ")
		if what == "acked" {
			a.acked[id] = true
		} else {
			a.got[id]++
		}
	}
	if err := cmd.Wait(); err == nil || complaint.Len() > 0 {
		return fmt.Errorf("it ended by itself (%w): %s", err, complaint.String())
	}
	return nil
}

// check opens the store once more, lets the rest of the events come, and compares.
func (a *seen) check(dir string) (counts map[string]int, err error) {
	counts = map[string]int{}
	s, err := open(dir)
	if err != nil {
		return counts, err
	}
	defer func() { err = errors.Join(err, s.close()) }()

	there := map[string]string{}
	for after := ""; ; {
		items, err := s.state.List(context.Background(), s.caller, "", after, state.MaxOps)
		if err != nil {
			return counts, err
		}
		for _, it := range items {
			there[it.Key] = string(it.Value)
			after = it.Key
		}
		if len(items) < state.MaxOps {
			break
		}
	}
	// An event may have been published and not acknowledged: what is wanted is what was acknowledged, and what
	// transactions that are there have published.
	wanted := map[string]bool{}
	var wrong []string
	for id := range a.acked {
		kind, _, _ := strings.Cut(id, "-")
		counts[kind]++
		switch kind {
		case "write":
			if there[id] != "value of "+id {
				wrong = append(wrong, fmt.Sprintf("%s was acknowledged and holds %q", id, there[id]))
			}
		case "tx":
			if there[id+"/a"] == "" {
				wrong = append(wrong, id+" was acknowledged and is not there")
			}
		case "event":
			wanted[id] = true
		}
	}
	parts := map[string]int{}
	for key := range there {
		if id, part, ok := strings.Cut(key, "/"); ok {
			parts[id]++
			wanted[id] = true
			if there[key] != id {
				wrong = append(wrong, fmt.Sprintf("%s/%s holds %q", id, part, there[key]))
			}
		}
	}
	for id, n := range parts {
		if n != 3 {
			wrong = append(wrong, fmt.Sprintf("transaction %s is there with %d parts of 3", id, n))
		}
	}
	if err := a.drain(s, wanted); err != nil {
		wrong = append(wrong, err.Error())
	}
	for id := range a.got {
		if strings.HasPrefix(id, "tx") && parts[id] == 0 {
			wrong = append(wrong, id+" was delivered, and its transaction is not there")
		}
	}
	if len(wrong) > 0 {
		return counts, fmt.Errorf("%d things are wrong, among them:\n%s", len(wrong), strings.Join(wrong[:min(20, len(wrong))], "\n"))
	}
	return counts, nil
}

// drain consumes until every wanted event was delivered, to a child or now.
func (a *seen) drain(s *store, wanted map[string]bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	missing := 0
	for id := range wanted {
		if a.got[id] == 0 {
			missing++
		}
	}
	var mu sync.Mutex
	if missing == 0 {
		return nil
	}
	err := s.consume(ctx, func(id string) {
		mu.Lock()
		defer mu.Unlock()
		if a.got[id]++; a.got[id] == 1 && wanted[id] {
			if missing--; missing == 0 {
				cancel()
			}
		}
	})
	if missing > 0 {
		return errors.Join(err, fmt.Errorf("%d events were acknowledged and never delivered", missing))
	}
	return err
}
