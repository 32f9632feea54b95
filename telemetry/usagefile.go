package telemetry

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A usage file is a row of slots of 512 bytes, of which the first is the header. A slot is the sum of one function in
// one hour, of one shard of the process that wrote it. All numbers are little-endian, all checksums CRC-32C:
//
//	0   u32 checksum of the key, up to byte 272
//	4   u32 hour since 1970, u16 shard, u16 length of the name, the function's name
//	272 two copies of 120 bytes: u32 checksum of the rest, u32 0, u64 turn, 13 numbers
//
// Of the copies whose checksum is right, that of the later turn counts.
const (
	slotSize   = 512
	slotKey    = 272
	slotCopy   = 120
	slotName   = 12  // where the name begins
	chunkSlots = 256 // by how many a file grows: a multiple of every system's page
	chunkSize  = chunkSlots * slotSize
	usageMagic = "loam usage 1\n"
	compacted  = 16 // of the header: 1 where the day is over and every sum stands once
	usageExt   = ".usage"
)

// errBusy is of a file that another process writes.
var errBusy = errors.New("another process writes it")

// A usageFile is the file that this process writes. Its day's other processes, if any, have their own.
type usageFile struct {
	name, day string
	f         *os.File

	mu     sync.Mutex
	chunks [][]byte // mapped
	used   int      // slots, the header included
	limit  int      // slots
	slots  map[slotAt]usageSlot
}

type slotAt struct {
	usageKey
	shard int
}

// A usageSlot is where a sum is stored. The zero value is none.
type usageSlot struct {
	bytes []byte
	turn  uint64
}

// write stores a sum: in the place of the older copy, so that the newer one is there until it is done.
func (s *usageSlot) write(u *Usage) {
	s.turn++
	at := s.bytes[slotKey+int(s.turn&1)*slotCopy:][:slotCopy]
	binary.LittleEndian.PutUint64(at[8:], s.turn)
	for i, n := range u.numbers() {
		binary.LittleEndian.PutUint64(at[16+8*i:], uint64(*n))
	}
	binary.LittleEndian.PutUint32(at, crc(at[8:]))
}

// read is what the slot's copies come to, and the turn of that.
func (s *usageSlot) read() (u Usage) {
	s.turn = 0
	for i := range 2 {
		at := s.bytes[slotKey+i*slotCopy:][:slotCopy]
		turn := binary.LittleEndian.Uint64(at[8:])
		if binary.LittleEndian.Uint32(at) != crc(at[8:]) || turn <= s.turn {
			continue
		}
		s.turn = turn
		for k, n := range u.numbers() {
			*n = int64(binary.LittleEndian.Uint64(at[16+8*k:]))
		}
	}
	return u
}

// setKey makes an empty slot that of a key.
func (s *usageSlot) setKey(at slotAt) {
	b := s.bytes
	binary.LittleEndian.PutUint32(b[4:], at.hour)
	binary.LittleEndian.PutUint16(b[8:], uint16(at.shard))
	binary.LittleEndian.PutUint16(b[10:], uint16(len(at.function)))
	copy(b[slotName:slotKey], at.function)
	binary.LittleEndian.PutUint32(b, crc(b[4:slotKey]))
}

// key is whose the slot is; ok is false where nobody's.
func (s *usageSlot) key() (at slotAt, ok bool) {
	b := s.bytes
	n := int(binary.LittleEndian.Uint16(b[10:]))
	if n > slotKey-slotName || binary.LittleEndian.Uint32(b) != crc(b[4:slotKey]) {
		return at, false
	}
	at.hour, at.shard = binary.LittleEndian.Uint32(b[4:]), int(binary.LittleEndian.Uint16(b[8:]))
	at.function = string(b[slotName : slotName+n])
	return at, true
}

func crc(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// openUsage opens this process's file of a day, the first that no other one writes, and returns what is in it. A file
// that cannot be read is put aside.
func openUsage(dir, day string, maxBytes int64) (*usageFile, map[usageKey]Usage, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	for n := 0; ; n++ {
		u := &usageFile{name: fmt.Sprintf("%s-%d%s", day, n, usageExt), day: day, limit: int(max(maxBytes/slotSize, chunkSlots)), slots: map[slotAt]usageSlot{}}
		path := filepath.Join(dir, u.name)
		var err error
		if u.f, err = lockUsage(path); errors.Is(err, errBusy) {
			continue
		} else if err != nil {
			return nil, nil, err
		}
		sums, err := u.load()
		if errors.Is(err, errNotUsage) {
			err = errors.Join(u.close(), os.Rename(path, path+".damaged"))
			if err == nil {
				n--
				continue
			}
		}
		if err != nil {
			return nil, nil, errors.Join(err, u.close())
		}
		return u, sums, nil
	}
}

// lockUsage opens a file, or makes it, and keeps other processes from writing it until it is closed.
func lockUsage(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			_ = f.Close() // nothing was written
			if errors.Is(err, syscall.EWOULDBLOCK) {
				err = errBusy
			}
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		mine, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if there, err := os.Stat(path); err == nil && os.SameFile(mine, there) {
			return f, nil
		}
		_ = f.Close() // it was replaced between the two
	}
}

// errNotUsage is of a file that holds something else.
var errNotUsage = errors.New("it is not a usage file of this version")

