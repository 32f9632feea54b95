package server

import (
	"context"
	"strconv"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/state"
	"github.com/loam-run/loam/policy"
	"github.com/loam-run/loam/snapshot"
)

// shared counts a rate limit's requests in a state component, for all processes that use it. It counts in windows as
// long as the limit's: a key for each, that the component forgets by itself.
func (s *server) shared(l snapshot.RateLimit) policy.TakeFunc {
	store := find[*state.Store](s, "state")
	caller := &loam.Caller{Name: "rate limit", Grants: []loam.Grant{{Capability: "state", Component: l.Component}}}
	most := max(l.Requests, l.Burst)
	return func(ctx context.Context, key string, n int) (int, time.Duration, error) {
		st, err := store(l.Component)
		if err != nil {
			return 0, 0, err
		}
		for try := 0; ; try++ {
			now := time.Now()
			window := now.UnixNano() / int64(l.Per)
			left := time.Duration((window+1)*int64(l.Per) - now.UnixNano())
			name := "loam-rate-limit/" + l.State + "/" + strconv.FormatInt(window, 36) + "/" + key
			items, err := st.Get(ctx, caller, name)
			if err != nil {
				return 0, 0, err
			}
			used, _ := strconv.Atoi(string(items[0].Value)) // what is not there was not used
			got := min(n, most-used)
			if got <= 0 {
				return 0, left, nil
			}
			op := state.Op{Key: name, Value: strconv.AppendInt(nil, int64(used+got), 10), TTL: max(2*l.Per, 2*time.Second), IfMatch: items[0].ETag, IfAbsent: items[0].ETag == ""}
			_, err = st.Apply(ctx, caller, []state.Op{op}, nil, nil)
			if code := loam.CodeOf(err); (code == loam.Aborted || code == loam.AlreadyExists) && try < 10 {
				continue // somebody else took some meanwhile
			}
			if err != nil {
				return 0, 0, err
			}
			return got, 0, nil
		}
	}
}
