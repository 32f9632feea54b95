package loam

import (
	"maps"
	"slices"

	"github.com/loam-run/loam/sdk/go/internal/api"
)

// A Binding is a component of the binding capability: a system outside with operations of its own. What it brings by itself,
// if it is an input, comes to the function as a POST to its route: Handle("POST /nightly", …).
type Binding struct{ component string }

// Bind is the component of that name, the default one for "".
func Bind(component string) Binding { return Binding{component} }

// Invoke asks for an operation. What data and metadata mean, the component says.
func (b Binding) Invoke(operation string, data []byte, metadata map[string]string) ([]byte, map[string]string, error) {
	var resp api.BindingInvokeResponse
	err := call("binding.Invoke", &api.BindingInvokeRequest{Component: b.component, Operation: operation, Data: data, Metadata: attributes(metadata)}, &resp)
	return resp.Data, attributeMap(resp.Metadata), err
}

func attributes(m map[string]string) []api.Attribute {
	var all []api.Attribute
	for _, name := range slices.Sorted(maps.Keys(m)) {
		all = append(all, api.Attribute{Name: name, Value: m[name]})
	}
	return all
}

func attributeMap(all []api.Attribute) map[string]string {
	if len(all) == 0 {
		return nil
	}
	m := make(map[string]string, len(all))
	for _, a := range all {
		m[a.Name] = a.Value
	}
	return m
}
