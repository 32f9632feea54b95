package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/loam-run/loam"
)

const (
	queueLength = 4096 // writes waiting, at most; more wait outside
	groupSize   = 1024 // writes in one commit, at most, so that none waits long
)

// vfs keeps the lock on the file for the process's life, which is ours alone anyway: six system calls less for each write.
const vfs = "unix-excl"

// schema holds every capability's tables. Most are WITHOUT ROWID: their keys are how they are read, and one tree costs a
// write half of two. An event's key is one number, its place, since SQLite appends to that at the least cost; a type that
// is the topic's name and a content type that is JSON, which most are, are stored as NULL.
const schema = `
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS space (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS state (
	space INTEGER NOT NULL, key TEXT NOT NULL, value BLOB, etag INTEGER NOT NULL, expires INTEGER NOT NULL,
	PRIMARY KEY (space, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS state_expires ON state (expires) WHERE expires > 0;
CREATE TABLE IF NOT EXISTS topic (
	id INTEGER PRIMARY KEY, space INTEGER NOT NULL, name TEXT NOT NULL, last INTEGER NOT NULL DEFAULT 0, UNIQUE (space, name));
CREATE TABLE IF NOT EXISTS event (
	place INTEGER PRIMARY KEY, id TEXT NOT NULL, source TEXT NOT NULL, type TEXT, subject TEXT NOT NULL,
	time INTEGER NOT NULL, content_type TEXT, attributes TEXT, data BLOB);
CREATE TABLE IF NOT EXISTS consumer (id INTEGER PRIMARY KEY, topic INTEGER NOT NULL, name TEXT NOT NULL, cursor INTEGER NOT NULL, UNIQUE (topic, name));
CREATE TABLE IF NOT EXISTS done (consumer INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (consumer, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS retry (
	consumer INTEGER NOT NULL, seq INTEGER NOT NULL, attempt INTEGER NOT NULL, due INTEGER NOT NULL,
	PRIMARY KEY (consumer, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lease (
	space INTEGER NOT NULL, name TEXT NOT NULL, owner TEXT NOT NULL, expires INTEGER NOT NULL,
	PRIMARY KEY (space, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS config (
	space INTEGER NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, version INTEGER NOT NULL, metadata TEXT,
	PRIMARY KEY (space, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sequence (space INTEGER NOT NULL, key TEXT NOT NULL, next INTEGER NOT NULL, PRIMARY KEY (space, key)) WITHOUT ROWID;
PRAGMA user_version = 1;
`

// db is one open file: the writer's connection, and a pool of readers. There is one writer at a time: whoever finds no
// other at work becomes it, commits its own change and all that wait, and hands on to one that came meanwhile. So a
// lonely write costs no switch of goroutines, and many share an fsync.
//
// Order of locks: Files.mu, Settings.mu or block.mu, Pubsub.mu, consumer.mu, db.mu. A change under way holds none of
// them, and takes only the last.
type db struct {
	path     string
	users    int // guarded by Files.mu
	now      func() time.Time
	lock     *os.File
	readOnly error // why nothing can be written; nil where it can

	readers *sql.DB
	reads   sync.Map // the readers' prepared statements: *sql.Stmt by query
	conn    conn     // the writer's

	slots   chan struct{} // one for each write in here
	stop    chan struct{}
	stopped sync.WaitGroup

	mu      sync.Mutex
	waiting []*write
	writing bool          // somebody is the writer
	idle    chan struct{} // made by close where it has to wait for the writer

	retention map[int64]time.Duration // of each pubsub component that was opened, by its space; guarded by mu

	// The writer's.
	group   []*write
	ends    map[topicName]*logEnd
	epoch   int64 // counts openings; with version it makes ETags that never come again; 0 until the first transaction
	version int64
}

// A write is one caller's change on its way to the disk.
type write struct {
	// apply makes the change. It may run more than once, each time from a clean state. To refuse, it returns a
	// *loam.Error before it has changed anything; any other error rolls the group back.
	apply func(*db) error
	err   error
	turn  chan bool // true: be the writer; false: it is done
}

func openDB(path string, c Config, now func() time.Time) (*db, error) {
	d := &db{
		path: path, now: now, ends: map[topicName]*logEnd{}, retention: map[int64]time.Duration{},
		slots: make(chan struct{}, queueLength), stop: make(chan struct{}),
	}
	if err := d.open(); err != nil {
		err = d.explain("open", err)
		return nil, errors.Join(err, d.closeFiles())
	}
	if d.readOnly == nil {
		d.stopped.Go(func() { d.sweepLoop(c.Sweep) })
	}
	return d, nil
}

