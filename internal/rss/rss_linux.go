package rss

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"syscall"
)

const madvDontNeed = 4

// dropProgram takes the pages of the executable's read-only mappings out of the process. Nothing is lost: they are the
// file's.
func dropProgram() {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// 00400000-01d2c000 r-xp 00000000 fe:00 12345 /usr/bin/loam
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[5] != self || len(fields[1]) != 4 || fields[1][1] == 'w' || fields[1][3] != 'p' {
			continue
		}
		from, to, ok := strings.Cut(fields[0], "-")
		start, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if ok && err1 == nil && err2 == nil && end > start {
			// What the kernel does not want to drop stays.
			_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, uintptr(start), uintptr(end-start), madvDontNeed)
		}
	}
}
