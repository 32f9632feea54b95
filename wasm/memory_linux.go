package wasm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/dirty"
	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// smallImage is up to which size copying an image costs less than mapping it.
const smallImage = 64 << 10

// An imageFile holds an image in a file without a name, which instances map privately: they share its pages until they
// write, and a page that was written is a copy of their own.
type imageFile struct {
	fd      int
	content []byte // the file, mapped to be read
	mapper  *mapper
	typical atomic.Int64 // pages that a call writes
}

// A mapper is what all mapped memories of a process share.
type mapper struct {
	pagemap int    // descriptor of /proc/self/pagemap, if the kernel can scan; or -1
	how     string // memories are reset
	maps    atomic.Int64
	maxMaps int64
	regions sync.Pool // of *[maxRegions]region
	noFiles error     // why images are no files; nil: they are
	noHuge  bool      // the kernel would make the first page that a guest grows by one of 2 MiB
	watch   int       // after so many resets an instance's writes are watched; 0: never
}

// watchAfter is a number of resets that were dearer by what it costs to begin watching.
const watchAfter = 16

// newMapper finds out what the kernel can do.
func newMapper() *mapper {
	m := &mapper{pagemap: -1, how: "madvise: the kernel has no PAGEMAP_SCAN (Linux 6.7 has)", maxMaps: 65530, watch: watchAfter}
	m.regions.New = func() any { return new([maxRegions]region) }
	if b, err := os.ReadFile("/proc/sys/vm/max_map_count"); err == nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
			m.maxMaps = n
		}
	}
	m.maxMaps -= m.maxMaps / 4 // for everybody else
	if b, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled"); err == nil {
		m.noHuge = strings.Contains(string(b), "[always]")
	}
	if unix.Getpagesize() != pageSize {
		m.how, m.watch = fmt.Sprintf("madvise: the kernel's pages are %d bytes", unix.Getpagesize()), 0
		return m
	}
	fd, err := unix.Open("/proc/self/pagemap", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		m.how = "madvise: " + err.Error()
		return m
	}
	m.pagemap = fd
	if err := m.scan(zeroPage[:], func(int, int) {}); err != nil {
		_ = unix.Close(fd)
		m.pagemap = -1
		return m
	}
	m.how = bestReset
	return m
}

// used is how many mappings there are.
func (m *mapper) used() int64 { return m.maps.Load() }

func (m *mapper) close() {
	if m.pagemap >= 0 {
		_ = unix.Close(m.pagemap) // it was only read
	}
}

// runs finds what is not zero in the memory of a first instance. Most of it was never touched, and is not here either:
// each page would be a fault.
func (m *mapper) runs(b []byte) (runs []run) {
	if m.pagemap < 0 || uintptr(unsafe.Pointer(unsafe.SliceData(b)))%pageSize != 0 {
		return runsOf(b)
	}
	err := m.scan(b, func(from, to int) {
		for _, r := range runsOf(b[from:to]) {
			runs = append(runs, run{from + r.from, from + r.to})
		}
	})
	if err != nil {
		return runsOf(b)
	}
	return runs
}

// keep lays an image's bytes into a file, if that is of use, or copies them.
func (m *mapper) keep(im *image) error {
	if len(im.bytes) <= smallImage {
		im.bytes, im.how = bytes.Clone(im.bytes), "copy: it is small"
		return nil
	}
	if m.noFiles != nil {
		im.bytes, im.how = bytes.Clone(im.bytes), "copy: "+m.noFiles.Error()
		return nil
	}
	fd, err := unix.MemfdCreate("loam-image", unix.MFD_CLOEXEC)
	if err != nil {
		im.bytes, im.how = bytes.Clone(im.bytes), "copy: no memfd: "+err.Error()
		return nil
	}
	fail := func(err error) error {
		_ = unix.Close(fd)
		return loam.Errorf(loam.Unavailable, "keep the memory image", "%w", err)
	}
	if err := unix.Ftruncate(fd, int64(len(im.bytes))); err != nil {
		return fail(err)
	}
	for _, r := range im.runs {
		for at := r.from; at < r.to; {
			n, err := unix.Pwrite(fd, im.bytes[at:r.to], int64(at))
			if err != nil {
				return fail(err)
			}
			at += n
		}
	}
	content, err := unix.Mmap(fd, 0, len(im.bytes), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fail(err)
	}
	m.maps.Add(1)
	im.file = &imageFile{fd: fd, content: content, mapper: m}
	im.bytes, im.how = content, m.how
	return nil
}

