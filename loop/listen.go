package loop

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/loam-run/loam"
)

// freePath removes the unix socket that a process left behind which did not end in order.
func freePath(network, address string) error {
	if network != "unix" || address == "" || address[0] == '@' {
		return nil
	}
	info, err := os.Lstat(address)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || info.Mode()&fs.ModeSocket == 0 {
		return err // what is no socket is not ours to remove: binding will say so
	}
	c, err := net.DialTimeout(network, address, time.Second)
	if err == nil {
		c.Close()
		return syscall.EADDRINUSE
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return removePath(address)
	}
	return nil
}

func removePath(name string) error {
	if name == "" || name[0] == '@' {
		return nil
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// listenError says what to do about a socket that could not be opened.
func listenError(network, address string, err error) error {
	e := loam.Errorf(loam.Unavailable, "listen "+network+" "+strconv.Quote(address), "%w", err)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		e.Code, e.Hint = loam.AlreadyExists, "another process listens there: stop it, or choose another address"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		e.Code, e.Hint = loam.PermissionDenied, "ports below 1024 need CAP_NET_BIND_SERVICE; a unix socket needs a folder this user may write to"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		e.Code, e.Hint = loam.FailedPrecondition, "no interface of this machine has that address"
	}
	return e
}
