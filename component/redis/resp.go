package redis

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Bounds of an answer. A value is as long as Redis lets it be; memory is taken for what has come of it.
const (
	maxDepth  = 8 // of lists in lists
	maxValue  = 512 << 20
	maxValues = 1 << 20 // of a list
	firstRead = 64 << 10
)

// appendCommand writes a command as Redis takes it: RESP 2, a list of strings.
func appendCommand(b []byte, args []any) []byte {
	b = appendLength(b, '*', len(args))
	for _, a := range args {
		switch a := a.(type) {
		case string:
			b = append(append(appendLength(b, '$', len(a)), a...), "\r\n"...)
		case []byte:
			b = append(append(appendLength(b, '$', len(a)), a...), "\r\n"...)
		default:
			text := fmt.Append(nil, a) // a number
			b = append(append(appendLength(b, '$', len(text)), text...), "\r\n"...)
		}
	}
	return b
}

func appendLength(b []byte, kind byte, n int) []byte {
	return append(strconv.AppendInt(append(b, kind), int64(n), 10), "\r\n"...)
}

// refused is an error that Redis answered.
type refused string

func (r refused) Error() string { return string(r) }

// RedisError tells it from errors of the connection.
func (refused) RedisError() {}

// readAnswer reads an answer in RESP 2: a string, an int64, a refused, a list of them as []any, or nil.
func readAnswer(in *bufio.Reader, depth int) (any, error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	kind, text, ok := byte(0), []byte(nil), len(line) >= 3
	if ok {
		kind = line[0]
		text, ok = bytes.CutSuffix(line[1:], []byte("\r\n"))
	}
	switch {
	case !ok:
	case kind == '+':
		return string(text), nil
	case kind == '-':
		return refused(text), nil
	default:
		n, err := strconv.ParseInt(string(text), 10, 64)
		switch {
		case err != nil:
		case kind == ':':
			return n, nil
		case n == -1 && (kind == '$' || kind == '*'):
			return nil, nil
		case kind == '$' && n >= 0 && n <= maxValue:
			return readString(in, int(n))
		case kind == '*' && n >= 0 && n <= maxValues && depth > 0:
			return readList(in, int(n), depth-1)
		}
	}
	return nil, errNoAnswer
}

var errNoAnswer = errors.New("what came is no answer of Redis")

func readString(in *bufio.Reader, n int) (any, error) {
	p := make([]byte, min(n+2, firstRead))
	if _, err := io.ReadFull(in, p); err != nil {
		return nil, err
	}
	if more := n + 2 - len(p); more > 0 {
		b := bytes.NewBuffer(p)
		if _, err := io.CopyN(b, in, int64(more)); err != nil {
			return nil, err
		}
		p = b.Bytes()
	}
	text, ok := bytes.CutSuffix(p, []byte("\r\n"))
	if !ok {
		return nil, errNoAnswer
	}
	return string(text), nil
}

func readList(in *bufio.Reader, n, depth int) (any, error) {
	list := make([]any, 0, min(n, 1024))
	for range n {
		v, err := readAnswer(in, depth)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}
