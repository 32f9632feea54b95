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

// Each folder of templates is a template. In its files NAME stands for the project's name; a file's .tmpl ending is
// taken off, so that Go does not take a template's go.mod for a module's.
//
//go:embed all:templates
var templates embed.FS

// templateNames are the templates and what they are.
var templateNames = []struct{ name, what string }{
	{"go-function", "a function in Go that keeps a counter, with a test"},
	{"http-app", "an ordinary HTTP program that loam starts and routes to"},
}

type newCmd struct {
	Template string `arg:"" enum:"go-function,http-app" help:"go-function or http-app."`
	Dir      string `arg:"" type:"path" help:"Folder to make; its name becomes the project's."`
}

func (newCmd) Help() string {
	var b strings.Builder
	b.WriteString("Makes a project that builds as it is, with nothing to download.\n\nTemplates:\n")
	for _, t := range templateNames {
		fmt.Fprintf(&b, "  %-12s  %s\n", t.name, t.what)
	}
	b.WriteString("\nExamples:\n  loam new go-function hello && loam dev hello\n  loam new http-app shop")
	return b.String()
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
	root := path.Join("templates", c.Template)
	err := fs.WalkDir(templates, root, func(from string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(c.Dir, filepath.FromSlash(strings.TrimSuffix(strings.TrimPrefix(from, root), ".tmpl")))
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		b, err := templates.ReadFile(from)
		if err != nil {
			return err
		}
		return os.WriteFile(to, []byte(strings.ReplaceAll(string(b), "NAME", name)), 0o644)
	})
	if err == nil && c.Template == "go-function" {
		err = sdk.WriteGo(filepath.Join(c.Dir, "sdk"))
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(o, "made %s from %s; next: %s dev %s\n", relative(c.Dir), c.Template, command(), relative(c.Dir))
	return nil
}
