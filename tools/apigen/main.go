// Command apigen writes the messages of the capability contract in the languages that speak it: one plain struct or
// class for each message of a .proto file, which reads and writes the proto3 wire format. The output imports nothing
// but its language's standard library, because it is compiled into every Wasm guest, where the protobuf runtime would
// cost more than the guest. A capability that is added to the contract so costs no SDK a line.
//
// It knows what the contract uses: scalars string, bytes, bool, int64, uint32; repeated strings and messages.
//
//	apigen -proto api/loam.proto -go api/loam.pb.go,sdk/go/internal/api/loam.pb.go -rust sdk/rust/api.rs \
//		-c sdk/c/loam.h -assemblyscript sdk/assemblyscript/api.ts
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
	proto := flag.String("proto", "api/loam.proto", "the contract")
	files := map[string]*string{}
	for _, l := range languages {
		files[l.name] = flag.String(l.name, "", "files to write in "+l.name+", separated by commas")
	}
	flag.Parse()
	if err := run(*proto, files); err != nil {
		fmt.Fprintln(os.Stderr, "apigen:", err)
		os.Exit(1)
	}
}

// A language is one the contract is written in. generate returns a whole file, given what it holds now.
type language struct {
	name     string
	generate func(c contract, now []byte) ([]byte, error)
}

var languages = []language{{"go", goSource}, {"rust", rustSource}, {"c", cSource}, {"assemblyscript", assemblyScriptSource}}

func run(proto string, files map[string]*string) error {
	c, err := compile(proto)
	if err != nil {
		return err
	}
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
	src, err := l.generate(c, now)
	if err != nil {
		return err
	}
	return os.WriteFile(file, src, 0o644)
}
