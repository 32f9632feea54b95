//go:build unix

package sqlite

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/internal/filelock"
)

// errReadOnlyFS is what a write to a read-only mount answers.
var errReadOnlyFS error = unix.EROFS

// lockFile makes sure that one process has the database open. SQLite itself would let two in, and each would think
// it had counted everything.
func lockFile(path string) (*os.File, error) {
	f, err := filelock.Take(path)
	if errors.As(err, new(filelock.Held)) {
		return nil, &loam.Error{
			Code: loam.FailedPrecondition, Op: "sqlite: open " + strings.TrimSuffix(path, ".lock"), Err: err,
			Hint: "end that process, or give this one a data directory of its own: --data DIR",
		}
	}
	return f, err
}
