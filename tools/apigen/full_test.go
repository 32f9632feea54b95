package main

import (
	"bytes"
	"context"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/loam-run/loam/tools/apigen/internal/full"
)

// What is committed of the contracts of others is what their go:generate lines say.
func TestGeneratedUpToDate(t *testing.T) {
	for _, dir := range []string{"internal/full", "../../api/dapr", "../../api/dapr/components", "../../api/layotto", "../../api/reflection"} {
		pkg := filepath.Base(dir)
		source, err := os.ReadFile(filepath.Join(dir, pkg+".go"))
		if err != nil {
			t.Fatal(err)
		}
		said := false
		for line := range strings.Lines(string(source)) {
			// Which files, and in which order, is in that line.
			_, list, ok := strings.Cut(line, "-proto ")
			if !ok {
				continue
			}
			said = true
			list, _, _ = strings.Cut(list, " ")
			var named []string
			for name := range strings.SplitSeq(strings.TrimSpace(list), ",") {
				named = append(named, filepath.Join(dir, filepath.Base(name)))
			}
			c, err := compile(named...)
			if err != nil {
				t.Fatal(err)
			}
			c.goOptions = goOptions{pkg: pkg, utf8: true}
			if pkg == "full" {
				c.wire = toolsWire
			}
			for flag, generate := range map[string]func(contract, []byte) ([]byte, error){"-go ": goSource, "-descriptors ": descriptorSet} {
				_, file, ok := strings.Cut(line, flag)
				if !ok {
					continue
				}
				file, _, _ = strings.Cut(strings.TrimSpace(file), " ")
				got, err := os.ReadFile(filepath.Join(dir, filepath.Base(file)))
				if err != nil {
					t.Fatal(err)
				}
				if want, err := generate(c, nil); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s of %s is not what apigen writes: run go generate there (%v)", file, dir, err)
				}
			}
		}
		if !said {
			t.Errorf("%s says no files", dir)
		}
	}
}

// The descriptors of a contract are those of its files, whole, each behind what it imports.
func TestDescriptors(t *testing.T) {
	for _, file := range []string{"../../api/dapr/dapr.binpb", "../../api/reflection/v1.binpb", "../../api/reflection/v1alpha.binpb"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var set descriptorpb.FileDescriptorSet
		if err := proto.Unmarshal(b, &set); err != nil {
			t.Fatal(err)
		}
		known := map[string]bool{}
		for _, f := range set.File {
			for _, name := range f.Dependency {
				if !known[name] {
					t.Errorf("%s: %s stands before %s, which it imports", file, f.GetName(), name)
				}
			}
			known[f.GetName()] = true
			if f.SourceCodeInfo != nil {
				t.Errorf("%s: %s has its comments", file, f.GetName())
			}
		}
		if files, err := protodesc.NewFiles(&set); err != nil || files.NumFiles() != len(set.File) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestMethods(t *testing.T) {
	for got, want := range map[string]string{
		full.MethodServiceUnary: "/full.Service/Unary", full.MethodServiceUp: "/full.Service/Up",
		full.MethodServiceDown: "/full.Service/Down", full.MethodServiceBoth: "/full.Service/Both",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if full.Color_COLOR_LAST != -1 || full.All_SOME != 5 || full.Outer_HIGH != 1 {
		t.Error("values of enums are others")
	}
}

// all is the descriptor of the message that has everything.
func all(t testing.TB) protoreflect.MessageDescriptor {
	t.Helper()
	c := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{"internal/full"}})}
	files, err := c.Compile(context.Background(), "full.proto")
	if err != nil {
		t.Fatal(err)
	}
	return files[0].Messages().ByName("All")
}

// randomize sets some fields to random values, of the edges too.
func randomize(r *rand.Rand, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if r.IntN(3) == 0 || depth == 0 && f.Message() != nil && !f.IsMap() {
			continue
		}
		switch {
		case f.IsMap():
			for range r.IntN(3) {
				if v := f.MapValue(); v.Message() == nil || depth > 0 {
					m.Mutable(f).Map().Set(random(r, f.MapKey(), depth).MapKey(), random(r, v, depth-1))
				}
			}
		case f.IsList():
			for range r.IntN(4) {
				m.Mutable(f).List().Append(random(r, f, depth-1))
			}
		default:
			m.Set(f, random(r, f, depth-1))
		}
	}
}

