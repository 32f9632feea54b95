package layotto

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/layotto"
	"github.com/loam-run/loam/capability/jobs"
	"github.com/loam-run/loam/protocol/grpc"
)

// space is where messages wait among the jobs of a component: no program finds them there.
const space = "delay"

// maxDelay bounds how long a message may wait.
const maxDelay = 365 * 24 * time.Hour

// maxRunning is how many messages are published at once when they are due.
const maxRunning = 16

// A delayed message waits as the data of a job.
type delayed struct {
	Pubsub      string            `json:"pubsub"`
	Topic       string            `json:"topic"`
	ContentType string            `json:"contentType,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Data        []byte            `json:"data"`
	TraceParent string            `json:"traceparent,omitempty"`
}

// publishDelayMessage keeps an event as a job, which Run publishes when it is due.
func (a *API) publishDelayMessage(c *grpc.Call, in *pb.DelayMessageRequest) (*pb.DelayMessageResponse, error) {
	if in.ComponentName != "" && in.Topic == "" {
		return nil, invalid("topic is empty in pubsub %s", in.ComponentName)
	}
	b, err := a.bus(in.ComponentName)
	if err != nil {
		return nil, err
	}
	delay := time.Duration(in.DelayInSeconds) * time.Second
	if delay < 0 || delay > maxDelay {
		return nil, invalid("delay_in_seconds %d: 0 to %d", in.DelayInSeconds, int(maxDelay.Seconds()))
	}
	if err := b.CheckPublish(a.caller, in.Topic); err != nil { // it is asked again when it is due
		return nil, because(err, "error when publish to topic %s in pubsub %s: ", in.Topic, in.ComponentName)
	}
	data, err := json.Marshal(delayed{in.ComponentName, in.Topic, in.DataContentType, in.Metadata, in.Data, c.Request().Header.Get("traceparent")})
	if err != nil {
		return nil, because(err, "")
	}
	store, err := a.delays()
	if err != nil {
		return nil, err
	}
	job := jobs.Job{Name: rand.Text(), Due: delay.String(), Data: data, Type: space, Failure: &jobs.FailurePolicy{Interval: 5 * time.Second}}
	await(c, func(ctx context.Context) { err = store.Schedule(ctx, a.caller, job, false) })
	if err != nil {
		return nil, because(err, "error when publish to topic %s in pubsub %s: ", in.Topic, in.ComponentName)
	}
	return &pb.DelayMessageResponse{MessageId: job.Name}, nil
}

func (a *API) delays() (*jobs.Jobs, error) {
	j, err := a.opts.Capabilities.Jobs("")
	if err != nil {
		return nil, because(err, "nobody keeps messages until they are due: ")
	}
	return j.In(space), nil
}

// Run publishes the delayed messages that are due, until ctx ends. Whoever serves the API calls it beside that, once; after
// a reload that opened the jobs component anew, again.
func (a *API) Run(ctx context.Context) error {
	j, err := a.delays()
	if err != nil {
		return err
	}
	j.Run(ctx, a.app, maxRunning, a.publishDelayed)
	return nil
}

// publishDelayed publishes a message that is due. Its event has the job's name as its ID, so that one that comes twice is
// told for what it is.
func (a *API) publishDelayed(ctx context.Context, job jobs.Job) error {
	var d delayed
	if err := json.Unmarshal(job.Data, &d); err != nil {
		return dropped{fmt.Errorf("delayed message %s: %w", job.Name, err)}
	}
	b, err := a.bus(d.Pubsub)
	if err != nil {
		return err
	}
	e, err := newEvent(&pb.PublishEventRequest{PubsubName: d.Pubsub, Topic: d.Topic, Data: d.Data, DataContentType: d.ContentType, Metadata: d.Metadata},
		loam.Header{{Name: "traceparent", Value: d.TraceParent}})
	if err != nil {
		return dropped{err}
	}
	if e.ID == "" {
		e.ID = job.Name
	}
	err = b.Publish(ctx, a.caller, []loam.Event{e})
	if code := loam.CodeOf(err); code == loam.PermissionDenied || code == loam.InvalidArgument {
		return dropped{err}
	}
	if err != nil {
		a.log.Warn("a delayed message was not published and is tried again", "component", d.Pubsub, "topic", d.Topic, "error", err)
	}
	return err
}
