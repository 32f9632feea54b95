package main

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/sdk"
)

// Each folder of templates is a part of a template: what all functions have, and what those of a language have. In their
// files NAME stands for the project's name; a file's .tmpl ending is taken off, so that Go does not take a template's
// go.mod for a module's.
//
//go:embed all:templates
var templates embed.FS

type newCmd struct {
	Template string `arg:"" enum:"function,http-app" help:"function or http-app."`
	Dir      string `arg:"" type:"path" help:"Folder to make; its name becomes the project's."`
	Lang     string `default:"go" enum:"go,rust,c,assemblyscript" placeholder:"LANGUAGE" help:"What a function is written in: go, rust, c or assemblyscript (go)."`
}

func (newCmd) Help() string {
	return `Makes a project that builds as it is. Nothing is downloaded, but for AssemblyScript's compiler, which npm ci gets.

Templates:
  function  a function that keeps a counter; the one in Go comes with a test
  http-app  an ordinary HTTP program, in Go, that loam starts and routes to

Examples:
  loam new function hello && loam dev hello
  loam new function hello --lang rust
  loam new http-app shop`
}

var projectName = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$`)

func (c newCmd) Run(o out) error {
	name := filepath.Base(c.Dir)
	if !projectName.MatchString(name) {
		return &loam.Error{Code: loam.InvalidArgument, Op: fmt.Sprintf("project name %q", name), Hint: "use lower case letters, digits and -, beginning with a letter, such as hello-world"}
	}
	if entries, err := os.ReadDir(c.Dir); err == nil && len(entries) > 0 {
		return &loam.Error{Code: loam.AlreadyExists, Op: "folder " + relative(c.Dir), Err: errors.New("it holds something already"), Hint: "name a folder that does not exist yet"}
	}
	parts, made, next := []string{c.Template}, "a program in Go", ""
	if c.Template == "function" {
		parts = append(parts, "function-"+c.Lang)
		made = "a function in " + languageNames[c.Lang]
	} else if c.Lang != "go" {
		return &loam.Error{Code: loam.InvalidArgument, Op: "--lang " + c.Lang, Err: errors.New("an app that loam builds is written in Go"), Hint: "leave --lang out, or write any program and declare it as an App with a command"}
	}
	var errs []error
	for _, part := range parts {
		errs = append(errs, writeTemplate(c.Dir, part, name))
	}
	if c.Template == "function" {
		errs = append(errs, sdk.Write(filepath.Join(c.Dir, "sdk"), c.Lang))
	}
	if c.Lang == "assemblyscript" {
		next = "npm ci --prefix " + relative(c.Dir) + " && "
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	fmt.Fprintf(o, "made %s, %s; next: %s%s dev %s\n", relative(c.Dir), made, next, command(), relative(c.Dir))
	return nil
}

var languageNames = map[string]string{"go": "Go", "rust": "Rust", "c": "C", "assemblyscript": "AssemblyScript"}

// writeTemplate writes a folder of templates into dir.
func writeTemplate(dir, part, name string) error {
	root := path.Join("templates", part)
	return fs.WalkDir(templates, root, func(from string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(dir, filepath.FromSlash(strings.TrimSuffix(strings.TrimPrefix(from, root), ".tmpl")))
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		b, err := templates.ReadFile(from)
		if err != nil {
			return err
		}
		return os.WriteFile(to, []byte(strings.ReplaceAll(string(b), "NAME", name)), 0o644)
	})
}
