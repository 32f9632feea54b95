package resource

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	yamlError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)
	kindLine  = regexp.MustCompile(`(?m)^kind:[ \t]*"?(\w+)`)
	nameLine  = regexp.MustCompile(`(?m)^metadata:(?:[ \t]*\{[^}\n]*|[ \t]*\n(?:[ \t]+[^\n]*\n)*?[ \t]+)\bname:[ \t]*"?([-.a-z0-9]+)`)
	anchor    = regexp.MustCompile(`unknown anchor '([^']*)' referenced`)
)

type saying struct {
	parser, what, hint string
	short              int
}

// The parser's own words, and ours for a person who wrote YAML and does not know how it is parsed. Some errors it
// counts by lines from 0: short is what their number lacks.
var syntax = []saying{
	{"mapping values are not allowed", "this line is indented deeper than the one it belongs beside", "align it with its neighbours", 0},
	{"did not find expected key", "the indentation does not fit the lines before, or a quote ends too early", "align the keys of one mapping", 1},
	{"could not find expected ':'", "a line that is no `name: value`", "write a colon and a space after the name, or - before an item", 0},
	{"found unexpected end of stream", "a quote is opened and never closed", "close it", 0},
	{"found unexpected document indicator", "a quote is opened and never closed", "close it", 0},
	{"did not find expected ',' or ']'", "a [ is not closed, or a comma is missing", "write ] or the comma", 1},
	{"did not find expected ',' or '}'", "a { is not closed, or a comma is missing", "write } or the comma", 1},
	{"did not find expected '-' indicator", "the list ends here, but its lines go on", "put a - before each item, all in one column", 1},
	{"block sequence entries are not allowed", "a list cannot begin in the middle of a line", "put its first - on the next line", 0},
	{"found unknown escape character", "a backslash in double quotes that escapes nothing", "use single quotes, or double the backslash", 0},
	{"did not find expected alphabetic or numeric character", "a value that begins with * or & is an alias or anchor to YAML", "put it in quotes", 0},
	{"did not find expected node content", "a value is missing, or begins with a character that means something to YAML", "write it, put it in quotes, or close the bracket before it", 1},
	{"exceeded max depth", "nested too deep", "flatten it", 0},
	{"did not find expected <document start>", "text after the end of the document", "begin a new document with ---", 1},
}

// syntaxProblem turns the YAML parser's error into one that tells where and what to do.
func syntaxProblem(file string, before int, text string, err error) Problem {
	p := Problem{File: file, Line: 1, Column: 1, What: "is not YAML"}
	said := errors.Unwrap(err)
	if said == nil {
		said = err
	}
	message := said.Error()
	if m := yamlError.FindStringSubmatch(message); m != nil {
		message = m[2]
		if n, err := strconv.Atoi(m[1]); err == nil {
			p.Line = n
		}
	}
	lines := strings.Split(text, "\n")
	p.Line = max(min(p.Line, len(lines)), 1)
	at := func(line int, column int, what, hint string) {
		p.Line, p.Column, p.What, p.Hint = line, max(column, 1), "is not YAML: "+what, hint
	}
	known := slices.IndexFunc(syntax, func(s saying) bool { return strings.HasPrefix(message, s.parser) })
	switch m := anchor.FindStringSubmatch(message); {
	case m != nil:
		line := max(slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "*"+m[1]) }), 0)
		at(line+1, strings.Index(lines[line], "*"+m[1])+1, "the alias *"+m[1]+" has no anchor &"+m[1]+" before it", "put it in quotes, or write the anchor")
	case strings.HasPrefix(message, "control characters are not allowed"):
		line := max(slices.IndexFunc(lines, func(l string) bool { return strings.IndexFunc(l, control) >= 0 }), 0)
		at(line+1, strings.IndexFunc(lines[line], control)+1, "a control character", "delete it")
	case strings.HasPrefix(message, "found character that cannot start any token"):
		at(p.Line, 1, "a value begins with a character that none can begin with", "put the value in quotes")
		if i := slices.IndexFunc(lines, tabIndent); i >= 0 {
			at(i+1, strings.IndexByte(lines[i], '\t')+1, "a tab in the indentation", "indent with spaces")
		}
	case known == 0 && strings.Count(lines[p.Line-1], ": ") > 1:
		at(p.Line, 1, "a second `: ` in one line", "put the value in quotes")
	case known == 0 && p.Line > 1 && !strings.Contains(lines[p.Line-2], ":"):
		at(p.Line-1, 1, "a line that is no `name: value`", "write a colon and a space after the name, or - before an item")
	case known >= 0:
		s := syntax[known]
		at(min(p.Line+s.short, len(lines)), 1, s.what, s.hint)
	default:
		at(p.Line, 1, message, "check the line and the one before it")
	}
	if p.Column == 1 {
		line := lines[p.Line-1]
		p.Column = 1 + len(line) - len(strings.TrimLeft(line, " "))
	}
	p.Line += before
	if k, n := kindLine.FindStringSubmatch(text), nameLine.FindStringSubmatch(text); k != nil && n != nil {
		p.Key = k[1] + "/" + n[1]
	}
	return p
}

// control tells whether YAML forbids a character.
func control(r rune) bool { return r < ' ' && r != '\t' && r != '\r' || r == 0x7f }

// tabIndent tells whether a tab stands before the first character of a line.
func tabIndent(line string) bool {
	return strings.Contains(line[:len(line)-len(strings.TrimLeft(line, " \t"))], "\t") && strings.TrimSpace(line) != ""
}
