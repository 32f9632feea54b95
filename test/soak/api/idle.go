//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	dapr "github.com/loam-run/loam/api/dapr"
	layotto "github.com/loam-run/loam/api/layotto"
)

// A subscription is an open stream on which nothing comes.
type subscription struct {
	body  io.ReadCloser
	write *io.PipeWriter
}

// mostWatches is less than the 1,000 subscriptions to configuration that an app may have in Dapr's API.
const mostWatches = 900

// idleStreams opens them all, leaves them alone until the end, and then asks of each whether it still lives. Most are
// subscriptions to topics over Dapr's API, some watches of configuration over it, the rest watches over Layotto's.
func idleStreams(ctx context.Context, a *attacker) error {
	c := newClient(true)
	defer c.close()
	hold, end := context.WithCancel(context.Background())
	defer end()
	watched := min(a.idle/10, mostWatches)
	topics := make([]*subscription, a.idle*6/10)
	watches := make([]*subscription, watched)
	ids := make([]string, watched)
	changes := make(chan error, a.idle-len(topics)-watched)
	err := each(len(topics), func(i int) (err error) {
		m := &dapr.SubscribeTopicEventsRequestAlpha1{InitialRequest: &dapr.SubscribeTopicEventsRequestInitialAlpha1{PubsubName: "bus", Topic: fmt.Sprint("idle", i)}}
		if topics[i], _, err = open(hold, c, a.dapr, dapr.MethodDaprSubscribeTopicEventsAlpha1, m); err != nil {
			return fmt.Errorf("subscription %d: %w", i, err)
		}
		a.count("subscribed")
		if i >= watched {
			return nil
		}
		var first []byte
		if watches[i], first, err = open(hold, c, a.dapr, dapr.MethodDaprSubscribeConfiguration, &dapr.SubscribeConfigurationRequest{StoreName: "settings", Keys: []string{"idle"}}); err != nil {
			return fmt.Errorf("watch %d: %w", i, err)
		}
		var id dapr.SubscribeConfigurationResponse
		if err := id.ParseProto(first); err != nil || id.Id == "" {
			return fmt.Errorf("watch %d has no id: %w", i, err)
		}
		ids[i] = id.Id
		a.count("watched")
		return nil
	})
	if err != nil {
		return over(ctx, err)
	}
	for range cap(changes) {
		go func() {
			s, first, err := open(hold, c, a.layotto, layotto.MethodRuntimeSubscribeConfiguration, &layotto.SubscribeConfigurationRequest{StoreName: "settings", AppId: "mesh", Keys: []string{"idle"}})
			if err == nil && !bytes.Contains(first, []byte("changed at last")) {
				err = fmt.Errorf("a change says %q", first)
			}
			if s != nil {
				_ = s.body.Close()
			}
			changes <- err
		}()
		a.count("watched in Layotto")
	}
	<-ctx.Done()

	last, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	defer stop()
	if err := each(len(topics), func(i int) error {
		m := &dapr.PublishEventRequest{PubsubName: "bus", Topic: fmt.Sprint("idle", i), Data: []byte("at last"), DataContentType: "text/plain"}
		if status, words, err := c.call(last, a.dapr, dapr.MethodDaprPublishEvent, frame(m.AppendProto(nil))); status != ok || err != nil {
			return errors.Join(fmt.Errorf("publish: %d %s", status, words), err)
		}
		b, err := receive(topics[i].body)
		if err != nil || !bytes.Contains(b, []byte("at last")) {
			return errors.Join(fmt.Errorf("subscription %d gets %q", i, b), err)
		}
		_ = topics[i].write.Close()
		discard(topics[i].body)
		a.count("lives")
		if i >= watched {
			return nil
		}
		un := &dapr.UnsubscribeConfigurationRequest{StoreName: "settings", Id: ids[i]}
		if status, words, err := c.call(last, a.dapr, dapr.MethodDaprUnsubscribeConfiguration, frame(un.AppendProto(nil))); status != ok || err != nil {
			return errors.Join(fmt.Errorf("unsubscribe: %d %s", status, words), err)
		}
		if _, err := receive(watches[i].body); !errors.Is(err, io.EOF) {
			return fmt.Errorf("watch %d: %w, not its end", i, err)
		}
		return nil
	}); err != nil {
		return err
	}
	change := &layotto.SaveConfigurationRequest{StoreName: "settings", AppId: "mesh", Items: []layotto.ConfigurationItem{{Key: "idle", Content: "changed at last"}}}
	if status, words, err := c.call(last, a.layotto, layotto.MethodRuntimeSaveConfiguration, frame(change.AppendProto(nil))); status != ok || err != nil {
		return errors.Join(fmt.Errorf("change: %d %s", status, words), err)
	}
	for range cap(changes) {
		select {
		case err := <-changes:
			if err != nil {
				return err
			}
			a.count("told in Layotto")
		case <-last.Done():
			return errors.New("not every idle watch was told of a change")
		}
	}
	return nil
}

// open opens a stream by its first message and waits for the first one that comes back.
func open(ctx context.Context, c *client, address, method string, m message) (*subscription, []byte, error) {
	r, w := io.Pipe()
	go func() { _, _ = w.Write(frame(m.AppendProto(nil))) }() // the stream stays open
	res, err := c.open(ctx, address, method, r)
	if err != nil {
		return nil, nil, err
	}
	if res.StatusCode != http.StatusOK {
		_ = res.Body.Close()
		return nil, nil, fmt.Errorf("%s", res.Status)
	}
	first, err := receive(res.Body)
	if err != nil {
		status, words, e := statusOf(res)
		return nil, nil, errors.Join(err, e, fmt.Errorf("%d %s", status, words))
	}
	return &subscription{res.Body, w}, first, nil
}

// each does all, some at a time, and returns the first error.
func each(n int, do func(i int) error) error {
	var group sync.WaitGroup
	next, errs := make(chan int), make(chan error, n)
	for range 32 {
		group.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					errs <- err
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	group.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}
