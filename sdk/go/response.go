package loam

import (
	"bytes"
	"encoding/json"
)

// A Response is a handler's answer.
type Response struct {
	Status int // HTTP status; 0 counts as 200
	Header Header
	Body   []byte
}

// Bytes answers with a body of that type.
func Bytes(status int, contentType string, body []byte) *Response {
	return &Response{Status: status, Header: Header{{"Content-Type", contentType}}, Body: body}
}

// Text answers with plain text.
func Text(status int, s string) *Response {
	return Bytes(status, "text/plain; charset=utf-8", []byte(s))
}

// HTML answers with a page.
func HTML(status int, s string) *Response {
	return Bytes(status, "text/html; charset=utf-8", []byte(s))
}

// JSON answers with v as JSON. A v that cannot be encoded is a mistake of the program, and panics.
func JSON(status int, v any) *Response {
	return Bytes(status, "application/json", append(appendJSON(nil, v), '\n'))
}

// NoContent answers 204, with no body.
func NoContent() *Response { return &Response{Status: 204} }

// appendJSON leaves <, > and & as they are: what is called application/json is no page.
func appendJSON(b []byte, v any) []byte {
	to := bytes.NewBuffer(b)
	e := json.NewEncoder(to)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("loam: " + err.Error())
	}
	return bytes.TrimSuffix(to.Bytes(), []byte("\n"))
}
