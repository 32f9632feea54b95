package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/loam-run/loam/resource"
)

type checkCmd struct {
	Paths []string `arg:"" name:"path" type:"path" help:"Files and folders with resources."`
}

func (checkCmd) Help() string {
	return `Reads the files as loam run would and prints every problem with its file, line and what to write instead, a line each.
The exit status is 1 where there is any.

Examples:
  loam check app.yaml
  loam check deploy/ && git push`
}

func (c checkCmd) Run(ctx context.Context, o out) error {
	plan, problems, err := load(ctx, c.Paths)
	if err != nil {
		return err
	}
	printProblems(o, problems)
	warnings, resources := 0, 0
	for _, s := range plan.Statuses {
		if s.File != "" { // the Gateway that there is by default was not declared
			resources++
		}
		for _, w := range s.Warnings {
			w.File = relative(w.File)
			fmt.Fprintf(o, "%s %v\n", paint(o, yellow, "warning:"), w)
			warnings++
		}
	}
	if len(problems) > 0 {
		fmt.Fprintf(o, "%s in %s\n", count(len(problems), "problem"), count(resources, "resource"))
		return silent{}
	}
	fmt.Fprintf(o, "%s, no problems", count(resources, "resource"))
	if warnings > 0 {
		fmt.Fprintf(o, ", %s", count(warnings, "warning"))
	}
	fmt.Fprintln(o)
	return nil
}

func printProblems(w io.Writer, problems []resource.Problem) {
	for _, p := range problems {
		p.File = relative(p.File)
		fmt.Fprintln(w, p.Error())
	}
}

// relative is a path as a person in this folder would write it.
func relative(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	rel, err := filepath.Rel(here, path)
	if err != nil || len(rel) > len(path) {
		return path
	}
	return rel
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
