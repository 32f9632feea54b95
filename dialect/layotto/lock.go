package layotto

import (
	"context"
	"time"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/layotto"
	"github.com/loam-run/loam/capability/lock"
	"github.com/loam-run/loam/capability/sequence"
	"github.com/loam-run/loam/protocol/grpc"
)

func (a *API) lock(store, resource, owner string) (*lock.Locker, error) {
	l, err := find(a, locks, store, func(name string) (*lock.Locker, error) {
		l, err := a.opts.Capabilities.Lock(name)
		if err != nil {
			return nil, err
		}
		return l.For("lock|||", a.app, "")
	})
	switch {
	case loam.CodeOf(err) == loam.FailedPrecondition:
		return nil, err // there is no lock store at all: Layotto says so before it looks at anything
	case resource == "":
		return nil, invalid("ResourceId is empty in lock store %s", store)
	case owner == "":
		return nil, invalid("LockOwner is empty in lock store %s", store)
	case err != nil:
		return nil, err
	}
	return l, checkKey(resource)
}

func lease(store string, seconds int32) (time.Duration, error) {
	if seconds <= 0 {
		return 0, invalid("Expire is not positive in lock store %s", store)
	}
	return time.Duration(seconds) * time.Second, nil
}

func (a *API) tryLock(c *grpc.Call, in *pb.TryLockRequest) (*pb.TryLockResponse, error) {
	l, err := a.lock(in.StoreName, in.ResourceId, in.LockOwner)
	if err != nil {
		return nil, err
	}
	ttl, err := lease(in.StoreName, in.Expire)
	if err != nil {
		return nil, err
	}
	var got bool
	await(c, func(ctx context.Context) { got, err = l.TryLock(ctx, a.caller, in.ResourceId, in.LockOwner, ttl) })
	if err != nil {
		return nil, because(err, "")
	}
	return &pb.TryLockResponse{Success: got}, nil
}

func (a *API) unlock(c *grpc.Call, in *pb.UnlockRequest) (*pb.UnlockResponse, error) {
	l, err := a.lock(in.StoreName, in.ResourceId, in.LockOwner)
	if err != nil {
		return nil, err
	}
	await(c, func(ctx context.Context) { err = l.Unlock(ctx, a.caller, in.ResourceId, in.LockOwner) })
	status := lock.StatusOf(err)
	if status == lock.InternalError {
		return nil, because(err, "")
	}
	return &pb.UnlockResponse{Status: pb.UnlockResponse_Status(status)}, nil // the numbers are the same
}

func (a *API) lockKeepAlive(c *grpc.Call, in *pb.LockKeepAliveRequest) (*pb.LockKeepAliveResponse, error) {
	l, err := a.lock(in.StoreName, in.ResourceId, in.LockOwner)
	if err != nil {
		return nil, err
	}
	ttl, err := lease(in.StoreName, in.Expire)
	if err != nil {
		return nil, err
	}
	await(c, func(ctx context.Context) { err = l.Renew(ctx, a.caller, in.ResourceId, in.LockOwner, ttl) })
	status := lock.StatusOf(err)
	if status == lock.InternalError {
		return nil, because(err, "")
	}
	return &pb.LockKeepAliveResponse{Status: pb.LockKeepAliveResponse_Status(status)}, nil
}

func (a *API) getNextID(c *grpc.Call, in *pb.GetNextIdRequest) (*pb.GetNextIdResponse, error) {
	s, err := find(a, sequences, in.StoreName, func(name string) (*sequence.Sequence, error) {
		s, err := a.opts.Capabilities.Sequence(name)
		if err != nil {
			return nil, err
		}
		return s.For("sequencer|||", a.app, "")
	})
	switch {
	case loam.CodeOf(err) == loam.FailedPrecondition:
		return nil, err
	case in.Key == "":
		return nil, invalid("Key is empty in sequencer store %s", in.StoreName)
	case err != nil:
		return nil, err
	case in.Options != nil && in.Options.Increment != pb.SequencerOptions_WEAK && in.Options.Increment != pb.SequencerOptions_STRONG:
		return nil, invalid("Options.Increment is illegal.")
	}
	if err := checkKey(in.Key); err != nil {
		return nil, err
	}
	number := s.NextWeak
	if in.Options != nil && in.Options.Increment == pb.SequencerOptions_STRONG {
		number = s.Next
	}
	var next int64
	await(c, func(ctx context.Context) { next, err = number(ctx, a.caller, in.Key, 1) })
	if err != nil {
		return nil, because(err, "")
	}
	return &pb.GetNextIdResponse{NextId: next}, nil
}