func random(r *rand.Rand, f protoreflect.FieldDescriptor, depth int) protoreflect.Value {
	number := [...]uint64{0, 1, 127, 128, math.MaxInt32, math.MaxUint32, 1 << 63, math.MaxUint64, r.Uint64()}[r.IntN(9)]
	text := [...]string{"", "a", "grün", strings.Repeat("x", 127), strings.Repeat("y", 128), strings.Repeat("z", 300)}[r.IntN(6)]
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(text)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(text))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(number%2 == 1)
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(number))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(int64(number))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(number))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(number)
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32([...]float32{0, float32(math.Copysign(0, -1)), 1.5, float32(math.Inf(-1))}[number%4])
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64([...]float64{0, math.Copysign(0, -1), 1.5, math.Inf(1)}[number%4])
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(int32(number)))
	}
	m := dynamicpb.NewMessage(f.Message())
	randomize(r, m, depth)
	return protoreflect.ValueOfMessage(m)
}

// What the official implementation writes comes back as the same from what is generated.
func TestFullAgainstProtobuf(t *testing.T) {
	d := all(t)
	for seed := range uint64(500) {
		m := dynamicpb.NewMessage(d)
		randomize(rand.New(rand.NewPCG(seed, 0)), m, 3)
		wire, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var ours full.All
		if err := ours.ParseProto(wire); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		back := dynamicpb.NewMessage(d)
		if err := proto.Unmarshal(ours.AppendProto(nil), back); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if !proto.Equal(m, back) {
			t.Fatalf("seed %d: %.2000v\ncame back as\n%.2000v", seed, m, back)
		}
	}
}

// What is generated takes nothing that the official implementation refuses, and understands it in the same way. It refuses
// some that it takes: fields of another wire type than declared, and messages that lie too deep.
func FuzzFull(f *testing.F) {
	d := all(f)
	for seed := range uint64(20) {
		m := dynamicpb.NewMessage(d)
		randomize(rand.New(rand.NewPCG(seed, 1)), m, 0)
		wire, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Add([]byte{0xea, 3, 1, 'a', 0xfa, 3, 1, 'b'}) // two of a oneof
	f.Add([]byte{0x0a, 1, 0xff})                    // no UTF-8
	f.Fuzz(func(t *testing.T, wire []byte) {
		var ours full.All
		if ours.ParseProto(wire) != nil {
			return
		}
		official := dynamicpb.NewMessage(d)
		if err := proto.Unmarshal(wire, official); err != nil {
			t.Fatalf("it was taken: %v", err)
		}
		dropUnknown(official)
		back := dynamicpb.NewMessage(d)
		if err := proto.Unmarshal(ours.AppendProto(nil), back); err != nil {
			t.Fatalf("its own form is refused: %v", err)
		}
		if !proto.Equal(official, back) {
			t.Fatalf("%v\nwas read as\n%v", official, back)
		}
	})
}

// dropUnknown forgets fields that are not declared, at whatever depth.
func dropUnknown(m protoreflect.Message) {
	m.SetUnknown(nil)
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() && f.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				dropUnknown(v.Message())
				return true
			})
		case f.IsList() && f.Message() != nil:
			for i := range v.List().Len() {
				dropUnknown(v.List().Get(i).Message())
			}
		case !f.IsMap() && !f.IsList() && f.Message() != nil:
			dropUnknown(v.Message())
		}
		return true
	})
}

// Messages within one another without end are refused before they use up the stack.
func TestFullDeep(t *testing.T) {
	var wire []byte
	for range 3_000 { // All.again
		n := len(wire)
		head := []byte{0x9a, 1}
		for ; n >= 0x80; n >>= 7 {
			head = append(head, byte(n)|0x80)
		}
		wire = append(append(head, byte(n)), wire...)
	}
	if err := new(full.All).ParseProto(wire); err == nil || !strings.Contains(err.Error(), "too deep") {
		t.Error(err)
	}
	if err := new(full.All).ParseProto([]byte{0x0a, 1, 0xff}); err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Error(err)
	}
}
