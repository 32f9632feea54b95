package layotto

import (
	"context"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/layotto"
	"github.com/loam-run/loam/capability/state"
	"github.com/loam-run/loam/protocol/grpc"
)

// state is a store as the program sees it: its keys have a prefix that it does not know of.
func (a *API) state(name string) (*state.Store, error) {
	return find(a, states, name, func(name string) (*state.Store, error) {
		s, err := a.opts.Capabilities.State(name)
		if err != nil {
			return nil, err
		}
		return s.For(a.app, "")
	})
}

func (a *API) getState(c *grpc.Call, in *pb.GetStateRequest) (*pb.GetStateResponse, error) {
	s, err := a.state(in.StoreName)
	if err != nil {
		return nil, err
	}
	if err := checkKey(in.Key); err != nil {
		return nil, err
	}
	o := state.GetOptions{Eventual: in.Consistency == pb.StateOptions_CONSISTENCY_EVENTUAL, Metadata: in.Metadata}
	var it state.Item
	switch tasked := s.In(c.Task()); {
	case tasked != nil:
		it, err = tasked.GetOne(c.Context(), a.caller, in.Key, o)
	case s.Instant():
		it, err = s.GetOne(c.Task().Context(), a.caller, in.Key, o)
	default:
		await(c, func(ctx context.Context) { it, err = s.GetOne(ctx, a.caller, in.Key, o) })
	}
	if err != nil {
		return nil, because(err, "fail to get %s from state store %s: ", in.Key, in.StoreName)
	}
	return &pb.GetStateResponse{Data: it.Value, Etag: it.ETag}, nil
}

func (a *API) getBulkState(c *grpc.Call, in *pb.GetBulkStateRequest) (*pb.GetBulkStateResponse, error) {
	s, err := a.state(in.StoreName)
	if err != nil {
		return nil, err
	}
	for _, key := range in.Keys {
		if err := checkKey(key); err != nil {
			return nil, err
		}
	}
	out := &pb.GetBulkStateResponse{Items: make([]pb.BulkStateItem, 0, len(in.Keys))}
	read := 0
	await(c, func(ctx context.Context) {
		for keys := in.Keys; len(keys) > 0 && err == nil; keys = keys[min(len(keys), state.MaxOps):] {
			var results []state.Result
			results, err = s.GetBulk(ctx, a.caller, keys[:min(len(keys), state.MaxOps)], int(max(0, in.Parallelism)), state.GetOptions{Metadata: in.Metadata})
			for _, r := range results {
				item := pb.BulkStateItem{Key: r.Item.Key, Data: r.Item.Value, Etag: r.Item.ETag}
				if r.Err != nil {
					item.Error = words(r.Err)
				}
				out.Items = append(out.Items, item)
				read += len(item.Data)
			}
			if err == nil && read > state.MaxRead {
				err = loam.Errorf(loam.ResourceExhausted, "state.Get", "the items have more than %d bytes: ask for fewer at once", state.MaxRead)
			}
		}
	})
	if err == nil {
		err = c.Expect(read + 256*len(out.Items))
	}
	if err != nil {
		return nil, because(err, "fail to get bulk state from state store %s: ", in.StoreName)
	}
	return out, nil
}

// stateOp makes the write that an item asks for.
func stateOp(key string, value []byte, etag *pb.Etag, o *pb.StateOptions, metadata map[string]string, remove bool) (state.Op, error) {
	if err := checkKey(key); err != nil {
		return state.Op{}, err
	}
	op := state.Op{Delete: remove, Key: key, Value: value}
	concurrency, consistency := "", ""
	if o != nil {
		switch o.Concurrency {
		case pb.StateOptions_CONCURRENCY_FIRST_WRITE:
			concurrency = "first-write"
		case pb.StateOptions_CONCURRENCY_LAST_WRITE:
			concurrency = "last-write"
		}
		switch o.Consistency {
		case pb.StateOptions_CONSISTENCY_EVENTUAL:
			consistency = "eventual"
		case pb.StateOptions_CONSISTENCY_STRONG:
			consistency = "strong"
		}
	}
	match := ""
	if etag != nil && etag.Value != "0" {
		match = etag.Value // 0 is no version: Layotto's SDK sends it where the program gave none
	}
	if remove && concurrency == "first-write" {
		concurrency = ""
	}
	if err := op.SetOptions(match, concurrency, consistency, metadata); err != nil {
		return op, because(err, "")
	}
	return op, nil
}

