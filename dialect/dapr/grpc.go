package dapr

import "github.com/loam-run/loam"

func (a *API) serveGRPC(*loam.Request) (*loam.Response, error) {
	return nil, loam.Errorf(loam.Unimplemented, "dapr", "not built yet")
}
