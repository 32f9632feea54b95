package dapr

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/binding"
)

// secrets reads one secret: its values by their names.
func (a *API) secrets(req *loam.Request, store, name string, metadata map[string]string) (m map[string]string, err error) {
	s, err := a.secretStore(store)
	if err != nil {
		return nil, err
	}
	timing := a.settings.Metrics.begin(req.Task())
	await(req, func() { m, err = s.GetFields(req.Context(), a.opts.App.Caller, name, metadata) })
	timing.end(secretCalls, store, "get", succeeded(err))
	if err != nil {
		return nil, secretFailed(store, name, err)
	}
	return m, nil
}

// allSecrets reads all that the program may.
func (a *API) allSecrets(req *loam.Request, store string, metadata map[string]string) (m map[string]map[string]string, err error) {
	s, err := a.secretStore(store)
	if err != nil {
		return nil, err
	}
	timing := a.settings.Metrics.begin(req.Task())
	await(req, func() { m, err = s.GetAll(req.Context(), a.opts.App.Caller, metadata) })
	timing.end(secretCalls, store, "bulk_get", succeeded(err))
	if err != nil {
		return nil, errSecretGet.caused(err, "failed getting secrets from secret store %s: %s", store, words(err))
	}
	return m, nil
}

func secretFailed(store, name string, err error) error {
	if loam.CodeOf(err) == loam.PermissionDenied {
		return errSecretDenied.failure("access denied by policy to get %q from %q", name, store)
	}
	f := errSecretGet.caused(err, "failed getting secret with key %s from secret store %s: %s", name, store, words(err))
	f.status = http.StatusInternalServerError // as Dapr answers, be it that there is none of that name
	return f
}

func (c *call) getSecret() error {
	m, err := c.api.secrets(c.Request, c.params[0], c.params[1], c.metadata())
	if err != nil {
		return err
	}
	return c.encode(m)
}

// bulkGetSecret answers all secrets that the program may read.
func (c *call) bulkGetSecret() error {
	m, err := c.api.allSecrets(c.Request, c.params[0], c.metadata())
	if err != nil {
		return err
	}
	return c.encode(m)
}

// invokeBinding does one operation of an output binding.
func (c *call) invokeBinding() error {
	var in struct {
		Metadata  map[string]string `json:"metadata"`
		Data      json.RawMessage   `json:"data"`
		Operation string            `json:"operation"`
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	if in.Data == nil {
		in.Data = []byte("null")
	}
	r := binding.Request{Operation: in.Operation, Data: in.Data, Metadata: in.Metadata}
	carry(&r, c.Header)
	out, err := c.api.invokeBinding(c.Request, c.params[0], r)
	for k, v := range out.Metadata {
		if headerSafe(k) && headerSafe(v) {
			c.answer.Header.Add(metadataPrefix+k, v)
		}
	}
	if err != nil {
		return err
	}
	if out.Data == nil {
		c.empty()
		return nil
	}
	c.json(http.StatusOK, out.Data)
	return nil
}

// headerSafe tells whether text fits into a header.
func headerSafe(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// carry takes the trace context along to the system outside.
func carry(r *binding.Request, h loam.Header) {
	for _, name := range [...]string{"traceparent", "tracestate", "baggage"} {
		if v := h.Get(name); v != "" && r.Metadata[name] == "" {
			if r.Metadata == nil {
				r.Metadata = map[string]string{}
			}
			r.Metadata[name] = strings.Clone(v)
		}
	}
}

func (a *API) invokeBinding(req *loam.Request, name string, r binding.Request) (binding.Response, error) {
	b, err := a.opts.Capabilities.Binding(name)
	if err != nil {
		if loam.CodeOf(err) == loam.NotFound {
			return binding.Response{}, errBinding.failure("error invoking output binding %s: couldn't find output binding %s", name, name)
		}
		return binding.Response{}, errBinding.caused(err, "error invoking output binding %s: %s", name, words(err))
	}
	var out binding.Response
	timing := a.settings.Metrics.begin(req.Task())
	await(req, func() { out, err = b.Invoke(req.Context(), a.opts.App.Caller, r) })
	timing.end(bindingCalls, name, r.Operation, succeeded(err))
	if err != nil {
		return out, errBinding.caused(err, "error invoking output binding %s: %s", name, words(err))
	}
	return out, nil
}
