// Package build turns a folder of sources into a Wasm guest, or a Go one into a native program, by the user's own
// compiler. It replaces the output only when the build succeeded, and keeps the compiler's messages whole.
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
	Dir  string   // folder of the sources; what lies in it says the language
	Out  string   // file to write; its folder is made
	Wasm bool     // a Wasm guest; else a program of this machine
	Main bool     // of a guest: it is a program whose main runs, and no library of functions to be called
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

// Run builds the job with the toolchain of the language that its folder is written in: package.json and main.ts are
// AssemblyScript, main.rs is Rust, main.c is C, everything else is Go. Its errors are *Error, except where ctx ended.
func Run(ctx context.Context, job Job) error {
	dir, err := sourceDir(job)
	if err != nil {
		return err
	}
	if job.Wasm {
		for _, t := range toolchains {
			if _, err := os.Stat(filepath.Join(dir, t.main)); err == nil {
				return run(ctx, job, func(out string) (*exec.Cmd, error) { return t.command(ctx, dir, out, job.Main) }, t.hint)
			}
		}
	}
	return Go(ctx, job)
}

// Go builds the job, whose folder is a Go main package. Its errors are those of Run.
func Go(ctx context.Context, job Job) error {
	dir, err := sourceDir(job)
	if err != nil {
		return err
	}
	return run(ctx, job, func(out string) (*exec.Cmd, error) { return goCommand(ctx, job, dir, out) }, nil)
}

func sourceDir(job Job) (string, error) {
	const hint = "source must name the folder of a Go main package, or of a main.rs, main.c or main.ts"
	dir, err := filepath.Abs(job.Dir)
	if err != nil {
		return "", &Error{Job: job, Err: err}
	}
	if info, err := os.Stat(dir); err != nil {
		return "", &Error{Job: job, Err: err, Hint: hint}
	} else if !info.IsDir() {
		return "", &Error{Job: job, Err: errors.New("it is a file"), Hint: hint + ", not a file in it"}
	}
	return dir, nil
}

// run runs the command that writes a file, and puts that file in the output's place. hint, which may be nil, says what
// to do about what the command said.
func run(ctx context.Context, job Job, command func(out string) (*exec.Cmd, error), hint func(said string) string) error {
	failed := func(err error, said string) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		e := &Error{Job: job, Output: said, Err: err}
		var missing *missingError
		switch {
		case errors.As(err, &missing):
			e.Hint = missing.hint
		case hint != nil:
			e.Hint = hint(said)
		}
		return e
	}
	out, err := filepath.Abs(job.Out)
	if err != nil {
		return failed(err, "")
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return failed(err, "")
	}
	// Compilers write in place; a watcher or a starting process must never see half a file.
	temp, err := os.MkdirTemp(filepath.Dir(out), ".build-")
	if err != nil {
		return failed(err, "")
	}
	defer func() { _ = os.RemoveAll(temp) }() // an empty folder left behind harms nobody
	built := filepath.Join(temp, filepath.Base(out))
	cmd, err := command(built)
	if err != nil {
		return failed(err, "")
	}
	if cmd.Env == nil {
		cmd.Env = append(os.Environ(), job.Env...)
	}
	if said, err := cmd.CombinedOutput(); err != nil {
		return failed(fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err), string(bytes.TrimSpace(said)))
	}
	if b, err := os.ReadFile(built); err != nil {
		return failed(err, "")
	} else if bytes.HasPrefix(b, []byte("!<arch>")) { // what go build makes of any other package
		return failed(&missingError{errors.New("its package is not main"), "a function or app is a package main"}, "")
	}
	if err := os.Rename(built, out); err != nil {
		return failed(err, "")
	}
	return nil
}

// A missingError is something that is not there, and how to get it.
type missingError struct {
	error
	hint string
}

// goCommand builds a Go main package.
func goCommand(ctx context.Context, job Job, dir, out string) (*exec.Cmd, error) {
	path, err := exec.LookPath("go")
	if err != nil {
		return nil, &missingError{errors.New("there is no go command in PATH"), "install Go from https://go.dev/dl and put its bin folder into PATH"}
	}
	env := append(os.Environ(), job.Env...)
	if err := inModule(ctx, path, dir, env); err != nil {
		return nil, &missingError{err, "run go mod init in " + job.Dir + " or in a folder above it"}
	}
	args := []string{"build", "-o", out}
	if job.Wasm {
		if !job.Main {
			args = append(args, "-buildmode=c-shared")
		}
		env = append(env, "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	}
	cmd := exec.CommandContext(ctx, path, append(args, ".")...)
	cmd.Dir, cmd.Env = dir, env
	return cmd, nil
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
