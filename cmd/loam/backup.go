package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/admin"
	"github.com/loam-run/loam/internal/size"
)

type backupCmd struct {
	File      string `arg:"" type:"path" help:"Where to put the copy: a file that is not there yet."`
	Component string `default:"default" help:"The component whose store to copy (default, the embedded one)."`
	dataFlag
}

func (backupCmd) Help() string {
	return `Copies the store as it is at one moment, while it goes on working. The copy is a database by itself: to restore it, end
loam, put it in loam.db's place, remove loam.db-wal and loam.db-shm, and start.

Examples:
  loam backup loam-$(date +%F).db
  loam backup --data /var/lib/loam /backup/loam.db`
}

func (c backupCmd) Run(ctx context.Context, o out) error {
	client, err := admin.Dial(c.Data)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(c.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return &loam.Error{Code: loam.AlreadyExists, Op: "backup", Err: err, Hint: "name a file that is not there yet, in a folder that is"}
	}
	n, err := client.Backup(ctx, c.Component, f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(c.File)) // half a copy is worse than none
	}
	_, err = fmt.Fprintf(o, "copied %s to %s\n", size.Format(n), relative(c.File))
	return err
}
