package main

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// descriptorSet is a contract as a serialized google.protobuf.FileDescriptorSet, without comments: a file stands behind
// those that it imports. Files of several contracts may have one name, so each is called by its package in Go too.
func descriptorSet(c contract, _ []byte) ([]byte, error) {
	set := &descriptorpb.FileDescriptorSet{}
	done := map[string]bool{}
	name := func(path string) string {
		if strings.HasPrefix(path, "google/") {
			return path
		}
		return c.pkg + "/" + path
	}
	var add func(protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if done[f.Path()] {
			return
		}
		done[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		p := protodesc.ToFileDescriptorProto(f)
		p.SourceCodeInfo = nil
		p.Name = proto.String(name(f.Path()))
		for i, path := range p.Dependency {
			p.Dependency[i] = name(path)
		}
		set.File = append(set.File, p)
	}
	for _, f := range c.sources {
		add(f)
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(set)
}
