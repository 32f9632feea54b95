package main

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite what the scripts expect")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"loam": main, "daprd": main, "daprapp": daprApp})
}

// TestScripts runs the CLI as users meet it. Beside testscript's own commands there are
//
//	answer URL [CURL-LIKE ARGS]   ask until somebody answers, and print the status and the body; -d BODY posts, -H 'NAME: VALUE'
//	                              adds a field, -i prints the fields too
//	eventually TEXT (CMD… | URL)  run a command, or ask, until the text is in what it says
//	mode OCTAL FILE               check a file's permissions
//	terminate                     send SIGTERM to the commands in the background
//	replace FILE                  write the variables' values into a file, in place of $NAME
//	interrupt                     send SIGINT to those that are a sidecar
//
// and the variables PORT and PORT2 to PORT6, free ports. Beside loam there are daprd, which is the same, and daprapp PORT, an
// app that is written for Dapr.
func TestScripts(t *testing.T) {
	goEnv, err := exec.Command("go", "env", "GOCACHE", "GOMODCACHE", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	dirs := strings.Split(string(goEnv), "\n")
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			env.Setenv("GOCACHE", dirs[0])
			env.Setenv("GOMODCACHE", dirs[1])
			env.Setenv("GOPROXY", "off") // what the CLI makes builds without a network
			env.Setenv("GOFLAGS", "-mod=mod")
			env.Setenv("GOTOOLCHAIN", "local")
			for _, name := range []string{"PORT", "PORT2", "PORT3", "PORT4", "PORT5", "PORT6"} {
				port, err := freePort()
				if err != nil {
					return err
				}
				env.Setenv(name, port)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"answer": answer, "eventually": eventually, "mode": mode, "terminate": terminate, "interrupt": interrupt, "replace": replace},
	})
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

const patience = 180 * time.Second

// until calls try until it is content.
func until(ts *testscript.TestScript, try func() error) {
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%v", err)
		}
		<-tick.C
	}
}

func answer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: answer URL [-i] [-d BODY] [-H FIELD] [-bearer FILE]")
	}
	method, body, bearer, fields := http.MethodGet, "", "", slices.Contains(args, "-i")
	args = slices.DeleteFunc(args, func(a string) bool { return a == "-i" })
	header := http.Header{}
	for i := 1; i+1 < len(args); i += 2 {
		switch args[i] {
		case "-d":
			method, body = http.MethodPost, args[i+1]
		case "-H":
			name, value, _ := strings.Cut(args[i+1], ": ")
			header.Set(name, value)
		case "-bearer":
			bearer = strings.TrimSpace(ts.ReadFile(args[i+1]))
		}
	}
	until(ts, func() error {
		req, err := http.NewRequest(method, args[0], strings.NewReader(body))
		if err != nil {
			return err
		}
		maps.Copy(req.Header, header)
		if bearer != "" {
			req.Header.Set("Authorization", "Bearer "+bearer)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err == nil {
			fmt.Fprintln(ts.Stdout(), res.StatusCode)
			if fields {
				_ = res.Header.Write(ts.Stdout()) // a buffer takes it
			}
			fmt.Fprintf(ts.Stdout(), "%s", b)
		}
		return err
	})
}

func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually TEXT (CMD ARGS… | URL)")
	}
	until(ts, func() error {
		var got string
		if strings.HasPrefix(args[1], "http://") {
			res, err := http.Get(args[1])
			if err != nil {
				return err
			}
			defer res.Body.Close()
			b, err := io.ReadAll(res.Body)
			if err != nil {
				return err
			}
			got = fmt.Sprintf("%d\n%s", res.StatusCode, b)
		} else {
			cmd := exec.Command(args[1], args[2:]...)
			for _, dir := range strings.Split(ts.Getenv("PATH"), string(os.PathListSeparator)) {
				if p := filepath.Join(dir, args[1]); isExecutable(p) {
					cmd = exec.Command(p, args[2:]...)
					break
				}
			}
			cmd.Dir, cmd.Env = ts.Getenv("WORK"), []string{"PATH=" + ts.Getenv("PATH"), "HOME=" + ts.Getenv("WORK")}
			out, _ := cmd.CombinedOutput() // what it printed is what counts
			got = string(out)
		}
		if !strings.Contains(got, args[0]) {
			return fmt.Errorf("%q is not in what %v says:\n%s", args[0], args[1:], got)
		}
		return nil
	})
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&0o111 != 0
}

func mode(ts *testscript.TestScript, neg bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

func terminate(ts *testscript.TestScript, neg bool, args []string) {
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(syscall.SIGTERM))
	}
}

func interrupt(ts *testscript.TestScript, neg bool, args []string) {
	for _, cmd := range ts.BackgroundCmds() {
		if strings.Contains(strings.Join(cmd.Args, " "), "app-id") {
			_ = cmd.Process.Signal(syscall.SIGINT) // one may have ended
		}
	}
}

func replace(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(os.Expand(ts.ReadFile(args[0]), ts.Getenv)), 0o600))
}
