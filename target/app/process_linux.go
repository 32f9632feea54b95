package app

import (
	"errors"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// CanGive tells whether programs can be given to another process.
const CanGive = true

// startOnLeash starts a program that the kernel kills, with its whole group, when the last process is gone that has the
// returned file open. A death signal (PR_SET_PDEATHSIG) would be tied to this process for good; the file can be handed to
// the process that takes this one's place.
//
// The file is the writing end of a pipe that nobody writes to. The program inherits the reading end, for which the kernel
// was asked to tell the program's group of news by SIGKILL: the only news there will ever be is that all writers are gone.
// A program that closes descriptors it does not know slips the leash, and outlives a Loam that is killed.
func startOnLeash(cmd *exec.Cmd) (*os.File, error) {
	its, ours, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer its.Close()
	cmd.ExtraFiles = append(cmd.ExtraFiles, its)
	if err := cmd.Start(); err != nil {
		ours.Close()
		return nil, err
	}
	fd := its.Fd()
	_, err = unix.FcntlInt(fd, unix.F_SETOWN, -cmd.Process.Pid)
	if err == nil {
		_, err = unix.FcntlInt(fd, unix.F_SETSIG, int(syscall.SIGKILL))
	}
	if err == nil {
		_, err = unix.FcntlInt(fd, unix.F_SETFL, unix.O_ASYNC)
	}
	if err != nil {
		err = errors.Join(os.NewSyscallError("fcntl", err), signalGroup(cmd.Process.Pid, syscall.SIGKILL), ours.Close())
		_ = cmd.Wait() // it was killed
		return nil, err
	}
	return ours, nil
}

// handleOf is a file that is readable once the process has ended, whoever started it.
func handleOf(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	return os.NewFile(uintptr(fd), "process"), nil
}

// awaitEnd waits until the process has ended.
func awaitEnd(handle *os.File) error {
	raw, err := handle.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return err != unix.EINTR && n != 0
	})
}
