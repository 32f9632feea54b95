package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

func (completionCmd) Help() string {
	return `Examples:
  loam completion bash > /etc/bash_completion.d/loam
  source <(loam completion zsh)
  loam completion fish > ~/.config/fish/completions/loam.fish`
}

func (c completionCmd) Run(o out) error {
	exited := 0
	k, err := kong.New(&cli{}, options(context.Background(), o, &exited)...)
	if err != nil {
		return err
	}
	var commands []subcommand
	for _, n := range k.Model.Children {
		x := subcommand{name: n.Name, help: n.Help}
		for _, f := range n.Flags {
			x.flags = append(x.flags, "--"+f.Name)
		}
		for _, p := range n.Positional {
			for v := range strings.SplitSeq(p.Tag.Enum, ",") {
				if v != "" {
					x.words = append(x.words, v)
				}
			}
		}
		commands = append(commands, x)
	}
	switch c.Shell {
	case "fish":
		fish(o, commands)
	case "zsh":
		fmt.Fprintln(o, "autoload -U +X bashcompinit && bashcompinit")
		bash(o, commands)
	default:
		bash(o, commands)
	}
	return nil
}

// subcommand is a subcommand as a completion knows it.
type subcommand struct {
	name, help   string
	flags, words []string
}

func bash(w io.Writer, commands []subcommand) {
	var names []string
	for _, c := range commands {
		names = append(names, c.name)
	}
	fmt.Fprintf(w, "_loam() {\n  local word=\"${COMP_WORDS[COMP_CWORD]}\"\n  COMPREPLY=()\n")
	fmt.Fprintf(w, "  if [ \"$COMP_CWORD\" = 1 ]; then COMPREPLY=($(compgen -W %q -- \"$word\")); return; fi\n  case \"${COMP_WORDS[1]}\" in\n", strings.Join(names, " "))
	for _, c := range commands {
		fmt.Fprintf(w, "    %s) COMPREPLY=($(compgen -W %q -- \"$word\")) ;;\n", c.name, strings.Join(append(c.words, c.flags...), " "))
	}
	fmt.Fprintln(w, "  esac\n}\ncomplete -o default -F _loam loam")
}

func fish(w io.Writer, commands []subcommand) {
	for _, c := range commands {
		fmt.Fprintf(w, "complete -c loam -n __fish_use_subcommand -a %s -d %q\n", c.name, c.help)
		for _, f := range c.flags {
			fmt.Fprintf(w, "complete -c loam -n '__fish_seen_subcommand_from %s' -l %s\n", c.name, strings.TrimPrefix(f, "--"))
		}
		if len(c.words) > 0 {
			fmt.Fprintf(w, "complete -c loam -n '__fish_seen_subcommand_from %s' -a %q\n", c.name, strings.Join(c.words, " "))
		}
	}
}
