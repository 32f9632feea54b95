package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"strings"
	"sync"

	"github.com/loam-run/loam"
)

// A Response is one that a guest writes, with its body, in one piece of memory.
type Response struct {
	loam.Response
	Data []byte // the body

	read bytes.Reader
	give func() // gives the memory of Data back; nil: it is not lent
}

// Done is the response when nothing is written to it any more.
func (r *Response) Done() *loam.Response {
	if r.Status == 0 {
		r.Status = 200
	}
	r.Length = int64(len(r.Data))
	if r.Length > 0 {
		r.read.Reset(r.Data)
		r.Body = body{r}
	}
	return &r.Response
}

// Write appends to the body what the call may still answer, and traps beyond.
func (r *Response) Write(c *Call, b []byte) {
	c.Respond(len(r.Data), len(b))
	if size := len(r.Data) + len(b); size > cap(r.Data) && size >= leastKept {
		r.grow(c, size)
	}
	r.Data = append(r.Data, b...)
	c.Moved(len(b))
}

// grow makes room for size bytes.
func (r *Response) grow(c *Call, size int) {
	if c.Buffers == nil {
		return // append does
	}
	larger := append(c.Buffers.take(size), r.Data...)
	r.free()
	kept := c.Buffers
	r.Data, r.give = larger, func() { kept.keep(larger) }
}

// free gives the memory of the body back.
func (r *Response) free() {
	if r.give != nil {
		r.give()
	}
	r.Data, r.give = nil, nil
	r.read.Reset(nil)
}

// Drop forgets a response that is not sent.
func (r *Response) Drop() { r.free() }

// Buffers keep the memory of large bodies for the next ones: what makes garbage of a megabyte for each request has the
// collector run all the time, beside all others. It is safe for concurrent use.
type Buffers struct {
	kept [mostBits - leastBits + 1]sync.Pool // of *[]byte, by size
}

const (
	leastBits, mostBits = 15, 24 // 32 KiB and 16 MiB
	leastKept           = 1 << leastBits
)

// take returns an empty buffer with room for size bytes, and for as many again before it is full, as a rule.
func (p *Buffers) take(size int) []byte {
	n := max(bits.Len(uint(size-1)), leastBits)
	if n > mostBits {
		return make([]byte, 0, size+size/4)
	}
	if b, ok := p.kept[n-leastBits].Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, 1<<n)
}

// keep takes a buffer back that take gave.
func (p *Buffers) keep(b []byte) {
	if n := bits.Len(uint(cap(b))) - 1; n >= leastBits && n <= mostBits && cap(b) == 1<<n {
		p.kept[n-leastBits].Put(&b)
	}
}

type body struct{ r *Response }

func (b body) Read(p []byte) (int, error) { return b.r.read.Read(p) }

func (b body) WriteTo(w io.Writer) (int64, error) { return b.r.read.WriteTo(w) }

func (b body) Close() error {
	b.r.free()
	return nil
}

// CheckStatus says why a response cannot have a status. 1xx are no responses, and 101 would leave HTTP.
func CheckStatus(status int) error {
	if status < 200 || status > 599 {
		return fmt.Errorf("status %d; a response has 200 to 599", status)
	}
	return nil
}

// CheckField keeps a guest from writing lines of its own into a connection (RFC 9110, section 5).
func CheckField(name, value string) error {
	if name == "" {
		return errors.New("a header field without a name")
	}
	for i := range len(name) {
		if ch := name[i]; ch <= ' ' || ch >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, ch) >= 0 {
			return fmt.Errorf("header field name %q", name)
		}
	}
	for i := range len(value) {
		if ch := value[i]; ch < ' ' && ch != '\t' || ch == 0x7f {
			return fmt.Errorf("a control character in the value of header field %s", name)
		}
	}
	return nil
}

// OfConnection names the fields that belong to a connection, which a guest has none of: the host knows the length.
func OfConnection(name string) bool {
	switch strings.ToLower(name) {
	case "connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade":
		return true
	}
	return false
}
