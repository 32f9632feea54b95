package protocol

import (
	"sync"

	"github.com/loam-run/loam/loop"
)

// A Carrier is the connection that TLS is spoken over. crypto/tls holds a lock while it writes, and takes it while it
// reads too, to answer an alert or a new key: on an event loop a task that waits in Write with that lock would stop the
// whole loop. Where several tasks use one connection, as in HTTP/2, the carrier therefore gathers what TLS writes, and
// who flushes it holds no lock.
type Carrier struct {
	loop.Conn
	Early []byte // read already: it comes first

	mu       sync.Mutex
	gathers  bool
	gathered []byte
}

// Read reads what came early, and then the connection.
func (c *Carrier) Read(p []byte) (int, error) {
	if len(c.Early) > 0 {
		n := copy(p, c.Early)
		c.Early = c.Early[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// Write writes to the connection, or gathers.
func (c *Carrier) Write(p []byte) (int, error) {
	c.mu.Lock()
	if c.gathers {
		c.gathered = append(c.gathered, p...)
		c.mu.Unlock()
		return len(p), nil
	}
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// Gather makes Write gather from now on. It is called when the handshake is over.
func (c *Carrier) Gather() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gathers = true
}

// Pending tells whether there is something gathered.
func (c *Carrier) Pending() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.gathered) > 0
}

// Take returns what was gathered, to be written to Conn, and gathers into b from now on.
func (c *Carrier) Take(b []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.gathered
	c.gathered = b[:0]
	return got
}
