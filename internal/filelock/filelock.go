//go:build unix

// Package filelock keeps a second process out of what one process owns. The kernel drops a lock with its process,
// whatever ends it, so there is nothing to clean up after a crash.
package filelock

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// Held is the error of a lock that another process has.
type Held struct{ PID string } // "" where it could not be read

// Error names the process.
func (h Held) Error() string {
	if h.PID == "" {
		return "another process has it open"
	}
	return "process " + h.PID + " has it open"
}

// Take locks the file at path, which is made, until the returned file is closed, and writes this process's number into
// it for whoever is refused.
func Take(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		pid, _ := io.ReadAll(io.LimitReader(f, 32)) // it only helps the message
		_ = f.Close()
		if err == syscall.EWOULDBLOCK {
			return nil, Held{strings.TrimSpace(string(pid))}
		}
		return nil, err
	}
	Sign(f)
	return f, nil
}

// Sign writes this process's number into a lock that it holds: another one may have handed it over.
func Sign(f *os.File) {
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0) // a full disk must not stop who holds the lock
	}
}
