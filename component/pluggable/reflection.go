package pluggable

import (
	"errors"

	"github.com/loam-run/loam/internal/protowire"
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
	return each(b, func(number int, data []byte) error {
		switch number {
		case 6:
			return each(data, func(number int, data []byte) error {
				if number != 1 {
					return nil
				}
				return each(data, func(number int, data []byte) error {
					if number == 1 && len(l.names) < maxServices {
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

// each tells of a message's fields that have a length.
func each(b []byte, tell func(number int, data []byte) error) error {
	for len(b) > 0 {
		f, rest, err := protowire.Next(b)
		if err == nil && f.Tag&7 == 2 {
			err = tell(f.Number(), f.Data)
		}
		if err != nil {
			return err
		}
		b = rest
	}
	return nil
}
