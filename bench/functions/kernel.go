package main

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What an empty guest of Go comes to for the kernel: its memory image in bytes, and the pages a call writes.
const (
	kernelImage = 592 * 4096
	kernelPages = 3
)

// kernelPart measures what the kernel takes on this machine, with no guest and no engine: for a fork the same mapping made
// and undone; for a clean call the same pages found by PAGEMAP_SCAN and copied back, which it takes as long as the instance
// is not watched and would take always if none were. Between two machines these differ by a factor of four.
func (b *bench) kernelPart() (err error) {
	file, err := unix.MemfdCreate("image", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(file)) }()
	if err := unix.Ftruncate(file, kernelImage); err != nil {
		return err
	}
	pagemap, err := unix.Open("/proc/self/pagemap", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(pagemap)) }()
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_NORESERVE
	fork := func() (unsafe.Pointer, error) {
		const room = 64 << 20
		return unix.MmapPtr(file, 0, nil, room, prot, flags)
	}
	p, err := fork()
	if err != nil {
		return err
	}
	for i := range kernelPages {
		*(*byte)(unsafe.Add(p, i*128*4096)) = 1
	}
	memory := unsafe.Slice((*byte)(p), kernelImage)
	clean := make([]byte, 4096)
	var regions [16]struct{ start, end, categories uint64 }
	us, err := b.contest([]contender{
		by("fork", func() error {
			p, err := fork()
			if err != nil {
				return err
			}
			return unix.MunmapPtr(p, 64<<20)
		}),
		by("clean", func() error {
			// linux/fs.h: struct pm_scan_arg; not of the file (2), but in memory (3) or swapped out (4)
			arg := [...]uint64{96, 0, uint64(uintptr(p)), uint64(uintptr(p)) + kernelImage, 0, uint64(uintptr(unsafe.Pointer(&regions))), uint64(len(regions)), 0, 1 << 2, 1 << 2, 1<<3 | 1<<4, 1 << 3}
			n, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(pagemap), 0xc0606610, uintptr(unsafe.Pointer(&arg)))
			if errno != 0 {
				return errno
			}
			if n != kernelPages {
				return fmt.Errorf("%d pages were written, and PAGEMAP_SCAN finds %d", kernelPages, n)
			}
			for _, r := range regions[:n] {
				copy(memory[r.start-uint64(uintptr(p)):], clean)
			}
			return nil
		}),
	})
	if err != nil {
		return err
	}
	fmt.Printf("%-34s%14s%14s\n", "the kernel: mmap; PAGEMAP_SCAN", fmt.Sprintf("%.2f", us[0]), fmt.Sprintf("%.2f", us[1]))
	return unix.MunmapPtr(p, 64<<20)
}
