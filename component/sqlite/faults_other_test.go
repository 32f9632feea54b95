//go:build !linux

package sqlite

import "errors"

func mountSmall(string) (func(string) error, func() error, error) {
	return nil, nil, errors.ErrUnsupported
}
