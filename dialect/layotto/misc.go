package layotto

import (
	"context"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/layotto"
	"github.com/loam-run/loam/capability/binding"
	"github.com/loam-run/loam/protocol/grpc"
)

// greeting is what SayHello says of whom nobody said otherwise, as Layotto's own configurations have it.
const greeting = "greeting"

// maxGreetings bounds what ApplyConfiguration makes us remember.
const maxGreetings = 100

func (a *API) sayHello(_ *grpc.Call, in *pb.SayHelloRequest) (*pb.SayHelloResponse, error) {
	a.mu.Lock()
	hello, ok := a.greetings[in.ServiceName]
	a.mu.Unlock()
	if !ok {
		hello = greeting
	}
	if in.Name != "" {
		hello += ", " + in.Name
	}
	return &pb.SayHelloResponse{Hello: hello, Data: in.Data}, nil
}

// applyConfiguration changes a component that can be changed while it runs. In Layotto that is the greeter; so it is here:
// what the others are, their resources say, and Loam follows a change of those by itself.
func (a *API) applyConfiguration(_ *grpc.Call, in *pb.DynamicConfiguration) (*pb.ApplyConfigurationResponse, error) {
	c := in.ComponentConfig
	switch {
	case c == nil || c.Kind == "":
		return nil, invalid("field %s is not configured", "kind")
	case c.Name == "":
		return nil, invalid("field %s is not configured", "name")
	case len(c.Metadata) == 0:
		return nil, invalid("field %s is not configured", "metadata")
	}
	if c.Kind == "hellos" || c.Kind == "hello" {
		hello, ok := c.Metadata["hello"]
		if !ok {
			return nil, invalid("a greeter knows one setting: hello")
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if _, known := a.greetings[c.Name]; !known && len(a.greetings) == maxGreetings {
			return nil, fail(loam.ResourceExhausted, "%d greeters have a greeting of their own already", maxGreetings)
		}
		a.greetings[c.Name] = hello
		return &pb.ApplyConfigurationResponse{}, nil
	}
	capability := map[string]string{
		"state": "state", "lock": "lock", "sequencer": "sequence", "pub_subs": "pubsub", "pub_sub": "pubsub", "config_store": "config",
		"secret_store": "secret", "bindings": "binding", "file": "file", "oss": "file", "cryption": "crypto",
	}[c.Kind]
	for _, known := range a.opts.Capabilities.Components(a.caller) {
		if known.Capability == capability && (known.Name == c.Name || known.Name == capability+"."+c.Name) {
			return nil, fail(loam.Unimplemented, "component %s %s is what its resource says: change that, and it is taken in while it runs", c.Kind, c.Name)
		}
	}
	return nil, invalid("component not found. kind: %s , name: %s", c.Kind, c.Name)
}

func (a *API) invokeBinding(c *grpc.Call, in *pb.InvokeBindingRequest) (*pb.InvokeBindingResponse, error) {
	const failed = "error when invoke output binding %s: "
	b, err := find(a, section{"binding", "", "error when invoke output binding %[1]s: couldn't find output binding %[1]s", failed}, in.Name, a.opts.Capabilities.Binding)
	if err != nil {
		return nil, err
	}
	var out binding.Response
	await(c, func(ctx context.Context) {
		out, err = b.Invoke(ctx, a.caller, binding.Request{Operation: in.Operation, Data: in.Data, Metadata: in.Metadata})
	})
	if err != nil {
		return nil, because(err, failed, in.Name)
	}
	return &pb.InvokeBindingResponse{Data: out.Data, Metadata: out.Metadata}, nil
}

func (a *API) getSecret(c *grpc.Call, in *pb.GetSecretRequest) (*pb.GetSecretResponse, error) {
	s, err := find(a, secrets, in.StoreName, a.opts.Capabilities.Secret)
	if err != nil {
		return nil, err
	}
	var values map[string]string
	await(c, func(ctx context.Context) { values, err = s.GetFields(ctx, a.caller, in.Key, in.Metadata) })
	if err != nil {
		return nil, because(err, "error when get secret : secret name => %s,store name =>%s,error => ", in.Key, in.StoreName)
	}
	return &pb.GetSecretResponse{Data: values}, nil
}

func (a *API) getBulkSecret(c *grpc.Call, in *pb.GetBulkSecretRequest) (*pb.GetBulkSecretResponse, error) {
	s, err := find(a, secrets, in.StoreName, a.opts.Capabilities.Secret)
	if err != nil {
		return nil, err
	}
	var all map[string]map[string]string
	await(c, func(ctx context.Context) { all, err = s.GetAll(ctx, a.caller, in.Metadata) })
	if err != nil {
		return nil, because(err, "error when bulk get secret %s: ", in.StoreName)
	}
	out := &pb.GetBulkSecretResponse{Data: make(map[string]pb.SecretResponse, len(all))}
	for name, values := range all {
		out.Data[name] = pb.SecretResponse{Secrets: values}
	}
	return out, nil
}
