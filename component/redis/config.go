package redis

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/config"
	"github.com/loam-run/loam/component"
)

// ConfigConfig is the metadata of a config component.
type ConfigConfig struct {
	Server
}

// Config is a config.Driver. What others write into its database under string keys is configuration too, as it is to
// Dapr: give it a database of its own.
type Config struct {
	c   *client
	set *script
}

// OpenConfig opens a config component.
func OpenConfig(ctx context.Context, name string, c ConfigConfig) (*Config, error) {
	conn, err := c.open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &Config{c: conn, set: newScript(setText)}, nil
}

// Close waits for calls under way and disconnects.
func (s *Config) Close() error { return s.c.close() }

// setText writes values with a new version: the time, with a count behind it where the clock stands still.
const setText = `
local now = redis.call('TIME')
local version = string.format('%d%06d', now[1], now[2])
for i, key in ipairs(KEYS) do
  local mine = version
  local before = redis.call('GET', key)
  if before then
    local was = string.match(before, '||(%d+)')
    if was and #was == #mine and was >= mine then
      mine = string.format('%.0f', tonumber(was) + 1)
    end
  end
  local value = ARGV[i * 2 - 1] .. '||' .. mine
  if ARGV[i * 2] ~= '' then
    value = value .. '||' .. ARGV[i * 2]
  end
  redis.call('SET', key, value)
end
return #KEYS`

const separator = "||"

// parse takes a value apart: Dapr's value||version, and our own metadata behind that.
func parse(key, text string) config.Item {
	it := config.Item{Key: key}
	var rest, metadata string
	it.Value, rest, _ = strings.Cut(text, separator)
	it.Version, metadata, _ = strings.Cut(rest, separator)
	if metadata != "" {
		if json.Unmarshal([]byte(metadata), &it.Metadata) != nil {
			it.Metadata = nil // somebody else's words
		}
	}
	return it
}

// Get reads items.
func (s *Config) Get(ctx context.Context, keys []string) ([]config.Item, error) {
	var items []config.Item
	var err error
	if len(keys) > 0 {
		items, err = s.get(ctx, keys)
	} else {
		err = s.c.scan(ctx, "", "string", func(found []string) error {
			got, err := s.get(ctx, found)
			items = append(items, got...)
			return err
		})
	}
	slices.SortFunc(items, func(a, b config.Item) int { return cmp.Compare(a.Key, b.Key) })
	items = slices.CompactFunc(items, func(a, b config.Item) bool { return a.Key == b.Key })
	return items, s.c.fail("config.Get", err)
}

func (s *Config) get(ctx context.Context, keys []string) ([]config.Item, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	commands := make([]redis.Cmder, len(keys))
	for i, k := range keys {
		commands[i] = redis.NewStringCmd(ctx, "get", strings.Clone(k))
	}
	if err := s.c.do(ctx, true, commands...); err != nil {
		return nil, err
	}
	var items []config.Item
	for i, k := range keys {
		text, err := commands[i].(*redis.StringCmd).Result()
		switch {
		case err == nil:
			it := parse(k, text)
			it.Version = cmp.Or(it.Version, text) // an item that is there has one, and it changes with the value
			items = append(items, it)
		case errors.Is(err, redis.Nil), strings.HasPrefix(err.Error(), "WRONGTYPE"):
		default:
			return nil, err
		}
	}
	return items, nil
}

// Set writes items. A value that holds || would come back without what follows it, to Dapr too, so it is refused.
func (s *Config) Set(ctx context.Context, items []config.Item) error {
	keys, args := make([]string, len(items)), make([]any, 0, 2*len(items))
	for i, it := range items {
		keys[i] = strings.Clone(it.Key)
		if strings.Contains(it.Value, separator) {
			return loam.Errorf(loam.InvalidArgument, "config "+strconv.Quote(it.Key), "a value that holds %s, which ends it in Redis", separator)
		}
		metadata := ""
		if len(it.Metadata) > 0 {
			b, err := json.Marshal(it.Metadata)
			if err != nil {
				return loam.Errorf(loam.InvalidArgument, "config "+strconv.Quote(it.Key), "its metadata: %w", err)
			}
			metadata = string(b)
		}
		args = append(args, strings.Clone(it.Value), metadata)
	}
	_, err := s.c.run(ctx, nil, true, s.set, keys, args...)
	return s.c.fail("config.Set", err)
}

// Delete removes keys.
func (s *Config) Delete(ctx context.Context, keys []string) error {
	args := []any{"del"}
	for _, k := range keys {
		args = append(args, strings.Clone(k))
	}
	cmd := redis.NewIntCmd(ctx, args...)
	err := s.c.do(ctx, true, cmd)
	if err == nil {
		err = cmd.Err()
	}
	return s.c.fail("config.Delete", err)
}

