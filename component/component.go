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

// New makes a factory of an open func. D is the driver's type. C is a struct whose fields carry the tag `meta:"name"` or
// `meta:"name,default"`; their types are string, bool, int, int64, time.Duration and Bytes, and structs without a name,
// whose fields count as C's. A field may carry more tags:
//
//	also:"older,names"  other names of it; the first one that was written counts
//	need:"yes"          it must be there
//	unit:"1ms"          of a duration: a bare number is a multiple of this
//	min:"-1"            of a number or a duration: what is negative may be written, and counts as -1
//
// Where C has a method Check() error, that is asked about the whole.
func New[C, D any](typ string, open func(ctx context.Context, name string, config C) (D, error)) loam.Factory {
	decode := func(metadata map[string]string) (C, error) {
		var c C
		err := decode(reflect.ValueOf(&c).Elem(), metadata)
		if checker, ok := any(&c).(interface{ Check() error }); ok && err == nil {
			err = checker.Check()
		}
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
	d := decoder{metadata: metadata, left: map[string]string{}}
	for name := range metadata {
		d.left[strings.ToLower(name)] = name
	}
	d.fields(config)
	unknown := make([]string, 0, len(d.left))
	for _, name := range d.left {
		unknown = append(unknown, name)
	}
	sort.Strings(unknown)
	slices.Sort(d.known)
	for _, name := range unknown {
		hint := "it takes " + strings.Join(d.known, ", ")
		if len(d.known) == 0 {
			hint = "it takes none"
		}
		if near := suggest.Nearest(name, d.known); near != "" {
			hint = "did you mean " + near + "?"
		}
		d.errs = append(d.errs, fmt.Errorf("metadata %s: unknown; %s", name, hint))
	}
	return errors.Join(d.errs...)
}

type decoder struct {
	metadata map[string]string
	left     map[string]string // names in lower case that no field took, and as they were written
	known    []string
	errs     []error
}

func (d *decoder) fields(config reflect.Value) {
	for i := range config.NumField() {
		field := config.Type().Field(i)
		if field.Anonymous && field.Type.Kind() == reflect.Struct {
			d.fields(config.Field(i))
			continue
		}
		name, text, _ := strings.Cut(field.Tag.Get("meta"), ",")
		if name == "" {
			continue
		}
		d.known = append(d.known, name)
		names := []string{name}
		if also := field.Tag.Get("also"); also != "" {
			names = append(names, strings.Split(also, ",")...)
		}
		for _, n := range slices.Backward(names) {
			if written, ok := d.left[strings.ToLower(n)]; ok {
				text = d.metadata[written]
				delete(d.left, strings.ToLower(n))
			}
		}
		if text == "" {
			if field.Tag.Get("need") != "" {
				d.errs = append(d.errs, fmt.Errorf("metadata %s: missing", name))
			}
			continue
		}
		if err := set(config.Field(i), text, field.Tag); err != nil {
			d.errs = append(d.errs, fmt.Errorf("metadata %s: %w", name, err))
		}
	}
}

func set(field reflect.Value, text string, tag reflect.StructTag) error {
	negative := tag.Get("min") != "" && strings.HasPrefix(text, "-")
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
		n, err := number(text, negative)
		if err == nil && int64(int(n)) != n {
			err = fmt.Errorf("%q is too large a number", text)
		}
		*v = int(n)
		return err
	case *int64:
		n, err := number(text, negative)
		*v = n
		return err
	case *time.Duration:
		d, err := duration(text, tag.Get("unit"))
		if negative && err == nil && d < 0 {
			d = -1
		} else if err != nil || d < 0 {
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

func number(text string, negative bool) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if negative && err == nil && n < 0 {
		return -1, nil
	}
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a whole number from 0", text)
	}
	return n, nil
}

// duration reads a bare number as a multiple of unit where there is one.
func duration(text, unit string) (time.Duration, error) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && unit != "" {
		d, err := time.ParseDuration(unit)
		if n > int64(time.Duration(1<<63-1)/max(d, 1)) || n < -1<<31 {
			return 0, strconv.ErrRange
		}
		return time.Duration(n) * d, err
	}
	return time.ParseDuration(text)
}
