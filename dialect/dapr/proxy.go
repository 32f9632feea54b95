package dapr

import (
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol/grpc"
)

// A gRPC call of any service is carried unread from sidecar to sidecar to the app: what names the app is metadata.
const (
	metaAppID    = "dapr-app-id"
	metaCalleeID = "dapr-callee-app-id"
	metaCallerID = "dapr-caller-app-id"

	// fieldProxy marks a request that is to be carried as it is.
	fieldProxy = ":proxy"
)

// serveProxy carries a gRPC call of any service that is not ours to the app that its header dapr-app-id names.
func (a *API) serveProxy(req *loam.Request) (*loam.Response, error) {
	id := req.Header.Get(metaCalleeID)
	if id == "" {
		id = req.Header.Get(metaAppID)
	}
	if id == "" {
		if strings.HasPrefix(req.Path, "/dapr.proto.") {
			return nil, grpc.NewStatus(loam.Unimplemented, "unknown method "+req.Path)
		}
		return nil, errNoCallee
	}
	req.Header.Del(metaAppID)
	req.Header.Add(fieldProxy, "1")
	return a.invoke(req, id)
}

var errNoCallee = grpc.NewStatus(loam.Unknown, "failed to proxy request: required metadata dapr-callee-app-id or dapr-app-id not found")

// serveForeign carries a gRPC call that came from another sidecar to the app.
func (a *API) serveForeign(req *loam.Request) (*loam.Response, error) {
	id := req.Header.Get(metaCalleeID)
	if id == "" {
		id = req.Header.Get(metaAppID)
	}
	id, _, _ = strings.Cut(id, ".")
	switch {
	case id == "":
		return nil, errNoCallee
	case id != a.opts.App.ID:
		return nil, grpc.NewStatus(loam.Unavailable, "this is the sidecar of "+a.opts.App.ID+", not of "+id)
	}
	if err := a.settings.Invocation.Access.check("", "", strings.TrimPrefix(req.Path, "/"), "", true); err != nil {
		return nil, err
	}
	return a.channel.proxy(req)
}

// proxy carries a gRPC call to the program.
func (c *channel) proxy(req *loam.Request) (*loam.Response, error) {
	switch {
	case c.target == nil:
		return nil, errNoApp
	case !c.opts.App.GRPC:
		return nil, grpc.NewStatus(loam.Unimplemented, "the app does not speak gRPC: start its sidecar with --app-protocol grpc")
	}
	req.Header.Del(metaAppID)
	c.prepare(req)
	return c.target.Serve(req)
}

// forward carries a gRPC call to the app's sidecar.
func (p *peer) forward(req *loam.Request) (*loam.Response, error) {
	req.Header.Del(tokenHeader)
	req.Header.Set(metaCallerID, p.api.opts.App.ID)
	req.Header.Set(metaCalleeID, p.id)
	req.Remote = ""
	return p.reach(req, func(to loam.Target) (*loam.Response, bool, error) {
		res, err := to.Serve(req)
		return res, req.Body == nil, err
	})
}
