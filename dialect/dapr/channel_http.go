package dapr

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/jobs"
	"github.com/loam-run/loam/event"
	"github.com/loam-run/loam/protocol/cloudevents"
)

func randomID() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// post posts to a path of the program and reads what it answers.
func (c *channel) post(ctx context.Context, path, contentType string, body []byte, header loam.Header) (status int, answer []byte, err error) {
	return c.postIn(ctx, nil, path, contentType, body, header)
}

// postIn is post that waits in a task.
func (c *channel) postIn(ctx context.Context, t loam.Task, path, contentType string, body []byte, header loam.Header) (status int, answer []byte, err error) {
	if body == nil {
		body = []byte{}
	}
	if err := c.ready(); err != nil {
		return 0, nil, err
	}
	return c.askCounted(ctx, t, http.MethodPost, path, contentType, body, header)
}

// get sends the program a request without a body and reads what it answers.
func (c *channel) get(ctx context.Context, method, path string, header loam.Header) (status int, answer []byte, err error) {
	if err := c.ready(); err != nil {
		return 0, nil, err
	}
	return c.askCounted(ctx, nil, method, path, "", nil, header)
}

// askCounted is ask of the program as calls of it are counted.
func (c *channel) askCounted(ctx context.Context, t loam.Task, method, path, contentType string, body []byte, header loam.Header) (int, []byte, error) {
	timing := c.settings.Metrics.begin(t)
	status, answer, err := c.ask(ctx, t, c.target, method, path, contentType, body, header)
	if timing.m != nil {
		path, _, _ = strings.Cut(strings.TrimPrefix(path, "/"), "?")
		timing.end(httpClient, method, "/"+path, answered(status, err))
	}
	return status, answer, err
}

// answered is the status of an answer; where there is none, it is counted as daprd does.
func answered(status int, err error) int {
	if err != nil {
		return http.StatusInternalServerError
	}
	return status
}

// ask sends a request and reads what is answered. A nil body is none. It waits in t; nil: in the goroutine that calls.
func (c *channel) ask(ctx context.Context, t loam.Task, target loam.Target, method, path, contentType string, body []byte, header loam.Header) (int, []byte, error) {
	req := loam.NewRequest(ctx)
	defer req.Release()
	if t != nil {
		req.SetTask(t)
	}
	path, query, _ := strings.Cut(strings.TrimPrefix(path, "/"), "?")
	req.Method, req.Path, req.RawQuery, req.ID = method, (&url.URL{Path: "/" + path}).EscapedPath(), query, randomID()
	if !isQuery(query) {
		return 0, nil, loam.Errorf(loam.InvalidArgument, "app", "the query of the path %q", path)
	}
	if contentType != "" {
		req.Header.Add("Content-Type", contentType)
	}
	req.Header = append(req.Header, header...)
	if body != nil {
		req.Body, req.Length = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	c.prepare(req)
	res, err := target.Serve(req)
	if err != nil {
		return 0, nil, err
	}
	status := res.Status
	if status == 0 {
		status = http.StatusOK
	}
	answer, err := readAnswer(res)
	return status, answer, err
}

// jsonSubscription is what a program answers at /dapr/subscribe.
type jsonSubscription struct {
	PubsubName      string            `json:"pubsubname"`
	Topic           string            `json:"topic"`
	DeadLetterTopic string            `json:"deadLetterTopic"`
	Metadata        map[string]string `json:"metadata"`
	Route           string            `json:"route"`
	Routes          struct {
		Rules   []struct{ Match, Path string } `json:"rules"`
		Default string                         `json:"default"`
	} `json:"routes"`
	BulkSubscribe struct {
		Enabled            bool  `json:"enabled"`
		MaxMessagesCount   int32 `json:"maxMessagesCount"`
		MaxAwaitDurationMs int32 `json:"maxAwaitDurationMs"`
	} `json:"bulkSubscribe"`
}

func (c *channel) subscriptionsHTTP(ctx context.Context) ([]event.Subscription, error) {
	const op = "GET /dapr/subscribe"
	status, body, err := c.get(ctx, http.MethodGet, "dapr/subscribe", loam.Header{{Name: "dapr-app-id", Value: c.opts.App.ID}})
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusNotFound:
		return nil, nil
	case status != http.StatusOK:
		return nil, loam.Errorf(loam.Unavailable, op, "the app answered %d", status)
	case len(bytes.TrimSpace(body)) == 0:
		return nil, nil
	}
	var said []jsonSubscription
	if err := json.Unmarshal(body, &said); err != nil {
		return nil, &loam.Error{Code: loam.InvalidArgument, Op: op, Err: fmt.Errorf("error getting topics from app: %w", err), Hint: "answer a list of {pubsubname, topic, route}"}
	}
	if len(said) > maxSubscriptions {
		return nil, loam.Errorf(loam.ResourceExhausted, op, "%d subscriptions, at most %d are taken", len(said), maxSubscriptions)
	}
	var all []event.Subscription
	for _, s := range said {
		sub := event.Subscription{Component: s.PubsubName, Topic: s.Topic, DeadLetter: s.DeadLetterTopic, Metadata: s.Metadata}
		for _, r := range s.Routes.Rules {
			sub.Rules = append(sub.Rules, event.Rule{Match: strings.TrimSpace(r.Match), Path: r.Path})
		}
		if sub.Default = s.Routes.Default; sub.Default == "" {
			sub.Default = s.Route
		}
		if b := s.BulkSubscribe; b.Enabled {
			sub.Bulk = bulk(b.MaxMessagesCount, b.MaxAwaitDurationMs)
		}
		if len(sub.Rules) == 0 && sub.Default == "" {
			c.opts.Log.Error("subscription without a route is left out", "component", s.PubsubName, "topic", s.Topic)
			continue
		}
		if c.take(&sub) {
			all = append(all, sub)
		}
	}
	return all, nil
}