// load maps a file, or begins it.
func (f *usageFile) load() (map[usageKey]Usage, error) {
	info, err := f.f.Stat()
	if err != nil {
		return nil, err
	}
	sums := map[usageKey]Usage{}
	if info.Size() == 0 {
		return sums, f.grow()
	}
	for at := int64(0); at < info.Size(); at += chunkSize { // what is missing of the last chunk, a crash may have kept from being written
		if err := f.addChunk(at, info.Size()); err != nil {
			return nil, err
		}
	}
	header := f.chunks[0][:slotSize]
	if !bytes.HasPrefix(header, []byte(usageMagic)) {
		if slices.ContainsFunc(header, func(b byte) bool { return b != 0 }) {
			return nil, errNotUsage
		}
		copy(header, usageMagic) // its first write did not come to its end
	}
	header[compacted] = 0 // a clock was set back
	for i := 1; i < len(f.chunks)*chunkSlots; i++ {
		s := usageSlot{bytes: f.at(i)}
		key, ok := s.key()
		if !ok {
			continue
		}
		f.used = i + 1
		u := s.read()
		if _, twice := f.slots[key]; !twice {
			f.slots[key] = s
		}
		add(sums, key.usageKey, &u)
	}
	return sums, nil
}

func (f *usageFile) at(i int) []byte {
	return f.chunks[i/chunkSlots][i%chunkSlots*slotSize:][:slotSize]
}

// slot is the place of a key, with what is in it. A new one is made where there is none.
func (f *usageFile) slot(key usageKey, shard int) (usageSlot, Usage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := slotAt{key, shard}
	if s, ok := f.slots[at]; ok {
		u := s.read()
		return s, u, nil
	}
	if len(key.function) > slotKey-slotName {
		return usageSlot{}, Usage{}, fmt.Errorf("the name %.100q has more than %d bytes", key.function, slotKey-slotName)
	}
	if f.used == len(f.chunks)*chunkSlots {
		if f.used >= f.limit {
			return usageSlot{}, Usage{}, fmt.Errorf("%s is full", f.f.Name())
		}
		if err := f.grow(); err != nil {
			return usageSlot{}, Usage{}, err
		}
	}
	s := usageSlot{bytes: f.at(f.used)}
	clear(s.bytes) // of what a loss of power left there
	at.function = strings.Clone(at.function)
	s.setKey(at)
	f.used++
	f.slots[at] = s
	return s, Usage{}, nil
}

// grow adds a chunk. It is written before it is mapped: a full disk is an error here, where a write to memory would end
// the process.
func (f *usageFile) grow() error {
	at := int64(len(f.chunks)) * chunkSize
	zeros := make([]byte, chunkSize)
	if at == 0 {
		copy(zeros, usageMagic)
		f.used = 1
	}
	if _, err := f.f.WriteAt(zeros, at); err != nil {
		return err
	}
	return f.addChunk(at, at+chunkSize)
}

// addChunk maps the chunk at an offset of a file of that size.
func (f *usageFile) addChunk(at, size int64) error {
	if size < at+chunkSize {
		if _, err := f.f.WriteAt(make([]byte, at+chunkSize-size), size); err != nil {
			return err
		}
	}
	b, err := syscall.Mmap(int(f.f.Fd()), at, chunkSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %s: %w", f.f.Name(), err)
	}
	f.chunks = append(f.chunks, b)
	f.used = max(f.used, 1)
	return nil
}

// sync has the disk store what was written.
func (f *usageFile) sync() error { return f.f.Sync() }

// close ends the mapping: no slot of it may be written any more.
func (f *usageFile) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, c := range f.chunks {
		errs = append(errs, syscall.Munmap(c))
	}
	f.chunks, f.slots = nil, nil
	return errors.Join(append(errs, f.f.Close())...)
}

// usageFiles are the names of the files in a folder, the oldest first.
func usageFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), usageExt)
		if !ok || len(name) < len(time.DateOnly) {
			continue
		}
		if _, err := time.Parse(time.DateOnly, name[:len(time.DateOnly)]); err == nil {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// readUsage reads the sums of a file. A slot that is damaged is left out.
func readUsage(path string) (map[usageKey]Usage, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseUsage(b)
}

func parseUsage(b []byte) (map[usageKey]Usage, error) {
	sums := map[usageKey]Usage{}
	if !bytes.HasPrefix(b, []byte(usageMagic)) {
		return nil, errNotUsage
	}
	for at := slotSize; at+slotSize <= len(b); at += slotSize {
		s := usageSlot{bytes: b[at : at+slotSize]}
		if key, ok := s.key(); ok {
			u := s.read()
			add(sums, key.usageKey, &u)
		}
	}
	return sums, nil
}

// compactUsage writes a file of a day that is over anew, with every sum once. One that another process still writes is
// left alone: it is that one's to do.
func compactUsage(path string) (err error) {
	head := make([]byte, compacted+1)
	r, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = io.ReadFull(r, head)
	if err = errors.Join(err, r.Close()); err == nil && head[compacted] == 1 {
		return nil
	}
	f, err := lockUsage(path)
	if errors.Is(err, errBusy) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sums, err := readUsage(path)
	if err != nil {
		return err
	}
	b := make([]byte, slotSize, (1+len(sums))*slotSize)
	copy(b, usageMagic)
	b[compacted] = 1
	for key, u := range sums {
		s := usageSlot{bytes: make([]byte, slotSize)}
		s.setKey(slotAt{usageKey: key})
		s.write(&u)
		b = append(b, s.bytes...)
	}
	part := path + ".part"
	w, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	if err = errors.Join(err, w.Sync(), w.Close()); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	return os.Rename(part, path)
}
