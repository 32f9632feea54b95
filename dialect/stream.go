package dialect

import (
	"cmp"
	"context"
	"errors"
	"io"
	"sync"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol/grpc"
)

// MaxUnanswered is how many events a stream brings before the program has answered one.
const MaxUnanswered = 64

var (
	errEnded       = loam.Errorf(loam.Unavailable, "subscription", "it is over")
	errStreamEnded = loam.Errorf(loam.Unavailable, "subscription", "the stream that subscribed is over")
)

// EndOf is what a call ends with whose client sent all it had.
func EndOf(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// An EventStream is a subscription whose events go to the program by a stream, and whose answers come by it.
type EventStream struct {
	out *grpc.Stream

	mu         sync.Mutex
	unanswered map[string][]chan error // by the event's ID, which is no event's alone: they are answered in turn
	ended      bool
}

// NewEventStream makes one of a stream that a program began.
func NewEventStream(st *grpc.Stream) *EventStream {
	return &EventStream{out: st, unanswered: map[string][]chan error{}}
}

// Run is the stream's life, in its task. subscribe delivers events on a goroutine of its own until its context ends;
// answers reads what the program says until it says no more. A subscription that ends by itself ends the stream, with
// what failed makes of its error.
func (s *EventStream) Run(subscribe func(context.Context) error, failed func(error) error, answers func() error) error {
	ctx, stop := context.WithCancel(s.out.Context())
	defer stop()
	over := make(chan error, 1)
	task := s.out.Task()
	go func() {
		err := subscribe(ctx)
		if ctx.Err() == nil { // it ended by itself, and the program waits in vain
			over <- failed(cmp.Or(err, error(errEnded)))
			task.Cancel()
		}
		close(over)
	}()
	err := answers()
	stop()
	s.end()
	task.Await(func() { // events that the program has not answered are the subscription's again by now
		if ended := <-over; ended != nil {
			err = ended
		}
	})
	return err
}

// Deliver sends an event as message and waits for what becomes of it.
func (s *EventStream) Deliver(ctx context.Context, id string, message grpc.Message) error {
	answer := make(chan error, 1)
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return errStreamEnded
	}
	s.unanswered[id] = append(s.unanswered[id], answer)
	s.mu.Unlock()
	if err := s.out.Post(message); err != nil {
		s.forget(id, answer)
		return err
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		s.forget(id, answer)
		return ctx.Err()
	}
}

// Answer says what became of the event that waits longest of those with an ID. Where none waits it was late, or never
// sent, and nothing is done.
func (s *EventStream) Answer(id string, outcome error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if waiting := s.unanswered[id]; len(waiting) > 0 {
		s.set(id, waiting[1:])
		waiting[0] <- outcome
	}
}

func (s *EventStream) forget(id string, answer chan error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := s.unanswered[id]
	for i, w := range waiting {
		if w == answer {
			s.set(id, append(waiting[:i:i], waiting[i+1:]...))
			return
		}
	}
}

// set is called with mu held.
func (s *EventStream) set(id string, waiting []chan error) {
	if len(waiting) == 0 {
		delete(s.unanswered, id)
	} else {
		s.unanswered[id] = waiting
	}
}

// end answers all that is left.
func (s *EventStream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, waiting := range s.unanswered {
		for _, answer := range waiting {
			answer <- errStreamEnded
		}
	}
	clear(s.unanswered)
}
