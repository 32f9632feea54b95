package layotto

import (
	"context"
	"strings"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/layotto"
	"github.com/loam-run/loam/capability/jobs"
	"github.com/loam-run/loam/dialect"
	"github.com/loam-run/loam/event"
	"github.com/loam-run/loam/protocol/grpc"
)

// newClient makes what calls the program; nil where it has no port, or none for gRPC.
func newClient(app dialect.App) *grpc.Client {
	if app.Target == nil || !app.GRPC {
		return nil
	}
	return &grpc.Client{Target: app.Target, Authority: "localhost", MaxMessage: int(app.MaxBody)}
}

// Callback is how the program is told of events.
func (a *API) Callback() dialect.Callback { return callback{a} }

type callback struct{ *API }

// invoke calls a method of the program. It waits in t; nil: in the goroutine that calls.
func (a callback) invoke(ctx context.Context, t loam.Task, method string, in, out grpc.Message) error {
	if a.client == nil {
		return &loam.Error{
			Code: loam.FailedPrecondition, Op: "call app " + a.app, Err: errNoPort,
			Hint: "give the App an address and protocol: grpc",
		}
	}
	req := loam.NewRequest(ctx)
	defer req.Release()
	if t != nil {
		req.SetTask(t)
	}
	return a.client.Call(req, method, in, out, nil)
}

var errNoPort = fail(loam.FailedPrecondition, "it has no port for gRPC, by which Layotto calls programs back")

// Subscriptions asks for the topics that the program wants. One that does not know the method wants none.
func (a callback) Subscriptions(ctx context.Context) ([]event.Subscription, error) {
	if a.client == nil {
		return nil, nil
	}
	var out pb.ListTopicSubscriptionsResponse
	if err := a.invoke(ctx, nil, pb.MethodAppCallbackListTopicSubscriptions, &pb.Empty{}, &out); err != nil {
		if loam.CodeOf(err) == loam.Unimplemented {
			return nil, nil
		}
		return nil, err
	}
	var list []event.Subscription
	for _, s := range out.Subscriptions {
		list = append(list, event.Subscription{Component: a.component(s.PubsubName), Topic: s.Topic, Group: a.app, Default: pb.MethodAppCallbackOnTopicEvent, Metadata: s.Metadata})
	}
	return list, nil
}

// component is a pubsub component as it is called here, and saidFor as the program calls it: see find.
func (a callback) component(said string) string {
	if _, err := a.opts.Capabilities.Pubsub(said); loam.CodeOf(err) == loam.NotFound {
		if _, err := a.opts.Capabilities.Pubsub(pubsubs.capability + "." + said); loam.CodeOf(err) != loam.NotFound {
			return pubsubs.capability + "." + said
		}
	}
	return said
}

func (a callback) saidFor(component string) string {
	if said, ok := strings.CutPrefix(component, pubsubs.capability+"."); ok && said != "" && a.component(said) == component {
		return said
	}
	return component
}

// Deliver brings one event by OnTopicEvent. A program that does not know the method wants none.
func (a callback) Deliver(ctx context.Context, t loam.Task, to *event.Subscription, e loam.Event, _ int) error {
	var out pb.TopicEventResponse
	err := a.invoke(ctx, t, pb.MethodAppCallbackOnTopicEvent, topicEvent(&e, a.saidFor(to.Component)), &out)
	if loam.CodeOf(err) == loam.Unimplemented {
		return dropped{err}
	}
	if err != nil {
		return err
	}
	return verdict(out.Status)
}

// DeliverBulk brings one after the other: the contract has no message for several.
func (a callback) DeliverBulk(ctx context.Context, to *event.Subscription, events []loam.Event) []error {
	errs := make([]error, len(events))
	for i, e := range events {
		errs[i] = a.Deliver(ctx, nil, to, e, 1)
	}
	return errs
}

// Binding answers that the program wants nothing of bindings: the contract has no call for it.
func (callback) Binding(context.Context, string) (bool, error) { return false, nil }

// Read fails, for the same reason.
func (callback) Read(_ context.Context, name string, _ []byte, _ map[string]string) ([]byte, error) {
	return nil, fail(loam.Unimplemented, "Layotto's callback has no call for what binding %s reads", name)
}

// Job fails: the contract has no call for jobs.
func (callback) Job(_ context.Context, job jobs.Job) error {
	return dropped{fail(loam.Unimplemented, "Layotto's callback has no call for job %s", job.Name)}
}

// Healthy asks for the subscriptions: whoever answers that in any way is there.
func (a callback) Healthy(ctx context.Context) error {
	if a.client == nil {
		return nil
	}
	var out pb.ListTopicSubscriptionsResponse
	err := a.invoke(ctx, nil, pb.MethodAppCallbackListTopicSubscriptions, &pb.Empty{}, &out)
	if loam.CodeOf(err) == loam.Unimplemented {
		return nil
	}
	return err
}
