// Package build turns a folder with a Go main package into a Wasm guest or a native program, by the user's own go
// command. It replaces the output only when the build succeeded, and keeps the compiler's messages whole.
package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A Job is one thing to build.
type Job struct {
	Name string   // of the function or app, for messages
	Dir  string   // folder of the main package; the module it stands in decides how it is built
	Out  string   // file to write; its folder is made
	Wasm bool     // a Wasm guest; else a program of this machine
	Env  []string // KEY=value, on top of this process's environment
}

// An Error is a build that failed.
type Error struct {
	Job    Job
	Output string // what the compiler said, whole; empty where it was not reached
	Hint   string // what to do next; may be empty
	Err    error
}

// Error prints the cause and what the compiler said.
func (e *Error) Error() string {
	s := fmt.Sprintf("build %s (%s): %v", e.Job.Name, e.Job.Dir, e.Err)
	if e.Output != "" {
		s += "\n" + e.Output
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Go builds the job. Its errors are *Error, except where ctx ended.
func Go(ctx context.Context, job Job) error {
	failed := func(err error, hint string) error { return &Error{Job: job, Err: err, Hint: hint} }

	goCommand, err := exec.LookPath("go")
	if err != nil {
		return failed(errors.New("there is no go command in PATH"), "install Go from https://go.dev/dl and put its bin folder into PATH")
	}
	dir, err := filepath.Abs(job.Dir)
	if err != nil {
		return failed(err, "")
	}
	if info, err := os.Stat(dir); err != nil {
		return failed(err, "source must name the folder of a Go main package")
	} else if !info.IsDir() {
		return failed(errors.New("it is a file"), "source must name the folder of a Go main package, not a file in it")
	}
	env := append(os.Environ(), job.Env...)
	if err := inModule(ctx, goCommand, dir, env); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return failed(err, "run go mod init in "+job.Dir+" or in a folder above it")
	}

	out, err := filepath.Abs(job.Out)
	if err != nil {
		return failed(err, "")
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return failed(err, "")
	}
	// The go command writes in place; a watcher or a starting process must never see half a file.
	temp, err := os.MkdirTemp(filepath.Dir(out), ".build-")
	if err != nil {
		return failed(err, "")
	}
	defer func() { _ = os.RemoveAll(temp) }() // an empty folder left behind harms nobody
	built := filepath.Join(temp, filepath.Base(out))

	args := []string{"build", "-o", built}
	if job.Wasm {
		args = append(args, "-buildmode=c-shared")
		env = append(env, "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	}
	cmd := exec.CommandContext(ctx, goCommand, append(args, ".")...)
	cmd.Dir, cmd.Env = dir, env
	if said, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return &Error{Job: job, Output: string(bytes.TrimSpace(said)), Err: fmt.Errorf("go build: %w", err)}
	}
	if b, err := os.ReadFile(built); err != nil {
		return failed(err, "")
	} else if bytes.HasPrefix(b, []byte("!<arch>")) { // what go build makes of any other package
		return failed(errors.New("its package is not main"), "a function or app is a package main")
	}
	if err := os.Rename(built, out); err != nil {
		return failed(err, "")
	}
	return nil
}

// inModule tells whether dir stands in a module or workspace, asked of the go command, which alone knows.
func inModule(ctx context.Context, goCommand, dir string, env []string) error {
	cmd := exec.CommandContext(ctx, goCommand, "env", "GOMOD")
	cmd.Dir, cmd.Env = dir, env
	said, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("go env: %w: %s", err, bytes.TrimSpace(said))
	}
	if mod := strings.TrimSpace(string(said)); mod == "" || mod == os.DevNull {
		return errors.New("the folder is inside no Go module")
	}
	return nil
}
