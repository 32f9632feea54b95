//go:build !wasip1

package loam

import (
	"bytes"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/loam-run/loam/sdk/go/internal/api"
)

// A Fake stands in for Loam in a unit test: every capability, in memory, for one component of each; grants and leases
// that end are not part of it. One Fake is in use at a time.
type Fake struct {
	Config    map[string]string         // what config.Get finds
	Secrets   map[string]string         // what secret.Get finds
	Published []Event                   // in the order they came
	Fail      func(method string) error // called before each capability call; an error is its answer
	// Invoke answers what Invoke asks, Fetch what Fetch does; nil: nobody answers.
	Invoke func(target, path string, o Outgoing) (*Response, error)
	Fetch  func(url string, o Outgoing) (*Response, error)
	// Bind answers what Binding.Invoke asks; nil: there is no binding.
	Bind  func(component, operation string, data []byte, metadata map[string]string) ([]byte, map[string]string, error)
	Files map[string][]byte // what File has
	Jobs  map[string]Job    // that were scheduled; RunJob brings one

	state    map[string]Item
	files    map[string]FileInfo // of Files, what was said of them
	locks    map[string]string
	sequence map[string]int64
	etag     int64

	head     []byte
	body     []byte
	response Response
	result   []byte
}

var current atomic.Pointer[Fake]

// NewFake puts a Fake in Loam's place until the test ends; t is a *testing.T.
func NewFake(t interface{ Cleanup(func()) }) *Fake {
	f := &Fake{
		Config: map[string]string{}, Secrets: map[string]string{}, Files: map[string][]byte{}, Jobs: map[string]Job{},
		state: map[string]Item{}, files: map[string]FileInfo{}, locks: map[string]string{}, sequence: map[string]int64{},
	}
	before := current.Swap(f)
	t.Cleanup(func() { current.Store(before) })
	return f
}

// Serve answers a request by the handlers registered, through the same messages as in Loam. target is a path with an
// optional query; header is name, value, name, value….
func (f *Fake) Serve(method, target string, body []byte, header ...string) *Response {
	path, query, _ := strings.Cut(target, "?")
	head := api.RequestHead{Method: method, Scheme: "http", Authority: "localhost", Path: path, Query: query, Id: "test", Length: int64(len(body))}
	for i := 0; i+1 < len(header); i += 2 {
		head.Headers = append(head.Headers, api.Header{Name: header[i], Value: header[i+1]})
	}
	f.head, f.body, f.response = head.AppendProto(nil), body, Response{}
	serve()
	r := f.response
	return &r
}

// Deliver hands an event to the handler at path. It is true where the event is done with: handled or dropped.
func (f *Fake) Deliver(path string, e Event) bool {
	header := []string{
		"ce-specversion", "1.0", "ce-id", e.ID, "ce-source", e.Source, "ce-type", e.Type, "ce-subject", e.Subject,
		"ce-topic", e.Topic, "ce-time", e.Time.Format(time.RFC3339Nano), "Content-Type", e.ContentType,
	}
	for k, v := range e.Attributes {
		header = append(header, "ce-"+k, v)
	}
	status := f.Serve("POST", path, e.Data, header...).Status
	return status < 300 || status == 404
}

// RunJob brings the handlers a job that was scheduled, as if it were due. It is true where the run is done with.
func (f *Fake) RunJob(name string) bool {
	job := f.Jobs[name]
	contentType := job.ContentType
	if contentType == "" {
		contentType = "application/octet-stream"
	}
	status := f.Serve("POST", (&url.URL{Path: "/job/" + name}).EscapedPath(), job.Data, "Content-Type", contentType).Status
	return status < 300 || status == 404
}

func mustFake() *Fake {
	if f := current.Load(); f != nil {
		return f
	}
	panic("loam: this is not inside Loam; in a test, call loam.NewFake(t) first")
}

func hostRequestHead(b []byte) int {
	f := mustFake()
	if len(f.head) <= len(b) {
		copy(b, f.head)
	}
	return len(f.head)
}

func hostRequestBody(b []byte) int {
	f := mustFake()
	n := copy(b, f.body)
	f.body = f.body[n:]
	return n
}

func hostResponseHead(b []byte) {
	var head api.ResponseHead
	if err := head.ParseProto(slices.Clone(b)); err != nil {
		panic(err)
	}
	f := mustFake()
	f.response.Status = int(head.Status)
	if head.Status == 0 {
		f.response.Status = 200
	}
	for _, h := range head.Headers {
		f.response.Header.Add(h.Name, h.Value)
	}
}

