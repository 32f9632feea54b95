// Package component turns the open func of a technology into a loam.Factory: it decodes a component's metadata, the
// strings a user wrote, into the technology's own Config. The packages below it are one for each technology; all/ is
// the list of those in the binary.
package component

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/internal/size"
	"github.com/loam-run/loam/internal/suggest"
)

// Bytes is an amount of bytes in a Config, written as a Kubernetes quantity (64Mi).
type Bytes int64

// New makes a factory of an open func. C is a struct whose fields carry the tag `meta:"name"` or
// `meta:"name,default"`; their types are string, bool, int, time.Duration and Bytes. D is the driver's type.
func New[C, D any](typ string, open func(ctx context.Context, name string, config C) (D, error)) loam.Factory {
	decode := func(metadata map[string]string) (C, error) {
		var c C
		err := decode(reflect.ValueOf(&c).Elem(), metadata)
		if err != nil {
			err = &loam.Error{Code: loam.InvalidArgument, Op: typ, Err: err}
		}
		return c, err
	}
	return loam.Factory{
		Type:  typ,
		Check: func(metadata map[string]string) error { _, err := decode(metadata); return err },
		Open: func(ctx context.Context, name string, metadata map[string]string) (any, error) {
			c, err := decode(metadata)
			if err != nil {
				return nil, err
			}
			return open(ctx, name, c)
		},
	}
}

// decode fills the struct's fields from metadata, whose names compare without regard to case, as Dapr's do.
func decode(config reflect.Value, metadata map[string]string) error {
	var errs []error
	var known []string
	left := map[string]string{}
	for name := range metadata {
		left[strings.ToLower(name)] = name
	}
	for i := range config.NumField() {
		name, text, _ := strings.Cut(config.Type().Field(i).Tag.Get("meta"), ",")
		if name == "" {
			continue
		}
		known = append(known, name)
		if written, ok := left[strings.ToLower(name)]; ok {
			text = metadata[written]
			delete(left, strings.ToLower(name))
		}
		if text == "" {
			continue
		}
		if err := set(config.Field(i), text); err != nil {
			errs = append(errs, fmt.Errorf("metadata %s: %w", name, err))
		}
	}
	unknown := make([]string, 0, len(left))
	for _, name := range left {
		unknown = append(unknown, name)
	}
	sort.Strings(unknown)
	slices.Sort(known)
	for _, name := range unknown {
		hint := "it takes " + strings.Join(known, ", ")
		if len(known) == 0 {
			hint = "it takes none"
		}
		if near := suggest.Nearest(name, known); near != "" {
			hint = "did you mean " + near + "?"
		}
		errs = append(errs, fmt.Errorf("metadata %s: unknown; %s", name, hint))
	}
	return errors.Join(errs...)
}

func set(field reflect.Value, text string) error {
	switch v := field.Addr().Interface().(type) {
	case *string:
		*v = text
	case *bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		*v = b
	case *int:
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return fmt.Errorf("%q is not a whole number from 0", text)
		}
		*v = n
	case *time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			return fmt.Errorf("%q is not a duration: write one such as 30s, 5m or 168h", text)
		}
		*v = d
	case *Bytes:
		n, err := size.Parse(text)
		if err != nil {
			return err
		}
		*v = Bytes(n)
	default:
		panic(fmt.Sprintf("component: a Config cannot hold %s", field.Type()))
	}
	return nil
}
