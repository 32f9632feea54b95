// Package wasi offers WASI preview 1 to guests: time, randomness, arguments, environment and the three standard streams,
// and nothing else. There are no files and no sockets, and nothing of it is kept between two calls, so that an
// instance needs no resetting here. What a guest is given is in its [guest.Call].
package wasi

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/loam-run/loam/wasm/guest"
	"github.com/tetratelabs/wazero"
	wasmapi "github.com/tetratelabs/wazero/api"
)

// Module is what guests import from. Unstable is what it was called before, by the SDKs of that time still.
const (
	Module   = "wasi_snapshot_preview1"
	Unstable = "wasi_unstable"
)

// An Exit is what a guest that calls proc_exit panics with: its Call ends with this error.
type Exit struct{ Status uint32 }

// Error says the status.
func (e *Exit) Error() string { return fmt.Sprintf("it exited with status %d", e.Status) }

// Numbers of WASI's errno.
const (
	success = 0
	badf    = 8
	fault   = 21
	inval   = 28
	ioError = 29
	nosys   = 52
	notsock = 57
	notsup  = 58
	spipe   = 70
)

const (
	i32 = wasmapi.ValueTypeI32
	i64 = wasmapi.ValueTypeI64

	maxIovs   = 1024
	maxEvents = 1024
	maxRandom = 1 << 20
	maxWrite  = 64 << 10 // bytes that one call takes; guests write the rest by another
	callCost  = 200      // units of work that a call is, besides what it moves
)

type errno uint32

// A function gets its parameters and returns an errno.
type function func(c *guest.Call, m wasmapi.Memory, p []uint64) errno

// Define offers the module to the guests of rt.
func Define(ctx context.Context, rt wazero.Runtime) error {
	return define(ctx, rt, Module, func(string) bool { return true })
}

// DefineUnstable offers under the old name those functions that are the same in both.
func DefineUnstable(ctx context.Context, rt wazero.Runtime) error {
	return define(ctx, rt, Unstable, func(name string) bool {
		switch name {
		case "args_get", "args_sizes_get", "environ_get", "environ_sizes_get", "clock_res_get", "clock_time_get", "random_get",
			"sched_yield", "fd_close", "fd_fdstat_get", "fd_read", "fd_write", "fd_prestat_get", "fd_prestat_dir_name":
			return true
		}
		return false
	})
}