func (d *db) open() (err error) {
	if err := os.MkdirAll(filepath.Dir(d.path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if d.lock, err = lockFile(d.path + ".lock"); isReadOnly(err) {
		d.readOnly = err
	} else if err != nil {
		return err
	}
	if d.readOnly == nil {
		if err := d.openWriter(); isReadOnly(err) {
			d.readOnly = err
		} else if err != nil {
			return err
		}
	}
	q := url.Values{"vfs": {vfs}, "_pragma": {"query_only(1)", "busy_timeout(5000)", "cache_size(-16384)"}}
	if d.readOnly != nil {
		q.Del("vfs")
		q.Set("mode", "ro")
		if _, err := os.Stat(d.path); err != nil {
			return d.readOnly // there is nothing to read either
		}
		if wal, err := os.Stat(d.path + "-wal"); err != nil || wal.Size() == 0 {
			q.Set("immutable", "1") // a WAL database in a folder that cannot be written has no other way in
		}
	}
	if d.readers, err = sql.Open("sqlite", dsn(d.path, q)); err != nil {
		return err
	}
	d.readers.SetMaxOpenConns(8)
	d.readers.SetMaxIdleConns(8)
	var n int
	if err := d.readers.QueryRow("SELECT count(*) FROM space").Scan(&n); err != nil {
		return err
	}
	return d.check()
}

// check looks for damage, where that takes no time worth mention; in a larger file it is found where it is read. A damaged
// file takes no writes, which could make it worse, and is read where that goes.
func (d *db) check() error {
	const most = 16 << 20
	if i, err := os.Stat(d.path); err != nil || i.Size() > most {
		return err
	}
	var found string
	err := d.readers.QueryRow("PRAGMA quick_check(1)").Scan(&found)
	if err == nil && found != "ok" {
		err = errDamaged{found}
	}
	if isDamage(err) {
		d.readOnly, err = err, nil
	}
	return err
}

// errDamaged is what SQLite's check of a file found.
type errDamaged struct{ found string }

func (e errDamaged) Error() string { return "the file is damaged: " + e.found }

func isDamage(err error) bool {
	var s *sqlite.Error
	if errors.As(err, &s) {
		return s.Code()&0xff == sqlite3.SQLITE_CORRUPT || s.Code()&0xff == sqlite3.SQLITE_NOTADB
	}
	return errors.As(err, new(errDamaged))
}

func dsn(path string, q url.Values) string {
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}

func (d *db) openWriter() error {
	// SQLite would open a file that it may not write all the same, and leave files beside it that nobody may write.
	// One that is not there yet it would make for everybody to read.
	f, err := os.OpenFile(d.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return err
	}
	if err := d.conn.open(dsn(d.path, url.Values{
		"vfs":     {vfs},
		"_pragma": {"journal_mode(wal)", "synchronous(full)", "fullfsync(1)", "busy_timeout(5000)", "cache_size(-16384)", "journal_size_limit(67108864)"},
	})); err != nil {
		return err
	}
	err = d.tryCommit(nil)
	if isFull(err) {
		return nil // what is there can be read, and the first write for which there is room begins what could not begin now
	}
	return err
}

// begin begins a transaction, and with the first one an epoch.
func (d *db) begin() error {
	if err := d.exec("BEGIN IMMEDIATE"); err != nil || d.epoch > 0 {
		return err
	}
	if err := d.conn.script(schema + "INSERT INTO meta VALUES ('epoch', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1"); err != nil {
		return err
	}
	_, err := d.row([]any{&d.epoch}, "SELECT value FROM meta WHERE key = 'epoch'")
	return err
}

// close waits until what was handed in is done, then lets go of the file.
func (d *db) close() error {
	d.mu.Lock()
	close(d.stop)
	if d.writing {
		d.idle = make(chan struct{})
	}
	d.mu.Unlock()
	if d.idle != nil {
		<-d.idle
	}
	d.stopped.Wait()
	return d.closeFiles()
}

func (d *db) closeFiles() error {
	var errs []error
	d.reads.Range(func(_, s any) bool {
		errs = append(errs, s.(*sql.Stmt).Close())
		return true
	})
	if d.readers != nil {
		errs = append(errs, d.readers.Close())
	}
	errs = append(errs, d.conn.close())
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	return errors.Join(errs...)
}

// write makes a change and returns once it is on disk, or refused. When ctx ends before the writer has come to it, the
// change does not happen; once the writer has, the wait is for the disk, and what apply refers to is in use.
func (d *db) write(ctx context.Context, apply func(*db) error) error {
	if d.readOnly != nil {
		return d.explain("write", d.readOnly)
	}
	select {
	case d.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-d.stop:
		return errClosed
	}
	defer func() { <-d.slots }()

	w := &write{apply: apply, turn: make(chan bool, 1)}
	first, err := d.enqueue(w)
	if err != nil {
		return err
	}
	if !first {
		lead := false
		select {
		case lead = <-w.turn:
		case <-ctx.Done():
			if d.giveUp(w) {
				return ctx.Err()
			}
			lead = <-w.turn
		}
		if !lead {
			return w.err
		}
	}
	d.lead(w)
	return w.err
}

var errClosed = &loam.Error{Code: loam.Unavailable, Op: "sqlite", Err: errors.New("the component is closed")}

// enqueue puts w in line and tells whether it is the writer now.
func (d *db) enqueue(w *write) (first bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.stop:
		return false, errClosed
	default:
	}
	d.waiting = append(d.waiting, w)
	first, d.writing = !d.writing, true
	return first, nil
}

// giveUp takes w out of line, unless the writer has taken it.
func (d *db) giveUp(w *write) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.Index(d.waiting, w)
	if i < 0 || i == 0 && len(w.turn) > 0 { // or it was made the writer
		return false
	}
	d.waiting = slices.Delete(d.waiting, i, i+1)
	return true
}

