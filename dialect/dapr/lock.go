package dapr

import (
	"cmp"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/keys"
	"github.com/loam-run/loam/capability/lock"
)

// locker checks what both calls have and finds the component.
func (a *API) locker(store, resource, owner string) (*lock.Locker, error) {
	if resource == "" {
		return nil, errMalformed.failure("ResourceId is empty in lock store %s", store)
	}
	if owner == "" {
		return nil, errMalformed.failure("LockOwner is empty in lock store %s", store)
	}
	l, err := a.opts.Capabilities.Lock(store)
	if err != nil {
		f := a.missing("lock", err, errLockNotConfigured, errLockNotFound, "lock store "+store, nil)
		switch {
		case f.tag == errLockNotFound.tag:
			f.message = "lock store " + store + " not found"
		case f.code != loam.Unavailable:
			f.message = "lock store is not configured"
		}
		return nil, f
	}
	return l.For("lock"+keys.Separator, a.opts.App.ID, a.settings.Namespace)
}

func (a *API) tryLock(req *loam.Request, store, resource, owner string, seconds int32) (bool, error) {
	if seconds <= 0 {
		return false, errMalformed.failure("ExpiryInSeconds is not positive in lock store %s", store)
	}
	l, err := a.locker(store, resource, owner)
	ok := false
	if err == nil {
		await(req, func() {
			ok, err = l.TryLock(req.Context(), a.opts.App.Caller, resource, owner, time.Duration(seconds)*time.Second)
		})
	}
	if f, is := errors.AsType[*failure](err); is {
		return false, f
	}
	if err != nil {
		return false, errTryLock.caused(err, "failed to try acquiring lock: %s", words(err))
	}
	return ok, nil
}

func (a *API) unlock(req *loam.Request, store, resource, owner string) (lock.Status, error) {
	l, err := a.locker(store, resource, owner)
	if err == nil {
		await(req, func() { err = l.Unlock(req.Context(), a.opts.App.Caller, resource, owner) })
	}
	status := lock.StatusOf(err)
	if f, is := errors.AsType[*failure](err); is {
		return status, f
	}
	if status == lock.InternalError {
		return status, errUnlock.caused(err, "failed to release lock: %s", words(err))
	}
	return status, nil
}

// jsonLock is the body of both requests. Protobuf's JSON allows either spelling of a name.
type jsonLock struct {
	Resource  string `json:"resourceId"`
	Resource2 string `json:"resource_id"`
	Owner     string `json:"lockOwner"`
	Owner2    string `json:"lock_owner"`
	Expiry    number `json:"expiryInSeconds"`
	Expiry2   number `json:"expiry_in_seconds"`
}

// number is an integer as protobuf's JSON has it: a number, or one in a string.
type number int32

// UnmarshalJSON reads it.
func (n *number) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseInt(strings.Trim(string(b), `"`), 10, 32)
	if string(b) == "null" {
		return nil
	}
	*n = number(v)
	return err
}

func (c *call) tryLock() error {
	var in jsonLock
	if err := c.decodeProto(&in); err != nil {
		return err
	}
	ok, err := c.api.tryLock(c.Request, c.params[0], cmp.Or(in.Resource, in.Resource2), cmp.Or(in.Owner, in.Owner2), int32(cmp.Or(in.Expiry, in.Expiry2)))
	if err != nil {
		return err
	}
	c.json(200, strconv.AppendBool([]byte(`{"success":`), ok))
	c.answer.data = append(c.answer.data, '}')
	c.answer.Length++
	return nil
}

func (c *call) unlock() error {
	var in jsonLock
	if err := c.decodeProto(&in); err != nil {
		return err
	}
	status, err := c.api.unlock(c.Request, c.params[0], cmp.Or(in.Resource, in.Resource2), cmp.Or(in.Owner, in.Owner2))
	if err != nil {
		return err
	}
	c.json(200, []byte(`{"status":`+strconv.Itoa(int(status))+`}`))
	return nil
}

// decodeProto reads a body that Dapr reads as protobuf's JSON: an empty one is an empty message.
func (c *call) decodeProto(into any) error {
	body, err := c.readBody()
	if err != nil || len(body) == 0 {
		return err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return errMalformed.failure("failed deserializing HTTP body: %v", err)
	}
	return nil
}
