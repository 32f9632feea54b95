//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	dapr "github.com/loam-run/loam/api/dapr"
	layotto "github.com/loam-run/loam/api/layotto"
)

// A neighbour is a client that behaves. Every answer that it gets is held against what it should be.
type neighbour struct {
	*soak
	rounds  int
	longest time.Duration // of one round
}

func (g *neighbour) String() string {
	return fmt.Sprintf("a client that behaves: %d rounds of 9 requests and an event, all answered right, the longest in %v", g.rounds, g.longest.Round(time.Millisecond))
}

func (g *neighbour) run(ctx context.Context) error {
	web, calls := newClient(false), newClient(true)
	defer web.close()
	defer calls.close()
	limit, stop := context.WithTimeout(context.WithoutCancel(ctx), g.length+2*time.Minute)
	defer stop()
	events, err := g.subscribe(limit, calls)
	if err != nil {
		return err
	}
	defer events.body.Close()
	for n := 0; ctx.Err() == nil; n++ {
		began := time.Now()
		if err := g.round(limit, web, calls, events.body, events.write, n); err != nil {
			return fmt.Errorf("round %d: %w", n, err)
		}
		g.rounds++
		g.longest = max(g.longest, time.Since(began))
		rest(ctx, 20*time.Millisecond)
	}
	if g.rounds < 20 {
		return fmt.Errorf("%d rounds only", g.rounds)
	}
	return nil
}

func (g *neighbour) subscribe(ctx context.Context, c *client) (*subscription, error) {
	m := &dapr.SubscribeTopicEventsRequestAlpha1{InitialRequest: &dapr.SubscribeTopicEventsRequestInitialAlpha1{PubsubName: "bus", Topic: "good"}}
	s, _, err := open(ctx, c, g.dapr, dapr.MethodDaprSubscribeTopicEventsAlpha1, m)
	return s, err
}

func (g *neighbour) round(ctx context.Context, web, calls *client, events io.Reader, answers io.Writer, n int) error {
	value, key := "value "+strconv.Itoa(n), "good"+strconv.Itoa(n%10)
	url := "http://" + g.http + "/v1.0/state/store"
	if status, answer, err := web.ask(ctx, "POST", url, fmt.Sprintf(`[{"key": %q, "value": %q}]`, key, value)); status != 204 || err != nil {
		return errors.Join(fmt.Errorf("save by HTTP: %d %s", status, answer), err)
	}
	if status, answer, err := web.ask(ctx, "GET", url+"/"+key, ""); status != 200 || answer != strconv.Quote(value) || err != nil {
		return errors.Join(fmt.Errorf("get by HTTP: %d %s", status, answer), err)
	}
	if status, answer, err := web.ask(ctx, "GET", "http://"+g.http+"/v1.0/secrets/vault/open", ""); status != 200 || strings.TrimSpace(answer) != `{"open":"may be known"}` || err != nil {
		return errors.Join(fmt.Errorf("secret: %d %s", status, answer), err)
	}
	call := func(address, method string, m message) (string, error) {
		status, answer, err := calls.call(ctx, address, method, frame(m.AppendProto(nil)))
		if status != ok || err != nil {
			return "", errors.Join(fmt.Errorf("%s: %d %s", method, status, answer), err)
		}
		return answer, nil
	}
	if _, err := call(g.dapr, dapr.MethodDaprSaveState, &dapr.SaveStateRequest{StoreName: "store", States: []dapr.StateItem{{Key: key + "grpc", Value: []byte(value)}}}); err != nil {
		return err
	}
	text, err := call(g.dapr, dapr.MethodDaprGetState, &dapr.GetStateRequest{StoreName: "store", Key: key + "grpc"})
	if err != nil {
		return err
	}
	var got dapr.GetStateResponse
	if err := got.ParseProto([]byte(text)); err != nil || string(got.Data) != value {
		return errors.Join(fmt.Errorf("GetState: %q", got.Data), err)
	}
	if _, err := call(g.layotto, layotto.MethodRuntimeSaveState, &layotto.SaveStateRequest{StoreName: "store", States: []layotto.StateItem{{Key: key, Value: []byte(value)}}}); err != nil {
		return err
	}
	if text, err = call(g.layotto, layotto.MethodRuntimeGetState, &layotto.GetStateRequest{StoreName: "store", Key: key}); err != nil {
		return err
	}
	var theirs layotto.GetStateResponse
	if err := theirs.ParseProto([]byte(text)); err != nil || string(theirs.Data) != value {
		return errors.Join(fmt.Errorf("by Layotto the state is %q", theirs.Data), err)
	}
	if _, err := call(g.layotto, layotto.MethodRuntimePutFile, &layotto.PutFileRequest{StoreName: "disk", Name: "good/" + key, Data: []byte(value)}); err != nil {
		return err
	}
	if text, err = call(g.layotto, layotto.MethodRuntimeGetFile, &layotto.GetFileRequest{StoreName: "disk", Name: "good/" + key}); err != nil {
		return err
	}
	var file layotto.GetFileResponse
	if err := file.ParseProto([]byte(text)); err != nil || string(file.Data) != value {
		return errors.Join(fmt.Errorf("GetFile: %q", file.Data), err)
	}
	if _, err := call(g.dapr, dapr.MethodDaprPublishEvent, &dapr.PublishEventRequest{PubsubName: "bus", Topic: "good", Data: []byte(value), DataContentType: "text/plain"}); err != nil {
		return err
	}
	b, err := receive(events)
	if err != nil {
		return fmt.Errorf("the event does not come: %w", err)
	}
	var event dapr.SubscribeTopicEventsResponseAlpha1
	if err := event.ParseProto(b); err != nil || event.EventMessage == nil || !bytes.Equal(event.EventMessage.Data, []byte(value)) {
		return errors.Join(fmt.Errorf("an event is %q", b), err)
	}
	answer := &dapr.SubscribeTopicEventsRequestAlpha1{EventProcessed: &dapr.SubscribeTopicEventsRequestProcessedAlpha1{Id: event.EventMessage.Id}}
	_, err = answers.Write(frame(answer.AppendProto(nil)))
	return err
}
