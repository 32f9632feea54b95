package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/state"
)

// OverState keeps jobs in a state store that can list keys. A job is two items, written in one transaction: the record
// under its owner and name, and an empty one under its owner and time, which is the order they are due in. The store must
// be this process's alone: Changed does not tell what others write.
func OverState(d state.Driver) (Driver, error) {
	l, ok := d.(state.Lister)
	if !ok {
		return nil, loam.Errorf(loam.FailedPrecondition, "jobs", "a state store that cannot list keys cannot keep jobs")
	}
	return &overState{driver: d, list: l, changed: make(chan struct{})}, nil
}

type overState struct {
	driver state.Driver
	list   state.Lister

	mu      sync.Mutex
	changed chan struct{}
}

// Owners and names have no NUL in them, times are of one length.
func recordKey(owner, name string) string { return "job/" + owner + "\x00" + name }
func dueKey(r *Record) string             { return duePrefix(r.Owner) + dueTime(r.Next) + "\x00" + r.Name }
func duePrefix(owner string) string       { return "due/" + owner + "\x00" }
func dueTime(t time.Time) string          { return fmt.Sprintf("%020d", max(0, t.UnixNano())) }

func (o *overState) Close() error { return o.driver.Close() }

func (o *overState) Changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changed
}

func (o *overState) wrote() {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *overState) Put(ctx context.Context, r Record, overwrite bool) error {
	for {
		old, err := o.Get(ctx, r.Owner, r.Name)
		var there *Record
		switch {
		case err == nil && !overwrite:
			return loam.Errorf(loam.AlreadyExists, "", "there is a job of that name")
		case err == nil:
			there = &old
		case loam.CodeOf(err) != loam.NotFound:
			return err
		}
		err = o.write(ctx, there, &r)
		if c := loam.CodeOf(err); c != loam.Aborted && c != loam.AlreadyExists { // else somebody was faster: look again
			return err
		}
	}
}

func (o *overState) Replace(ctx context.Context, old Record, next *Record) error {
	return o.write(ctx, &old, next)
}

// write puts next where old was, either of which may be nil.
func (o *overState) write(ctx context.Context, old, next *Record) error {
	var ops []state.Op
	if old != nil {
		ops = append(ops, state.Op{Key: recordKey(old.Owner, old.Name), IfMatch: old.Version, Delete: true})
	}
	if next != nil {
		value, err := json.Marshal(next)
		if err != nil {
			return err
		}
		op := state.Op{Key: recordKey(next.Owner, next.Name), Value: value, IfAbsent: true}
		if old != nil {
			op.IfMatch, op.IfAbsent, ops = old.Version, false, ops[:0]
		}
		ops = append(ops, op)
	}
	switch {
	case old != nil && next != nil && dueKey(old) == dueKey(next):
	case old != nil:
		ops = append(ops, state.Op{Key: dueKey(old), Delete: true})
		fallthrough
	default:
		if next != nil {
			ops = append(ops, state.Op{Key: dueKey(next)})
		}
	}
	if _, err := o.driver.Apply(ctx, ops); err != nil {
		return err
	}
	o.wrote()
	return nil
}

func (o *overState) Get(ctx context.Context, owner, name string) (Record, error) {
	items, err := o.driver.Get(ctx, []string{recordKey(owner, name)})
	if err != nil {
		return Record{}, err
	}
	if items[0].ETag == "" {
		return Record{}, loam.Errorf(loam.NotFound, "", "there is no job of that name")
	}
	return decode(items[0])
}

func (o *overState) List(ctx context.Context, owner, prefix, after string, limit int) ([]Record, error) {
	if after != "" {
		after = recordKey(owner, after)
	}
	items, err := o.list.List(ctx, recordKey(owner, prefix), after, limit)
	if err != nil {
		return nil, err
	}
	return decodeAll(items)
}

func (o *overState) Due(ctx context.Context, owner string, limit int) ([]Record, error) {
	prefix := duePrefix(owner)
	items, err := o.list.List(ctx, prefix, "", limit)
	if err != nil || len(items) == 0 {
		return nil, err
	}
	keys := make([]string, len(items))
	for i, it := range items {
		_, name, _ := strings.Cut(it.Key[len(prefix):], "\x00")
		keys[i] = recordKey(owner, name)
	}
	if items, err = o.driver.Get(ctx, keys); err != nil {
		return nil, err
	}
	return decodeAll(items)
}

func decodeAll(items []state.Item) ([]Record, error) {
	records := make([]Record, 0, len(items))
	for _, it := range items {
		if it.ETag == "" {
			continue // deleted since
		}
		r, err := decode(it)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, nil
}

func decode(it state.Item) (Record, error) {
	var r Record
	if err := json.Unmarshal(it.Value, &r); err != nil {
		return r, &loam.Error{Code: loam.DataLoss, Err: errors.Join(errors.New("a job cannot be read"), err)}
	}
	r.Version = it.ETag
	return r, nil
}
