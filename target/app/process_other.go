//go:build unix && !linux

package app

import "syscall"

// processAttr gives the program a group of its own, so that what it starts ends with it. Where the kernel has no death
// signal, a program outlives a Loam that was killed, and finds its port taken by itself when it is started again.
func processAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func signalGroup(pid int, s syscall.Signal) error { return syscall.Kill(-pid, s) }
