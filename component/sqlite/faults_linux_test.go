package sqlite

import (
	"golang.org/x/sys/unix"
)

// mountSmall puts a disk of its own, of 1 MiB, at dir.
func mountSmall(dir string) (resize func(size string) error, unmount func() error, err error) {
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		return nil, nil, err
	}
	return func(size string) error { return unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size="+size) },
		func() error { return unix.Unmount(dir, 0) }, nil
}
