package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

const (
	root         = "../../"
	contractFile = root + "api/loam.proto"
)

// Where the copies of protowire stand, for what imports nothing of the module they are of.
const (
	sdkWire   = "github.com/loam-run/loam/sdk/go/internal/protowire"
	toolsWire = "github.com/loam-run/loam/tools/apigen/internal/protowire"
	wireFile  = root + "internal/protowire/protowire.go"
)

// The copies of protowire are copies.
func TestWire(t *testing.T) {
	want, err := os.ReadFile(wireFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{sdkWire, toolsWire} {
		file := root + strings.TrimPrefix(dir, "github.com/loam-run/loam/") + "/protowire.go"
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not internal/protowire/protowire.go: run go generate where the copy is used (%v)", file, err)
		}
	}
}

// What is committed is what the generator writes.
func TestUpToDate(t *testing.T) {
	c, err := compile(contractFile)
	if err != nil {
		t.Fatal(err)
	}
	for file, generate := range map[string]func(contract, []byte) ([]byte, error){
		"api/loam.pb.go": goSource, "sdk/go/internal/api/loam.pb.go": goSource, "sdk/rust/api.rs": rustSource, "sdk/c/loam.h": cSource,
		"sdk/assemblyscript/api.ts": assemblyScriptSource,
	} {
		got, err := os.ReadFile(root + file)
		if err != nil {
			t.Error(err)
			continue
		}
		c.goOptions = goOptions{}
		if strings.HasPrefix(file, "sdk/go/") {
			c.wire, c.views = sdkWire, true
		}
		if want, err := generate(c, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what apigen writes: run go generate ./api (%v)", file, err)
		}
	}
}

