package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A contract is what .proto files declare that make one package, with the messages of other files that they use.
type contract struct {
	files    []string
	messages []message // in the order of the files
	enums    []enum
	methods  []method
	sources  []protoreflect.FileDescriptor // what files declare
	goOptions
}

// goOptions are how Go is written.
type goOptions struct {
	pkg   string
	utf8  bool   // strings are checked
	views bool   // strings that are read share the message's memory
	wire  string // the import path of protowire; empty: goWire
}

// A message has its comment as lines of prose; there is always one.
type message struct {
	name      string // StateGetRequest; of one within another: Outer_Inner
	comment   []string
	fields    []field
	recursive bool // it may hold another of its kind, at whatever depth
}

type field struct {
	name     string // if_match
	number   int
	kind     protoreflect.Kind // of an element where the field is repeated
	message  string            // the message's name where kind is MessageKind
	enum     string            // the enum's where kind is EnumKind
	repeated bool
	packed   bool   // it is written packed; either form is read
	present  bool   // it is known whether the field is there, whatever its value: it is optional, or one of several
	oneof    string // whose other members it excludes; "": none
	key      *field // of a map, whose values are what the field is
	value    *field
	comment  string // of one line; may be empty
}

type enum struct {
	name    string
	comment []string
	values  []enumValue
}

type enumValue struct {
	name    string
	number  int32
	comment string
}

// A method is a full name, "/package.Service/Method", and which ways it streams.
type method struct {
	name             string // as a constant's: ServiceMethod
	path             string
	fromClient, back bool
}

// compile reads a contract.
func compile(protos ...string) (contract, error) {
	var all contract
	var folders, names []string
	for _, p := range protos {
		if dir := filepath.Dir(p); !slices.Contains(folders, dir) {
			folders = append(folders, dir)
		}
		names = append(names, filepath.Base(p))
	}
	c := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: folders}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := c.Compile(context.Background(), names...)
	if err != nil {
		return all, err
	}
	r := &reading{to: &all, done: map[protoreflect.FullName]bool{}, names: map[string]protoreflect.FullName{}}
	for _, file := range files {
		all.files = append(all.files, filepath.Base(file.Path()))
		all.sources = append(all.sources, file)
		for i := range file.Enums().Len() {
			r.enum(file.Enums().Get(i))
		}
		for i := range file.Messages().Len() {
			r.message(file.Messages().Get(i))
		}
		for i := range file.Services().Len() {
			s := file.Services().Get(i)
			for j := range s.Methods().Len() {
				m := s.Methods().Get(j)
				r.message(m.Input())
				r.message(m.Output())
				all.methods = append(all.methods, method{
					name: string(s.Name()) + string(m.Name()), path: "/" + string(s.FullName()) + "/" + string(m.Name()),
					fromClient: m.IsStreamingClient(), back: m.IsStreamingServer(),
				})
			}
		}
	}
	for len(r.later) > 0 { // what other files declare stands behind what these do
		d := r.later[0]
		r.later = r.later[1:]
		switch d := d.(type) {
		case protoreflect.MessageDescriptor:
			r.message(d)
		case protoreflect.EnumDescriptor:
			r.enum(d)
		}
	}
	if r.err == nil {
		all.markRecursive()
	}
	return all, r.err
}

// A reading of descriptors. Its first error ends it.
type reading struct {
	to    *contract
	done  map[protoreflect.FullName]bool
	names map[string]protoreflect.FullName
	later []protoreflect.Descriptor
	err   error
}

// begin tells whether d is still to be read.
func (r *reading) begin(d protoreflect.Descriptor) bool {
	if r.done[d.FullName()] {
		return false
	}
	r.done[d.FullName()] = true
	name := goName(d)
	if other, taken := r.names[name]; taken && r.err == nil {
		r.err = fmt.Errorf("%s and %s have the same name in one package", other, d.FullName())
	}
	r.names[name] = d.FullName()
	return true
}

// goName is a type's name without its package.
func goName(d protoreflect.Descriptor) string {
	if outer, ok := d.Parent().(protoreflect.MessageDescriptor); ok {
		return goName(outer) + "_" + string(d.Name())
	}
	return string(d.Name())
}

// prose is a comment as lines that begin with a name.
func prose(d protoreflect.Descriptor, name, is string) (lines []string) {
	text := strings.TrimSpace(d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments)
	if d.ParentFile().Package() == "google.protobuf" {
		text = "" // pages of it, which everybody knows
		is = "is " + string(d.FullName()) + "."
	}
	if !strings.HasPrefix(text, name+" ") {
		text = name + " " + is + " " + text
	}
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}

// remark is a comment as one line.
func remark(d protoreflect.Descriptor) string {
	if d.ParentFile().Package() == "google.protobuf" {
		return ""
	}
	loc := d.ParentFile().SourceLocations().ByDescriptor(d)
	return strings.Join(strings.Fields(loc.LeadingComments+" "+loc.TrailingComments), " ")
}

