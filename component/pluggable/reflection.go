package pluggable

import (
	"encoding/binary"
	"errors"
)

// listServices is a grpc.reflection.v1.ServerReflectionRequest that asks for all services (list_services, field 7).
type listServices struct{}

func (listServices) AppendProto(b []byte) []byte { return append(b, 7<<3|2, 1, '*') }
func (listServices) ParseProto([]byte) error     { return errors.New("it is only sent") }

// serviceList is the ServerReflectionResponse to that: list_services_response, field 6, holds service, field 1, that holds
// name, field 1; error_response is field 7.
type serviceList struct {
	names  []string
	failed bool
}

func (*serviceList) AppendProto(b []byte) []byte { return b }

// maxServices bounds what a program offers.
const maxServices = 1000

func (l *serviceList) ParseProto(b []byte) error {
	return each(b, func(field int, data []byte) error {
		switch field {
		case 6:
			return each(data, func(field int, data []byte) error {
				if field != 1 {
					return nil
				}
				return each(data, func(field int, data []byte) error {
					if field == 1 && len(l.names) < maxServices {
						l.names = append(l.names, string(data))
					}
					return nil
				})
			})
		case 7:
			l.failed = true
		}
		return nil
	})
}

var errWire = errors.New("a reflection response that is no message")

// each tells of a message's fields that have a length.
func each(b []byte, tell func(field int, data []byte) error) error {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<29-1 {
			return errWire
		}
		b = b[n:]
		size := 0
		switch tag & 7 {
		case 0:
			_, size = binary.Uvarint(b)
		case 1:
			size = 8
		case 5:
			size = 4
		case 2:
			length, n := binary.Uvarint(b)
			if n <= 0 || length > uint64(len(b)-n) {
				return errWire
			}
			b = b[n:]
			if err := tell(int(tag>>3), b[:length]); err != nil {
				return err
			}
			size = int(length)
			if size == 0 {
				continue
			}
		}
		if size <= 0 || size > len(b) {
			return errWire
		}
		b = b[size:]
	}
	return nil
}
