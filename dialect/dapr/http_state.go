package dapr

import (
	"context"
	"encoding/json"
	"net/http"
	"unicode/utf8"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
)

// getState answers one value, as it was saved.
func (c *call) getState() error {
	s, err := c.api.state(c.params[0])
	if err != nil {
		return err
	}
	it, err := c.api.getOne(c.Request, &s, c.params[1], c.query("consistency"), c.metadata())
	if err != nil {
		return err
	}
	if it.ETag == "" {
		c.empty()
		return nil
	}
	c.answer.Header.Add("ETag", it.ETag)
	if !it.Expires.IsZero() {
		c.answer.Header.Add(metadataPrefix+ttlExpireTime, expiry(it.Expires))
	}
	c.json(http.StatusOK, it.Value)
	return nil
}

func (j *jsonItem) item(metadata map[string]string) stateItem {
	it := stateItem{key: j.Key, value: j.Value, concurrency: j.Options.Concurrency, consistency: j.Options.Consistency, metadata: merge(j.Metadata, metadata)}
	if j.ETag != nil {
		it.etag = *j.ETag
	}
	if it.value == nil {
		it.value = []byte("null")
	}
	return it
}

// merge puts what a query string says over what a body says.
func merge(body, query map[string]string) map[string]string {
	if body == nil {
		return query
	}
	for k, v := range query {
		body[k] = v
	}
	return body
}

// saveState writes items, each by itself.
func (c *call) saveState() error {
	s, err := c.api.state(c.params[0])
	if err != nil {
		return err
	}
	body, err := c.readBody()
	if err != nil {
		return err
	}
	in, err := parseItems(body)
	if err != nil {
		return errMalformed.failure("%s", err)
	}
	metadata := c.metadata()
	items := make([]stateItem, len(in))
	for i := range in {
		if in[i].Key == "" {
			return errMalformed.failure(`"key" is a required field`)
		}
		items[i] = in[i].item(metadata)
	}
	if err := c.api.save(c.Request, &s, items); err != nil {
		return err
	}
	c.empty()
	return nil
}

// deleteState deletes one item.
func (c *call) deleteState() error {
	s, err := c.api.state(c.params[0])
	if err != nil {
		return err
	}
	it := stateItem{key: c.params[1], etag: c.Header.Get("If-Match"), concurrency: c.query("concurrency"), consistency: c.query("consistency"), metadata: c.metadata()}
	if err := c.api.remove(c.Request, &s, []stateItem{it}, false); err != nil {
		return err
	}
	c.empty()
	return nil
}

// bulkGetState answers several values. One that is no JSON is sent as a string; one that is no text either, in base64.
func (c *call) bulkGetState() error {
	s, err := c.api.state(c.params[0])
	if err != nil {
		return err
	}
	var req struct {
		Keys        []string          `json:"keys"`
		Metadata    map[string]string `json:"metadata"`
		Parallelism int               `json:"parallelism"`
	}
	if err := c.decode(&req); err != nil {
		return err
	}
	type item struct {
		Key      string            `json:"key"`
		Data     json.RawMessage   `json:"data,omitempty"`
		ETag     *string           `json:"etag,omitempty"`
		Metadata map[string]string `json:"metadata,omitempty"`
		Error    string            `json:"error,omitempty"`
	}
	out := make([]item, len(req.Keys))
	results, err := c.api.getBulk(c.Request, &s, req.Keys, req.Parallelism, merge(req.Metadata, c.metadata()))
	if err != nil {
		return err
	}
	size := 0
	for i := range results {
		size += len(results[i].Item.Value)
	}
	if err := c.hold(c.held + 2*size); err != nil { // as it is made, it is there twice
		return err
	}
	for i := range results {
		r := &results[i]
		out[i].Key = r.Item.Key
		switch {
		case r.Err != nil:
			out[i].Error = stateWords(r.Err)
		case r.Item.ETag != "":
			out[i].Data, out[i].ETag = asJSON(r.Item.Value), &r.Item.ETag
			if !r.Item.Expires.IsZero() {
				out[i].Metadata = map[string]string{ttlExpireTime: expiry(r.Item.Expires)}
			}
		}
	}
	if size > protocol.Free { // it takes too long for others to wait
		c.await(func() { err = c.encode(out) })
		return err
	}
	return c.encode(out)
}

// asJSON is a value as a member of a JSON object.
func asJSON(value []byte) json.RawMessage {
	if json.Valid(value) {
		return value
	}
	var b []byte
	if utf8.Valid(value) {
		b, _ = json.Marshal(string(value)) // it is a string
	} else {
		b, _ = json.Marshal(value) // bytes become base64
	}
	return b
}

// decode reads a JSON body.
func (c *call) decode(into any) error {
	body, err := c.readBody()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return errMalformed.failure("failed deserializing HTTP body: %v", err)
	}
	return nil
}

// encode answers with JSON.
func (c *call) encode(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return errGeneric.failure("%s", err)
	}
	c.json(http.StatusOK, append(b, '\n'))
	return nil
}

func (c *call) transactState() error {
	s, err := c.api.state(c.params[0])
	if err != nil {
		return err
	}
	var req struct {
		Operations []struct {
			Operation string          `json:"operation"`
			Request   json.RawMessage `json:"request"`
		} `json:"operations"`
		Metadata map[string]string `json:"metadata"`
	}
	if err := c.decode(&req); err != nil {
		return err
	}
	if len(req.Operations) == 0 {
		c.empty()
		return nil
	}
	query := c.metadata()
	ops := make([]stateWrite, len(req.Operations))
	for i, o := range req.Operations {
		var j jsonItem
		switch o.Operation {
		case "upsert":
		case "delete":
			ops[i].remove = true
		default:
			return errStateOperation.failure("operation type %s not supported", o.Operation)
		}
		if err := json.Unmarshal(o.Request, &j); err != nil {
			return errMalformed.failure("failed deserializing HTTP body: %v", err)
		}
		ops[i].stateItem = j.item(query)
	}
	if err := c.api.transact(c.Request, &s, ops); err != nil {
		return err
	}
	c.empty()
	return nil
}

// queryState answers the items that a query selects.
func (c *call) queryState() error {
	s, err := c.api.state(c.params[0])
	if err != nil {
		return err
	}
	body, err := c.readBody()
	if err != nil {
		return err
	}
	page, err := c.api.query(c.Request, &s, body)
	if err != nil {
		return err
	}
	if len(page.Items) == 0 {
		c.empty()
		return nil
	}
	type item struct {
		Key  string          `json:"key"`
		Data json.RawMessage `json:"data"`
		ETag string          `json:"etag,omitempty"`
	}
	var out struct {
		Results []item `json:"results"`
		Token   string `json:"token,omitempty"`
	}
	out.Token = page.Token
	for _, it := range page.Items {
		out.Results = append(out.Results, item{it.Key, asJSON(it.Value), it.ETag})
	}
	return c.encode(out)
}

func await(req *loam.Request, fn func()) {
	req.Context() // made here: it belongs to the task
	req.Task().Await(fn)
}

// awaitUnless is await, unless what fn calls never waits.
func awaitUnless(instant bool, req *loam.Request, fn func(ctx context.Context)) {
	if instant {
		fn(context.Background())
		return
	}
	await(req, func() { fn(req.Context()) })
}

func (c *call) await(fn func()) { await(c.Request, fn) }
