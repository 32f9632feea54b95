// Command apigen writes the messages of the capability contract in the languages that speak it: one plain struct or
// class for each message of a .proto file, which reads and writes the proto3 wire format. The output imports nothing
// but its language's standard library, because it is compiled into every Wasm guest, where the protobuf runtime would
// cost more than the guest. A capability that is added to the contract so costs no SDK a line.
//
// Every language knows what that contract uses: scalars string, bytes, bool, int64, uint32; repeated strings and messages.
//
//	apigen -proto api/loam.proto -go api/loam.pb.go -rust sdk/rust/api.rs -c sdk/c/loam.h \
//		-assemblyscript sdk/assemblyscript/api.ts
//
// Go knows all of proto3, since the dialects speak contracts of others: every scalar, enums, maps, oneof, optional,
// messages within messages and of other files, which go into the same package where they are used, google.protobuf's
// among them. Methods of services become constants of their full names. What is generated registers nothing and needs
// no reflection; it reads and writes fields by a package, protowire, of which the Go SDK has a copy.
//
//	apigen -proto a.proto,b.proto -go a/b.pb.go -package a -utf8
//
// With -descriptors it also writes the contract as a serialized google.protobuf.FileDescriptorSet, which is what gRPC's
// server reflection tells clients: a file behind those it imports, each called as its package in Go and its name.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	protos := flag.String("proto", "api/loam.proto", "the contract's files, separated by commas")
	pkg := flag.String("package", "api", "the package of what is written in go")
	wire := flag.String("wire", goWire, "the package that go reads and writes fields by")
	utf8 := flag.Bool("utf8", false, "in go, refuse strings that are not UTF-8, as protobuf asks; those of loam.proto may carry any header's value")
	views := flag.Bool("views", false, "in go, strings that are read share the message's memory, as bytes do: for who reads each message from memory of its own")
	files := map[string]*string{}
	for _, l := range languages {
		files[l.name] = flag.String(l.name, "", "files to write in "+l.name+", separated by commas")
	}
	flag.Parse()
	if err := run(strings.Split(*protos, ","), goOptions{*pkg, *utf8, *views, *wire}, files); err != nil {
		fmt.Fprintln(os.Stderr, "apigen:", err)
		os.Exit(1)
	}
}

// A language is one the contract is written in. generate returns a whole file, given what it holds now.
type language struct {
	name     string
	plain    bool // it knows no more than loam.proto needs
	generate func(c contract, now []byte) ([]byte, error)
}

var languages = []language{
	{"go", false, goSource}, {"rust", true, rustSource}, {"c", true, cSource}, {"assemblyscript", true, assemblyScriptSource},
	{"descriptors", false, descriptorSet},
}

func run(protos []string, o goOptions, files map[string]*string) error {
	c, err := compile(protos...)
	if err != nil {
		return err
	}
	c.goOptions = o
	for _, l := range languages {
		for file := range strings.SplitSeq(*files[l.name], ",") {
			if file == "" {
				continue
			}
			if err := writeFile(l, c, file); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
		}
	}
	return nil
}

func writeFile(l language, c contract, file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	now, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if l.plain {
		if err := c.plain(); err != nil {
			return err
		}
	}
	src, err := l.generate(c, now)
	if err != nil {
		return err
	}
	return os.WriteFile(file, src, 0o644)
}
