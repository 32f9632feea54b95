package grpc

import (
	"encoding/binary"
	"errors"
	"slices"
)

// What little of protobuf's wire format a status needs.

func appendText(b []byte, number int, s string) []byte {
	if s == "" {
		return b
	}
	b = binary.AppendUvarint(b, uint64(number)<<3|2)
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendBytes(b []byte, number int, p []byte) []byte {
	b = binary.AppendUvarint(b, uint64(number)<<3|2)
	return append(binary.AppendUvarint(b, uint64(len(p))), p...)
}

func sortedKeys(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

var errWire = errors.New("the bytes are no message")

// fields tells of each field of a message: num of a number, data of what has a length.
func fields(b []byte, tell func(number int, num uint64, data []byte) error) error {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<29-1 {
			return errWire
		}
		b = b[n:]
		var num uint64
		var data []byte
		switch tag & 7 {
		case 0:
			if num, n = binary.Uvarint(b); n <= 0 {
				return errWire
			}
			b = b[n:]
		case 1:
			if len(b) < 8 {
				return errWire
			}
			num, b = binary.LittleEndian.Uint64(b), b[8:]
		case 2:
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return errWire
			}
			data, b = b[n:n+int(size)], b[n+int(size):]
		case 5:
			if len(b) < 4 {
				return errWire
			}
			num, b = uint64(binary.LittleEndian.Uint32(b)), b[4:]
		default:
			return errWire
		}
		if err := tell(int(tag>>3), num, data); err != nil {
			return err
		}
	}
	return nil
}
