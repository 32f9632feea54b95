package layotto

import (
	"context"
	"sync"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/layotto"
	"github.com/loam-run/loam/capability/config"
	"github.com/loam-run/loam/dialect"
	"github.com/loam-run/loam/protocol/grpc"
)

// maxWatches is how many requests of a stream are watched at once.
const maxWatches = 64

// subscribeConfiguration tells of changes for as long as the program keeps the stream open. Each message of it asks for
// more keys.
func (a *API) subscribeConfiguration(st *grpc.Stream) (err error) {
	subscriptions := config.NewSubscriptions(a.config, a.log)
	var behind error // what the client does not take is lost, so it is better told than left with old values
	var once sync.Once
	defer func() {
		st.Task().Await(subscriptions.Close) // nothing is told any more after it
		if behind != nil {
			err = behind
		}
	}()
	for n := 0; ; n++ {
		var in pb.SubscribeConfigurationRequest
		if err := st.Recv(&in); err != nil {
			return dialect.EndOf(err)
		}
		if n == maxWatches {
			return fail(loam.ResourceExhausted, "a stream asks for configuration at most %d times: open another", maxWatches)
		}
		at, err := placeOf(in.Group, in.Label)
		if err != nil {
			return err
		}
		keys, err := at.keys(in.Keys)
		if err != nil {
			return err
		}
		changed := func(_ string, items []config.Item) {
			out := pb.SubscribeConfigurationResponse{StoreName: in.StoreName, AppId: in.AppId}
			for _, it := range items {
				if o := item(it); at.in(&o) {
					out.Items = append(out.Items, o)
				}
			}
			if len(out.Items) == 0 {
				return
			}
			if err := st.Post(&out); err != nil {
				once.Do(func() { behind = err })
				st.Task().Cancel()
			}
		}
		await(&st.Call, func(ctx context.Context) { _, err = subscriptions.Add(ctx, in.StoreName, a.caller, keys, changed) })
		if err != nil {
			return refused(err, "subscribe configuration failed with error: ")
		}
	}
}