// define offers a module with the functions that are wanted, and proc_exit.
func define(ctx context.Context, rt wazero.Runtime, module string, wanted func(name string) bool) error {
	b := rt.NewHostModuleBuilder(module)
	for _, f := range []struct {
		name   string
		params string // i: i32, I: i64
		do     function
	}{
		{"args_get", "ii", argsGet},
		{"args_sizes_get", "ii", argsSizesGet},
		{"environ_get", "ii", environGet},
		{"environ_sizes_get", "ii", environSizesGet},
		{"clock_res_get", "ii", clockResGet},
		{"clock_time_get", "iIi", clockTimeGet},
		{"random_get", "ii", randomGet},
		{"sched_yield", "", schedYield},
		{"poll_oneoff", "iiii", pollOneoff},
		{"fd_close", "i", fdClose},
		{"fd_fdstat_get", "ii", fdstatGet},
		{"fd_fdstat_set_flags", "ii", fdstatSetFlags},
		{"fd_filestat_get", "ii", filestatGet},
		{"fd_read", "iiii", fdRead},
		{"fd_write", "iiii", fdWrite},
		{"fd_seek", "iIii", stream(spipe)},
		{"fd_tell", "ii", stream(spipe)},
		{"fd_pread", "iiiIi", stream(spipe)},
		{"fd_pwrite", "iiiIi", stream(spipe)},
		{"fd_sync", "i", stream(success)},
		{"fd_datasync", "i", stream(success)},
		{"fd_advise", "iIIi", stream(spipe)},
		{"fd_allocate", "iII", stream(notsup)},
		{"fd_fdstat_set_rights", "iII", stream(notsup)},
		{"fd_filestat_set_size", "iI", stream(inval)},
		{"fd_filestat_set_times", "iIIi", stream(notsup)},
		{"fd_readdir", "iiiIi", stream(badf)},
		{"fd_renumber", "ii", stream(notsup)},
		{"fd_prestat_get", "ii", always(badf)}, // there is no folder, so no file can be named
		{"fd_prestat_dir_name", "iii", always(badf)},
		{"path_create_directory", "iii", always(badf)},
		{"path_filestat_get", "iiiii", always(badf)},
		{"path_filestat_set_times", "iiiiIIi", always(badf)},
		{"path_link", "iiiiiii", always(badf)},
		{"path_open", "iiiiiIIii", always(badf)},
		{"path_readlink", "iiiiii", always(badf)},
		{"path_remove_directory", "iii", always(badf)},
		{"path_rename", "iiiiii", always(badf)},
		{"path_symlink", "iiiii", always(badf)},
		{"path_unlink_file", "iii", always(badf)},
		{"proc_raise", "i", always(nosys)},
		{"sock_accept", "iii", stream(notsock)},
		{"sock_recv", "iiiiii", stream(notsock)},
		{"sock_send", "iiiii", stream(notsock)},
		{"sock_shutdown", "ii", stream(notsock)},
	} {
		if !wanted(f.name) {
			continue
		}
		params := make([]wasmapi.ValueType, len(f.params))
		for i, p := range f.params {
			params[i] = i32
			if p == 'I' {
				params[i] = i64
			}
		}
		b.NewFunctionBuilder().WithGoModuleFunction(wasmapi.GoModuleFunc(func(ctx context.Context, m wasmapi.Module, stack []uint64) {
			c := guest.Of(ctx)
			c.Owner.Worked(callCost)
			stack[0] = uint64(f.do(c, m.Memory(), stack))
		}), params, []wasmapi.ValueType{i32}).Export(f.name)
	}
	b.NewFunctionBuilder().WithGoModuleFunction(wasmapi.GoModuleFunc(func(_ context.Context, _ wasmapi.Module, stack []uint64) {
		panic(&Exit{uint32(stack[0])})
	}), []wasmapi.ValueType{i32}, nil).Export("proc_exit")
	_, err := b.Instantiate(ctx)
	return err
}

// always is a function that does nothing.
func always(e errno) function {
	return func(*guest.Call, wasmapi.Memory, []uint64) errno { return e }
}

// stream is what cannot be done with a standard stream, and with no other descriptor as there is none.
func stream(e errno) function {
	return func(_ *guest.Call, _ wasmapi.Memory, p []uint64) errno {
		if uint32(p[0]) > 2 {
			return badf
		}
		return e
	}
}

// put writes numbers of 32 bits.
func put(m wasmapi.Memory, at uint64, values ...uint32) bool {
	b, ok := m.Read(uint32(at), uint32(4*len(values)))
	if !ok {
		return false
	}
	for i, v := range values {
		binary.LittleEndian.PutUint32(b[4*i:], v)
	}
	return true
}

func done(ok bool) errno {
	if !ok {
		return fault
	}
	return success
}

func argsGet(c *guest.Call, m wasmapi.Memory, p []uint64) errno { return strings(m, c.Args, p) }

func argsSizesGet(c *guest.Call, m wasmapi.Memory, p []uint64) errno { return sizes(m, c.Args, p) }

func environGet(c *guest.Call, m wasmapi.Memory, p []uint64) errno { return strings(m, c.Env, p) }

func environSizesGet(c *guest.Call, m wasmapi.Memory, p []uint64) errno { return sizes(m, c.Env, p) }

