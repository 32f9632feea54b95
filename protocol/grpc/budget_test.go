package grpc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
)

// raws makes a body of messages of those sizes.
func raws(sizes ...int) []byte {
	var b []byte
	for _, n := range sizes {
		b = binary.BigEndian.AppendUint32(append(b, 0), uint32(n))
		b = append(b, make([]byte, n)...)
	}
	return b
}

// What a large message holds is taken of the budget before it is read whole, and given back with the next one or the end;
// small ones are read even when nothing is left.
func TestBudget(t *testing.T) {
	budget := protocol.NewBudget(300 << 10)
	f := frames{budget: budget}
	if err := f.begin(bytes.NewReader(raws(256<<10, 10, 200<<10)), 0, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := f.next(); err != nil || budget.Used() != 192<<10 {
		t.Fatalf("%v, %d used", err, budget.Used())
	}
	other := frames{budget: budget}
	if err := other.begin(bytes.NewReader(raws(64<<10, 256<<10)), 0, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := other.next(); err != nil {
		t.Errorf("a small message beside a large one: %v", err)
	}
	if _, err := other.next(); loam.CodeOf(err) != loam.ResourceExhausted {
		t.Errorf("%v beside a large message that holds the budget", err)
	}
	for _, used := range []int64{0, 136 << 10} {
		if _, err := f.next(); err != nil || budget.Used() != used {
			t.Errorf("%v, %d used, want %d", err, budget.Used(), used)
		}
	}
	if _, err := f.next(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	_ = f.hold(0)
	if n := budget.Used(); n != 0 {
		t.Errorf("%d are still used", n)
	}
}

// A pipe whose reader is always a little behind keeps no more than what was not read, and of the budget no more than that.
func TestPipeBudget(t *testing.T) {
	budget := protocol.NewBudget(1 << 20)
	p := pipe{budget: budget}
	m := Raw(make([]byte, 10<<10))
	write := func() error { return p.write(nil, &m, time.Time{}) }
	read := make([]byte, 10<<10)
	for range 3 {
		if err := write(); err != nil {
			t.Fatal(err)
		}
	}
	for range 1000 {
		if err := write(); err != nil {
			t.Fatal(err)
		}
		if _, err := p.read(read, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	if cap(p.b) > 256<<10 {
		t.Errorf("%d bytes are kept for %d", cap(p.b), len(p.b)-p.taken)
	}
	var err error
	for err == nil {
		err = write()
	}
	if loam.CodeOf(err) != loam.ResourceExhausted || budget.Used() > 1<<20 || budget.Used() < 512<<10 {
		t.Errorf("%v, %d used", err, budget.Used())
	}
	p.abandon(io.EOF)
	if n := budget.Used(); n != 0 {
		t.Errorf("%d are still used", n)
	}
}
