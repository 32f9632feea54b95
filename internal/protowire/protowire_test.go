package protowire

import (
	"bytes"
	"errors"
	"maps"
	"math"
	"strings"
	"testing"
)

// TestNext: what the functions append is what Next cuts off again.
func TestNext(t *testing.T) {
	long := strings.Repeat("x", 300)
	b := AppendNumber(nil, 1, math.MaxUint64)
	b = AppendText(b, 2, "a")
	b = AppendData(b, 3, []byte(long))
	b = AppendField(b, 4, "")
	b, start := Open(b, 5)
	b = Shut(AppendText(b, 1, long), start)
	b, start = Open(b, 1<<29-1)
	b = Shut(b, start)
	b = append(b, 6<<3|1, 1, 2, 3, 4, 5, 6, 7, 8, 7<<3|5, 1, 2, 3, 4)
	b = AppendText(AppendData(AppendNumber(b, 8, 0), 8, nil), 8, "") // which are left out
	for _, want := range []struct {
		number int
		num    uint64
		data   string
	}{
		{1, math.MaxUint64, ""}, {2, 0, "a"}, {3, 0, long}, {4, 0, ""}, {5, 0, string(AppendText(nil, 1, long))}, {1<<29 - 1, 0, ""},
		{6, 0, "\x01\x02\x03\x04\x05\x06\x07\x08"}, {7, 0, "\x01\x02\x03\x04"},
	} {
		f, rest, err := Next(b)
		if err != nil || f.Number() != want.number || f.Num != want.num || string(f.Data) != want.data {
			t.Fatalf("%+v, %v; want %+v", f, err, want)
		}
		b = rest
	}
	if len(b) > 0 {
		t.Errorf("%x is left", b)
	}
}

func TestNextRefuses(t *testing.T) {
	for wire, want := range map[string]error{
		"": ErrTruncated, "\x80": ErrTruncated, "\x08": ErrTruncated, "\x08\x80": ErrTruncated, "\x0a": ErrTruncated, "\x0a\x02a": ErrTruncated,
		"\x09\x01": ErrTruncated, "\x0d\x01": ErrTruncated, "\x00\x01": ErrTag, "\x0b": ErrTag, "\x0c": ErrTag, "\x0f": ErrTag,
		"\x80\x80\x80\x80\x10\x00": ErrTag, "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02": ErrVarint,
		"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01": ErrTruncated,
	} {
		if f, rest, err := Next([]byte(wire)); !errors.Is(err, want) {
			t.Errorf("%x: %+v %x %v, want %v", wire, f, rest, err, want)
		}
	}
}

func TestWords(t *testing.T) {
	got := map[string]string{}
	want := map[string]string{"": "", "a": "b", "long": strings.Repeat("x", 200), "bin": "\xff"}
	for k, v := range want {
		f, rest, err := Next(AppendWords([]byte{1<<3 | 2}, k, v))
		if err := errors.Join(err, ParseWords(got, f.Data)); err != nil || len(rest) > 0 {
			t.Error(k, err)
		}
		if err := ParseUTF8Words(map[string]string{}, f.Data); (err != nil) != (k == "bin") {
			t.Error(k, err)
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if err := ParseWords(got, []byte{1 << 3, 1}); !errors.Is(err, ErrWireType) {
		t.Error(err)
	}
}

func TestZigzag(t *testing.T) {
	for x, want := range map[int64]uint64{0: 0, -1: 1, 1: 2, math.MaxInt64: math.MaxUint64 - 1, math.MinInt64: math.MaxUint64} {
		if z := Zigzag(x); z != want || Unzigzag(z) != x {
			t.Errorf("%d: %d, %d", x, z, Unzigzag(z))
		}
	}
}

// FuzzNext: fields that are cut off and appended again are the same message, in no more bytes.
func FuzzNext(f *testing.F) {
	f.Add(AppendText(AppendNumber(nil, 1, 300), 2, "a"))
	f.Add([]byte{1<<3 | 2, 0x81, 0, 'a', 2<<3 | 5, 1, 2, 3, 4, 3<<3 | 1, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Fuzz(func(t *testing.T, b []byte) {
		cut := func(b []byte) (again []byte, ok bool) {
			for len(b) > 0 {
				f, rest, err := Next(b)
				if err != nil {
					return nil, false
				}
				if len(rest) >= len(b) {
					t.Fatal("nothing was cut off")
				}
				b, again = rest, AppendVarint(again, f.Tag)
				switch f.Tag & 7 {
				case 0:
					again = AppendVarint(again, f.Num)
				case 2:
					again = AppendBytes(again, f.Data)
				default:
					again = append(again, f.Data...)
				}
			}
			return again, true
		}
		once, ok := cut(b)
		if !ok {
			return
		}
		twice, ok := cut(once)
		if !ok || len(once) > len(b) || !bytes.Equal(once, twice) {
			t.Fatalf("%x, then %x", once, twice)
		}
	})
}