func stateOps(items []pb.StateItem, remove bool) ([]state.Op, error) {
	ops := make([]state.Op, len(items))
	for i := range items {
		it := &items[i]
		var err error
		if ops[i], err = stateOp(it.Key, it.Value, it.Etag, it.Options, it.Metadata, remove); err != nil {
			return nil, err
		}
	}
	return ops, nil
}

// apply does ops, all or none.
func (a *API) apply(c *grpc.Call, s *state.Store, ops []state.Op) (err error) {
	if len(ops) == 0 {
		return nil
	}
	if in := s.In(c.Task()); in != nil {
		_, err = in.Apply(c.Context(), a.caller, ops, nil, nil)
		return err
	}
	await(c, func(ctx context.Context) { _, err = s.Apply(ctx, a.caller, ops, nil, nil) })
	return err
}

func (a *API) saveState(c *grpc.Call, in *pb.SaveStateRequest) (*pb.Empty, error) {
	s, err := a.state(in.StoreName)
	if err != nil {
		return nil, err
	}
	ops, err := stateOps(in.States, false)
	if err != nil {
		return nil, err
	}
	if err := a.apply(c, s, ops); err != nil {
		return nil, because(err, "failed saving state in state store %s: ", in.StoreName)
	}
	return &pb.Empty{}, nil
}

func (a *API) deleteState(c *grpc.Call, in *pb.DeleteStateRequest) (*pb.Empty, error) {
	s, err := a.state(in.StoreName)
	if err != nil {
		return nil, err
	}
	op, err := stateOp(in.Key, nil, in.Etag, in.Options, in.Metadata, true)
	if err != nil {
		return nil, err
	}
	if err := a.apply(c, s, []state.Op{op}); err != nil {
		return nil, because(err, "failed deleting state with key %s: ", in.Key)
	}
	return &pb.Empty{}, nil
}

func (a *API) deleteBulkState(c *grpc.Call, in *pb.DeleteBulkStateRequest) (*pb.Empty, error) {
	s, err := a.state(in.StoreName)
	if err != nil {
		return nil, err
	}
	ops, err := stateOps(in.States, true)
	if err != nil {
		return nil, err
	}
	if err := a.apply(c, s, ops); err != nil {
		return nil, because(err, "failed deleting state in state store %s: ", in.StoreName)
	}
	return &pb.Empty{}, nil
}

func (a *API) executeStateTransaction(c *grpc.Call, in *pb.ExecuteStateTransactionRequest) (*pb.Empty, error) {
	s, err := a.state(in.StoreName)
	if err != nil {
		return nil, err
	}
	if s.MaxTransaction() == 0 {
		return nil, fail(loam.Unimplemented, "state store %s doesn't support transaction", in.StoreName)
	}
	ops := make([]state.Op, 0, len(in.Operations))
	for i := range in.Operations {
		o := &in.Operations[i]
		if o.OperationType != "upsert" && o.OperationType != "delete" {
			return nil, fail(loam.Unimplemented, "operation type %s not supported", o.OperationType)
		}
		it := o.Request
		if it == nil {
			return nil, invalid("operation %d has no request", i)
		}
		op, err := stateOp(it.Key, it.Value, it.Etag, it.Options, it.Metadata, o.OperationType == "delete")
		if err != nil {
			return nil, err
		}
		ops = append(ops, op)
	}
	if err := a.apply(c, s, ops); err != nil {
		return nil, because(err, "error while executing state transaction: ")
	}
	return &pb.Empty{}, nil
}