// free gives the image back, when no instance of it is left.
func (im *image) free() {
	if f := im.file; f != nil {
		_ = unix.Munmap(f.content)
		_ = unix.Close(f.fd)
		f.mapper.maps.Add(-1)
	}
	im.bytes, im.file = nil, nil
}

// A mappedMemory is a private mapping of an image with room behind it. What was not written costs nothing.
type mappedMemory struct {
	image    *image
	file     *imageFile
	buf      []byte // all that was reserved
	maps     int64  // mappings that it is made of, as they are counted
	size     int
	grown    bool // there is memory behind the image
	shrink   bool
	measured bool // all pages that are private now were written since the last reset

	written *dirty.Memory // the image's part, once it is watched
	pieces  int64         // mappings that watching has made more
	resets  int           // since it was watched last, or never
	watch   int           // resets after which it will be watched; 0: never
}

// fork makes a memory of the image that can grow to limit bytes.
func (m *mapper) fork(im *image, limit uint64) (memory, error) {
	if im.file == nil {
		return &copiedMemory{image: im, mapper: m, limit: limit}, nil
	}
	if m.maps.Add(1) > m.maxMaps {
		m.maps.Add(-1)
		return nil, &loam.Error{
			Code: loam.Unavailable, Op: "fork a guest", Err: errors.New("this process has as many memory mappings as the kernel lets it have"),
			Hint: "raise vm.max_map_count, or keep fewer instances",
		}
	}
	forked := &mappedMemory{image: im, file: im.file, maps: 1, measured: true, watch: m.watch}
	if err := forked.reserve(max(limit, uint64(len(im.bytes)))); err != nil {
		m.maps.Add(-1)
		return nil, &loam.Error{
			Code: loam.Unavailable, Op: "fork a guest", Err: fmt.Errorf("map its memory: %w", err),
			Hint: "the process's address space is limited (ulimit -v), or memory may not be overcommitted (vm.overcommit_memory)",
		}
	}
	return forked, nil
}

const (
	memoryProt  = unix.PROT_READ | unix.PROT_WRITE
	memoryFlags = unix.MAP_PRIVATE | unix.MAP_NORESERVE
)

// reserve maps the image, and addresses to grow into: they are behind the end of the file until there is memory, see grow.
func (m *mappedMemory) reserve(size uint64) error {
	p, err := unix.MmapPtr(m.file.fd, 0, nil, uintptr(size), memoryProt, memoryFlags)
	if err != nil {
		return err
	}
	m.buf, m.size = unsafe.Slice((*byte)(p), size), len(m.image.bytes)
	return nil
}

// grow puts zeros behind the image, as far as the memory can ever grow.
func (m *mappedMemory) grow() error {
	behind := m.buf[len(m.image.bytes):]
	p := unsafe.Pointer(unsafe.SliceData(behind))
	if _, err := unix.MmapPtr(-1, 0, p, uintptr(len(behind)), memoryProt, memoryFlags|unix.MAP_ANON|unix.MAP_FIXED); err != nil {
		return err
	}
	if m.file.mapper.noHuge {
		_ = unix.Madvise(behind, unix.MADV_NOHUGEPAGE) // a kernel without huge pages refuses, and need not be told
	}
	m.count(1)
	m.grown = true
	return nil
}

// count counts mappings more.
func (m *mappedMemory) count(n int64) {
	m.maps += n
	m.file.mapper.maps.Add(n)
}

