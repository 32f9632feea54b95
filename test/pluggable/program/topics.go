package main

import (
	"context"
	"sync"

	"github.com/dapr/components-contrib/bindings"
	"github.com/dapr/components-contrib/pubsub"
)

// topics is a pubsub whose topics keep their messages, and whose groups get each of them until one of their subscribers
// has acknowledged it.
type topics struct {
	mu   sync.Mutex
	logs map[string][]message
	// of each group of a topic: the messages that nobody has or had
	groups map[[2]string]*group
	news   chan struct{}
}

type message struct {
	data     []byte
	metadata map[string]string
}

type group struct {
	next  int
	again []message
}

func newTopics() *topics {
	return &topics{logs: map[string][]message{}, groups: map[[2]string]*group{}, news: make(chan struct{})}
}

func (p *topics) Init(context.Context, pubsub.Metadata) error { return nil }
func (p *topics) GetComponentMetadata() map[string]string     { return nil }
func (p *topics) Features() []pubsub.Feature                  { return nil }
func (p *topics) Close() error                                { return nil }

// tell wakes who waits; the lock is held.
func (p *topics) tell() {
	close(p.news)
	p.news = make(chan struct{})
}

func (p *topics) Publish(_ context.Context, r *pubsub.PublishRequest) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.logs[r.Topic] = append(p.logs[r.Topic], message{r.Data, r.Metadata})
	p.tell()
	return nil
}

func (p *topics) Subscribe(ctx context.Context, r pubsub.SubscribeRequest, handle pubsub.Handler) error {
	p.mu.Lock()
	at := [2]string{r.Topic, r.Metadata["consumerID"]}
	g := p.groups[at]
	if g == nil {
		g = &group{}
		p.groups[at] = g
	}
	p.mu.Unlock()
	go func() {
		for {
			m, ok := p.take(ctx, r.Topic, g)
			if !ok {
				return
			}
			sending := &sending{Context: ctx, sent: make(chan struct{})}
			go func() {
				defer sending.end()
				err := handle(sending, &pubsub.NewMessage{Topic: r.Topic, Data: m.data, Metadata: m.metadata})
				if err == nil {
					return
				}
				p.mu.Lock()
				defer p.mu.Unlock()
				g.again = append(g.again, m)
				p.tell()
			}()
			<-sending.sent // before the next one is, so that they leave in their order
		}
	}()
	return nil
}

// sending is the context of a message: the SDK's handler sends it, and then waits for the end of its context or the answer.
type sending struct {
	context.Context
	once sync.Once
	sent chan struct{} // closed when the message was sent, or will not be
}

func (s *sending) end() { s.once.Do(func() { close(s.sent) }) }

// Done is how the handler begins to wait.
func (s *sending) Done() <-chan struct{} {
	s.end()
	return s.Context.Done()
}

func (p *topics) take(ctx context.Context, topic string, g *group) (message, bool) {
	for {
		p.mu.Lock()
		switch {
		case ctx.Err() != nil:
			p.mu.Unlock()
			return message{}, false
		case len(g.again) > 0:
			m := g.again[0]
			g.again = g.again[1:]
			p.mu.Unlock()
			return m, true
		case g.next < len(p.logs[topic]):
			m := p.logs[topic][g.next]
			g.next++
			p.mu.Unlock()
			return m, true
		}
		news := p.news
		p.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
		}
	}
}

// echo answers what it is asked.
type echo struct{}

func (echo) Init(context.Context, bindings.Metadata) error { return nil }
func (echo) GetComponentMetadata() map[string]string       { return nil }
func (echo) Operations() []bindings.OperationKind          { return []bindings.OperationKind{"echo", "get"} }
func (echo) Invoke(_ context.Context, r *bindings.InvokeRequest) (*bindings.InvokeResponse, error) {
	return &bindings.InvokeResponse{Data: append([]byte(r.Operation+":"), r.Data...), Metadata: r.Metadata}, nil
}

// ticks brings as many events as its metadata says, each until it was answered with its own words.
type ticks struct{ prefix string }

func (t *ticks) Init(_ context.Context, m bindings.Metadata) error {
	t.prefix = m.Properties["prefix"]
	return nil
}
func (t *ticks) GetComponentMetadata() map[string]string { return nil }
func (t *ticks) Close() error                            { return nil }

func (t *ticks) Read(ctx context.Context, handle bindings.Handler) error {
	go func() {
		for i := 0; i < 5; i++ {
			word := t.prefix + string(rune('a'+i))
			for ctx.Err() == nil {
				answer, err := handle(ctx, &bindings.ReadResponse{Data: []byte(word), Metadata: map[string]string{"n": word}})
				if err == nil && string(answer) == word {
					break
				}
			}
		}
	}()
	return nil
}
