package loop

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/loam-run/loam"
)

func oneLoop(t *testing.T) Engine {
	t.Helper()
	e, err := Coroutines(Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// compute occupies the loop for some time of the processor.
func compute(d time.Duration) {
	for from := cpuClock(); cpuClock()-from < int64(d); {
	}
}

// TestShares: thirty tasks of one account get as much of a loop as one task of another.
func TestShares(t *testing.T) {
	e := oneLoop(t)
	many, one := &loam.Account{Name: "many"}, &loam.Account{Name: "one"}
	const slices = 300
	turns := map[*loam.Account]int{} // of the loop's tasks alone
	var group sync.WaitGroup
	e.Each(func(task loam.Task) { // so that none begins before all are there
		if task.Shard() == 0 {
			return
		}
		for n := range 31 {
			a := many
			if n == 30 {
				a = one
			}
			group.Add(1)
			task.Go(func(task loam.Task) {
				defer group.Done()
				task.Bill(a)
				for turns[one] < slices {
					compute(50 * time.Microsecond)
					turns[a]++
					task.Yield()
				}
			})
		}
	})
	group.Wait()
	if turns[many] > 3*slices || turns[many] < slices/3 {
		t.Errorf("thirty tasks of one account had %d turns, one of another %d", turns[many], turns[one])
	}
}

// TestNewcomers: who has had nothing goes before those who compute, and who has had much waits for them.
func TestNewcomers(t *testing.T) {
	e := oneLoop(t)
	many, light := &loam.Account{Name: "many"}, &loam.Account{Name: "light"}
	turns := 0
	stop := false
	var group sync.WaitGroup
	group.Add(1)
	e.Each(func(task loam.Task) {
		if task.Shard() == 0 {
			return
		}
		for range 10 {
			group.Add(1)
			task.Go(func(task loam.Task) {
				defer group.Done()
				if was := task.Bill(many); was != nil {
					t.Errorf("it worked for %v before", was)
				}
				for !stop {
					compute(100 * time.Microsecond)
					turns++
					task.Yield()
				}
				if was := task.Bill(nil); was != many {
					t.Errorf("it worked for %v", was)
				}
			})
		}
		task.Go(func(task loam.Task) {
			defer group.Done()
			defer func() { stop = true }()
			for turns < 20 {
				task.Yield()
			}
			for range 5 { // fewer turns than would make it one that has had much
				before := turns
				task.Bill(light)
				if turns != before {
					t.Errorf("a newcomer waited for %d turns of others", turns-before)
				}
				compute(10 * time.Microsecond)
				task.Bill(nil)
			}
			task.Bill(light)
			compute(5 * time.Millisecond) // and holds the loop
			task.Bill(nil)
			before := turns
			task.Bill(light)
			if turns == before {
				t.Error("who has had much goes first")
			}
			task.Bill(nil)
		})
	})
	group.Wait()
}

// TestSharesAreForgotten: what is kept of accounts does not grow with their number.
func TestSharesAreForgotten(t *testing.T) {
	var f fair
	heavy := &loam.Account{}
	for n := range 10_000 {
		f.share(heavy).had += 10 * saved
		f.share(&loam.Account{}).had++
		f.least = int64(n) * saved
	}
	if n := len(f.shares); n > 200 {
		t.Errorf("%d accounts are kept", n)
	}
	if f.share(heavy).had < 100_000*saved {
		t.Error("who has had much was forgotten")
	}
	if f.next() != nil {
		t.Error("somebody waits")
	}
}

// What would begin while others compute too lets the turn's other events go first.
func TestEventsFirst(t *testing.T) {
	one, other := &loam.Account{Name: "one"}, &loam.Account{Name: "other"}
	l := &loop{more: true}
	l.fair.share(one)
	if l.behind(one) {
		t.Error("it waits where nobody else computes")
	}
	l.fair.share(other)
	if !l.behind(one) {
		t.Error("it begins before the turn's other events")
	}
	if l.more = false; l.behind(one) {
		t.Error("it waits for nothing")
	}
}

// In the same way what was woken in an earlier turn lets go first those that were woken beside it, and the events.
func TestWokenTogether(t *testing.T) {
	l := &loop{}
	var more []bool
	for range 3 {
		l.turns = append(l.turns, turnFunc(func() { more = append(more, l.more) }))
	}
	l.takeTurns(false)
	l.turns = append(l.turns, turnFunc(func() { more = append(more, l.more) }))
	l.takeTurns(true)
	if want := []bool{true, true, false, true}; !slices.Equal(more, want) {
		t.Errorf("what follows in the turn: %v, want %v", more, want)
	}
}

type turnFunc func()

func (f turnFunc) turn() { f() }

// TestSaved: who has had less than its share goes before one who has had all of it and comes at the same time, by no
// more than what can be saved.
func TestSaved(t *testing.T) {
	var f fair
	f.least = int64(time.Second)
	much, light := &loam.Account{Name: "much"}, &loam.Account{Name: "light"}
	f.share(much).had = f.least
	f.wait(&task{account: much})
	f.wait(&task{account: light})
	if first := f.next().account; first != light {
		t.Errorf("%s goes first", first.Name)
	}
	if had := f.share(light).had; had != f.least-saved {
		t.Errorf("it begins with %v less than others, not %v", time.Duration(f.least-had), time.Duration(saved))
	}
}
