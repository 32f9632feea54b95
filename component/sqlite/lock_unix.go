//go:build unix

package sqlite

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/loam-run/loam"
)

// errReadOnlyFS is what a write to a read-only mount answers.
var errReadOnlyFS error = unix.EROFS

// lockFile makes sure that one process has the database open. SQLite itself would let two in, and each would think
// it had counted everything. The kernel drops the lock with the process, whatever ends it.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 32))
		_ = f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, err
		}
		return nil, &loam.Error{
			Code: loam.FailedPrecondition, Op: "sqlite: open " + strings.TrimSuffix(path, ".lock"),
			Err:  fmt.Errorf("process %s has it open", strings.TrimSpace(string(holder))),
			Hint: "end that process, or give this one a data directory of its own: --data DIR",
		}
	}
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
		if err != nil {
			// The lock is what counts; the number only helps whoever is refused. A full disk must not stop reads.
			return f, nil
		}
	}
	return f, nil
}
