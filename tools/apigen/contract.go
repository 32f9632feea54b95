package main

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A contract is what a .proto file declares.
type contract struct {
	file     string
	messages []message // in the order of the file
}

// A message has its comment as lines of prose; there is always one.
type message struct {
	name    string // StateGetRequest
	comment []string
	fields  []field
}

type field struct {
	name     string // if_match
	number   int
	kind     protoreflect.Kind // of an element where the field is repeated
	message  string            // the message's name where kind is MessageKind
	repeated bool
	comment  string // of one line; may be empty
}

// compile reads a contract and refuses what apigen does not know.
func compile(proto string) (contract, error) {
	c := protocompile.Compiler{
		Resolver:       &protocompile.SourceResolver{ImportPaths: []string{filepath.Dir(proto)}},
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := c.Compile(context.Background(), filepath.Base(proto))
	if err != nil {
		return contract{}, err
	}
	file := files[0]
	all := contract{file: filepath.Base(proto)}
	for i := range file.Messages().Len() {
		m, err := compileMessage(file, file.Messages().Get(i))
		if err != nil {
			return contract{}, err
		}
		all.messages = append(all.messages, m)
	}
	return all, nil
}

func compileMessage(file protoreflect.FileDescriptor, d protoreflect.MessageDescriptor) (message, error) {
	m := message{name: string(d.Name())}
	text := strings.TrimSpace(file.SourceLocations().ByDescriptor(d).LeadingComments)
	if !strings.HasPrefix(text, m.name+" ") {
		text = m.name + " is a message of the contract. " + text
	}
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		m.comment = append(m.comment, strings.TrimSpace(line))
	}
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		f := field{name: string(fd.Name()), number: int(fd.Number()), kind: fd.Kind(), repeated: fd.IsList()}
		known := false
		switch f.kind {
		case protoreflect.StringKind:
			known = true
		case protoreflect.BytesKind, protoreflect.BoolKind, protoreflect.Int64Kind, protoreflect.Uint32Kind:
			known = !f.repeated
		case protoreflect.MessageKind:
			f.message, known = string(fd.Message().Name()), f.repeated && !fd.IsMap()
		}
		if !known || fd.ContainingOneof() != nil {
			return m, fmt.Errorf("%s: apigen does not know this kind of field: teach it, or write it another way", fd.FullName())
		}
		loc := file.SourceLocations().ByDescriptor(fd)
		f.comment = strings.Join(strings.Fields(loc.LeadingComments+" "+loc.TrailingComments), " ")
		m.fields = append(m.fields, f)
	}
	return m, nil
}

// tag is the field's number and wire type as they stand on the wire: 0 is a varint, 2 is behind its length.
func (f field) tag() int {
	switch f.kind {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
		return f.number<<3 | 2
	}
	return f.number << 3
}

// pascal is a field's name as IfMatch, camel as ifMatch.
func pascal(snake string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(snake, "_") {
		b.WriteString(strings.ToUpper(part[:1]) + part[1:])
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
