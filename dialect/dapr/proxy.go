package dapr

import "github.com/loam-run/loam"

// serveProxy carries a gRPC call of any service that is not ours to the app that its header dapr-app-id names.
func (a *API) serveProxy(*loam.Request) (*loam.Response, error) {
	return nil, loam.Errorf(loam.Unimplemented, "dapr", "not built yet")
}
