//go:build linux

package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// impostor plays a new process that says all the right things until it has what only one process can have, and then, by
// the name it was started by, dies or hangs. It is false where this is none.
func impostor() bool {
	fd, err := strconv.Atoi(os.Getenv("LOAM_PREDECESSOR_FD"))
	if err != nil {
		return false
	}
	wire := os.NewFile(uintptr(fd), "wire")
	for {
		var lengths [8]byte
		if _, err := io.ReadFull(wire, lengths[:]); err != nil {
			fmt.Fprintln(os.Stderr, "impostor:", err)
			os.Exit(1)
		}
		head := make([]byte, binary.BigEndian.Uint32(lengths[:]))
		_, err := io.ReadFull(wire, head)
		if err == nil {
			_, err = io.CopyN(io.Discard, wire, int64(binary.BigEndian.Uint32(lengths[4:])))
		}
		var m struct{ Kind string }
		if err == nil {
			err = json.Unmarshal(head, &m)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "impostor:", err)
			os.Exit(1)
		}
		switch m.Kind {
		case "hello":
			ready := []byte(`{"kind":"ready","body":{"version":"impostor"}}`)
			b := binary.BigEndian.AppendUint64(nil, uint64(len(ready))<<32)
			if _, err := wire.Write(append(b, ready...)); err != nil {
				os.Exit(1)
			}
		case "take":
			if filepath.Base(os.Args[0]) == "hang-late" {
				time.Sleep(time.Hour)
			}
			os.Exit(9)
		}
	}
}