// sizes(count, bytes)
func sizes(m wasmapi.Memory, list []string, p []uint64) errno {
	n := 0
	for _, s := range list {
		n += len(s) + 1
	}
	return done(put(m, p[0], uint32(len(list))) && put(m, p[1], uint32(n)))
}

// strings(pointers, bytes)
func strings(m wasmapi.Memory, list []string, p []uint64) errno {
	at := uint32(p[1])
	for i, s := range list {
		b, ok := m.Read(at, uint32(len(s)+1))
		if !ok || !put(m, uint64(uint32(p[0])+uint32(4*i)), at) {
			return fault
		}
		b[copy(b, s)] = 0
		at += uint32(len(b))
	}
	return success
}

// Clocks.
const (
	realtime = iota
	monotonic
	processTime
	threadTime
)

// clock_res_get(id, result)
func clockResGet(_ *guest.Call, m wasmapi.Memory, p []uint64) errno {
	if id := uint32(p[0]); id > threadTime {
		return inval
	}
	return done(m.WriteUint64Le(uint32(p[1]), 1))
}

// clock_time_get(id, precision, result)
func clockTimeGet(c *guest.Call, m wasmapi.Memory, p []uint64) errno {
	ns, ok := now(c, uint32(p[0]))
	if !ok {
		return inval
	}
	return done(m.WriteUint64Le(uint32(p[2]), uint64(ns)))
}

// now reads a clock. The monotonic one counts from the process's begin, so that it goes on, never back, where a guest
// was started from an image of an earlier time.
func now(c *guest.Call, id uint32) (ns int64, ok bool) {
	switch id {
	case realtime:
		return time.Now().UnixNano(), true
	case monotonic, processTime, threadTime:
		return int64(time.Since(c.Began)) + 1, true
	}
	return 0, false
}

// random_get(ptr, len)
func randomGet(c *guest.Call, m wasmapi.Memory, p []uint64) errno {
	if n := uint32(p[1]); n > maxRandom {
		return inval
	}
	b, ok := m.Read(uint32(p[0]), uint32(p[1]))
	if !ok {
		return fault
	}
	// A source may have the kernel write, which it cannot do to a guest's memory whose writes are watched.
	drawn := make([]byte, min(len(b), 4096))
	for len(b) > 0 {
		drawn = drawn[:min(len(b), len(drawn))]
		if _, err := io.ReadFull(c.Random, drawn); err != nil {
			return ioError
		}
		n := copy(b, drawn)
		b = b[n:]
		c.Owner.Worked(int64(n) * 8)
	}
	return success
}

func schedYield(c *guest.Call, _ wasmapi.Memory, _ []uint64) errno {
	c.Sleep(0)
	c.Task.Yield()
	return success
}

// poll_oneoff(subscriptions, events, count, result) waits for a clock; the streams are always ready.
func pollOneoff(c *guest.Call, m wasmapi.Memory, p []uint64) errno {
	const sizeOfSubscription, sizeOfEvent = 48, 32
	n := uint32(p[2])
	if n == 0 || n > maxEvents {
		return inval
	}
	in, ok := m.Read(uint32(p[0]), n*sizeOfSubscription)
	if !ok {
		return fault
	}
	if _, ok := m.Read(uint32(p[1]), n*sizeOfEvent); !ok {
		return fault
	}
	in = append([]byte(nil), in...)
	earliest := time.Duration(math.MaxInt64) // to wait
	until := make([]time.Duration, n)        // for each; 0: it is ready
	for i := range until {
		s := in[i*sizeOfSubscription:]
		if s[8] != 0 { // not a clock
			earliest = 0
			continue
		}
		timeout := int64(min(binary.LittleEndian.Uint64(s[24:]), math.MaxInt64))
		if binary.LittleEndian.Uint16(s[40:])&1 != 0 { // the time itself
			at, _ := now(c, binary.LittleEndian.Uint32(s[16:]))
			timeout = max(timeout-at, 0)
		}
		until[i] = time.Duration(timeout)
		earliest = min(earliest, until[i])
	}
	c.Sleep(earliest)
	events := uint32(0)
	for i := range until {
		if until[i] > earliest {
			continue
		}
		s := in[i*sizeOfSubscription:]
		var e [sizeOfEvent]byte
		copy(e[:8], s[:8]) // what the guest calls it
		e[10] = s[8]
		if s[8] != 0 && binary.LittleEndian.Uint32(s[16:]) > 2 {
			binary.LittleEndian.PutUint16(e[8:], badf)
		}
		if !m.Write(uint32(p[1])+events*sizeOfEvent, e[:]) {
			return fault
		}
		events++
	}
	return done(put(m, p[3], events))
}

