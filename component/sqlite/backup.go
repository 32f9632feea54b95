package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
)

// Backup writes the whole file as it is at one moment, all components' shares, to a new file at path. Writes go on
// meanwhile. No other program can: the process keeps the file's lock.
func (s space) Backup(ctx context.Context, path string) error {
	conn, err := sql.Open("sqlite", dsn(s.path, url.Values{"vfs": {vfs}, "_pragma": {"busy_timeout(5000)"}}))
	if err != nil {
		return err
	}
	_, err = conn.ExecContext(ctx, "VACUUM INTO ?", path)
	return s.explain("back up", errors.Join(err, conn.Close()))
}