func (r *reading) enum(d protoreflect.EnumDescriptor) {
	if !r.begin(d) {
		return
	}
	e := enum{name: goName(d)}
	e.comment = prose(d, e.name, "is a choice of the contract.")
	prefix := e.name + "_"
	if outer, ok := d.Parent().(protoreflect.MessageDescriptor); ok {
		prefix = goName(outer) + "_"
	}
	for i := range d.Values().Len() {
		v := d.Values().Get(i)
		name := prefix + string(v.Name())
		if other, taken := r.names[name]; taken && r.err == nil {
			r.err = fmt.Errorf("%s and %s have the same name in one package", other, v.FullName())
		}
		r.names[name] = v.FullName()
		e.values = append(e.values, enumValue{name, int32(v.Number()), remark(v)})
	}
	r.to.enums = append(r.to.enums, e)
}

func (r *reading) message(d protoreflect.MessageDescriptor) {
	if !r.begin(d) {
		return
	}
	m := message{name: goName(d)}
	m.comment = prose(d, m.name, "is a message of the contract.")
	for i := range d.Fields().Len() {
		m.fields = append(m.fields, r.field(d.Fields().Get(i)))
	}
	r.to.messages = append(r.to.messages, m)
	for i := range d.Enums().Len() {
		r.enum(d.Enums().Get(i))
	}
	for i := range d.Messages().Len() {
		if inner := d.Messages().Get(i); !inner.IsMapEntry() {
			r.message(inner)
		}
	}
}

func (r *reading) field(fd protoreflect.FieldDescriptor) field {
	f := field{
		name: string(fd.Name()), number: int(fd.Number()), kind: fd.Kind(), repeated: fd.IsList(), packed: fd.IsPacked(), comment: remark(fd),
		present: fd.HasPresence() && fd.Kind() != protoreflect.MessageKind,
	}
	switch {
	case fd.Kind() == protoreflect.GroupKind || fd.Syntax() != protoreflect.Proto3:
		r.refuse(fd)
	case fd.IsMap():
		key, value := r.field(fd.MapKey()), r.field(fd.MapValue())
		key.present, value.present = false, false
		f.key, f.value = &key, &value
	case fd.Kind() == protoreflect.MessageKind:
		f.message = goName(fd.Message())
		r.later = append(r.later, fd.Message())
	case fd.Kind() == protoreflect.EnumKind:
		f.enum = goName(fd.Enum())
		r.later = append(r.later, fd.Enum())
	}
	if o := fd.ContainingOneof(); o != nil && !o.IsSynthetic() {
		f.oneof = string(o.Name())
	}
	return f
}

func (r *reading) refuse(fd protoreflect.FieldDescriptor) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %w", fd.FullName(), errUnknown)
	}
}

var errUnknown = errors.New("apigen does not know this kind of field: teach it, or write it another way")

// plain refuses what only the generator for Go knows: guests are written with loam.proto, which needs no more.
func (c contract) plain() error {
	for _, m := range c.messages {
		for _, f := range m.fields {
			known := false
			switch f.kind {
			case protoreflect.StringKind:
				known = true
			case protoreflect.BytesKind, protoreflect.BoolKind, protoreflect.Int64Kind, protoreflect.Uint32Kind:
				known = !f.repeated
			case protoreflect.MessageKind:
				known = f.repeated && f.key == nil
			}
			if !known || f.present || f.oneof != "" {
				return fmt.Errorf("%s.%s: %w", m.name, f.name, errUnknown)
			}
		}
	}
	return nil
}

// markRecursive finds the messages that may hold their own kind.
func (c contract) markRecursive() {
	holds := map[string][]string{}
	for _, m := range c.messages {
		for _, f := range m.fields {
			if f.value != nil {
				f = *f.value
			}
			if f.message != "" {
				holds[m.name] = append(holds[m.name], f.message)
			}
		}
	}
	for i := range c.messages {
		seen := map[string]bool{}
		var reach func(name string)
		reach = func(name string) {
			for _, inner := range holds[name] {
				if !seen[inner] {
					seen[inner] = true
					reach(inner)
				}
			}
		}
		reach(c.messages[i].name)
		c.messages[i].recursive = seen[c.messages[i].name]
	}
}

// tag is the field's number and wire type as they stand on the wire: 0 is a varint, 1 and 5 are of 8 and 4 bytes, 2 is
// behind its length.
func (f field) tag() int {
	return f.number<<3 | f.wireType()
}

func (f field) wireType() int {
	switch f.kind {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
		return 2
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return 1
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
		return 5
	}
	return 0
}

// pascal is a field's name as IfMatch, camel as ifMatch.
func pascal(snake string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(snake, "_") {
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return b.String()
}

func camel(name string) string {
	p := pascal(name)
	return strings.ToLower(p[:1]) + p[1:]
}

// snake is a message's name as state_get_request.
func snake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && 'A' <= r && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToLower(b.String())
}

// A printer collects a file.
type printer struct{ bytes.Buffer }

func (p *printer) printf(format string, args ...any) { fmt.Fprintf(p, format, args...) }
