// Package redistest runs a real redis-server for a test: on a port that is free, in a folder of its own, and ended with the
// test. test/redis/install.sh installs it; a test without it fails.
package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// TB is what a testing.TB is used for here, so that programs can run servers too.
type TB interface {
	Helper()
	Fatal(...any)
	TempDir() string
	Cleanup(func())
}

// A Server is one redis-server.
type Server struct {
	Addr string // where it listens: 127.0.0.1 and its port
	dir  string
	args []string
	cmd  *exec.Cmd
	gone chan struct{} // closed when the process has ended
}

// Start runs a server that keeps nothing on disk but for what args, as on its command line, say. It is there when Start
// returns, and gone when the test is over.
func Start(t TB, args ...string) *Server {
	t.Helper()
	s, err := Run(t.TempDir(), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

// Run is Start without a test: its data is in dir, and who calls it calls Kill.
func Run(dir string, args ...string) (*Server, error) {
	var err error
	for range 5 { // the port may be taken before the server has it
		s := &Server{dir: dir, args: args}
		var l net.Listener
		if l, err = new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0"); err != nil {
			return nil, err
		}
		s.Addr = l.Addr().String()
		if err := l.Close(); err != nil {
			return nil, err
		}
		if err = s.Restart(); err == nil {
			return s, nil
		}
	}
	return nil, err
}

// Restart starts the server again, with the data that is in its folder, at the same address. It was killed before.
func (s *Server) Restart() error {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return fmt.Errorf("no redis-server on this machine: run test/redis/install.sh (make redis): %w", err)
	}
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	log := filepath.Join(s.dir, "redis.log")
	args := append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--logfile", log}, s.args...)
	s.cmd = exec.Command(path, args...) //nolint:gosec,noctx // a test's server, which Kill ends
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.gone = make(chan struct{})
	go func(cmd *exec.Cmd, gone chan<- struct{}) {
		_ = cmd.Wait() // its log says why
		close(gone)
	}(s.cmd, s.gone)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		if answers(s.Addr) {
			return nil
		}
		select {
		case <-s.gone:
			words, _ := os.ReadFile(log) //nolint:errcheck // it may not have come so far
			return fmt.Errorf("redis-server ended: %s", words)
		case <-time.After(5 * time.Millisecond):
		}
	}
	s.Kill()
	return errors.New("redis-server does not answer")
}

// answers tells whether a server is there and has loaded its data.
func answers(addr string) bool {
	conn, err := net.DialTimeout("tcp", addr, time.Second) //nolint:noctx // it has a timeout
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }() // nothing of it is needed
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	answer := make([]byte, 5)
	n, err := conn.Read(answer)
	return err == nil && (string(answer[:n]) == "+PONG" || string(answer[:n]) == "-NOAU") // that wants a password
}

// Kill ends the server as kill -9 does, and waits until it is gone.
func (s *Server) Kill() { s.Signal(syscall.SIGKILL) }

// Signal sends the server a signal: SIGSTOP has it hang, SIGCONT go on.
func (s *Server) Signal(sig syscall.Signal) {
	_ = s.cmd.Process.Signal(sig) // one that is gone needs none
	if sig == syscall.SIGKILL {
		<-s.gone
	}
}
