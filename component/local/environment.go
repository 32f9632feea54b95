package local

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/secret"
)

// EnvironmentConfig is the metadata of secret.environment.
type EnvironmentConfig struct {
	Prefix string `meta:"prefix"` // begins the variables that are secrets; empty: all are
}

// OpenEnvironment opens secret.environment, Dapr's secretstores.local.env: all variables of the environment but those that
// are the runtime's own. secret.env is for who would rather say which ones.
func OpenEnvironment(_ context.Context, _ string, c EnvironmentConfig) (secret.Driver, error) {
	return environment{c.Prefix}, nil
}

type environment struct{ prefix string }

// ours tells whether a variable is the runtime's: tokens that apps show us, and we them.
func ours(variable string) bool {
	variable = strings.ToUpper(variable)
	return variable == "APP_API_TOKEN" || strings.HasPrefix(variable, "DAPR_") || strings.HasPrefix(variable, "LOAM_")
}

func (e environment) Get(_ context.Context, name string) ([]byte, error) {
	variable := e.prefix + name
	value, ok := os.LookupEnv(variable)
	if !ok || ours(variable) {
		return nil, &loam.Error{
			Code: loam.NotFound, Err: fmt.Errorf("there is no variable %s that is a secret", variable),
			Hint: "start loam with " + variable + " in its environment; those that begin with DAPR_ and LOAM_, and APP_API_TOKEN, are no secrets",
		}
	}
	return []byte(value), nil
}

// GetFields is Dapr's way to ask: a variable that is not there is an empty one.
func (e environment) GetFields(ctx context.Context, name string, _ map[string]string) (map[string]string, error) {
	value, err := e.Get(ctx, name)
	if err != nil && loam.CodeOf(err) != loam.NotFound {
		return nil, err
	}
	return map[string]string{name: string(value)}, nil
}

func (e environment) GetAll(context.Context, map[string]string) (map[string]map[string]string, error) {
	all := map[string]map[string]string{}
	for _, line := range os.Environ() {
		variable, value, ok := strings.Cut(line, "=")
		name, begins := strings.CutPrefix(variable, e.prefix)
		if ok && begins && name != "" && !ours(variable) {
			all[name] = map[string]string{name: value}
		}
	}
	return all, nil
}

func (environment) Close() error { return nil }
