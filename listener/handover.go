package listener

import (
	"os"

	"github.com/loam-run/loam/loop"
)

// Leave stops accepting, because another process has the sockets by Files and goes on. Connections that it can go on with
// are for Move; those that it cannot end by themselves: TLS with the request under way, HTTP/2 once its client was told.
func (l *Listener) Leave() error {
	err := l.socket.Stop()
	l.http1.Retire(false)
	l.http2.Drain()
	return err
}

// Move takes out the connections that another process can go on with, which are plain and between two requests or before
// their first, and gives each to give, which closes it. The rest is idle in TLS or has a request under way: call Move
// again. It returns how many connections are left.
func (l *Listener) Move(give func(*os.File)) int {
	var files []*os.File // give may wait, Each may not
	l.socket.Each(func(c loop.Conn, s loop.Session) {
		if b, ok := s.(interface{ Between() bool }); ok && b.Between() {
			if f, err := c.File(); err == nil {
				files = append(files, f)
			}
		}
	})
	for _, f := range files {
		give(f)
	}
	return l.socket.Connections()
}

// Retire ends those that Move never finds between two requests, and closes those that are idle in TLS.
func (l *Listener) Retire() {
	l.http1.Retire(true)
	l.socket.Each(func(c loop.Conn, s loop.Session) {
		if b, ok := s.(interface{ Between() bool }); ok && !b.Between() {
			_ = c.Close() // it is idle
		}
	})
}

// Adopt takes in a connection that Move took out of another process.
func (l *Listener) Adopt(f *os.File) error { return l.socket.Adopt(f, l.c.IdleTimeout) }

// Between says that nothing was read yet.
func (n *newcomer) Between() bool { return n.next == nil }
