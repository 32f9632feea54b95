package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/admin"
)

type upgradeCmd struct {
	Binary   string        `type:"path" placeholder:"FILE" help:"The new binary (the file that the running one was started from, as it is now)."`
	Patience time.Duration `placeholder:"DURATION" help:"How long the new process may take until it serves (as loam run was told, 30s)."`
	dataFlag
}

func (upgradeCmd) Help() string {
	return `Replaces a running loam by one of another binary, without losing a connection, a request or an event. The new process
reads the resources and compiles the functions first; one that fails, hangs, or could not serve what the old one serves
is given up, and the old one serves on. The old process ends with the last request that it serves.

Examples:
  loam upgrade
  loam upgrade --data /var/lib/loam --binary /opt/loam-1.3/loam`
}

func (c upgradeCmd) Run(ctx context.Context, o out) error {
	client, err := admin.Dial(c.Data)
	if err != nil {
		return err
	}
	before, err := client.Status(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := client.Upgrade(ctx, c.Binary, c.Patience, func(text string) { fmt.Fprintln(o.err, text) }); err != nil {
		return err
	}
	after, err := c.successor(ctx, before.PID)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(o, "upgraded: process %d (%s) took over from %d (%s) in %v\n", after.PID, after.Version, before.PID, before.Version, time.Since(start).Round(time.Millisecond))
	return err
}

// successor asks until another process answers than the old one, which goes on answering for a moment.
func (c upgradeCmd) successor(ctx context.Context, old int) (s admin.Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		client, err := admin.Dial(c.Data)
		if err == nil {
			if s, err = client.Status(ctx); err == nil && s.PID != old {
				return s, nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return s, errors.Join(loam.Errorf(loam.Unavailable, "upgrade", "the new process does not answer"), err)
		}
	}
}

// ownBinary is the file that this process was started from, by the name that it was started by: where that is a link, it
// may lead elsewhere by now. It is asked before anything changes the working directory.
func ownBinary() (string, error) {
	if name := os.Args[0]; strings.ContainsRune(name, filepath.Separator) {
		return filepath.Abs(name)
	}
	if found, err := exec.LookPath(os.Args[0]); err == nil {
		return filepath.Abs(found)
	}
	return os.Executable()
}

// successor makes the command of a process that takes the place of this one, whose number is pid: the same arguments and
// environment. Process 1 has none: when it ends, the kernel ends all of its container, the new process among them.
func successor(pid int) func(binary string) (*exec.Cmd, error) {
	own, err := ownBinary()
	return func(binary string) (*exec.Cmd, error) {
		if pid == 1 {
			return nil, &loam.Error{Code: loam.FailedPrecondition, Op: "upgrade", Err: errors.New("this is process 1, and its container ends with it"),
				Hint: "replace the container, by a rolling update: at SIGTERM Loam takes nothing new and finishes what is under way"}
		}
		if binary == "" {
			if err != nil {
				return nil, &loam.Error{Code: loam.FailedPrecondition, Op: "upgrade", Err: err, Hint: "name the binary: --binary FILE"}
			}
			binary = own
		}
		cmd := exec.Command(binary, os.Args[1:]...)
		cmd.Args[0] = binary
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		return cmd, nil
	}
}
