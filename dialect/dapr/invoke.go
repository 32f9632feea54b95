package dapr

import "github.com/loam-run/loam"

// serveInvoke serves /v1.0/invoke/… and every HTTP request that names its receiver by the header dapr-app-id.
func (a *API) serveInvoke(*loam.Request) (*loam.Response, error) {
	return nil, loam.Errorf(loam.Unimplemented, "dapr", "not built yet")
}

// serveInvokeService serves dapr.proto.runtime.v1.Dapr/InvokeService.
func (a *API) serveInvokeService(*loam.Request) (*loam.Response, error) {
	return nil, loam.Errorf(loam.Unimplemented, "dapr", "not built yet")
}
