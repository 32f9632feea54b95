package dapr

import "github.com/loam-run/loam"

// Internal serves other sidecars: dapr.proto.internals.v1.ServiceInvocation.
func (a *API) Internal() loam.Target {
	return loam.TargetFunc(func(*loam.Request) (*loam.Response, error) {
		return nil, loam.Errorf(loam.Unimplemented, "dapr", "not built yet")
	})
}
