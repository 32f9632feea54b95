// Command loam is the runtime and everything one does with it from a terminal.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/loam-run/loam"
)

// version is set by the build.
var version = "dev"

// cli is every command and its flags.
type cli struct {
	Run        runCmd        `cmd:"" help:"Serve resources from files and folders."`
	Sidecar    sidecarCmd    `cmd:"" help:"Serve Dapr's API to one app, by daprd's flags and files."`
	Dev        devCmd        `cmd:"" help:"Build, serve, watch and reload a project while you write it."`
	Check      checkCmd      `cmd:"" help:"Tell what is wrong with resources, without serving them."`
	Get        getCmd        `cmd:"" help:"Show the resources of a running loam and how they are."`
	Invoke     invokeCmd     `cmd:"" help:"Send a request to a function or app of a running loam."`
	Usage      usageCmd      `cmd:"" help:"Show what the functions of a running loam used."`
	Profile    profileCmd    `cmd:"" help:"Write a CPU profile of a function of a running loam."`
	New        newCmd        `cmd:"" help:"Start a project from a template."`
	Build      buildCmd      `cmd:"" help:"Build the functions and apps that have a source."`
	Upgrade    upgradeCmd    `cmd:"" help:"Replace a running loam by another binary, without losing anything."`
	Backup     backupCmd     `cmd:"" help:"Copy the embedded store of a running loam to a file."`
	Convert    convertCmd    `cmd:"" help:"Write a configuration of Layotto as resources."`
	Completion completionCmd `cmd:"" help:"Print a shell completion script."`
	Version    versionCmd    `cmd:"" help:"Print the version."`
}

// out is where commands print; each gets it by kong's binding.
type out struct {
	io.Writer
	err io.Writer
}

func main() {
	args := os.Args[1:]
	if filepath.Base(os.Args[0]) == "daprd" {
		args = append([]string{"sidecar"}, args...)
	}
	os.Exit(run(args, os.Stdout, os.Stderr))
}

// run is main without the process: it returns the exit status. 0 is done, 1 failed, 2 called wrongly.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signalContext()
	defer stop()
	if len(args) > 0 && args[0] == "sidecar" { // its flags are daprd's, which may have one dash
		if err := runSidecar(ctx, args[1:], out{stdout, stderr}); err != nil {
			printError(stderr, err)
			return 1
		}
		return 0
	}
	var c cli
	exited := -1
	parser, err := kong.New(&c, options(ctx, out{stdout, stderr}, &exited)...)
	if err != nil {
		panic(err) // the struct above is wrong
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if exited >= 0 { // --help was printed
		return exited
	}
	if err != nil {
		fmt.Fprintf(stderr, "loam: %v\n", err)
		var parse *kong.ParseError
		if errors.As(err, &parse) && parse.Context != nil && parse.Context.Selected() != nil {
			fmt.Fprintf(stderr, "see %s --help\n", "loam "+strings.Fields(parse.Context.Selected().FullPath())[1])
		} else {
			fmt.Fprintln(stderr, "see loam --help")
		}
		return 2
	}
	if err := command.Run(); err != nil {
		printError(stderr, err)
		return 1
	}
	return 0
}

func options(ctx context.Context, o out, exited *int) []kong.Option {
	return []kong.Option{
		kong.Name("loam"),
		kong.Description("Loam runs functions and the programs beside them, and stands between them and all they depend on.\n\n" +
			"Begin with: loam new function hello && loam dev hello"),
		kong.Writers(o.Writer, o.err),
		kong.Exit(func(code int) { *exited = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(o),
	}
}

// signalContext ends with the first SIGTERM or SIGINT; the second ends the process at once.
func signalContext() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	done := make(chan struct{})
	go func() {
		select {
		case <-signals:
			cancel()
		case <-done:
			return
		}
		select {
		case s := <-signals:
			os.Exit(128 + int(s.(syscall.Signal)))
		case <-done:
		}
	}()
	return ctx, func() { signal.Stop(signals); close(done); cancel() }
}

// printError shows an error to a person: what, why, and what to do.
func printError(w io.Writer, err error) {
	var said silent
	if errors.As(err, &said) {
		return
	}
	fmt.Fprintf(w, "loam: %v\n", err)
	if hint := loam.HintOf(err); hint != "" {
		fmt.Fprintf(w, "  to mend it: %s\n", hint)
	}
}

// silent is a failure whose reasons were printed already.
type silent struct{}

func (silent) Error() string { return "failed" }

type versionCmd struct{}

func (versionCmd) Run(o out) error {
	_, err := fmt.Fprintf(o, "loam %s\n", version)
	return err
}
