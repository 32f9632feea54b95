// Package resource holds the kinds a user declares in YAML: their types, strict decoding, defaults and validation.
// Providers call Decode with the bytes of a file; snapshot compiles what comes out. It does no I/O, and checks a
// resource by itself only: what one resource says about another is checked where all are known, in snapshot.
package resource

import (
	"fmt"
	"strings"
)

// An Object is one declared resource, decoded, with its defaults filled in and valid by itself. It is immutable.
type Object struct {
	APIVersion  string
	Kind        string
	Name        string
	Labels      map[string]string
	Annotations map[string]string
	Scopes      []string // names of the functions and apps it is for, as Dapr has it; empty: all
	Spec        any      // a pointer to the type of its kind: *Function, *HTTPRoute, …
	File        string   // as it was given to Decode
	Line        int      // where the document's first key stands

	places map[string]place
}

type place struct{ line, column int }

// Key names the object among all others: Kind/name.
func (o *Object) Key() string { return o.Kind + "/" + o.Name }

// Problem makes a problem of the field at path ("spec.rules[0].backendRefs[1].name"), standing where that field was
// written or, where it was left out, the nearest one round it.
func (o *Object) Problem(path, what, hint string) Problem {
	p := Problem{File: o.File, Line: o.Line, Column: 1, Path: path, What: what, Hint: hint, Key: o.Key()}
	for near := path; near != ""; near = near[:max(strings.LastIndexAny(near, ".["), 0)] {
		if at, ok := o.places[near]; ok {
			p.Line, p.Column = at.line, at.column
			break
		}
	}
	return p
}

// A Problem is one thing wrong with a resource: where, what, and what to write instead.
type Problem struct {
	File   string
	Line   int    // from 1; 0: the file as a whole
	Column int    // from 1
	Path   string // of the field; empty: the document as a whole
	What   string
	Hint   string // what to write; may be empty
	Key    string // of the resource (Kind/name), where it could be read

	Protects []PolicyTarget // of a broken Policy that says who may call: what it was to hold for
}

// Error prints `file:line:column: path: what; hint`.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.What)
	if p.Hint != "" {
		b.WriteString("; " + p.Hint)
	}
	return b.String()
}

// Decode reads the resources of one file: YAML documents, or JSON, which is YAML too. A broken document gives
// problems, all that can be found at once, and spoils only itself: the others come back as objects. Two of one
// key both come back: whether another file has it too is not known here.
func Decode(file string, data []byte) (objects []*Object, problems []Problem) {
	return decode(file, data)
}
