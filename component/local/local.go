// Package local holds what this machine has of its own: the secrets in the environment of the process, those in files of a
// folder, as Docker and Kubernetes put them there, and those in a JSON file, as Dapr's users write them down.
package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/secret"
	"github.com/loam-run/loam/component"
)

// Factories are the component types of this package.
func Factories() []loam.Factory {
	environment := component.New("secret.environment", OpenEnvironment)
	environment.Aliases = []string{"secretstores.local.env"}
	secrets := component.New("secret.local", OpenSecrets)
	secrets.Aliases = []string{"secretstores.local.file"}
	return []loam.Factory{
		component.New("secret.env", OpenEnv),
		component.New("secret.file", OpenFile),
		environment,
		secrets,
	}
}

// EnvConfig is the metadata of secret.env.
type EnvConfig struct {
	// Prefix begins the variables that are secrets: with LOAM_SECRET_, the secret token is LOAM_SECRET_token. The rest of
	// the environment is out of reach.
	Prefix string `meta:"prefix,LOAM_SECRET_"`
}

// OpenEnv opens secret.env: variables of the environment.
func OpenEnv(_ context.Context, _ string, c EnvConfig) (secret.Driver, error) {
	return env{c.Prefix}, nil
}

type env struct{ prefix string }

func (e env) Get(_ context.Context, name string) ([]byte, error) {
	value, ok := os.LookupEnv(e.prefix + name)
	if !ok {
		return nil, &loam.Error{
			Code: loam.NotFound, Err: fmt.Errorf("there is no variable %s%s", e.prefix, name),
			Hint: "start loam with " + e.prefix + name + " in its environment",
		}
	}
	return []byte(value), nil
}

func (env) Close() error { return nil }

// FileConfig is the metadata of secret.file.
type FileConfig struct {
	Dir string `meta:"dir"` // the folder; each file in it is a secret, by its name
}

// OpenFile opens secret.file: the files of a folder. They are read at each call, so that a secret that was changed is
// the new one at once. One line end at a file's end is not part of the secret: editors leave it there.
func OpenFile(_ context.Context, _ string, c FileConfig) (secret.Driver, error) {
	if c.Dir == "" {
		return nil, &loam.Error{Code: loam.InvalidArgument, Op: "secret.file", Err: errors.New("it has no folder"), Hint: "add the metadata dir: /run/secrets"}
	}
	root, err := os.OpenRoot(c.Dir)
	if err != nil {
		return nil, &loam.Error{Code: loam.FailedPrecondition, Op: "secret.file", Err: err, Hint: "dir must name a folder that can be read"}
	}
	return files{root}, nil
}

// files reads below a root that symbolic links do not lead out of; Kubernetes' own links stay within it.
type files struct{ root *os.Root }

func (f files) Get(_ context.Context, name string) ([]byte, error) {
	info, err := f.root.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &loam.Error{Code: loam.NotFound, Err: fmt.Errorf("there is no file %s", name), Hint: "put it into " + f.root.Name()}
	case err != nil:
		return nil, &loam.Error{Code: loam.FailedPrecondition, Err: err}
	case !info.Mode().IsRegular():
		return nil, &loam.Error{Code: loam.NotFound, Err: fmt.Errorf("%s is not a file", name)}
	case info.Size() > secret.MaxValue+1:
		return nil, &loam.Error{Code: loam.ResourceExhausted, Err: fmt.Errorf("it has %d bytes: at most %d", info.Size(), secret.MaxValue)}
	}
	b, err := f.root.ReadFile(name)
	if err != nil {
		return nil, &loam.Error{Code: loam.FailedPrecondition, Err: err, Hint: "the file must be readable for the user that runs loam"}
	}
	return []byte(strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")), nil
}

func (f files) Close() error { return f.root.Close() }