// lead is the writer's turn: it commits what waits, own first, and hands on.
func (d *db) lead(own *write) {
	d.mu.Lock()
	n := min(len(d.waiting), groupSize)
	d.group = append(d.group[:0], d.waiting[:n]...)
	d.waiting = slices.Delete(d.waiting, 0, n)
	d.mu.Unlock()

	d.commit(d.group)
	for i, w := range d.group {
		if w != own {
			w.turn <- false
		}
		d.group[i] = nil
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.waiting) > 0 {
		d.waiting[0].turn <- true
		return
	}
	d.writing = false
	if d.idle != nil {
		close(d.idle)
	}
}

// commit makes the group's changes durable together. When something breaks that is not one write's own fault to tell,
// each is tried alone, so that the innocent succeed.
func (d *db) commit(group []*write) {
	err := d.tryCommit(group)
	switch {
	case err == nil:
	case len(group) == 1:
		group[0].err = d.explain("write", err)
	default:
		for i := range group {
			d.commit(group[i : i+1])
		}
	}
}

func (d *db) tryCommit(group []*write) (err error) {
	epoch := d.epoch
	defer func() {
		if err != nil {
			_ = d.exec("ROLLBACK") // SQLite may have rolled back by itself
			d.epoch = epoch
			clear(d.ends)
		}
	}()
	if err := d.begin(); err != nil {
		return err
	}
	for _, w := range group {
		w.err = nil
		if err := w.apply(d); err != nil {
			var refused *loam.Error
			if !errors.As(err, &refused) {
				return err
			}
			w.err = err
		}
	}
	return d.exec("COMMIT")
}

// exec runs a statement on the writer's connection, for the writer only; so does row, which reads one row and tells
// whether there was one.
func (d *db) exec(query string, args ...any) error {
	_, err := d.conn.exec(query, args)
	return err
}

func (d *db) row(dest []any, query string, args ...any) (bool, error) {
	return d.conn.row(dest, query, args)
}

// nextVersion is a number that never comes again in this file, not even after a crash: 40 bits count the writes since the
// file was opened, which at 50,000 a second takes eight months, the rest the openings.
func (d *db) nextVersion() int64 {
	d.version++
	return d.epoch<<40 + d.version
}

func formatVersion(v int64) string { return strconv.FormatInt(v, 36) }

// rows reads with a reader's connection and calls each for every row. It keeps the query prepared, so there must not be
// many. It looks at ctx once: to watch it would cost more than the read, which is short.
func (d *db) rows(ctx context.Context, each func(*sql.Rows) error, query string, args ...any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s, ok := d.reads.Load(query)
	if !ok {
		made, err := d.readers.Prepare(query)
		if err != nil {
			return d.explain("read", err)
		}
		if s, ok = d.reads.LoadOrStore(query, made); ok {
			if err := made.Close(); err != nil {
				return d.explain("read", err)
			}
		}
	}
	rows, err := s.(*sql.Stmt).Query(args...)
	if err != nil {
		return d.explain("read", err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows); err != nil {
			return d.explain("read", err)
		}
	}
	if err := rows.Err(); err != nil {
		return d.explain("read", err)
	}
	return nil
}

// in adds keys to a query and its arguments as a list. It repeats the last to fill up a power of two: so few queries
// differ.
func in(query string, args []any, keys []string) (string, []any) {
	n := 1
	for n < len(keys) {
		n *= 2
	}
	for i := range n {
		args = append(args, keys[min(i, len(keys)-1)])
	}
	return query + " IN (?" + strings.Repeat(", ?", n-1) + ")", args
}

