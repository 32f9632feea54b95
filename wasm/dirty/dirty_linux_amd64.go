package dirty

import (
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxRegions is how many mappings can be watched at a time.
const maxRegions = 1024

// A region is a mapping that is watched. The handler looks through all of them for the one that an address is in. It runs
// in the thread that writes, whose own region does not change meanwhile; what changes while it is looked at is another's.
// The layout is known to the assembly.
type region struct {
	version    atomic.Uint64 // odd while base and size change
	base, size uintptr
	noted      atomic.Uint64 // how many of pages; more than Max: not all that were written are among them
	pages      [Max]uint32
}

var _ = [1]struct{}{}[unsafe.Sizeof(region{})-256] // as the assembly has it

// These are the process's, as its signal handlers are.
var (
	regions [maxRegions]region
	used    atomic.Uint64 // regions that were ever in use: the first ones
	next    uintptr       // the handler of SIGSEGV that was there before

	installing sync.Once
	installed  error

	mu   sync.Mutex
	free []*region // of those in use once
)

// handler is the address of the handler: see the assembly. It is the kernel that calls it.
func handler() uintptr

// sigaction is the kernel's.
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// install puts the handler before the Go runtime's, which it runs like: on the signal stack, with all signals blocked.
func install() error {
	var act sigaction
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGSEGV), 0, uintptr(unsafe.Pointer(&act)), unsafe.Sizeof(act.mask), 0, 0); errno != 0 {
		return errno
	}
	const siginfo, onstack = 0x4, 0x08000000
	if next = act.handler; next <= 1 || act.flags&siginfo == 0 || act.flags&onstack == 0 { // 0, 1: it is not handled
		return fmt.Errorf("the handler of SIGSEGV is not the Go runtime's: %#x, its flags %#x", next, act.flags)
	}
	act.handler = handler()
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGSEGV), uintptr(unsafe.Pointer(&act)), 0, unsafe.Sizeof(act.mask), 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// A Memory is a mapping that is watched. It is its owner's, as the mapping is, and not safe for concurrent use.
type Memory struct {
	region *region
	mem    []byte
}

// Watch notes from now on which pages of mem are written: whole pages of a private mapping that may be read and written.
// It is an error where that is not possible, and nothing has changed then.
func Watch(mem []byte) (*Memory, error) {
	installing.Do(func() { installed = install() })
	if installed != nil {
		return nil, installed
	}
	r := take()
	if r == nil {
		return nil, fmt.Errorf("%d mappings are watched already", maxRegions)
	}
	r.set(uintptr(unsafe.Pointer(unsafe.SliceData(mem))), uintptr(len(mem)))
	if err := unix.Mprotect(mem, unix.PROT_READ); err != nil {
		// The kernel may have done a part of it.
		if err := unix.Mprotect(mem, unix.PROT_READ|unix.PROT_WRITE); err != nil {
			panic("dirty: mprotect: " + err.Error()) // it can only be told to do what was there before
		}
		r.give()
		return nil, err
	}
	return &Memory{r, mem}, nil
}

// Pages are the numbers of the pages that were written since Watch, in the order of that. all tells that
// there are no others. The slice is valid until the next write.
func (m *Memory) Pages() (pages []uint32, all bool) {
	n := m.region.noted.Load()
	return m.region.pages[:min(n, Max)], n <= Max
}

// Stop ends watching. All of the mapping can be written again.
func (m *Memory) Stop() {
	if err := unix.Mprotect(m.mem, unix.PROT_READ|unix.PROT_WRITE); err != nil {
		panic("dirty: mprotect: " + err.Error()) // pieces become one, which takes nothing that there might be too little of
	}
	m.Forget()
}

// Forget ends watching a mapping that is about to be unmapped: to write to it is a fault as any other.
func (m *Memory) Forget() {
	m.region.give()
	m.region, m.mem = nil, nil
}

func take() *region {
	mu.Lock()
	defer mu.Unlock()
	if n := len(free); n > 0 {
		r := free[n-1]
		free = free[:n-1]
		return r
	}
	n := used.Load()
	if n == maxRegions {
		return nil
	}
	used.Store(n + 1)
	return &regions[n]
}

func (r *region) give() {
	r.set(0, 0)
	mu.Lock()
	free = append(free, r)
	mu.Unlock()
}

func (r *region) set(base, size uintptr) {
	r.version.Add(1)
	r.base, r.size = base, size
	r.noted.Store(0)
	r.version.Add(1)
}
