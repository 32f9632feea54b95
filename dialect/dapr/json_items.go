package dapr

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// jsonItem is a write as HTTP's bodies have it. The value stays as it was sent.
type jsonItem struct {
	Key      string            `json:"key"`
	Value    json.RawMessage   `json:"value"`
	ETag     *string           `json:"etag"`
	Metadata map[string]string `json:"metadata"`
	Options  struct {
		Concurrency string `json:"concurrency"`
		Consistency string `json:"consistency"`
	} `json:"options"`
}

// parseItems reads a body of writes. Most have no members but these three, and those are read without reflection: it takes
// a lone request a twentieth of its processor time, most of it to get the code of encoding/json into the caches.
func parseItems(body []byte) ([]jsonItem, error) {
	if json.Valid(body) {
		if items, ok := plainItems(body); ok {
			return items, nil
		}
	}
	var items []jsonItem
	err := json.Unmarshal(body, &items)
	return items, err
}

// plainItems reads writes that have keys, values and ETags alone, of a valid text, and is false for any others.
func plainItems(text []byte) (items []jsonItem, ok bool) {
	s := jsonScanner{text: text}
	if s.next() != '[' {
		return nil, false
	}
	for end := s.next(); end != ']'; end = s.next() {
		if end == ',' {
			end = s.next()
		}
		if end != '{' {
			return nil, false
		}
		var it jsonItem
		for end = s.next(); end != '}'; end = s.next() {
			if end == ',' {
				s.next()
			}
			name, ok := s.plainString()
			s.next() // the colon
			if !ok || !it.set(name, &s) {
				return nil, false
			}
		}
		items = append(items, it)
	}
	return items, true
}

// set takes the member's value. It is false for members and values that it does not know.
func (j *jsonItem) set(name []byte, s *jsonScanner) bool {
	first := s.next()
	if string(name) == "value" {
		j.Value = append(json.RawMessage(nil), s.value()...)
		return true
	}
	if first != '"' {
		return false
	}
	b, plain := s.plainString()
	text := string(b)
	switch string(name) {
	case "key":
		j.Key = text
	case "etag":
		j.ETag = &text
	default:
		return false
	}
	return plain
}

// A jsonScanner goes through a valid text.
type jsonScanner struct {
	text []byte
	at   int // of what is not taken yet
}

// next takes the next byte that is no white space.
func (s *jsonScanner) next() byte {
	for {
		b := s.text[s.at]
		s.at++
		if b > ' ' { // JSON's white space are the four bytes up to it that a valid text has between tokens
			return b
		}
	}
}

// plainString takes the rest of a string, whose first quote is taken. It is false for one that means other bytes than
// it is written with.
func (s *jsonScanner) plainString() ([]byte, bool) {
	from := s.at
	s.skipString()
	b := s.text[from : s.at-1]
	return b, bytes.IndexByte(b, '\\') < 0 && utf8.Valid(b)
}

func (s *jsonScanner) skipString() {
	for ; s.text[s.at] != '"'; s.at++ {
		if s.text[s.at] == '\\' {
			s.at++
		}
	}
	s.at++
}

// value takes the rest of a value, whose first byte is taken, and returns all of it.
func (s *jsonScanner) value() []byte {
	from := s.at - 1
	switch s.text[from] {
	case '"':
		s.skipString()
	case '{', '[':
		for depth := 1; depth > 0; {
			switch s.next() {
			case '"':
				s.skipString()
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
		}
	default: // a number or a word; the text does not end with it, as it is in an object
		for b := s.text[s.at]; b > ' ' && b != ',' && b != '}'; b = s.text[s.at] {
			s.at++
		}
	}
	return s.text[from:s.at]
}