func (m *mappedMemory) Reallocate(size uint64) []byte {
	home := len(m.image.bytes)
	if size > uint64(len(m.buf)) {
		return nil
	}
	if size > uint64(home) && !m.grown && m.grow() != nil {
		return nil
	}
	m.size = max(int(size), home)
	if m.shrink {
		m.size = home
	}
	return m.buf[:m.size:m.size]
}

func (m *mappedMemory) shrinking(on bool) { m.shrink = on }

// Free gives the memory back. The engine calls it when the instance is closed, and nobody else does.
func (m *mappedMemory) Free() {
	if m.buf == nil {
		return
	}
	if m.written != nil {
		m.written.Forget()
	}
	_ = unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(m.buf)), uintptr(len(m.buf)))
	m.buf = nil
	m.count(-m.maps)
}

// A plainMemory is a mapping of zeros with room to grow, for instances that are not of an image. The Go heap would copy
// it when it grows, zero it first, and keep it for a while after its end; a large one stops the loop for milliseconds.
type plainMemory struct {
	mapper *mapper
	buf    []byte // all that was reserved
	size   int
}

// plain makes a memory that can grow to limit bytes.
func (m *mapper) plain(limit uint64) experimental.LinearMemory {
	if m.maps.Add(1) <= m.maxMaps {
		p, err := unix.MmapPtr(-1, 0, nil, uintptr(limit), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
		if err == nil {
			buf := unsafe.Slice((*byte)(p), limit)
			if m.noHuge {
				_ = unix.Madvise(buf, unix.MADV_NOHUGEPAGE) // as in grow
			}
			return &plainMemory{mapper: m, buf: buf}
		}
	}
	m.maps.Add(-1)
	return &sliceMemory{limit: limit}
}

func (m *plainMemory) Reallocate(size uint64) []byte {
	if size > uint64(len(m.buf)) {
		return nil
	}
	m.size = int(size)
	return m.buf[:size:size]
}

// Free gives the memory back. The engine calls it when the instance is closed, and nobody else does.
func (m *plainMemory) Free() {
	if m.buf == nil {
		return
	}
	_ = unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(m.buf)), uintptr(len(m.buf)))
	m.buf = nil
	m.mapper.maps.Add(-1)
}

// A page that was written once stays private, and each reset copies it again. So they are dropped when there are far
// more of them than calls write.
const (
	fewPages = 32
	farMore  = 4
)

func (m *mappedMemory) reset(p pauser) (resized bool) {
	home := len(m.image.bytes)
	if resized = m.size != home; resized {
		forget(m.buf[home:m.size], p)
	}
	if m.written != nil {
		if m.undo() {
			return resized
		}
		m.unwatch()
	}
	m.restore(home, p)
	if m.resets++; m.resets == m.watch {
		m.beginWatching()
	}
	return resized
}

// undo copies the pages back that were written, if it is known which and they are not too many.
func (m *mappedMemory) undo() bool {
	pages, all := m.written.Pages()
	if !all || len(pages) > fewPages+farMore*int(m.file.typical.Load()) {
		return false
	}
	for _, p := range pages {
		at := int(p) * pageSize
		copy(m.buf[at:at+pageSize], m.image.bytes[at:])
	}
	if n := int64(2*len(pages)) - m.pieces; n > 0 {
		m.pieces += n
		m.count(n)
	}
	return true
}

// beginWatching has the pages noted that are written from now on, so that nobody needs to be asked for them. It is for
// instances that are used again and again: each page's first write takes ten times as long.
func (m *mappedMemory) beginWatching() {
	mapper := m.file.mapper
	if mapper.maps.Load() > mapper.maxMaps/2 {
		m.resets = 0 // some time later
		return
	}
	// Where it cannot be done, the reset is as it was.
	m.written, _ = dirty.Watch(m.buf[:len(m.image.bytes)])
}