// spaceID finds or makes the number of a component's share.
func (d *db) spaceID(ctx context.Context, name string) (id int64, err error) {
	find := func() error {
		return d.rows(ctx, func(r *sql.Rows) error { return r.Scan(&id) }, "SELECT id FROM space WHERE name = ?", name)
	}
	if err := find(); err != nil || id != 0 || d.readOnly != nil {
		return id, err
	}
	if err := d.write(ctx, func(d *db) error {
		return d.exec("INSERT OR IGNORE INTO space (name) VALUES (?)", name)
	}); err != nil {
		return 0, err
	}
	return id, find()
}

// sweepLoop removes what has expired, a little at a time.
func (d *db) sweepLoop(every time.Duration) {
	tick := time.NewTicker(max(every, 100*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-d.stop:
			return
		case <-tick.C:
		}
		for more := true; more; {
			more = false
			err := d.write(context.Background(), func(d *db) (err error) {
				more, err = d.sweep()
				return err
			})
			if err != nil {
				break // the next round tries again; who writes is told
			}
		}
	}
}

const sweepBatch = 500

// sweep removes up to a batch of each kind of expired thing and tells whether there may be more; in the writer.
func (d *db) sweep() (more bool, err error) {
	remove := func(query string, args ...any) error {
		n, err := d.conn.exec(query, args)
		more = more || n >= sweepBatch
		return err
	}
	now := d.now()
	if err := remove("DELETE FROM state WHERE (space, key) IN (SELECT space, key FROM state WHERE expires > 0 AND expires <= ? LIMIT ?)",
		now.UnixMilli(), sweepBatch); err != nil {
		return false, err
	}
	if err := remove("DELETE FROM lease WHERE (space, name) IN (SELECT space, name FROM lease WHERE expires <= ? LIMIT ?)",
		now.UnixMilli(), sweepBatch); err != nil {
		return false, err
	}
	d.mu.Lock()
	retentions := maps.Clone(d.retention)
	d.mu.Unlock()
	for space, retention := range retentions {
		// The number of an event that goes must not come again: consumers have notes of it.
		if _, err := d.conn.exec(`UPDATE topic AS t
			SET last = (SELECT max(place) FROM event WHERE place > t.id << 40 AND place < (t.id + 1) << 40) - (t.id << 40)
			WHERE t.space = ? AND t.last < (SELECT max(place) FROM event WHERE place > t.id << 40 AND place < (t.id + 1) << 40) - (t.id << 40)`,
			[]any{space}); err != nil {
			return false, err
		}
		// The oldest come first in a log: to look at its first few finds those that are too old.
		if err := remove(`DELETE FROM event WHERE place IN (SELECT e.place FROM topic t JOIN event e ON e.place > t.id << 40 AND
			e.place < (SELECT min(place) + ? FROM event WHERE place > t.id << 40 AND place < (t.id + 1) << 40)
			WHERE t.space = ? AND e.time <= ?)`,
			sweepBatch, space, now.Add(-retention).UnixMilli()); err != nil {
			return false, err
		}
	}
	return more, nil
}

// explain turns SQLite's errors into ones an operator can act on.
func (d *db) explain(doing string, err error) error {
	var known *loam.Error
	if err == nil || errors.As(err, &known) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	e := &loam.Error{Code: loam.Unavailable, Op: fmt.Sprintf("sqlite: %s %s", doing, d.path), Err: err}
	var s *sqlite.Error
	code := 0
	if errors.As(err, &s) {
		code = s.Code() & 0xff
	}
	switch {
	case isFull(err):
		e.Code, e.Hint = loam.ResourceExhausted, "free some disk space; nothing acknowledged is lost, reads go on, and writes go on by themselves once there is room"
	case isDamage(err):
		e.Code, e.Hint = loam.DataLoss, "stop loam, keep a copy of the file with its -wal, and restore a backup or run `sqlite3 FILE .recover`"
	case isReadOnly(err):
		e.Code, e.Hint = loam.FailedPrecondition, "the file or its folder cannot be written: give the user that runs loam the right to, or mount it read-write; what is there can be read"
	case code == sqlite3.SQLITE_BUSY:
		e.Hint = "another program holds the file's lock: end it"
	case code == sqlite3.SQLITE_IOERR:
		e.Hint = "the disk reported an error: look at the system's log and the disk's health; what was acknowledged is kept"
	}
	return e
}

func isFull(err error) bool {
	var s *sqlite.Error
	return errors.As(err, &s) && s.Code()&0xff == sqlite3.SQLITE_FULL
}

func isReadOnly(err error) bool {
	var s *sqlite.Error
	if errors.As(err, &s) {
		return s.Code()&0xff == sqlite3.SQLITE_READONLY || s.Code()&0xff == sqlite3.SQLITE_CANTOPEN
	}
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, errReadOnlyFS)
}
