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

// kernelPart measures what of a fork and of a clean call is the kernel's on this machine, with no guest and no engine:
// the same mapping made, written to and undone; the same pages found by PAGEMAP_SCAN and copied back. The goals are
// times, and between two machines these differ by a factor of three.
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
		p, err := unix.MmapPtr(-1, 0, nil, room, prot, flags|unix.MAP_ANON)
		if err != nil {
			return nil, err
		}
		if _, err := unix.MmapPtr(file, 0, p, kernelImage, prot, flags|unix.MAP_FIXED); err != nil {
			return nil, err
		}
		for i := range kernelPages {
			*(*byte)(unsafe.Add(p, i*128*4096)) = 1
		}
		return p, nil
	}
	p, err := fork()
	if err != nil {
		return err
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
	fmt.Printf("%-34s%14s%14s\n", "the kernel's part of it, for go", fmt.Sprintf("%.2f", us[0]), fmt.Sprintf("%.2f", us[1]))
	return unix.MunmapPtr(p, 64<<20)
}