// unwatch goes back to asking. What has once written much is watched again after twice as many calls.
func (m *mappedMemory) unwatch() {
	m.written.Stop()
	m.written = nil
	m.count(-m.pieces)
	m.pieces, m.resets, m.watch = 0, 0, min(2*m.watch, 1<<20)
}

// restore has the kernel tell which pages were written, or forget all of them.
func (m *mappedMemory) restore(home int, p pauser) {
	if m.file.mapper.pagemap < 0 {
		forget(m.buf[:home], p)
		return
	}
	pages := int64(0)
	err := m.file.mapper.scan(m.buf[:home], func(from, to int) {
		copy(m.buf[from:to], m.image.bytes[from:to])
		pages += int64(to-from) / pageSize
	})
	if err != nil { // it worked before; but the guest must be clean
		forget(m.buf[:home], p)
		m.measured = true
		return
	}
	typical := m.file.typical.Load()
	if m.measured { // a mean of what single calls write, the last eight counting most
		if typical == 0 {
			typical = pages
		}
		m.file.typical.Store(typical + (pages-typical)/8)
		m.measured = false
	}
	if pages > fewPages+farMore*typical {
		forget(m.buf[:home], p)
		m.measured = true
	}
}

// drop implements pages.
func (m *mappedMemory) drop(p pauser) { forget(m.buf[len(m.image.bytes):m.size], p) } // the image is small

// drop implements pages.
func (m *plainMemory) drop(p pauser) { forget(m.buf[:m.size], p) }

// forgotten is how much of a mapping is given back in one step: 128 pages, some 60 µs where all were written.
const forgotten = 512 << 10

// forget gives back what was written to a mapping: the image's pages show again, and behind it there are zeros.
func forget(b []byte, p pauser) {
	for len(b) > 0 {
		n := min(len(b), forgotten)
		if err := unix.Madvise(b[:n], unix.MADV_DONTNEED); err != nil {
			panic("wasm: madvise: " + err.Error()) // a mapping of ours and whole pages: only a bug of ours makes it fail
		}
		if b = b[n:]; len(b) > 0 {
			p.pause()
		}
	}
}

// What the ioctl PAGEMAP_SCAN takes and gives (linux/fs.h).
type scanArg struct {
	size, flags, start, end, walkEnd, vec, vecLen, maxPages, categoryInverted, categoryMask, categoryAnyOf, returnMask uint64
}

// A range of pages, and the categories that all of them are of.
type region struct{ start, end, _ uint64 }

const (
	maxRegions      = 128
	pagemapScan     = 0xc0606610
	pageIsFile      = 1 << 2
	pageIsPresent   = 1 << 3
	pageIsSwapped   = 1 << 4
	pageIsPrivately = pageIsPresent | pageIsSwapped
)

// scan calls do for the ranges of b, a private mapping of a file, that were written. Those are in memory, or swapped out,
// but not the file's any more.
func (m *mapper) scan(b []byte, do func(from, to int)) error {
	base := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b))))
	regions := m.regions.Get().(*[maxRegions]region)
	defer m.regions.Put(regions)
	arg := scanArg{
		size: uint64(unsafe.Sizeof(scanArg{})), start: base &^ (pageSize - 1), end: base + uint64(len(b)),
		vec: uint64(uintptr(unsafe.Pointer(regions))), vecLen: maxRegions,
		categoryInverted: pageIsFile, categoryMask: pageIsFile, categoryAnyOf: pageIsPrivately, returnMask: pageIsPresent,
	}
	for arg.start < arg.end {
		n, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(m.pagemap), pagemapScan, uintptr(unsafe.Pointer(&arg)))
		if errno != 0 {
			return errno
		}
		for _, r := range regions[:n] {
			do(int(r.start-base), int(r.end-base))
		}
		if arg.walkEnd <= arg.start {
			break
		}
		arg.start = arg.walkEnd
	}
	runtime.KeepAlive(regions)
	return nil
}
