package redis

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol/cloudevents"
)

// PubsubConfig is the metadata of a pubsub component.
type PubsubConfig struct {
	Server
	ConsumerID        string        `meta:"consumerID"`                       // the group of every subscription; "": the one that the subscription says
	RedeliverInterval time.Duration `meta:"redeliverInterval,15s" unit:"1ms"` // how often it looks for messages that nobody finished; 0: never
	ProcessingTimeout time.Duration `meta:"processingTimeout,60s" unit:"1ms"` // after which a message whose consumer is gone is another's; 0: never
	QueueDepth        int           `meta:"queueDepth,100"`                   // messages read at once at most, by each subscription
	Concurrency       int           `meta:"concurrency"`                      // messages handled at once in all subscriptions; 0: as many as they say
	MaxLen            int64         `meta:"maxLenApprox"`                     // entries that a stream keeps, about; 0: all
	StreamTTL         time.Duration `meta:"streamTTL" unit:"1s"`              // how long a stream keeps an entry, about; 0: for ever
}

// Check says what cannot be together.
func (c *PubsubConfig) Check() error {
	err := c.Server.Check()
	if err == nil && c.MaxLen > 0 && c.StreamTTL > 0 {
		return fmt.Errorf("metadata maxLenApprox, streamTTL: a stream is trimmed by one of them")
	}
	return err
}

// Pubsub is a pubsub.Driver. A topic is a stream, which its publishers keep as short as metadata says: what is cut off
// before a group read it, that group does not get.
type Pubsub struct {
	c       *client
	reading *client // connections that wait for messages, one for each subscription
	name    string
	config  PubsubConfig
	append  *script
	slots   chan struct{} // messages handled at once; nil: no bound but the subscription's
}

// OpenPubsub opens a pubsub component.
func OpenPubsub(ctx context.Context, name string, c PubsubConfig) (*Pubsub, error) {
	conn, err := c.open(ctx, name)
	if err != nil {
		return nil, err
	}
	o, err := c.options(name, maxSubscriptions)
	if err != nil {
		return nil, err // which open has found already
	}
	o.MinIdleConns = 0
	p := &Pubsub{c: conn, reading: &client{db: redis.NewUniversalClient(o), where: conn.where, retries: 0}, name: name, config: c, append: newScript(applyText)}
	if c.Concurrency > 0 {
		p.slots = make(chan struct{}, c.Concurrency)
	}
	return p, nil
}

// maxSubscriptions bounds the connections that wait for messages.
const maxSubscriptions = 10_000

// Close waits for calls under way and disconnects.
func (p *Pubsub) Close() error { return cmp.Or(p.reading.close(), p.c.close()) }

// Publish appends events. Several are appended by one script, all or none.
func (p *Pubsub) Publish(ctx context.Context, events []loam.Event) error {
	if len(events) == 1 {
		return p.add(ctx, &events[0])
	}
	keys, args := make([]string, len(events)), make([]any, 1, 1+4*len(events))
	args[0] = 0
	var err error
	for i := range events {
		keys[i] = strings.Clone(events[i].Topic)
		if args, err = p.appendEvent(args, &events[i]); err != nil {
			return err
		}
	}
	_, err = p.c.run(ctx, nil, true, p.append, keys, args...)
	return p.c.fail("pubsub.Publish", err)
}

func (p *Pubsub) add(ctx context.Context, e *loam.Event) error {
	var four [4]any
	event, err := p.appendEvent(four[:0], e)
	if err != nil {
		return err
	}
	args := append(make([]any, 0, 10), "xadd", strings.Clone(e.Topic))
	if event[2] != "" {
		args = append(args, event[2], "~", event[3])
	}
	args = append(args, "*", "data", event[0])
	if event[1] != "" {
		args = append(args, "metadata", event[1])
	}
	cmd := redis.NewStringCmd(ctx, args...)
	if err = p.c.do(ctx, true, cmd); err == nil {
		err = cmd.Err()
	}
	return p.c.fail("pubsub.Publish "+strconv.Quote(e.Topic), err)
}

// appendEvent writes what applyText takes of an event: data, metadata, and how the stream is trimmed.
func (p *Pubsub) appendEvent(args []any, e *loam.Event) ([]any, error) {
	data := cloudevents.Encode(e, p.name)
	if e.Raw {
		data = bytes.Clone(data) // it is the event's own, and what is sent may outlive the call
	}
	metadata := ""
	if len(e.Metadata) > 0 {
		b, err := json.Marshal(e.Metadata)
		if err != nil {
			return nil, loam.Errorf(loam.InvalidArgument, "pubsub.Publish "+strconv.Quote(e.Topic), "its metadata: %w", err)
		}
		metadata = string(b)
	}
	trim, to := "", ""
	switch {
	case p.config.MaxLen > 0:
		trim, to = "maxlen", strconv.FormatInt(p.config.MaxLen, 10)
	case p.config.StreamTTL > 0:
		trim, to = "minid", strconv.FormatInt(time.Now().Add(-p.config.StreamTTL).UnixMilli(), 10)+"-1"
	}
	return append(args, data, metadata, trim, to), nil
}

// event is a message of a stream as an event.
func event(topic string, m message, raw bool) loam.Event {
	data, _ := m.values["data"].(string)
	e := cloudevents.Message([]byte(data), topic, raw)
	if e.Raw {
		e.ID = m.id
	}
	if text, ok := m.values["metadata"].(string); ok && text != "" {
		if json.Unmarshal([]byte(text), &e.Metadata) != nil {
			e.Metadata = nil // somebody else's words
		}
	}
	return e
}
