// Package app is the target for the program beside us: one that runs already at an address, or one that Loam starts,
// watches, and starts again when it dies.
package app

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol/nethttp"
)

// An App is a loam.Target. Its connections are kept and used again until Close.
type App struct {
	transport *http.Transport
	upstream  loam.Target
}

// New makes the target of a program that listens at address, a host:port.
func New(address string) *App {
	t := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true, // what the program sends is passed on as it is
	}
	return &App{t, nethttp.Upstream(&url.URL{Scheme: "http", Host: address}, t)}
}

// Serve sends the request to the program.
func (a *App) Serve(req *loam.Request) (*loam.Response, error) { return a.upstream.Serve(req) }

// Close lets go of connections that are not in use.
func (a *App) Close(context.Context) error {
	a.transport.CloseIdleConnections()
	return nil
}
