package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ownCPU is the processor time that this process has used.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it only fails for a wrong argument
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cpuOf is the processor time that a process has used, to 10 ms.
func cpuOf(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+2:])) // from state on: utime is the 12th, stime the 13th
	user, err := strconv.ParseInt(f[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, err // USER_HZ is 100 on every Linux
}

// turn runs op again and again for a while: µs of processor time for each.
func turn(length time.Duration, op func() error) (us float64, err error) {
	n, batch := 0, 1
	began, before := time.Now(), ownCPU()
	for time.Since(began) < length {
		for range batch {
			if err := op(); err != nil {
				return 0, err
			}
		}
		n += batch
		if time.Since(began) < length/100 {
			batch *= 2
		}
	}
	return float64((ownCPU() - before).Nanoseconds()) / 1000 / float64(n), nil
}
