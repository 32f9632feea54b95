package binding

import (
	"context"
	"strconv"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
)

// MaxAnswer is how many bytes what a method answers may have: a message crosses whole.
const MaxAnswer = 16 << 20

// Methods are the capability's calls; find returns the component of a name.
func Methods(find func(component string) (*Binding, error)) loam.Methods {
	return loam.Methods{
		"binding.Invoke": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.BindingInvokeRequest
			b, err := api.Parse(&req, in, func() (*Binding, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			resp, err := b.Invoke(ctx, caller, Request{
				Operation: req.Operation, Data: req.Data, Metadata: api.Map(req.Metadata), MaxAnswer: MaxAnswer,
			})
			if err != nil {
				return nil, err
			}
			if len(resp.Data) > MaxAnswer {
				return nil, loam.Errorf(loam.ResourceExhausted, "binding "+strconv.Quote(b.name), "the answer has %d bytes: at most %d", len(resp.Data), MaxAnswer)
			}
			return (&api.BindingInvokeResponse{Data: resp.Data, Metadata: api.Attributes(resp.Metadata)}).AppendProto(nil), nil
		},
	}
}
