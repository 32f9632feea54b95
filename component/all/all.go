// Package all is the list of the components in the binary.
package all

import (
	"slices"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/component/cron"
	"github.com/loam-run/loam/component/crypto"
	"github.com/loam-run/loam/component/http"
	"github.com/loam-run/loam/component/local"
	"github.com/loam-run/loam/component/localstorage"
	"github.com/loam-run/loam/component/memory"
	"github.com/loam-run/loam/component/redis"
	"github.com/loam-run/loam/component/sqlite"
)

// Factories are the component types there are. To add a technology, add its line.
func Factories() []loam.Factory {
	return slices.Concat(
		cron.Factories(),
		crypto.Factories(),
		http.Factories(),
		local.Factories(),
		localstorage.Factories(),
		memory.New().Factories(),
		redis.Factories(),
		sqlite.New().Factories(),
	)
}