func hostResponseBody(b []byte) int {
	f := mustFake()
	f.response.Body = append(f.response.Body, b...)
	return 0
}

func hostCall(method string, in, out []byte) uint64 {
	f := mustFake()
	resp, err := f.call(method, in)
	if err != nil {
		f.result = (&api.Error{Code: uint32(CodeOf(err)), Message: err.Error()}).AppendProto(nil)
	} else {
		f.result = resp.AppendProto(nil)
	}
	if len(f.result) <= len(out) {
		copy(out, f.result)
	}
	return uint64(CodeOf(err))<<32 | uint64(len(f.result))
}

func hostResult(b []byte) int { return copy(b, mustFake().result) }

func (f *Fake) call(method string, in []byte) (message, error) {
	if f.Fail != nil {
		if err := f.Fail(method); err != nil {
			return nil, err
		}
	}
	in = slices.Clone(in) // byte fields stand in it
	switch method {
	case "state.Get":
		return handled(in, new(api.StateGetRequest), f.stateGet)
	case "state.List":
		return handled(in, new(api.StateListRequest), f.stateList)
	case "state.Apply":
		return handled(in, new(api.StateApplyRequest), f.stateApply)
	case "pubsub.Publish":
		return handled(in, new(api.PubsubPublishRequest), func(r *api.PubsubPublishRequest) (message, error) {
			return &api.PubsubPublishResponse{EventIds: f.publish(r.Events)}, nil
		})
	case "lock.TryLock":
		return handled(in, new(api.LockTryLockRequest), func(r *api.LockTryLockRequest) (message, error) {
			holder, held := f.locks[r.Name]
			if !held {
				f.locks[r.Name] = r.Owner
			}
			return &api.LockTryLockResponse{Acquired: !held || holder == r.Owner}, nil
		})
	case "lock.Renew":
		return handled(in, new(api.LockRenewRequest), func(r *api.LockRenewRequest) (message, error) {
			return &api.Empty{}, f.holds(r.Name, r.Owner)
		})
	case "lock.Unlock":
		return handled(in, new(api.LockUnlockRequest), func(r *api.LockUnlockRequest) (message, error) {
			err := f.holds(r.Name, r.Owner)
			if err == nil {
				delete(f.locks, r.Name)
			}
			return &api.Empty{}, err
		})
	case "config.Get":
		return handled(in, new(api.ConfigGetRequest), func(r *api.ConfigGetRequest) (message, error) {
			resp := &api.ConfigGetResponse{}
			for key, value := range f.Config {
				if len(r.Keys) == 0 || slices.Contains(r.Keys, key) {
					resp.Items = append(resp.Items, api.ConfigItem{Key: key, Value: value, Version: "1"})
				}
			}
			slices.SortFunc(resp.Items, func(a, b api.ConfigItem) int { return strings.Compare(a.Key, b.Key) })
			return resp, nil
		})
	case "secret.Get":
		return handled(in, new(api.SecretGetRequest), func(r *api.SecretGetRequest) (message, error) {
			value, ok := f.Secrets[r.Name]
			if !ok {
				return nil, Errorf(NotFound, "secret %q is not there", r.Name)
			}
			return &api.SecretGetResponse{Value: []byte(value)}, nil
		})
	case "invoke.Call":
		return handled(in, new(api.InvokeCallRequest), func(r *api.InvokeCallRequest) (message, error) {
			if f.Invoke == nil {
				return nil, Errorf(NotFound, "there is no function or app %q", r.Target)
			}
			resp, err := f.Invoke(r.Target, r.Path, outgoing(r.Method, r.Headers, r.Body, r.TimeoutMs))
			if err != nil {
				return nil, err
			}
			return &api.InvokeCallResponse{Status: uint32(resp.Status), Headers: resp.Header.toAPI(), Body: resp.Body}, nil
		})
	case "http.Send":
		return handled(in, new(api.HttpSendRequest), func(r *api.HttpSendRequest) (message, error) {
			if f.Fetch == nil {
				return nil, Errorf(PermissionDenied, "%s is not granted", r.Url)
			}
			resp, err := f.Fetch(r.Url, outgoing(r.Method, r.Headers, r.Body, r.TimeoutMs))
			if err != nil {
				return nil, err
			}
			return &api.HttpSendResponse{Status: uint32(resp.Status), Headers: resp.Header.toAPI(), Body: resp.Body}, nil
		})
	case "sequence.Next":
		return handled(in, new(api.SequenceNextRequest), func(r *api.SequenceNextRequest) (message, error) {
			first := f.sequence[r.Key] + 1
			f.sequence[r.Key] += max(r.Count, 1)
			return &api.SequenceNextResponse{First: first}, nil
		})
	case "binding.Invoke":
		return handled(in, new(api.BindingInvokeRequest), func(r *api.BindingInvokeRequest) (message, error) {
			if f.Bind == nil {
				return nil, Errorf(NotFound, "there is no binding component %q", r.Component)
			}
			data, metadata, err := f.Bind(r.Component, r.Operation, r.Data, attributeMap(r.Metadata))
			return &api.BindingInvokeResponse{Data: data, Metadata: attributes(metadata)}, err
		})
	}
	switch capability, _, _ := strings.Cut(method, "."); capability {
	case "crypto":
		return f.crypto(method, in)
	case "file":
		return f.file(method, in)
	case "jobs":
		return f.job(method, in)
	}
	return nil, Errorf(Unimplemented, "no method %s", method)
}

