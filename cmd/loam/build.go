package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/component/all"
	"github.com/loam-run/loam/internal/build"
	"github.com/loam-run/loam/provider/file"
	"github.com/loam-run/loam/resource"
	"github.com/loam-run/loam/server"
	"github.com/loam-run/loam/snapshot"
)

type buildCmd struct {
	Dir string `arg:"" default:"." type:"path" help:"The project: a folder or file with resources (.)."`
}

func (buildCmd) Help() string {
	return `Builds every Function and App that has a source: a function to build/NAME.wasm beside the file that declares it, an
app to build/NAME. A function is Go, or what its folder holds: main.rs, main.c or main.ts. It needs that language's
compiler, and leaves what built before in place where the new build fails.

Examples:
  loam build
  loam build examples/shop`
}

func (c buildCmd) Run(ctx context.Context, o out) error {
	plan, problems, err := load(ctx, []string{c.Dir})
	if err != nil {
		return err
	}
	printProblems(o.err, problems)
	jobs := sources(plan)
	if len(jobs) == 0 && len(problems) == 0 {
		fmt.Fprintln(o, "nothing here has a source to build")
	}
	failed := len(problems) > 0
	for _, j := range jobs {
		if err := buildOne(ctx, o, j.Job); err != nil {
			failed = true
		}
	}
	if failed {
		return silent{}
	}
	return nil
}

// a job is something to build and the resource it is for.
type job struct {
	key string
	build.Job
}

// sources are what a plan has to build.
func sources(p *snapshot.Plan) []job {
	var jobs []job
	for _, f := range p.Functions {
		if f.Source != "" {
			jobs = append(jobs, job{"Function/" + f.Name, build.Job{Name: f.Name, Dir: f.Source, Out: f.File, Wasm: true, Main: f.ABI == "wagi"}})
		}
	}
	for _, a := range p.Apps {
		if a.Source != "" {
			jobs = append(jobs, job{"App/" + a.Name, build.Job{Name: a.Name, Dir: a.Source, Out: a.Binary}})
		}
	}
	return jobs
}

// buildOne builds with a line on how it went.
func buildOne(ctx context.Context, w io.Writer, j build.Job) error {
	if isTerminal(w) {
		fmt.Fprintf(w, "building %s …\r", j.Name)
	}
	start := time.Now()
	err := build.Run(ctx, j)
	if err != nil {
		fmt.Fprintf(w, "%s %v\n", paint(w, red, "failed"), err)
		var e *build.Error
		if errors.As(err, &e) && e.Hint != "" {
			fmt.Fprintf(w, "  to mend it: %s\n", e.Hint)
		}
		return err
	}
	fmt.Fprintf(w, "%s %s (%s)\n", paint(w, green, "built"), relative(j.Out), time.Since(start).Round(10*time.Millisecond))
	return nil
}

// load reads resources and compiles them, as far as they go, without running anything.
func load(ctx context.Context, paths []string) (*snapshot.Plan, []resource.Problem, error) {
	if err := exist(paths); err != nil {
		return nil, nil, err
	}
	objects, problems, err := file.New(paths).Load(ctx)
	if err != nil {
		return nil, nil, err
	}
	plan := snapshot.Build(objects, problems, nil, snapshot.Env{Factories: all.Factories(), CheckExpression: server.CheckExpression})
	problems = nil
	for _, s := range plan.Statuses {
		problems = append(problems, s.Problems...)
	}
	return plan, problems, nil
}

// asHinted carries a build's hint on to a status.
func asHinted(err error) error {
	var e *build.Error
	if errors.As(err, &e) {
		return &loam.Error{Code: loam.FailedPrecondition, Op: "build", Err: e, Hint: e.Hint}
	}
	return err
}
