package grpc

import (
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api/reflection"
	"github.com/loam-run/loam/internal/protowire"
)

// Reflect has the server answer gRPC's server reflection, v1 and v1alpha, so that grpcurl and its like can call it without
// .proto files. Of the services in set, a serialized google.protobuf.FileDescriptorSet in which a file stands behind those it
// imports, those are listed that the server has a method of. The set is not changed any more; nothing of it is read before
// somebody asks.
func (s *Server) Reflect(set []byte) {
	r := &reflector{methods: s.Methods, sets: append([][]byte{set}, reflection.Descriptors()...)}
	s.Methods[reflection.MethodServerReflectionServerReflectionInfo] = Streaming(r.serve)
	s.Methods[reflection.MethodV1Alpha] = Streaming(r.serve)
}

// A reflector answers from sets of descriptors as they lie there: they are small, and asked seldom.
type reflector struct {
	methods map[string]Method
	sets    [][]byte
}

func (r *reflector) serve(st *Stream) error {
	sent := map[string]bool{}
	for {
		var in reflection.ServerReflectionRequest
		switch err := st.Recv(&in); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		out, err := r.answer(&in, sent)
		if err != nil {
			return err
		}
		out.ValidHost, out.OriginalRequest = in.Host, &in
		if err := st.Send(out); err != nil {
			return err
		}
	}
}

// answer is what a request gets. sent is which files the client has been told by itself, without asking for them.
func (r *reflector) answer(in *reflection.ServerReflectionRequest, sent map[string]bool) (*reflection.ServerReflectionResponse, error) {
	unknown := func(what, name string) *reflection.ServerReflectionResponse {
		return &reflection.ServerReflectionResponse{ErrorResponse: &reflection.ErrorResponse{
			ErrorCode: int32(loam.NotFound), ErrorMessage: what + " is not known: " + name,
		}}
	}
	switch {
	case in.ListServices != nil:
		list := &reflection.ListServiceResponse{}
		for _, name := range r.services() {
			list.Service = append(list.Service, reflection.ServiceResponse{Name: name})
		}
		return &reflection.ServerReflectionResponse{ListServicesResponse: list}, nil
	case in.FileByFilename != nil:
		f, ok := r.find(func(f file) bool { return f.name() == *in.FileByFilename })
		if !ok {
			return unknown("the file", *in.FileByFilename), nil
		}
		return r.files(f, sent), nil
	case in.FileContainingSymbol != nil:
		f, ok := r.find(func(f file) bool { return f.declares(*in.FileContainingSymbol) })
		if !ok {
			return unknown("the symbol", *in.FileContainingSymbol), nil
		}
		return r.files(f, sent), nil
	case in.FileContainingExtension != nil: // proto3 has none
		return unknown("an extension", in.FileContainingExtension.ContainingType), nil
	case in.AllExtensionNumbersOfType != nil:
		return unknown("an extension", *in.AllExtensionNumbersOfType), nil
	}
	return nil, NewStatus(loam.InvalidArgument, "the request asks for nothing that server reflection knows")
}

// files tells of a file, and of those that it imports where the client was not told of them yet.
func (r *reflector) files(f file, sent map[string]bool) *reflection.ServerReflectionResponse {
	out := &reflection.FileDescriptorResponse{FileDescriptorProto: [][]byte{f}}
	sent[f.name()] = true
	for todo := f.imports(); len(todo) > 0; todo = todo[1:] {
		if sent[todo[0]] {
			continue
		}
		if f, ok := r.find(func(f file) bool { return f.name() == todo[0] }); ok {
			sent[todo[0]] = true
			out.FileDescriptorProto = append(out.FileDescriptorProto, f)
			todo = append(todo, f.imports()...)
		}
	}
	return &reflection.ServerReflectionResponse{FileDescriptorResponse: out}
}

// services are the names of those that are described and served, in their order.
func (r *reflector) services() (names []string) {
	r.find(func(f file) bool {
		each(f, func(number int, service []byte) bool {
			if inFile.declares(number) != inService {
				return true
			}
			name := f.pkg() + "." + text(service, 1)
			for path := range r.methods {
				if strings.HasPrefix(path, "/"+name+"/") {
					names = append(names, name)
					break
				}
			}
			return true
		})
		return false
	})
	slices.Sort(names)
	return slices.Compact(names)
}

// find is the first file that is so.
func (r *reflector) find(is func(file) bool) (found file, ok bool) {
	for _, set := range r.sets {
		each(set, func(_ int, b []byte) bool {
			if ok = is(b); ok {
				found = b
			}
			return !ok
		})
		if ok {
			return found, true
		}
	}
	return nil, false
}

// A file is a google.protobuf.FileDescriptorProto.
type file []byte

func (f file) name() string { return text(f, 1) }
func (f file) pkg() string  { return text(f, 2) }

func (f file) imports() (names []string) {
	each(f, func(number int, name []byte) bool {
		if number == 3 {
			names = append(names, string(name))
		}
		return true
	})
	return names
}

// declares tells whether a full name is that of something in the file.
func (f file) declares(symbol string) bool {
	if pkg := f.pkg(); pkg != "" {
		var ok bool
		if symbol, ok = strings.CutPrefix(symbol, pkg+"."); !ok {
			return false
		}
	}
	return declares(f, inFile, symbol)
}

// A kind is what a declaration is of, by which others stand within it.
type kind int

const (
	nothing kind = iota
	inFile
	inMessage
	inEnum
	inService
	alone // a field, a oneof, a value, a method
)

// declares is what a field of a descriptor declares.
func (k kind) declares(field int) kind {
	switch {
	case k == inFile && field == 4, k == inMessage && field == 3:
		return inMessage
	case k == inFile && field == 5, k == inMessage && field == 4:
		return inEnum
	case k == inFile && field == 6:
		return inService
	case (k == inMessage || k == inEnum || k == inService) && field == 2, k == inMessage && field == 8:
		return alone
	}
	return nothing
}

// declares tells whether something of that name stands within a descriptor. An enum's values stand beside it.
func declares(descriptor []byte, k kind, name string) (found bool) {
	first, rest, deeper := strings.Cut(name, ".")
	each(descriptor, func(number int, inner []byte) bool {
		switch what := k.declares(number); {
		case what == nothing:
		case text(inner, 1) == first && (!deeper || what != inEnum && declares(inner, what, rest)):
			found = true
		case what == inEnum:
			found = declares(inner, inEnum, name)
		}
		return !found
	})
	return found
}

// text is the string that a field of a descriptor holds.
func text(descriptor []byte, field int) (s string) {
	each(descriptor, func(number int, b []byte) bool {
		if number == field {
			s = string(b)
		}
		return number != field
	})
	return s
}

// each tells of the fields that have a length, for as long as tell wants more.
func each(b []byte, tell func(number int, data []byte) bool) {
	for len(b) > 0 {
		f, rest, err := protowire.Next(b)
		if err != nil || f.Tag&7 == 2 && !tell(f.Number(), f.Data) {
			return
		}
		b = rest
	}
}
