package main

import (
	"bytes"
	"context"
	"encoding/hex"
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

const contractFile = "../../api/loam.proto"

// What is committed is what the generator writes.
func TestUpToDate(t *testing.T) {
	want, err := SKIP
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"../../api/loam.pb.go", "../../sdk/go/internal/api/loam.pb.go"} {
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what apigen writes: run go generate ./api (%v)", file, err)
		}
	}
}

// The generated code, in a program of its own, reads what the official implementation writes of every message, and
// writes what that reads as the same.
func TestAgainstProtobuf(t *testing.T) {
	c := protocompile.Compiler{Resolver: &protocompile.SourceResolver{ImportPaths: []string{filepath.Dir(contract)}}}
	files, err := c.Compile(context.Background(), filepath.Base(contract))
	if err != nil {
		t.Fatal(err)
	}
	src, err := generate(contract, "main")
	if err != nil {
		t.Fatal(err)
	}
	var table, in strings.Builder
	var sent []proto.Message
	messages := files[0].Messages()
	for i := range messages.Len() {
		d := messages.Get(i)
		fmt.Fprintf(&table, "\t%q: func() message { return new(%s) },\n", d.Name(), d.Name())
		for seed := range 6 {
			m := dynamicpb.NewMessage(d)
			fillMessage(m, seed)
			wire, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&in, "%s:%x\n", d.Name(), wire)
			sent = append(sent, m)
		}
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module echo\n\ngo 1.24\n", "api.go": string(src), "main.go": fmt.Sprintf(echo, table.String()),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "run", ".")
	cmd.Dir, cmd.Stdin, cmd.Stderr = dir, strings.NewReader(in.String()), os.Stderr
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != len(sent) {
		t.Fatalf("%d answers to %d messages", len(lines), len(sent))
	}
	for i, line := range lines {
		wire, err := hex.DecodeString(line)
		if err != nil {
			t.Fatalf("%s: %s", sent[i].ProtoReflect().Descriptor().Name(), line)
		}
		back := sent[i].ProtoReflect().New().Interface()
		if err := proto.Unmarshal(wire, back); err != nil || !proto.Equal(sent[i], back) {
			t.Errorf("%v came back as %v (%v)", sent[i], back, err)
		}
	}
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

const echo = `package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
)

type message interface {
	AppendProto([]byte) []byte
	ParseProto([]byte) error
}

var messages = map[string]func() message{
%s}

func main() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		name, text, _ := strings.Cut(in.Text(), ":")
		wire, err := hex.DecodeString(text)
		m := messages[name]()
		if err == nil {
			err = m.ParseProto(wire)
		}
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Printf("%%x\n", m.AppendProto(nil))
	}
}
`