// cloudEventHeader are the fields of a delivery.
func cloudEventHeader(to *event.Subscription, e *loam.Event) loam.Header {
	h := make(loam.Header, 0, 4+len(e.Metadata))
	h = append(h, loam.Field{Name: "pubsubName", Value: to.Component})
	for _, name := range [...]string{"traceparent", "tracestate", "baggage"} {
		if v := e.Attributes[name]; v != "" && isValue(v) {
			h = append(h, loam.Field{Name: name, Value: v})
		}
	}
	return appendMetadata(h, e.Metadata)
}

// appendMetadata adds metadata as fields, where a header can hold it.
func appendMetadata(h loam.Header, metadata map[string]string) loam.Header {
	for name, value := range metadata {
		if isToken(name) && isValue(value) && !ofConnection(name) && !strings.EqualFold(name, "content-length") && !strings.EqualFold(name, "content-type") &&
			!strings.EqualFold(name, "host") && !h.Has(name) {
			h = append(h, loam.Field{Name: name, Value: value})
		}
	}
	slices.SortStableFunc(h, func(a, b loam.Field) int { return strings.Compare(a.Name, b.Name) })
	return h
}

func (c *channel) deliverHTTP(ctx context.Context, t loam.Task, to *event.Subscription, path string, e *loam.Event) error {
	full := enveloped(e)
	body := cloudevents.Append(nil, &full, to.Component)
	if full.Raw = e.Raw; e.Raw {
		body = event.Envelope(&full, to.Component) // an object without an envelope is handed on as it is
	}
	status, answer, err := c.postIn(ctx, t, path, cloudevents.ContentType, body, cloudEventHeader(to, e))
	if err != nil {
		return err
	}
	switch {
	case status == http.StatusNotFound:
		return dropped{loam.Errorf(loam.NotFound, "deliver", "the app has no route %q", path)}
	case status < 200 || status > 299:
		return loam.Errorf(loam.Unavailable, "deliver", "the app answered %d: %s", status, short(answer))
	}
	var verdict struct{ Status string }
	if json.Unmarshal(answer, &verdict) != nil {
		return nil // what is no JSON, or has a status of another type, says nothing
	}
	return outcome(verdict.Status)
}

// outcome is what a program's word for an event means.
func outcome(status string) error {
	switch status {
	case "", "SUCCESS":
		return nil
	case "DROP":
		return dropped{loam.Errorf(loam.Aborted, "deliver", "the app answered DROP")}
	}
	return loam.Errorf(loam.Unavailable, "deliver", "the app answered %q", short([]byte(status)))
}

func short(b []byte) string {
	const most = 200
	if len(b) > most {
		b = append(b[:most:most], "…"...)
	}
	return strings.ToValidUTF8(strings.TrimSpace(string(b)), "\uFFFD")
}

// bulkEntry is one event among several.
type bulkEntry struct {
	EntryID     string            `json:"entryId"`
	Event       json.RawMessage   `json:"event"`
	Metadata    map[string]string `json:"metadata"`
	ContentType string            `json:"contentType,omitempty"`
}

// entryID names an event among those that come together. Two may have one id: the number tells them apart.
func entryID(e *loam.Event, i int) string {
	if e.ID == "" {
		return fmt.Sprint(i)
	}
	return fmt.Sprintf("%s#%d", e.ID, i)
}

