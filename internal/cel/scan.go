package cel

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A token is a piece of an expression.
type token struct {
	kind tokenKind
	text string // of a string: its value
	at   int
}

type tokenKind uint8

const (
	tokEnd tokenKind = iota
	tokName
	tokInt
	tokDouble
	tokString
	tokOperator
)

// reserved words are no names (cel-spec, "Syntax").
const reserved = " as break const continue else for function if import let loop package namespace return var void while in true false null "

func errorAt(at int, format string, args ...any) error {
	return fmt.Errorf("at column %d: %s", at+1, fmt.Sprintf(format, args...))
}

// scan reads the next token from position at on, and tells where it ends.
func scan(in string, at int) (token, int, error) {
	for {
		at += len(in[at:]) - len(strings.TrimLeft(in[at:], " \t\n\r\f"))
		if !strings.HasPrefix(in[at:], "//") {
			break
		}
		if end := strings.IndexByte(in[at:], '\n'); end >= 0 {
			at += end
		} else {
			at = len(in)
		}
	}
	if at == len(in) {
		return token{kind: tokEnd, text: "the end", at: at}, at, nil
	}
	c := in[at]
	switch {
	case c == '"' || c == '\'':
		return scanString(in, at, at, false)
	case (c == 'r' || c == 'R') && at+1 < len(in) && (in[at+1] == '"' || in[at+1] == '\''):
		return scanString(in, at, at+1, true)
	case (c|0x20 == 'b') && at+1 < len(in) && (in[at+1] == '"' || in[at+1] == '\''):
		return token{}, 0, errorAt(at, "bytes are not known here")
	case letter(c):
		end := at
		for end < len(in) && (letter(in[end]) || digit(in[end])) {
			end++
		}
		return token{tokName, in[at:end], at}, end, nil
	case digit(c) || c == '.' && at+1 < len(in) && digit(in[at+1]):
		return scanNumber(in, at)
	}
	for _, op := range []string{"==", "!=", "<=", ">=", "&&", "||"} {
		if strings.HasPrefix(in[at:], op) {
			return token{tokOperator, op, at}, at + 2, nil
		}
	}
	if strings.IndexByte("()[]{}.,:?!<>+-*/%", c) >= 0 {
		return token{tokOperator, in[at : at+1], at}, at + 1, nil
	}
	r, _ := utf8.DecodeRuneInString(in[at:])
	return token{}, 0, errorAt(at, "%q is nothing known", r)
}

func letter(c byte) bool { return c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z' }
func digit(c byte) bool  { return c >= '0' && c <= '9' }

func scanNumber(in string, at int) (token, int, error) {
	end := at
	if strings.HasPrefix(in[at:], "0x") {
		for end += 2; end < len(in) && (digit(in[end]) || in[end]|0x20 >= 'a' && in[end]|0x20 <= 'f'); end++ {
		}
		return number(in, at, end, tokInt)
	}
	kind := tokInt
	for ; end < len(in) && digit(in[end]); end++ {
	}
	if end+1 < len(in) && in[end] == '.' && digit(in[end+1]) {
		kind = tokDouble
		for end++; end < len(in) && digit(in[end]); end++ {
		}
	}
	if end < len(in) && in[end]|0x20 == 'e' {
		exp := end + 1
		if exp < len(in) && (in[exp] == '+' || in[exp] == '-') {
			exp++
		}
		if exp < len(in) && digit(in[exp]) {
			kind = tokDouble
			for end = exp; end < len(in) && digit(in[end]); end++ {
			}
		}
	}
	return number(in, at, end, kind)
}

func number(in string, at, end int, kind tokenKind) (token, int, error) {
	if end < len(in) && letter(in[end]) {
		return token{}, 0, errorAt(at, "%q is no number", in[at:end+1])
	}
	return token{kind, in[at:end], at}, end, nil
}

// scanString reads a string whose quote is at open.
func scanString(in string, start, open int, raw bool) (token, int, error) {
	quote := in[open]
	if strings.HasPrefix(in[open:], strings.Repeat(string(quote), 3)) {
		return token{}, 0, errorAt(start, "strings of three quotes are not known here")
	}
	var b strings.Builder
	for i := open + 1; i < len(in); {
		switch c := in[i]; {
		case c == quote:
			if s := b.String(); utf8.ValidString(s) {
				return token{tokString, s, start}, i + 1, nil
			}
			return token{}, 0, errorAt(start, "the string is not UTF-8")
		case c == '\n' || c == '\r':
			return token{}, 0, errorAt(start, "the string does not end in its line")
		case c == '\\' && !raw:
			n, err := unescape(&b, in[i:])
			if err != nil {
				return token{}, 0, errorAt(i, "%v", err)
			}
			i += n
		default:
			b.WriteByte(c)
			i++
		}
	}
	return token{}, 0, errorAt(start, "the string does not end")
}

// unescape writes what an escape at the beginning of s stands for, and tells how long it is.
func unescape(b *strings.Builder, s string) (int, error) {
	if len(s) < 2 {
		return 0, fmt.Errorf("the string does not end")
	}
	if i := strings.IndexByte(`abfnrtv\?"'`+"`", s[1]); i >= 0 {
		b.WriteByte("\a\b\f\n\r\t\v\\?\"'`"[i])
		return 2, nil
	}
	digits, base, skip := 0, 16, 2
	switch {
	case s[1]|0x20 == 'x':
		digits = 2
	case s[1] == 'u':
		digits = 4
	case s[1] == 'U':
		digits = 8
	case s[1] >= '0' && s[1] <= '3':
		digits, base, skip = 3, 8, 1
	}
	if digits == 0 || len(s) < skip+digits {
		return 0, fmt.Errorf(`\%c is no escape`, s[1])
	}
	n, err := strconv.ParseUint(s[skip:skip+digits], base, 32)
	if err != nil || n > utf8.MaxRune || n >= 0xd800 && n < 0xe000 {
		return 0, fmt.Errorf("%q is no escape", s[:skip+digits])
	}
	b.WriteRune(rune(n))
	return skip + digits, nil
}