func outgoing(method string, header []api.Header, body []byte, timeoutMs int64) Outgoing {
	return Outgoing{Method: method, Header: headerOf(header), Body: body, Timeout: time.Duration(timeoutMs) * time.Millisecond}
}

// handled decodes a request and hands it on.
func handled[R message](in []byte, req R, do func(R) (message, error)) (message, error) {
	if err := req.ParseProto(slices.Clone(in)); err != nil {
		return nil, Errorf(InvalidArgument, "%w", err)
	}
	return do(req)
}

func (f *Fake) stateGet(r *api.StateGetRequest) (message, error) {
	resp := &api.StateGetResponse{}
	for _, key := range r.Keys {
		item := f.state[key]
		resp.Items = append(resp.Items, api.StateItem{Key: key, Value: item.Value, Etag: item.ETag})
	}
	return resp, nil
}

func (f *Fake) stateList(r *api.StateListRequest) (message, error) {
	resp := &api.StateListResponse{}
	for key, item := range f.state {
		if strings.HasPrefix(key, r.Prefix) && key > r.After {
			resp.Items = append(resp.Items, api.StateItem{Key: key, Value: item.Value, Etag: item.ETag})
		}
	}
	slices.SortFunc(resp.Items, func(a, b api.StateItem) int { return strings.Compare(a.Key, b.Key) })
	if n := int(r.Limit); n > 0 && n < len(resp.Items) {
		resp.Items = resp.Items[:n]
	}
	return resp, nil
}

func (f *Fake) stateApply(r *api.StateApplyRequest) (message, error) {
	for _, op := range r.Ops {
		switch now := f.state[op.Key].ETag; {
		case op.IfAbsent && now != "":
			return nil, Errorf(AlreadyExists, "state %q is there", op.Key)
		case op.IfMatch != "" && op.IfMatch != now:
			return nil, Errorf(Aborted, "state %q has another ETag", op.Key)
		}
	}
	resp := &api.StateApplyResponse{}
	for _, op := range r.Ops {
		etag := ""
		if op.Delete {
			delete(f.state, op.Key)
		} else {
			f.etag++
			etag = strconv.FormatInt(f.etag, 10)
			f.state[op.Key] = Item{Key: op.Key, Value: bytes.Clone(op.Value), ETag: etag}
		}
		resp.Etags = append(resp.Etags, etag)
	}
	resp.EventIds = f.publish(r.Events)
	return resp, nil
}

func (f *Fake) publish(events []api.Publication) (ids []string) {
	for _, p := range events {
		e := Event{ID: p.Id, Source: "test", Type: p.Type, Subject: p.Subject, Topic: p.Topic, Time: time.Now(), ContentType: p.ContentType, Data: p.Data}
		if e.ID == "" {
			e.ID = strconv.Itoa(len(f.Published) + 1)
		}
		if e.Type == "" {
			e.Type = p.Topic
		}
		for _, a := range p.Attributes {
			if e.Attributes == nil {
				e.Attributes = map[string]string{}
			}
			e.Attributes[a.Name] = a.Value
		}
		f.Published = append(f.Published, e)
		ids = append(ids, e.ID)
	}
	return ids
}

func (f *Fake) holds(name, owner string) error {
	switch holder, held := f.locks[name]; {
	case !held:
		return Errorf(NotFound, "nobody holds %q", name)
	case holder != owner:
		return Errorf(PermissionDenied, "%q is held by another", name)
	}
	return nil
}
