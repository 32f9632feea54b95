// Package app is the target for the program beside us: one that runs already at an address, or one that Loam starts,
// watches, and starts again when it dies.
package app

import (
	"context"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol/http1"
)

// An App is a loam.Target. Its connections are kept and used again until Close.
type App struct{ client *http1.Client }

// New makes the target of a program that listens at address, a host:port. Tasks of engine call it.
func New(engine loop.Engine, address string) *App {
	return &App{http1.NewClient(address, http1.ClientConfig{Engine: engine})}
}

// Serve sends the request to the program.
func (a *App) Serve(req *loam.Request) (*loam.Response, error) { return a.client.Serve(req) }

// Close lets go of connections that are not in use.
func (a *App) Close(context.Context) error {
	a.client.Close()
	return nil
}
