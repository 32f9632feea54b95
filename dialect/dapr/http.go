package dapr

import "github.com/loam-run/loam"

func (a *API) serveHTTP(*loam.Request) (*loam.Response, error) {
	return nil, loam.Errorf(loam.Unimplemented, "dapr", "not built yet")
}

func (a *API) servePublic(*loam.Request) (*loam.Response, error) {
	return nil, loam.Errorf(loam.Unimplemented, "dapr", "not built yet")
}
