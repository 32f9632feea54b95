package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	_ "modernc.org/sqlite" // what the plain contender uses

	module "github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/capability/state"
	"github.com/loam-run/loam/component/sqlite"
)

const (
	loam      = "loam (group commit)"
	fsync     = "one fsync per write"
	plain     = "plain SQLite"
	jetStream = "JetStream SyncAlways"
)

// key is one of a thousand for each writer, so that writes replace what is there, as they do in real life.
func key(writer, n int) string { return fmt.Sprintf("writer-%d-%d", writer, n%1000) }

var writes atomic.Int64

// value is another one each time: a write that changes nothing is one that SQLite knows to leave out.
func value() []byte {
	v := bytes.Repeat([]byte("v"), valueSize)
	binary.LittleEndian.PutUint64(v, uint64(writes.Add(1)))
	return v
}

// openLoam measures the capabilities as a caller reaches them, checks and all, not the bare driver.
func openLoam(dir string) (contender, error) {
	ctx, files := context.Background(), sqlite.New()
	config := sqlite.Config{Path: filepath.Join(dir, "loam.db"), Retention: 168 * time.Hour, Sweep: 30 * time.Second}
	s, err := files.OpenState(ctx, "default", config)
	if err != nil {
		return contender{}, err
	}
	p, err := files.OpenPubsub(ctx, "default", config)
	if err != nil {
		return contender{}, errors.Join(err, s.Close())
	}
	caller := &module.Caller{Name: "bench", Grants: []module.Grant{
		{Capability: "state", Component: "default", Names: []string{"writer-*"}},
		{Capability: "pubsub", Component: "default", Names: []string{"orders"}},
	}}
	store, bus := state.New("default", s), pubsub.New("default", p)
	return contender{
		state: func(ctx context.Context, writer, n int) error {
			_, err := store.Apply(ctx, caller, []state.Op{{Key: key(writer, n), Value: value()}}, nil, nil)
			return err
		},
		publish: func(ctx context.Context, writer, n int) error {
			return bus.Publish(ctx, caller, []module.Event{{Topic: "orders", Data: value()}})
		},
		close: func() error { return errors.Join(s.Close(), p.Close()) },
	}, nil
}

// openFsync is the least one can do by hand: a file that is appended to, and an fsync for each write, one at a time.
func openFsync(dir string) (contender, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return contender{}, err
	}
	f, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return contender{}, err
	}
	var mu sync.Mutex
	write := func(_ context.Context, writer, n int) error {
		record := fmt.Appendf(nil, "%s %s\n", key(writer, n), value())
		mu.Lock()
		defer mu.Unlock()
		if _, err := f.Write(record); err != nil {
			return err
		}
		return f.Sync()
	}
	return contender{state: write, publish: write, close: f.Close}, nil
}

// openPlain is SQLite as one uses it: database/sql, WAL, full sync, a prepared statement, one write per transaction.
func openPlain(dir string) (contender, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return contender{}, err
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "plain.db")+"?_pragma=journal_mode(wal)&_pragma=synchronous(full)")
	if err != nil {
		return contender{}, err
	}
	db.SetMaxOpenConns(1) // SQLite has one writer; without this, most would be told "database is locked"
	fail := func(err error) (contender, error) { return contender{}, errors.Join(err, db.Close()) }
	if _, err := db.Exec("CREATE TABLE state (key TEXT PRIMARY KEY, value BLOB); CREATE TABLE event (seq INTEGER PRIMARY KEY, topic TEXT, data BLOB)"); err != nil {
		return fail(err)
	}
	put, err := db.Prepare("INSERT INTO state (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value")
	if err != nil {
		return fail(err)
	}
	add, err := db.Prepare("INSERT INTO event (topic, data) VALUES (?, ?)")
	if err != nil {
		return fail(err)
	}
	return contender{
		state: func(ctx context.Context, writer, n int) error {
			_, err := put.ExecContext(ctx, key(writer, n), value())
			return err
		},
		publish: func(ctx context.Context, writer, n int) error {
			_, err := add.ExecContext(ctx, "orders", value())
			return err
		},
		close: db.Close,
	}, nil
}

// openNATS is a JetStream server in this process, which its client reaches without a socket: a key-value bucket for
// state, a stream for events.
func openNATS(dir string) (contender, error) {
	s, err := server.NewServer(&server.Options{
		DontListen: true, JetStream: true, StoreDir: dir, SyncAlways: true, NoSigs: true, NoLog: true,
	})
	if err != nil {
		return contender{}, err
	}
	s.Start()
	stop := func() { s.Shutdown(); s.WaitForShutdown() }
	if !s.ReadyForConnections(10 * time.Second) {
		stop()
		return contender{}, errors.New("the NATS server did not start")
	}
	nc, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		stop()
		return contender{}, err
	}
	fail := func(err error) (contender, error) { nc.Close(); stop(); return contender{}, err }
	js, err := jetstream.New(nc)
	if err != nil {
		return fail(err)
	}
	ctx := context.Background()
	kv, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "state", Storage: jetstream.FileStorage})
	if err != nil {
		return fail(err)
	}
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "orders", Subjects: []string{"orders"}, Storage: jetstream.FileStorage}); err != nil {
		return fail(err)
	}
	return contender{
		state: func(ctx context.Context, writer, n int) error {
			_, err := kv.Put(ctx, key(writer, n), value())
			return err
		},
		publish: func(ctx context.Context, writer, n int) error {
			_, err := js.Publish(ctx, "orders", value())
			return err
		},
		close: func() error { nc.Close(); stop(); return nil },
	}, nil
}