// A contract with what a language does not know is refused, with the field's name.
func TestRefuses(t *testing.T) {
	compiled := func(t *testing.T, text string) (contract, error) {
		file := filepath.Join(t.TempDir(), "x.proto")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return compile(file)
	}
	for _, fields := range []string{"double a = 1;", "repeated int64 a = 1;", "M a = 1;", "map<string, string> a = 1;", "oneof x { string a = 1; }", "optional string a = 1;"} {
		c, err := compiled(t, "syntax = \"proto3\";\nmessage M { "+fields+" }\n")
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range languages {
			file := filepath.Join(t.TempDir(), "x")
			if err := writeFile(l, c, file); l.plain && (err == nil || !strings.Contains(err.Error(), "M.a")) || !l.plain && err != nil {
				t.Errorf("%s: %s: %v", l.name, fields, err)
			}
		}
	}
	for text, want := range map[string]string{
		"syntax = \"proto2\";\nmessage M { optional string a = 1; }\n":                                            "M.a",
		"syntax = \"proto3\";\nmessage A { message B {} }\nmessage A_B {}\n":                                      "A.B",
		"syntax = \"proto3\";\nimport \"google/protobuf/any.proto\";\nmessage Any { google.protobuf.Any a = 1; }": "google.protobuf.Any",
	} {
		if _, err := compiled(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := cSource(contract{}, []byte("no header")); err == nil {
		t.Error("a header without the lines was taken")
	}
}

// malformed are bytes that hold no StateGetRequest.
var malformed = []string{"ff", "0a", "0a05", "0a056162", "0801", "0d01020304", "09", "00", "0b", "0c", "0e", "f8ffffffff7f00", "0affffffffffffffffff01", "60ffffffffffffffffffff01"}

// unknown are fields that it does not know, of every wire type, which are passed over.
const unknown = "9a0603616263" + "980605" + "99060102030405060708" + "9d0601020304"

// The generated code, in a program of its own, reads what the official implementation writes of every message, and writes
// what that reads as the same. The other languages' stand behind the tag sdk, with the compilers they need.
func TestAgainstProtobuf(t *testing.T) {
	againstProtobuf(t, map[string]program{"go": goProgram})
}

// A program makes a command that reads lines with a message's name and its bytes, and echoes the bytes.
type program func(t *testing.T, c contract, names []string) *exec.Cmd

func againstProtobuf(t *testing.T, programs map[string]program) {
	t.Helper()
	var in strings.Builder
	sent, names := messages(t)
	for _, m := range sent {
		wire, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&in, "%s:%x\n", m.ProtoReflect().Descriptor().Name(), wire)
	}
	for _, m := range malformed {
		fmt.Fprintf(&in, "StateGetRequest:%s\n", m)
	}
	fmt.Fprintf(&in, "StateGetRequest:%s\n", unknown)

	c, err := compile(contractFile)
	if err != nil {
		t.Fatal(err)
	}
	for language, program := range programs {
		t.Run(language, func(t *testing.T) {
			cmd := program(t, c, names)
			cmd.Stdin = strings.NewReader(in.String())
			out, err := cmd.Output()
			if err != nil {
				var exit *exec.ExitError
				if errors.As(err, &exit) {
					t.Fatalf("%v\n%s", err, exit.Stderr)
				}
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
			if len(lines) != len(sent)+len(malformed)+1 {
				t.Fatalf("%d answers to %d messages", len(lines), len(sent)+len(malformed)+1)
			}
			for i, m := range sent {
				wire, err := hex.DecodeString(lines[i])
				back := m.ProtoReflect().New().Interface()
				if err == nil {
					err = proto.Unmarshal(wire, back)
				}
				if err != nil || !proto.Equal(m, back) {
					t.Errorf("%.300v came back as %.300v (%v)", m, back, err)
				}
			}
			for i, m := range malformed {
				if lines[len(sent)+i] != "error" {
					t.Errorf("%s was read as %q", m, lines[len(sent)+i])
				}
			}
			if last := lines[len(lines)-1]; last != "" {
				t.Errorf("fields that it does not know: %q", last)
			}
		})
	}
}

// messages are some of every kind in the contract, and the kinds.
func messages(t *testing.T) (sent []proto.Message, names []string) {
	t.Helper()
	c := protocompile.Compiler{Resolver: &protocompile.SourceResolver{ImportPaths: []string{filepath.Dir(contractFile)}}}
	files, err := c.Compile(context.Background(), filepath.Base(contractFile))
	if err != nil {
		t.Fatal(err)
	}
	kinds := files[0].Messages()
	for i := range kinds.Len() {
		names = append(names, string(kinds.Get(i).Name()))
		for seed := range 6 {
			m := dynamicpb.NewMessage(kinds.Get(i))
			fillMessage(m, seed)
			sent = append(sent, m)
		}
	}
	return sent, names
}

// fillMessage sets fields to values that lie on the edges of the format; seed chooses which.
func fillMessage(m protoreflect.Message, seed int) {
	texts := []string{"", "a", strings.Repeat("ü", 63), strings.Repeat("x", 127), strings.Repeat("y", 128), strings.Repeat("z", 20_000)}
	numbers := []int64{0, 1, 127, 128, -1, 1<<63 - 1}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f, pick := fields.Get(i), (seed+i)%6
		one := func(pick int) protoreflect.Value {
			switch f.Kind() {
			case protoreflect.StringKind:
				return protoreflect.ValueOfString(texts[pick])
			case protoreflect.BytesKind:
				return protoreflect.ValueOfBytes([]byte(texts[pick]))
			case protoreflect.BoolKind:
				return protoreflect.ValueOfBool(pick%2 == 1)
			case protoreflect.Int64Kind:
				return protoreflect.ValueOfInt64(numbers[pick])
			case protoreflect.Uint32Kind:
				return protoreflect.ValueOfUint32(uint32(numbers[pick]))
			}
			inner := dynamicpb.NewMessage(f.Message())
			fillMessage(inner, pick)
			return protoreflect.ValueOfMessage(inner)
		}
		if !f.IsList() {
			m.Set(f, one(pick))
			continue
		}
		for n := range pick % 4 {
			m.Mutable(f).List().Append(one((pick + n) % 6))
		}
	}
}

// write writes a program's files; a name that ends in a file of testdata is that, with %s replaced by table.
func write(t *testing.T, table string, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range files {
		if from, ok := strings.CutPrefix(text, "testdata/"); ok {
			b, err := os.ReadFile(filepath.Join("testdata", from))
			if err != nil {
				t.Fatal(err)
			}
			text = strings.ReplaceAll(string(b), "TABLE", table)
		}
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// build runs a compiler. One that is missing is a failure, never a pass.
func build(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%v: run test/sdk/install.sh", err)
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// each formats a line for each name.
func each(names []string, format string, arg func(name string) []any) string {
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, format, arg(n)...)
	}
	return b.String()
}

func goProgram(t *testing.T, c contract, names []string) *exec.Cmd {
	c.goOptions = goOptions{"main", true, true, "echo/protowire"}
	src, err := goSource(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	table := each(names, "\t%q: func() message { return new(%s) },\n", func(n string) []any { return []any{n, n} })
	wire, err := os.ReadFile(wireFile)
	if err != nil {
		t.Fatal(err)
	}
	dir := write(t, table, map[string]string{"go.mod": "module echo\n\ngo 1.24\n", "api.go": string(src), "protowire/protowire.go": string(wire), "main.go": "testdata/echo.go.txt"})
	build(t, dir, "go", "build", "-o", "echo", ".")
	return exec.Command(filepath.Join(dir, "echo"))
}
