package wasm

import (
	"slices"

	"github.com/loam-run/loam"
)

// A queue is who waits for a turn, in the order they came. Its owner's lock guards it.
type queue struct{ list []*waiter }

// A waiter is a task that waits. It parks until granted, which is set before it is woken.
type waiter struct {
	task    loam.Task
	granted bool
}

func (q *queue) empty() bool { return len(q.list) == 0 }

func (q *queue) len() int { return len(q.list) }

func (q *queue) add(t loam.Task) *waiter {
	w := &waiter{task: t}
	q.list = append(q.list, w)
	return w
}

// next takes the first one out and grants it its turn; the caller wakes it. It is nil where nobody waits.
func (q *queue) next() *waiter {
	if len(q.list) == 0 {
		return nil
	}
	w := q.list[0]
	q.list = slices.Delete(q.list, 0, 1)
	w.granted = true
	return w
}

func (q *queue) remove(w *waiter) {
	if i := slices.Index(q.list, w); i >= 0 {
		q.list = slices.Delete(q.list, i, i+1)
	}
}

// tasks appends those who wait.
func (q *queue) tasks(to []loam.Task) []loam.Task {
	for _, w := range q.list {
		to = append(to, w.task)
	}
	return to
}
