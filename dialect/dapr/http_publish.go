package dapr

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"mime"
	"strings"

	"github.com/loam-run/loam/protocol/cloudevents"
)

// publish publishes the body.
func (c *call) publish() error {
	metadata := c.metadata()
	p, err := c.api.publication(c.params[0], c.params[1], metadata, traceOf(c.Header))
	if err != nil {
		return err
	}
	body, err := c.readBody()
	if err != nil {
		return err
	}
	e, err := p.event(body, strings.Clone(c.Header.Get("Content-Type")), metadata)
	if err != nil {
		return err
	}
	if err := p.publish(c.Request, e); err != nil {
		return err
	}
	c.empty()
	return nil
}

// bulkPublish publishes several messages, all or none.
func (c *call) bulkPublish() error {
	p, err := c.api.publication(c.params[0], c.params[1], c.metadata(), traceOf(c.Header))
	if err != nil {
		return err
	}
	body, err := c.readBody()
	if err != nil {
		return err
	}
	var in []struct {
		EntryID     string            `json:"entryId"`
		Event       json.RawMessage   `json:"event"`
		ContentType string            `json:"contentType"`
		Metadata    map[string]string `json:"metadata"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return p.failure(errEventsIn, map[string]string{"appID": c.api.opts.App.ID}, "error when unmarshaling the request for topic %s pubsub %s: %s", p.topic, p.pubsub, err)
	}
	entries := make([]publishEntry, len(in))
	for i := range in {
		data, err := eventBytes(in[i].Event, in[i].ContentType)
		if err != nil {
			return p.failure(errEnvelope, map[string]string{"appID": c.api.opts.App.ID, "error": err.Error()},
				"error when marshalling cloud event envelope for topic %s pubsub %s: %s", p.topic, p.pubsub, err)
		}
		entries[i] = publishEntry{in[i].EntryID, in[i].ContentType, data, in[i].Metadata}
	}
	failed, err := p.publishAll(c.Request, entries)
	if err != nil {
		return err
	}
	if len(failed) == 0 {
		c.empty()
		return nil
	}
	b, err := json.Marshal(map[string]any{"failedEntries": failed, "errorCode": errPublish.tag})
	if err != nil {
		return err
	}
	c.json(errPublish.status, b)
	return nil
}

var errMismatch = errors.New("error: mismatch between contentType and event")

// eventBytes is a bulk entry's event as bytes: JSON as it stands, text, or base64 of what is neither.
func eventBytes(event json.RawMessage, contentType string) ([]byte, error) {
	t, _, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil:
		return nil, errMismatch
	case t == "application/octet-stream":
		var b64 string
		if json.Unmarshal(event, &b64) != nil {
			return nil, errMismatch
		}
		return base64.StdEncoding.DecodeString(b64)
	case strings.HasPrefix(t, "text/"), t == "application/xml":
		var s string
		if json.Unmarshal(event, &s) != nil {
			return nil, errMismatch
		}
		return []byte(s), nil
	case t == "application/json", t == cloudevents.ContentType:
		if event == nil {
			event = []byte("null")
		}
		return event, nil
	}
	return nil, errMismatch
}
