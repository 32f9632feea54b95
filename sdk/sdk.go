// Package sdk carries the sources of the SDKs in the binary, so that loam new makes a project that builds with nothing
// published and no network. In a project they stand in a folder of their own, sdk, and its sources name them there: Rust
// as a module by its path, C and AssemblyScript by the file. The Go SDK is an ordinary package of this module; in a
// project it is a module of its own, which a replace line points to:
//
//	require github.com/loam-run/loam/sdk/go v0.0.0
//	replace github.com/loam-run/loam/sdk/go => ./sdk
package sdk

import (
	"embed"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// GoModule is the import path of the Go SDK, and the module that Write writes.
const GoModule = "github.com/loam-run/loam/sdk/go"

//go:embed go/*.go go/internal/api/*.go go/internal/protowire/*.go rust/*.rs c/loam.h assemblyscript/*.ts assemblyscript/lib/*.ts assemblyscript/asconfig.json
var files embed.FS

// Languages are those that have an SDK.
func Languages() []string { return []string{"go", "rust", "c", "assemblyscript"} }

// Write writes the SDK of a language into dir, which is made; its tests are left out.
func Write(dir, language string) error {
	sources, err := fs.Sub(files, language)
	if err != nil {
		return err
	}
	err = fs.WalkDir(sources, ".", func(name string, d fs.DirEntry, err error) error {
		to := filepath.Join(dir, filepath.FromSlash(name))
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return os.MkdirAll(to, 0o755)
		case strings.HasSuffix(name, "_test.go"):
			return nil
		}
		b, err := fs.ReadFile(sources, name)
		if err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o644)
	})
	if err != nil || language != "go" {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module "+GoModule+"\n\ngo 1.24\n"), 0o644)
}
