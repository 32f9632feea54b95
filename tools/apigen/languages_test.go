//go:build sdk

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// make sdk runs it; a compiler that is missing is a failure.
func TestLanguagesAgainstProtobuf(t *testing.T) {
	againstProtobuf(t, map[string]program{"rust": rustProgram, "c": cProgram, "assemblyscript": assemblyScriptProgram})
}

func source(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(root + file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func rustProgram(t *testing.T, c contract, names []string) *exec.Cmd {
	src, err := rustSource(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	table := each(names, "        %q => echo::<api::%s>(b),\n", func(n string) []any { return []any{n, n} })
	dir := write(t, table, map[string]string{"api.rs": string(src), "wire.rs": source(t, "sdk/rust/wire.rs"), "main.rs": "testdata/echo.rs"})
	build(t, dir, "rustc", "--edition=2021", "-Adead_code", "-o", "echo", "main.rs")
	return exec.Command(filepath.Join(dir, "echo"))
}

func cProgram(t *testing.T, c contract, names []string) *exec.Cmd {
	src, err := cSource(c, []byte(source(t, "sdk/c/loam.h")))
	if err != nil {
		t.Fatal(err)
	}
	table := each(names, "\tECHO(%q, loam_%s)\n", func(n string) []any { return []any{n, snake(n)} })
	dir := write(t, table, map[string]string{"loam.h": string(src), "main.c": "testdata/echo.c"})
	build(t, dir, "cc", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-o", "echo", "main.c")
	return exec.Command(filepath.Join(dir, "echo"))
}

func assemblyScriptProgram(t *testing.T, c contract, names []string) *exec.Cmd {
	src, err := assemblyScriptSource(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	asc, err := filepath.Abs(root + "examples/languages/assemblyscript/node_modules/assemblyscript/bin/asc.js")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(asc); err != nil {
		t.Fatalf("%v: run test/sdk/install.sh", err)
	}
	table := each(names, "  if (name == %q) return hex(encode(decode<api.%s>(b)));\n", func(n string) []any { return []any{n, n} })
	dir := write(t, table, map[string]string{
		"api.ts": string(src), "wire.ts": source(t, "sdk/assemblyscript/wire.ts"), "main.ts": "testdata/echo.ts", "run.mjs": "testdata/echo.mjs",
	})
	build(t, dir, "node", asc, "main.ts", "-o", "main.wasm", "--bindings", "esm", "-O1")
	return exec.Command("node", filepath.Join(dir, "run.mjs"))
}
