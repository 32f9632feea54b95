package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/loam-run/loam"
)

// A Response is one that a guest writes, with its body, in one piece of memory.
type Response struct {
	loam.Response
	Data []byte // the body

	read bytes.Reader
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
	r.Data = append(r.Data, b...)
	c.Moved(len(b))
}

type body struct{ r *Response }

func (b body) Read(p []byte) (int, error) { return b.r.read.Read(p) }

func (b body) WriteTo(w io.Writer) (int64, error) { return b.r.read.WriteTo(w) }

func (b body) Close() error { return nil }

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
