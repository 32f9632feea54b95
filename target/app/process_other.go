//go:build unix && !linux

package app

import (
	"errors"
	"os"
	"os/exec"
)

// CanGive tells whether programs can be given to another process.
const CanGive = false

// startOnLeash starts a program. Where the kernel has no leash, a program outlives a Loam that was killed, and finds its
// port taken by itself when it is started again.
func startOnLeash(cmd *exec.Cmd) (*os.File, error) { return nil, cmd.Start() }

// handleOf is a file that tells of a process's end, which is Linux's: here, no program is given to another process.
func handleOf(int) (*os.File, error) { return nil, errors.ErrUnsupported }

func awaitEnd(*os.File) error { return errors.ErrUnsupported }
