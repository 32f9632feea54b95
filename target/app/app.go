// Package app is the target for the program beside us: one that runs already at an address, or one that Loam starts,
// watches, and starts again when it dies.
package app

import (
	"context"
	"crypto/tls"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/protocol/http1"
	"github.com/loam-run/loam/protocol/http2"
)

// Config says how a program is reached.
type Config struct {
	Engine   loop.Engine // whose tasks call it
	Hub      *http2.Hub  // of the engine; needed for h2c, grpc and grpcs
	Address  string      // host:port
	Protocol string      // http, https, h2c, grpc or grpcs; "": http
}

// client sends requests to a program, and keeps connections for that.
type client interface {
	loam.Target
	Close()
}

// An App is a loam.Target. Its connections are kept and used again until Close.
type App struct{ client client }

// New makes the target of a program. TLS hides what is said from others of the machine; it proves nothing, since programs
// beside us have certificates that nobody signed, as Dapr's users know.
func New(c Config) *App {
	var secure *tls.Config
	if c.Protocol == "https" || c.Protocol == "grpcs" {
		secure = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // see above
	}
	switch c.Protocol {
	case "h2c", "grpc", "grpcs":
		if secure != nil {
			secure.NextProtos = []string{"h2"}
		}
		return &App{http2.NewClient(c.Address, http2.ClientConfig{Hub: c.Hub, TLS: secure, Limits: http2.Limits{StreamIdle: -1}})} // who calls bounds silence
	}
	return &App{http1.NewClient(c.Address, http1.ClientConfig{Engine: c.Engine, TLS: secure})}
}

// Serve sends the request to the program.
func (a *App) Serve(req *loam.Request) (*loam.Response, error) { return a.client.Serve(req) }

// Close lets go of connections that are not in use.
func (a *App) Close(context.Context) error {
	a.client.Close()
	return nil
}