// fd_close(fd)
func fdClose(_ *guest.Call, _ wasmapi.Memory, p []uint64) errno {
	if uint32(p[0]) > 2 {
		return badf
	}
	return success
}

// fd_fdstat_get(fd, result): a character device that may be read or written.
func fdstatGet(_ *guest.Call, m wasmapi.Memory, p []uint64) errno {
	if uint32(p[0]) > 2 {
		return badf
	}
	var b [24]byte
	b[0] = 2
	const read, write = 1 << 1, 1 << 6
	rights := uint64(write)
	if p[0] == 0 {
		rights = read
	}
	binary.LittleEndian.PutUint64(b[8:], rights)
	return done(m.Write(uint32(p[1]), b[:]))
}

// fd_fdstat_set_flags(fd, flags): the streams never make the guest wait, whatever it prefers.
func fdstatSetFlags(_ *guest.Call, _ wasmapi.Memory, p []uint64) errno {
	if uint32(p[0]) > 2 {
		return badf
	}
	return success
}

// fd_filestat_get(fd, result)
func filestatGet(_ *guest.Call, m wasmapi.Memory, p []uint64) errno {
	if uint32(p[0]) > 2 {
		return badf
	}
	var b [64]byte
	b[16] = 2 // a character device
	return done(m.Write(uint32(p[1]), b[:]))
}

// iov is the i-th buffer of a list in memory.
func iov(m wasmapi.Memory, list uint64, i uint32) ([]byte, bool) {
	head, ok := m.Read(uint32(list)+8*i, 8)
	if !ok {
		return nil, false
	}
	return m.Read(binary.LittleEndian.Uint32(head), binary.LittleEndian.Uint32(head[4:]))
}

// fd_read(fd, iovs, count, result)
func fdRead(c *guest.Call, m wasmapi.Memory, p []uint64) errno {
	if uint32(p[0]) != 0 {
		return badf
	}
	if n := uint32(p[2]); n > maxIovs {
		return inval
	}
	total := uint32(0)
	for i := range uint32(p[2]) {
		b, ok := iov(m, p[1], i)
		if !ok {
			return fault
		}
		if c.Stdin == nil || len(b) == 0 {
			continue
		}
		n, err := io.ReadFull(c.Stdin, b)
		total += uint32(n)
		c.Moved(n)
		if err != nil {
			break
		}
	}
	return done(put(m, p[3], total))
}

// fd_write(fd, iovs, count, result)
func fdWrite(c *guest.Call, m wasmapi.Memory, p []uint64) errno {
	w := c.Stdout
	switch uint32(p[0]) {
	case 1:
	case 2:
		w = c.Stderr
	default:
		return badf
	}
	if n := uint32(p[2]); n > maxIovs {
		return inval
	}
	total := 0
	for i := range uint32(p[2]) {
		b, ok := iov(m, p[1], i)
		if !ok {
			return fault
		}
		b = b[:min(len(b), maxWrite-total)]
		total += len(b)
		if w == nil {
			continue
		}
		if _, err := w.Write(b); err != nil {
			return ioError
		}
	}
	c.Owner.Worked(int64(total))
	return done(put(m, p[3], uint32(total)))
}
