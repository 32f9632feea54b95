// Package docs runs what the documents show. Every fenced block marked "console" in README.md and docs/ is played in a
// copy of the repository: lines that begin with "$ " are commands, the lines below one are what it prints.
//
//   - "..." stands for any text within a line, and for any number of lines where it is alone on one. Spaces in a row
//     count as one, so that columns may be shown aligned.
//   - "exit status N" as the last line says that the command fails.
//   - "$ command &" starts something that goes on until the document ends; what it prints is waited for.
//   - "$ cd DIR" holds for what follows.
//   - A line that ends with a backslash goes on in the next one.
//   - A fence whose info string names a file after the language ("```yaml loam.yaml") is written there first.
//   - Port 8080 in commands, output and files is replaced by a free one.
//   - curl is a small one of this package's own, as a minimal machine has none.
package docs

import (
	"fmt"
	"regexp"
	"strings"
)

// A step is one thing a document tells its reader to do: write a file, or run a command.
type step struct {
	line int // in the document, of the command or fence

	file, content string // written where file is not empty

	command    string
	background bool
	want       string // expected output
	fails      string // "exit status N"; empty: it succeeds
}

// parse reads the steps of a Markdown document.
func parse(text string) ([]step, error) {
	var steps []step
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		info, ok := strings.CutPrefix(lines[i], "```")
		if !ok {
			continue
		}
		start := i + 1
		end := start
		for end < len(lines) && lines[end] != "```" {
			end++
		}
		if end == len(lines) {
			return nil, fmt.Errorf("line %d: a fence that is never closed", i+1)
		}
		body := lines[start:end]
		i = end
		words := strings.Fields(info)
		switch {
		case len(words) == 1 && words[0] == "console":
			console, err := parseConsole(body, start+1)
			if err != nil {
				return nil, err
			}
			steps = append(steps, console...)
		case len(words) == 2 && strings.ContainsAny(words[1], "./"):
			steps = append(steps, step{line: start, file: words[1], content: strings.Join(body, "\n") + "\n"})
		}
	}
	return steps, nil
}

func parseConsole(lines []string, first int) ([]step, error) {
	var steps []step
	for i := 0; i < len(lines); i++ {
		command, ok := strings.CutPrefix(lines[i], "$ ")
		if !ok {
			return nil, fmt.Errorf("line %d: output before any command", first+i)
		}
		s := step{line: first + i}
		for strings.HasSuffix(command, "\\") && i+1 < len(lines) {
			i++
			command += "\n" + lines[i]
		}
		s.command, s.background = strings.CutSuffix(command, " &")
		var want []string
		for i+1 < len(lines) && !strings.HasPrefix(lines[i+1], "$ ") {
			i++
			want = append(want, lines[i])
		}
		if n := len(want); n > 0 && strings.HasPrefix(want[n-1], "exit status ") {
			s.fails = want[n-1]
			want = want[:n-1]
		}
		s.want = strings.Join(want, "\n")
		steps = append(steps, s)
	}
	return steps, nil
}

// matches tells whether got is what a document shows. Trailing spaces count on neither side; a background command may
// have printed more by the time it is looked at.
func matches(want, got string, more bool) bool {
	var re strings.Builder
	re.WriteString(`(?s)\A`)
	for line := range strings.SplitSeq(strings.TrimSpace(want), "\n") {
		line = strings.TrimRight(line, " \t\r")
		if line == "..." {
			re.WriteString(`(?:[^\n]*\n)*?`)
			continue
		}
		re.WriteString(strings.ReplaceAll(regexp.QuoteMeta(spaces(line)), `\.\.\.`, `[^\n]*`) + `\n`)
	}
	if !more {
		re.WriteString(`\z`)
	}
	var have strings.Builder
	if got = strings.TrimSpace(got); got != "" || strings.TrimSpace(want) == "" {
		for line := range strings.SplitSeq(got, "\n") {
			have.WriteString(spaces(strings.TrimRight(line, " \t\r")) + "\n")
		}
	}
	return regexp.MustCompile(re.String()).MatchString(have.String())
}

// spaces makes one space of each run of spaces and tabs.
func spaces(s string) string { return blank.ReplaceAllString(s, " ") }

var blank = regexp.MustCompile(`[ \t]+`)
