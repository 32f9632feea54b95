package wagi

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/loam-run/loam/wasm/guest"
)

// What a header that a program prints may have.
const (
	maxFields = 1000
	maxHeader = 64 << 10 // bytes
)

// parse reads a CGI response (RFC 3875, section 6): header fields, an empty line, a body. Content-Type, Location or Status
// has to be among the fields. A Location without a Status is a redirect of the client, 302; one to a path of this server
// is no different, as a function cannot send a request round once more.
func parse(r *guest.Response, b []byte) error {
	content, location, status := false, false, false
	whole := len(b)
	for first := true; ; first = false {
		line, rest, ended := bytes.Cut(b, []byte{'\n'})
		switch {
		case len(b) == 0 && first:
			return errors.New("it is empty")
		case !ended:
			return errors.New("its header has no end: an empty line is missing")
		}
		b = rest
		if len(r.Header) >= maxFields || whole-len(b) > maxHeader {
			return fmt.Errorf("its header has more than %d fields or %d bytes", maxFields, maxHeader)
		}
		line = bytes.TrimSuffix(line, []byte{'\r'})
		if len(line) == 0 {
			break
		}
		name, value, ok := strings.Cut(string(line), ":")
		if !ok {
			return fmt.Errorf("%.100q is no header field", line)
		}
		value = strings.Trim(value, " \t")
		if err := guest.CheckField(name, value); err != nil {
			return err
		}
		switch {
		case strings.EqualFold(name, "Status"):
			if status {
				return errors.New("two fields Status")
			}
			status = true
			code, _, _ := strings.Cut(value, " ")
			n, err := strconv.Atoi(code)
			if err != nil || len(code) != 3 {
				return fmt.Errorf("the field Status says %.100q", value)
			}
			if err := guest.CheckStatus(n); err != nil {
				return err
			}
			r.Status = n
			continue
		case strings.EqualFold(name, "Content-Type"):
			content = true
		case strings.EqualFold(name, "Location"):
			location = true
		case guest.OfConnection(name):
			continue
		}
		r.Header.Add(name, value)
	}
	switch {
	case !content && !location && !status:
		return errors.New("its header has no Content-Type, Location or Status")
	case location && !status:
		r.Status = 302
	}
	r.Data = b
	return nil
}
