package loop

import (
	"net"
	"runtime"
	"syscall"

	"github.com/loam-run/loam"
)

// rawDial opens a connection that costs the heap nothing.
func rawDial(addr net.Addr) (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: addr.(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		closeFd(fd)
		return -1, err
	}
	return fd, nil
}

// bareSwitch is a loop whose thread is the benchmark's.
type bareSwitch struct{ l *loop }

func newSwitch() (*bareSwitch, error) {
	e := &coroutines{log: (&Options{}).log()}
	l, err := newLoop(e, 1)
	return &bareSwitch{l}, err
}

func (s *bareSwitch) do(fn func(next func())) {
	runtime.LockOSThread()
	l := s.l
	t := &task{l: l}
	l.begin(t, l.worker(), func(loam.Task) {
		for t.yield(waitPark, 0) == wakeReady {
		}
	})
	fn(func() { l.resume(t, wakeReady) })
	l.resume(t, wakeStop)
}

func (s *bareSwitch) close() {
	s.l.finish()
	runtime.UnlockOSThread()
}
