package app

import "syscall"

// processAttr gives the program a group of its own, so that what it starts ends with it, and has the kernel kill it
// when the thread that started it is gone.
func processAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func signalGroup(pid int, s syscall.Signal) error { return syscall.Kill(-pid, s) }