// poll is how often a watch looks for itself, where Redis does not tell.
const poll = time.Second

// Watch tells of what is there, then of changes: by keyspace notifications, which it asks Redis for where they are off; in
// a cluster and where Redis refuses them by looking every second. After a lost connection it looks at what changed
// meanwhile.
func (s *Config) Watch(ctx context.Context, keys []string, changed func([]config.Item)) error {
	w := watch{s: s, keys: keys, changed: changed, seen: map[string]string{}}
	_, cluster := s.c.db.(*redis.ClusterClient)
	for ctx.Err() == nil {
		refused := cluster
		if !cluster {
			err := s.notify(ctx)
			if refused = err != nil && loam.CodeOf(s.c.fail("", err)) != loam.Unavailable; err == nil {
				w.listen(ctx) // until the connection is lost
			}
		}
		if refused {
			w.look(ctx)
			component.Pause(ctx, poll)
			continue
		}
		component.Pause(ctx, again)
	}
	return nil
}

// notify has Redis tell of changed keys, beside what else it tells of.
func (s *Config) notify(ctx context.Context) error {
	const name = "notify-keyspace-events"
	have, err := s.c.db.ConfigGet(ctx, name).Result()
	if err != nil {
		return err
	}
	flags := have[name]
	missing := ""
	for _, f := range "Kg$xe" {
		if !strings.ContainsRune(flags, f) && (f == 'K' || !strings.Contains(flags, "A")) {
			missing += string(f)
		}
	}
	if missing == "" {
		return nil
	}
	return s.c.db.ConfigSet(ctx, name, flags+missing).Err()
}

// watch is one call of Watch.
type watch struct {
	s       *Config
	keys    []string
	changed func([]config.Item)
	begun   bool              // it has told what was there at first
	seen    map[string]string // version and value of each key when it was last told of
}

// listen tells of changes until the connection is lost.
func (w *watch) listen(ctx context.Context) {
	prefix := "__keyspace@" + strconv.Itoa(w.s.c.number) + "__:"
	var sub *redis.PubSub
	if len(w.keys) == 0 {
		sub = w.s.c.db.PSubscribe(ctx, prefix+"*")
	} else {
		channels := make([]string, len(w.keys))
		for i, k := range w.keys {
			channels[i] = prefix + k
		}
		sub = w.s.c.db.Subscribe(ctx, channels...)
	}
	defer func() { _ = sub.Close() }() // it is over, whatever it says
	stop := context.AfterFunc(ctx, func() { _ = sub.Close() })
	defer stop()
	for range max(1, len(w.keys)) { // Redis confirms each; from then on nothing is missed
		if _, err := sub.ReceiveTimeout(ctx, 5*time.Second); err != nil {
			return
		}
	}
	if !w.look(ctx) {
		return
	}
	for {
		m, err := sub.ReceiveTimeout(ctx, 10*time.Second)
		if err != nil {
			if !isTimeout(err) || sub.Ping(ctx) != nil {
				return
			}
			continue
		}
		if m, ok := m.(*redis.Message); ok {
			if !w.lookAt(ctx, []string{strings.TrimPrefix(m.Channel, prefix)}) {
				return
			}
		}
	}
}

// look tells what changed since it was last told; false: Redis does not answer.
func (w *watch) look(ctx context.Context) bool {
	items, err := w.s.Get(ctx, w.keys)
	if err != nil {
		return false
	}
	gone := maps.Clone(w.seen)
	for _, it := range items {
		delete(gone, it.Key)
	}
	for _, k := range slices.Sorted(maps.Keys(gone)) {
		items = append(items, config.Item{Key: k})
	}
	w.tell(items)
	return true
}

func (w *watch) lookAt(ctx context.Context, keys []string) bool {
	items, err := w.s.Get(ctx, keys)
	if err != nil {
		return false
	}
	if len(items) == 0 {
		items = []config.Item{{Key: keys[0]}}
	}
	w.tell(items)
	return true
}

func (w *watch) tell(items []config.Item) {
	begin := !w.begun
	w.begun = true
	news := slices.DeleteFunc(items, func(it config.Item) bool {
		before, there := w.seen[it.Key]
		return it.Version == "" && !there || there && before == it.Version+separator+it.Value
	})
	for _, it := range news {
		if it.Version == "" {
			delete(w.seen, it.Key)
		} else {
			w.seen[it.Key] = it.Version + separator + it.Value
		}
	}
	if len(news) > 0 || begin {
		w.changed(news)
	}
}
