package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"

	"modernc.org/sqlite"
)

// A conn is the writer's connection with the statements it has prepared. It speaks to the driver itself: database/sql's
// pool, locks and conversions cost a write more than the write does.
type conn struct {
	driver.Conn
	stmts map[string]driver.Stmt
	args  []driver.NamedValue // of the statement that runs
}

func (c *conn) open(dsn string) (err error) {
	c.stmts = map[string]driver.Stmt{}
	c.Conn, err = new(sqlite.Driver).Open(dsn)
	return err
}

func (c *conn) close() error {
	if c.Conn == nil {
		return nil
	}
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, c.Conn.Close())...)
}

// script runs several statements that take no arguments.
func (c *conn) script(statements string) error {
	_, err := c.Conn.(driver.ExecerContext).ExecContext(context.Background(), statements, nil)
	return err
}

// prepare finds or prepares a statement, and puts args as the driver takes them.
func (c *conn) prepare(query string, args []any) (s driver.Stmt, err error) {
	if s = c.stmts[query]; s == nil {
		if s, err = c.Conn.Prepare(query); err != nil {
			return nil, err
		}
		c.stmts[query] = s
	}
	c.args = c.args[:0]
	for i, a := range args {
		if n, ok := a.(int); ok {
			a = int64(n)
		}
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	return s, nil
}

// exec returns how many rows were changed.
func (c *conn) exec(query string, args []any) (int64, error) {
	s, err := c.prepare(query, args)
	if err != nil {
		return 0, err
	}
	r, err := s.(driver.StmtExecContext).ExecContext(context.Background(), c.args)
	clear(c.args)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// row scans the first row into dest, whose elements are *int64 or *string, and tells whether there was one.
func (c *conn) row(dest []any, query string, args []any) (found bool, err error) {
	s, err := c.prepare(query, args)
	if err != nil {
		return false, err
	}
	rows, err := s.(driver.StmtQueryContext).QueryContext(context.Background(), c.args)
	clear(c.args)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	values := make([]driver.Value, len(dest))
	if err := rows.Next(values); err != nil {
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		return false, err
	}
	for i, d := range dest {
		ok := false
		switch d := d.(type) {
		case *int64:
			*d, ok = values[i].(int64)
		case *string:
			*d, ok = values[i].(string)
		}
		if !ok {
			return false, fmt.Errorf("column %d holds %T, for %T", i, values[i], d)
		}
	}
	return true, nil
}
