package dapr

import (
	"encoding/binary"
	"errors"
	"io"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/internal/protowire"
)

// The messages of dapr.proto.internals.v1 as they lie on the wire. A head is written from a request's fields and read into
// fields again, with nothing between them: a sidecar does this twice for every call.

// Fields that no peer can send, since their names are no tokens: what an invocation has besides HTTP, between an API that
// speaks gRPC and an app that does. They never leave this package.
const (
	fieldTypeURL = ":type-url"     // of the data of a message
	fieldGRPC    = ":grpc"         // of a request: it came by gRPC; its fields are metadata
	fieldCode    = ":grpc-code"    // of an answer: gRPC's status code, in decimal
	fieldMessage = ":grpc-message" // and its words
	fieldDetail  = ":grpc-detail"  // an Any among its details, encoded
	fieldTrailer = ":trailer "     // before the name of a field of gRPC's trailer
)

// private tells whether a field is one of those.
func private(name string) bool { return name != "" && name[0] == ':' }

// view is b as a string, for as long as nobody writes to b: messages are read into memory of their own.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// appendEntry writes an entry of a map of string to ListStringValue.
func appendEntry(b []byte, number int, name string, values ...string) []byte {
	b, entry := protowire.Open(b, number)
	b = protowire.AppendText(b, 1, name)
	b, list := protowire.Open(b, 2)
	for _, v := range values {
		b = protowire.AppendField(b, 1, v)
	}
	return protowire.Shut(protowire.Shut(b, list), entry)
}

// appendFields writes fields as a map: those of one name together, names spelled as Go's servers spell them, which Dapr
// decides by.
func appendFields(b []byte, number int, h loam.Header, grpc bool, skip func(name string) bool) []byte {
	for i := range h {
		name := h[i].Name
		if private(name) || skip(name) || !grpc && len(name) > 4 && strings.HasSuffix(name, "-bin") {
			continue
		}
		again := slices.ContainsFunc(h[:i], func(f loam.Field) bool { return strings.EqualFold(f.Name, name) })
		if again {
			continue // it was written with the first of them
		}
		b2, entry := protowire.Open(b, number)
		if grpc {
			b = protowire.AppendText(b2, 1, strings.ToLower(name))
		} else {
			b = protowire.AppendText(b2, 1, textproto.CanonicalMIMEHeaderKey(name))
		}
		b2, list := protowire.Open(b, 2)
		b = b2
		for j := i; j < len(h); j++ {
			if j == i || len(h[j].Name) == len(name) && strings.EqualFold(h[j].Name, name) {
				v := h[j].Value
				if grpc && strings.HasSuffix(name, "-bin") {
					v = standardBinary(v)
				}
				b = protowire.AppendField(b, 1, v)
			}
		}
		b = protowire.Shut(protowire.Shut(b, list), entry)
	}
	return b
}

// parseEntry reads an entry of a map of string to ListStringValue and adds it to h.
func parseEntry(h loam.Header, b []byte) (loam.Header, error) {
	var name string
	var values []byte
	for len(b) > 0 {
		f, rest, err := protowire.Next(b)
		if err != nil {
			return h, err
		}
		b = rest
		switch f.Number() {
		case 1:
			name = view(f.Data)
		case 2:
			values = f.Data
		}
	}
	if !isToken(name) {
		return h, nil // nothing that a header could hold
	}
	for len(values) > 0 {
		f, rest, err := protowire.Next(values)
		if err != nil {
			return h, err
		}
		values = rest
		if f.Number() == 1 {
			if len(h) >= maxFields {
				return h, errTooMany
			}
			if v := view(f.Data); isValue(v) {
				h = append(h, loam.Field{Name: name, Value: v})
			}
		}
	}
	return h, nil
}

// maxFields of a head that another sidecar sends.
const maxFields = 512

var errTooMany = errors.New("there are too many fields")

// isToken tells whether s can be a field's name (RFC 9110, section 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// isValue tells whether s can be a field's value: it ends no line.
func isValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// Verbs of HTTPExtension by number.
var verbs = [...]string{"", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}

func verbNumber(method string) int {
	if n := slices.Index(verbs[:], strings.ToUpper(method)); n > 0 {
		return n
	}
	return 3 // Dapr has POST for what it does not know
}

// A requestHead is an InternalInvokeRequest without its data.
type requestHead struct {
	method      string // the path, unescaped
	verb        int
	query       string
	contentType string
	typeURL     string
	header      loam.Header
	message     bool // there was one at all
	data        []byte
}

