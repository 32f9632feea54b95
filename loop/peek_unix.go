//go:build unix

package loop

import "syscall"

// peek looks whether a read of descriptor fd would not wait. gone: the peer has ended the connection, and there is
// nothing left to be read.
func peek(fd uintptr) (ready, gone bool) {
	var b [1]byte
	for {
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch err {
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false, false
		default:
			return true, err != nil || n == 0
		}
	}
}

// tryRead reads what is there; again: there is nothing.
func tryRead(fd uintptr, p []byte) (n int, again bool, err error) {
	for {
		switch n, err = syscall.Read(int(fd), p); err {
		case syscall.EINTR:
		case syscall.EAGAIN:
			return 0, true, nil
		default:
			return max(n, 0), false, err
		}
	}
}

const canPeek = true