func (c *channel) deliverBulkHTTP(ctx context.Context, to *event.Subscription, path string, events []loam.Event) []error {
	errs := make([]error, len(events))
	all := func(err error) []error {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	var envelope struct {
		ID       string            `json:"id"`
		Type     string            `json:"type"`
		Topic    string            `json:"topic"`
		Pubsub   string            `json:"pubsubname"`
		Metadata map[string]string `json:"metadata"`
		Entries  []bulkEntry       `json:"entries"`
	}
	envelope.ID, envelope.Type, envelope.Topic, envelope.Pubsub = randomID(), bulkType, to.Topic, to.Component
	envelope.Metadata = map[string]string{"pubsubName": to.Component}
	for i := range events {
		e := &events[i]
		entry := bulkEntry{EntryID: entryID(e, i), Metadata: e.Metadata}
		if e.Raw || to.Raw {
			entry.ContentType = rawType(e)
			entry.Event, _ = json.Marshal(e.Data) // bytes, in base64
		} else {
			full := enveloped(e)
			entry.ContentType, entry.Event = cloudevents.ContentType, cloudevents.Append(nil, &full, to.Component)
		}
		envelope.Entries = append(envelope.Entries, entry)
	}
	body, err := json.Marshal(envelope)
	if err != nil {
		return all(&loam.Error{Code: loam.Internal, Op: "deliver", Err: err})
	}
	status, answer, err := c.post(ctx, path, "application/json", body, loam.Header{{Name: "pubsubName", Value: to.Component}})
	switch {
	case err != nil:
		return all(err)
	case status == http.StatusNotFound:
		return all(dropped{loam.Errorf(loam.NotFound, "deliver", "the app has no route %q", path)})
	case status < 200 || status > 299:
		return all(loam.Errorf(loam.Unavailable, "deliver", "the app answered %d: %s", status, short(answer)))
	}
	var said struct {
		Statuses []struct {
			EntryID string `json:"entryId"`
			Status  string `json:"status"`
		} `json:"statuses"`
	}
	if err := json.Unmarshal(answer, &said); err != nil {
		return all(loam.Errorf(loam.Unavailable, "deliver", "failed unmarshalling app response for bulk subscribe: %w", err))
	}
	statuses := make(map[string]string, len(said.Statuses))
	for _, s := range said.Statuses {
		statuses[s.EntryID] = s.Status
	}
	for i := range events {
		status, ok := statuses[envelope.Entries[i].EntryID]
		switch {
		case !ok || status == "":
			errs[i] = errSilent
		default:
			errs[i] = outcome(status)
		}
	}
	return errs
}

var errSilent = loam.Errorf(loam.Unavailable, "deliver", "the app said nothing of this one of several events")

// rawType is the content type of an event without an envelope.
func rawType(e *loam.Event) string {
	if e.ContentType == "" {
		return "application/octet-stream"
	}
	return e.ContentType
}

const bulkType = "com.dapr.event.sent.bulk"

func (c *channel) bindingHTTP(ctx context.Context, route string) (bool, error) {
	status, _, err := c.get(ctx, http.MethodOptions, route, nil)
	if err != nil {
		return false, fmt.Errorf("OPTIONS of the input binding's route %q: %w", route, err)
	}
	return status/100 == 2 || status == http.StatusMethodNotAllowed, nil
}

func (c *channel) readHTTP(ctx context.Context, route string, data []byte, metadata map[string]string) ([]byte, *bindingAnswer, error) {
	status, body, err := c.post(ctx, route, "application/json", data, appendMetadata(nil, metadata))
	if err != nil {
		return nil, nil, err
	}
	if status < 200 || status > 299 {
		return nil, nil, loam.Errorf(loam.Unavailable, "binding", "the app answered %d: %s", status, short(body))
	}
	var answer bindingAnswer
	if json.Unmarshal(body, &answer) != nil {
		return body, nil, nil // an answer of the program's own, for who reads it
	}
	return body, &answer, nil
}

func (c *channel) jobHTTP(ctx context.Context, job jobs.Job) error {
	data, err := jobData(job)
	if err != nil {
		return &loam.Error{Code: loam.DataLoss, Op: "job", Err: err}
	}
	status, body, err := c.post(ctx, "job/"+job.Name, "application/json", data, nil)
	if err == nil && (status < 200 || status > 299) {
		err = loam.Errorf(codeOfStatus(status), "job", "the app answered %d: %s", status, short(body))
	}
	return err
}

func (c *channel) healthyHTTP(ctx context.Context) error {
	path := "/healthz"
	if c.settings.Health != nil && c.settings.Health.Path != "" {
		path = c.settings.Health.Path
	}
	timing := c.settings.Metrics.begin(nil)
	status, _, err := c.ask(ctx, nil, c.direct, http.MethodGet, path, "", nil, nil)
	timing.end(httpProbes, "", "", answered(status, err))
	if err == nil && (status < 200 || status > 299) {
		err = loam.Errorf(loam.Unavailable, "health", "the app answered %d", status)
	}
	return err
}