// parse reads an InternalInvokeRequest. It keeps b.
func (r *requestHead) parse(b []byte) error {
	for len(b) > 0 {
		f, rest, err := protowire.Next(b)
		if err != nil {
			return err
		}
		b = rest
		switch f.Number() {
		case 1:
			if f.Num > 1 {
				return errors.New("unsupported spec version: " + strconv.FormatUint(f.Num, 10))
			}
		case 2:
			r.header, err = parseEntry(r.header, f.Data)
		case 3:
			r.message = true
			err = r.parseMessage(f.Data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// parseMessage reads an InvokeRequest.
func (r *requestHead) parseMessage(b []byte) error {
	for len(b) > 0 {
		f, rest, err := protowire.Next(b)
		if err != nil {
			return err
		}
		b = rest
		switch f.Number() {
		case 1:
			r.method = view(f.Data)
		case 2:
			r.typeURL, r.data, err = parseAny(f.Data)
		case 3:
			r.contentType = view(f.Data)
		case 4:
			for x := f.Data; len(x) > 0; {
				if f, x, err = protowire.Next(x); err != nil {
					return err
				}
				switch f.Number() {
				case 1:
					if f.Num >= uint64(len(verbs)) {
						return errors.New("invalid HTTP verb")
					}
					r.verb = int(f.Num)
				case 2:
					r.query = view(f.Data)
				}
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func parseAny(b []byte) (typeURL string, value []byte, err error) {
	for len(b) > 0 {
		f, rest, err := protowire.Next(b)
		if err != nil {
			return "", nil, err
		}
		b = rest
		switch f.Number() {
		case 1:
			typeURL = view(f.Data)
		case 2:
			value = f.Data
		}
	}
	return typeURL, value, nil
}

// appendMessage writes an InvokeRequest; number 0: as a message of its own.
func (r *requestHead) appendMessage(b []byte, number int) []byte {
	message := 0
	if number > 0 {
		b, message = protowire.Open(b, number)
	}
	b = protowire.AppendText(b, 1, r.method)
	if r.typeURL != "" || len(r.data) > 0 {
		b2, data := protowire.Open(b, 2)
		b = protowire.Shut(protowire.AppendData(protowire.AppendText(b2, 1, r.typeURL), 2, r.data), data)
	}
	b = protowire.AppendText(b, 3, r.contentType)
	if r.verb > 0 || r.query != "" {
		b2, ext := protowire.Open(b, 4)
		b = protowire.Shut(protowire.AppendText(protowire.AppendNumber(b2, 1, uint64(r.verb)), 2, r.query), ext)
	}
	if number > 0 {
		b = protowire.Shut(b, message)
	}
	return b
}

// A responseHead is an InternalInvokeResponse without its data.
type responseHead struct {
	status      bool // there was one
	code        int
	words       string
	details     [][]byte
	contentType string
	typeURL     string
	header      loam.Header
	trailer     loam.Header
	data        []byte
}

// parse reads an InternalInvokeResponse. It keeps b.
func (r *responseHead) parse(b []byte) error {
	for len(b) > 0 {
		f, rest, err := protowire.Next(b)
		if err != nil {
			return err
		}
		b = rest
		switch f.Number() {
		case 1:
			r.status = true
			err = r.parseStatus(f.Data)
		case 2:
			r.header, err = parseEntry(r.header, f.Data)
		case 3:
			r.trailer, err = parseEntry(r.trailer, f.Data)
		case 4:
			err = r.parseMessage(f.Data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *responseHead) parseStatus(b []byte) error {
	for len(b) > 0 {
		f, rest, err := protowire.Next(b)
		if err != nil {
			return err
		}
		b = rest
		switch f.Number() {
		case 1:
			if f.Num > 999 {
				return errors.New("a status that nobody knows")
			}
			r.code = int(f.Num)
		case 2:
			r.words = view(f.Data)
		case 3:
			if len(r.details) < 16 {
				r.details = append(r.details, f.Data)
			}
		}
	}
	return nil
}

// parseMessage reads an InvokeResponse.
func (r *responseHead) parseMessage(b []byte) error {
	for len(b) > 0 {
		f, rest, err := protowire.Next(b)
		if err != nil {
			return err
		}
		b = rest
		switch f.Number() {
		case 1:
			if r.typeURL, r.data, err = parseAny(f.Data); err != nil {
				return err
			}
		case 2:
			r.contentType = view(f.Data)
		}
	}
	return nil
}

// append writes an InternalInvokeResponse.
func (r *responseHead) append(b []byte, grpc bool) []byte {
	b, status := protowire.Open(b, 1)
	b = protowire.AppendNumber(b, 1, uint64(r.code))
	b = protowire.AppendText(b, 2, r.words)
	for _, d := range r.details {
		b = protowire.AppendData(b, 3, d)
	}
	b = protowire.Shut(b, status)
	b = appendFields(b, 2, r.header, grpc, func(name string) bool { return false })
	b = appendFields(b, 3, r.trailer, true, func(name string) bool { return false })
	b, message := protowire.Open(b, 4)
	if r.typeURL != "" || len(r.data) > 0 {
		b2, data := protowire.Open(b, 1)
		b = protowire.Shut(protowire.AppendData(protowire.AppendText(b2, 1, r.typeURL), 2, r.data), data)
	}
	return protowire.Shut(protowire.AppendText(b, 2, r.contentType), message)
}

// appendPayload writes the field of a stream's message that holds a chunk.
func appendPayload(b []byte, data []byte, seq uint64) []byte {
	b, payload := protowire.Open(b, 2)
	return protowire.Shut(protowire.AppendNumber(protowire.AppendData(b, 1, data), 2, seq), payload)
}

// A streamMessage is one message of CallLocalStream, either way.
type streamMessage struct {
	head    []byte // the request or response; nil: there is none
	payload bool
	data    []byte
	seq     uint64
}

func (m *streamMessage) parse(b []byte) error {
	*m = streamMessage{}
	for len(b) > 0 {
		f, rest, err := protowire.Next(b)
		if err != nil {
			return err
		}
		b = rest
		switch f.Number() {
		case 1:
			m.head = f.Data
			if m.head == nil {
				m.head = []byte{}
			}
		case 2:
			m.payload = true
			for x := f.Data; len(x) > 0; {
				if f, x, err = protowire.Next(x); err != nil {
					return err
				}
				switch f.Number() {
				case 1:
					m.data = f.Data
				case 2:
					m.seq = f.Num
				}
			}
		}
	}
	return nil
}

// Frames of gRPC: a byte that says whether what follows is compressed, and four of its length.
const frameHeader = 5

// openFrame begins a message.
func openFrame(b []byte) ([]byte, int) {
	b = append(b, 0, 0, 0, 0, 0)
	return b, len(b)
}

// shutFrame writes the length of the message that began at start.
func shutFrame(b []byte, start int) []byte {
	binary.BigEndian.PutUint32(b[start-4:], uint32(len(b)-start))
	return b
}

// A frameReader takes messages from a body.
type frameReader struct {
	body     io.Reader
	most     int // bytes of one
	buf      *frameBuffer
	from, to int
	err      error // that Read gave with the last bytes
}

// A frameBuffer holds what was read ahead.
type frameBuffer [4 << 10]byte

var frameBuffers = sync.Pool{New: func() any { return new(frameBuffer) }}

// free gives back what the reader holds, when nothing more is read.
func (r *frameReader) free() {
	if r.buf != nil {
		frameBuffers.Put(r.buf)
		r.buf, r.from, r.to = nil, 0, 0
	}
	if r.err == nil {
		r.err = errFrame
	}
}

var (
	errFrame = errors.New("a message is not whole")
	errGzip  = errors.New("a message is compressed, which was not asked for")
)

// next is the next message, in memory of its own; io.EOF where there is none any more.
func (r *frameReader) next() ([]byte, error) {
	for r.to-r.from < frameHeader {
		if err := r.fill(); err != nil {
			if errors.Is(err, io.EOF) && r.to > r.from {
				err = errFrame
			}
			return nil, err
		}
	}
	if r.buf[r.from] != 0 {
		return nil, errGzip
	}
	size := uint64(binary.BigEndian.Uint32(r.buf[r.from+1:]))
	r.from += frameHeader
	if size > uint64(r.most) {
		return nil, loam.Errorf(loam.ResourceExhausted, "invoke", "a message of %d bytes: at most %d are taken", size, r.most)
	}
	m := make([]byte, 0, min(int(size), 64<<10)) // more as it comes: who only announces much gets little
	for len(m) < int(size) {
		if r.from == r.to {
			if err := r.fill(); err != nil {
				if errors.Is(err, io.EOF) {
					err = errFrame
				}
				return nil, err
			}
		}
		n := min(int(size)-len(m), r.to-r.from)
		m = append(m, r.buf[r.from:r.from+n]...)
		r.from += n
	}
	return m, nil
}

func (r *frameReader) fill() error {
	if r.err != nil {
		return r.err
	}
	if r.buf == nil {
		r.buf = frameBuffers.Get().(*frameBuffer)
	}
	if r.from == r.to {
		r.from, r.to = 0, 0
	} else if r.to == len(r.buf) {
		r.to = copy(r.buf[:], r.buf[r.from:r.to])
		r.from = 0
	}
	for range 100 {
		n, err := r.body.Read(r.buf[r.to:])
		r.to += n
		r.err = err
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}
