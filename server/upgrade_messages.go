package server

import (
	"errors"
	"os"
	"time"

	"github.com/loam-run/loam/loop"
	"github.com/loam-run/loam/target/app"
)

// hello is what the old process serves.
type hello struct {
	Wire     int              `json:"wire"`
	Version  string           `json:"version"`
	PID      int              `json:"pid"`
	Serves   []string         `json:"serves"` // keys of resources that work
	Open     []string         `json:"open"`   // components, as capability/name
	Registry []byte           `json:"registry"`
	Apps     map[string]appOf `json:"apps,omitempty"`
}

// appOf is a program that the old process has started.
type appOf struct {
	Hash  string `json:"hash"` // of what declares it
	Port  int    `json:"port"`
	Ready bool   `json:"ready"`
}

// appGiven is such a program when it changes hands. Its files are what it prints, what keeps it alive, and what tells of
// its end, as far as they are there.
type appGiven struct {
	Name                  string
	PID, Restarts         int
	Output, Leash, Handle bool
}

// ready is what the new process says when it could begin.
type ready struct {
	Version string   `json:"version"`
	Apps    []string `json:"apps,omitempty"` // the programs that it would take over
}

// socketOf is a listener whose sockets are handed over.
type socketOf struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

// take is the rest that only one process can have.
type take struct {
	Token    string `json:"token"` // of the admin endpoint
	Registry []byte `json:"registry"`
}

// serving is what the new process says when it has begun.
type serving struct {
	Listeners []string `json:"listeners"` // whose sockets it took
}

// relayOf is a relay that was frozen; its bytes are the payload.
type relayOf struct {
	FromA, FromB int // bytes of the payload
	EndA, EndB   bool
	Idle         time.Duration
	Tag          string
	AToB, BToA   int64
}

// given makes of a message the program it tells of.
func given(m *message) (a appGiven, g app.Given, err error) {
	if err := m.into(&a); err != nil {
		return a, g, err
	}
	g = app.Given{PID: a.PID, Restarts: a.Restarts}
	for _, f := range []struct {
		is bool
		to **os.File
	}{{a.Output, &g.Output}, {a.Leash, &g.Leash}, {a.Handle, &g.Handle}} {
		if !f.is {
			continue
		}
		if len(m.files) == 0 {
			return a, g, errors.New("an app's files are missing")
		}
		*f.to, m.files = m.files[0], m.files[1:]
	}
	if g.PID > 0 && (g.Output == nil || g.Handle == nil) {
		return a, g, errors.New("an app's files are missing")
	}
	return a, g, nil
}

// thaw makes of a message the relay it tells of.
func thaw(m *message) (f loop.Frozen, err error) {
	var r relayOf
	if err := m.into(&r); err != nil {
		return f, err
	}
	if r.FromA < 0 || r.FromB < 0 || r.FromA+r.FromB != len(m.payload) || len(m.files) != 2 {
		return f, errors.New("a relay's parts are missing")
	}
	f = loop.Frozen{
		A: m.files[0], B: m.files[1], FromA: m.payload[:r.FromA:r.FromA], FromB: m.payload[r.FromA:], EndA: r.EndA, EndB: r.EndB,
		Idle: r.Idle, Tag: r.Tag, AToB: r.AToB, BToA: r.BToA,
	}
	m.files = nil
	return f, nil
}
