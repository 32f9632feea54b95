package loop

import "github.com/loam-run/loam"

// Task is the task that calls, for code which has a connection of its loop at hand and no task: a body that is read by
// whoever has it. A connection of the portable engine has no such method, for there any goroutine may wait.
func (c *conn) Task() loam.Task {
	if c.l.cur == nil {
		return nil
	}
	return c.l.cur
}

// Task is the task that calls, as of the connection below.
func (x *TLS) Task() loam.Task {
	if c, ok := x.Conn.(*conn); ok {
		return c.Task()
	}
	return nil
}
