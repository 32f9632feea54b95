package redis

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/pubsub"
	"github.com/loam-run/loam/capability/state"
)

// StateConfig is the metadata of a state component.
type StateConfig struct {
	Server
	TTL          int64  `meta:"ttlInSeconds" min:"-1"` // of what is written without one; 0, -1: for ever
	QueryIndexes string `meta:"queryIndexes"`          // read, and of no use: a query reads what it selects from

	// Dapr's list of what every component of Redis takes has these too, and they mean nothing here.
	RedeliverInterval string `meta:"redeliverInterval"`
	ProcessingTimeout string `meta:"processingTimeout"`
}

// State is a state.Driver, a Getter, a Lister, a Querier, an Outbox and Tasked.
type State struct {
	task  loam.Task // that it is the driver of; nil: its calls block
	c     *client
	ttl   time.Duration
	apply *script
	get   *script
	life  string // the command that tells when a key ends
}

// OpenState opens a state component.
func OpenState(ctx context.Context, name string, c StateConfig) (*State, error) {
	conn, err := c.open(ctx, name)
	if err != nil {
		return nil, err
	}
	s := &State{c: conn, ttl: time.Duration(max(c.TTL, 0)) * time.Second, apply: newScript(applyText), get: newScript(getText), life: "PEXPIRETIME"}
	probe := redis.NewCmd(ctx, s.life, "")
	if err := conn.do(ctx, true, probe); err != nil {
		return nil, errors.Join(conn.fail("redis.Open", err), conn.close())
	}
	if probe.Err() != nil { // before Redis 7
		s.life = "PTTL"
	}
	return s, nil
}

// In is the driver whose Get, GetOne and Apply wait in t. There is none over TLS, behind sentinels or for a cluster.
func (s *State) In(t loam.Task) state.Driver {
	if t.Shard() == 0 || s.c.own == nil {
		return nil
	}
	in := *s
	in.task = t
	return &in
}

// Close waits for calls under way and disconnects.
func (s *State) Close() error { return s.c.close() }

// A first version is the time, so that a key which was deleted and made again has no ETag that it had before. daprd
// begins at 1, and counts on from either.
//
// KEYS are the keys of the ops, then the topics of the events. ARGV begins with the number of ops; each op has four: what
// it does (set or delete), its condition (nothing, ! for absent, = and an ETag), the value and the life in milliseconds
// (0: for ever); each event has four: data, metadata, and how its stream is trimmed (nothing, maxlen or minid; to what).
// The answer is 1 and the versions, or 0, which op it was, what was wrong, and the present version.
const applyText = `
local n = tonumber(ARGV[1])
local written = {}
for i = 1, n do
  local key, op, condition = KEYS[i], ARGV[i * 4 - 2], ARGV[i * 4 - 1]
  local version = written[key]
  if version == nil then
    version = redis.pcall('HGET', key, 'version')
    if type(version) == 'table' then
      if redis.call('TYPE', key).ok ~= 'string' then
        return redis.error_reply('WRONGTYPE ' .. key .. ' holds no state')
      end
      version = '0'
    end
  end
  if condition == '!' and version then
    return {0, i, 'there', version}
  elseif condition ~= '' and condition ~= '!' then
    if not version then
      return {0, i, 'gone', ''}
    elseif '=' .. version ~= condition then
      return {0, i, 'changed', version}
    end
  end
  if op == 'set' then written[key] = '' else written[key] = false end
end
local versions, first = {1}, nil
for i = 1, n do
  local key, op, value, life = KEYS[i], ARGV[i * 4 - 2], ARGV[i * 4], tonumber(ARGV[i * 4 + 1])
  if op == 'set' then
    local there = redis.pcall('HEXISTS', key, 'version')
    if type(there) == 'table' then
      redis.call('DEL', key)
      there = 0
    end
    if there == 0 then
      if not first then
        local now = redis.call('TIME')
        first = string.format('%d%06d', now[1], now[2])
      end
      redis.call('HSET', key, 'data', value, 'version', first)
    else
      redis.call('HSET', key, 'data', value)
    end
    if ARGV[i * 4 - 1] == '!' then
      redis.call('HSET', key, 'first-write', 0)
    end
    local version = redis.call('HINCRBY', key, 'version', 1)
    if life > 0 then
      redis.call('PEXPIRE', key, life)
    else
      redis.call('PERSIST', key)
    end
    versions[i + 1] = version
  else
    redis.call('DEL', key)
    versions[i + 1] = 0
  end
end
for i = n + 1, #KEYS do
  local at = i * 4 - 2
  local add = {'XADD', KEYS[i]}
  if ARGV[at + 2] ~= '' then
    add[3], add[4], add[5] = ARGV[at + 2], '~', ARGV[at + 3]
  end
  add[#add + 1] = '*'
  add[#add + 1] = 'data'
  add[#add + 1] = ARGV[at]
  if ARGV[at + 1] ~= '' then
    add[#add + 1] = 'metadata'
    add[#add + 1] = ARGV[at + 1]
  end
  redis.call(unpack(add))
end
return versions`

// getText answers three for each key: data, version, and its end, -1 for never, by the command in ARGV: the time in Unix
// milliseconds or those that are left.
const getText = `
local out = {}
for i, key in ipairs(KEYS) do
  local item = redis.pcall('HMGET', key, 'data', 'version')
  if item.err then
    if redis.call('TYPE', key).ok ~= 'string' then
      return redis.error_reply('WRONGTYPE ' .. key .. ' holds no state')
    end
    item = {redis.call('GET', key), '0'}
  end
  out[i * 3 - 2], out[i * 3 - 1] = item[1], item[2]
  out[i * 3] = item[2] and redis.call(ARGV[1], key) or -2
end
return out`

// GetOne reads one item.
func (s *State) GetOne(ctx context.Context, key string, _ state.GetOptions) (state.Item, error) {
	it := state.Item{Key: key}
	fields := redis.NewCmd(ctx, "hmget", strings.Clone(key), "data", "version")
	life := redis.NewCmd(ctx, s.life, strings.Clone(key))
	if err := s.c.wait(ctx, &call{commands: []redis.Cmder{fields, life}, repeat: true, task: s.task}); err != nil {
		return it, s.c.fail("state "+strconv.Quote(key), err)
	}
	pair, err := fields.Slice()
	if err == nil {
		err = life.Err()
	}
	switch {
	case err != nil && strings.HasPrefix(err.Error(), "WRONGTYPE"):
		items, err := s.Get(ctx, []string{key}) // which knows what else it may be
		if err != nil {
			return it, err
		}
		return items[0], nil
	case err != nil:
		return it, s.c.fail("state "+strconv.Quote(key), err)
	case len(pair) == 2:
		s.fill(&it, pair[0], pair[1], life.Val())
	}
	return it, nil
}

// fill completes an item with what Redis answers: data, version and its end. It is not there where one of them says so,
// for it may have ended in between.
func (s *State) fill(it *state.Item, data, version, end any) {
	d, _ := data.(string)
	v, _ := version.(string)
	ms, _ := end.(int64)
	if v == "" || ms == -2 {
		return
	}
	it.Value, it.ETag = []byte(d), v
	switch {
	case ms < 0:
	case s.life == "PTTL":
		it.Expires = time.Now().Add(time.Duration(ms) * time.Millisecond)
	default:
		it.Expires = time.UnixMilli(ms)
	}
}

// Get reads items as they are at one moment; in a cluster, each at a moment of its own.
func (s *State) Get(ctx context.Context, keys []string) ([]state.Item, error) {
	items := make([]state.Item, len(keys))
	if len(keys) == 1 {
		return items, s.read(ctx, items, keys)
	}
	if _, cluster := s.c.db.(*redis.ClusterClient); !cluster {
		return items, s.read(ctx, items, keys)
	}
	for i, k := range keys {
		var err error
		if items[i], err = s.GetOne(ctx, k, state.GetOptions{}); err != nil {
			return nil, err
		}
	}
	return items, nil
}

func (s *State) read(ctx context.Context, items []state.Item, keys []string) error {
	own := make([]string, len(keys))
	for i, k := range keys {
		own[i] = strings.Clone(k)
	}
	res, err := s.c.run(ctx, s.task, true, s.get, own, s.life)
	if err != nil {
		return s.c.fail("state.Get", err)
	}
	list, _ := res.([]any)
	if len(list) != 3*len(keys) {
		return loam.Errorf(loam.Internal, "state.Get", "Redis answered %d values for %d keys", len(list), len(keys))
	}
	for i, k := range keys {
		items[i].Key = k
		s.fill(&items[i], list[3*i], list[3*i+1], list[3*i+2])
	}
	return nil
}

// Apply writes all ops or none.
func (s *State) Apply(ctx context.Context, ops []state.Op) ([]string, error) {
	return s.ApplyAndPublish(ctx, ops, nil, nil)
}

// SharesCommit tells whether bus is in the same database.
func (s *State) SharesCommit(bus any) bool {
	p, ok := bus.(*Pubsub)
	return ok && p.c.where == s.c.where && p.c.number == s.c.number
}

// ApplyAndPublish writes all ops and appends all events, or does neither: it is one script, which Redis runs as a whole
// and writes to its log as a whole.
func (s *State) ApplyAndPublish(ctx context.Context, ops []state.Op, bus any, events []loam.Event) ([]string, error) {
	keys := make([]string, 0, len(ops)+len(events))
	args := make([]any, 1, 1+4*(len(ops)+len(events)))
	args[0] = len(ops)
	repeat := true // a write that was lost with its answer is done once more, unless its condition would not hold then
	for _, op := range ops {
		keys = append(keys, strings.Clone(op.Key)) // what is sent may outlive the call, where ctx ends first
		what, condition := "set", ""
		if op.Delete {
			what = "delete"
		}
		switch {
		case op.IfAbsent:
			condition, repeat = "!", false
		case op.IfMatch != "":
			condition, repeat = "="+op.IfMatch, false
		}
		life := op.TTL
		if life == 0 {
			life = s.ttl
		}
		if life > 0 {
			life = max(life, time.Millisecond)
		}
		args = append(args, what, condition, bytes.Clone(op.Value), life.Milliseconds())
	}
	if len(events) > 0 {
		p := bus.(*Pubsub)
		for i := range events {
			keys = append(keys, events[i].Topic)
			var err error
			if args, err = p.appendEvent(args, &events[i]); err != nil {
				return nil, err
			}
		}
	}
	res, err := s.c.run(ctx, s.task, repeat, s.apply, keys, args...)
	if err != nil {
		return nil, s.c.fail("state.Apply", err)
	}
	list, _ := res.([]any)
	if len(list) == 4 && list[0] == int64(0) {
		return nil, refusal(ops, list)
	}
	if len(list) != 1+len(ops) {
		return nil, loam.Errorf(loam.Internal, "state.Apply", "Redis answered %d values for %d ops", len(list), len(ops))
	}
	etags := make([]string, len(ops))
	for i, op := range ops {
		if v, ok := list[1+i].(int64); ok && !op.Delete {
			etags[i] = strconv.FormatInt(v, 10)
		}
	}
	return etags, nil
}

// refusal is why the script did nothing.
func refusal(ops []state.Op, list []any) error {
	i, _ := list[1].(int64)
	why, _ := list[2].(string)
	version, _ := list[3].(string)
	if i < 1 || int(i) > len(ops) {
		return loam.Errorf(loam.Internal, "state.Apply", "Redis refused op %d of %d", i, len(ops))
	}
	if err := state.CheckCondition(ops[i-1], why != "gone", version); err != nil {
		return err
	}
	return loam.Errorf(loam.Internal, "state.Apply", "Redis refused op %d: %s", i, why)
}

// List finds the keys by reading all names in the database: its cost grows with all that is there, not with what it
// finds.
func (s *State) List(ctx context.Context, prefix, after string, limit int) ([]state.Item, error) {
	var items []state.Item
	for len(items) < limit {
		keys, err := s.first(ctx, prefix, after, limit)
		if err != nil {
			return nil, s.c.fail("state.List "+strconv.Quote(prefix), err)
		}
		if len(keys) == 0 {
			break
		}
		found, err := s.fetch(ctx, keys)
		if err != nil {
			return nil, err
		}
		items = append(items, found...)
		if len(keys) < limit {
			break
		}
		after = keys[len(keys)-1]
	}
	return items[:min(len(items), limit)], nil
}

// fetch reads those of the keys that are still there.
func (s *State) fetch(ctx context.Context, keys []string) ([]state.Item, error) {
	items, err := s.Get(ctx, keys)
	return slices.DeleteFunc(items, func(it state.Item) bool { return it.ETag == "" }), err
}

// first are the first keys of those that begin with prefix and are greater than after, limit of them at most.
func (s *State) first(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	var keys []string
	shrink := func() {
		slices.Sort(keys)
		keys = slices.Compact(keys)
		keys = keys[:min(len(keys), limit)]
	}
	err := s.c.scan(ctx, prefix, "hash", func(found []string) error {
		for _, k := range found {
			if k > after && strings.HasPrefix(k, prefix) {
				keys = append(keys, k)
			}
		}
		if len(keys) > 4*limit {
			shrink()
		}
		return nil
	})
	shrink()
	return keys, err
}

// Query reads all items whose key begins with prefix.
func (s *State) Query(ctx context.Context, prefix string, q *state.Query) (state.Page, error) {
	return state.Select(q, s.all(ctx, prefix))
}

// all are the items whose key begins with prefix, each once.
func (s *State) all(ctx context.Context, prefix string) iter.Seq2[state.Item, error] {
	return func(yield func(state.Item, error) bool) {
		seen := map[string]struct{}{} // SCAN may name a key twice
		stopped := false
		err := s.c.scan(ctx, prefix, "hash", func(found []string) error {
			found = slices.DeleteFunc(found, func(k string) bool {
				_, twice := seen[k]
				seen[k] = struct{}{}
				return twice || !strings.HasPrefix(k, prefix)
			})
			if len(found) == 0 {
				return nil
			}
			items, err := s.fetch(ctx, found)
			if err != nil {
				return err
			}
			for _, it := range items {
				if !yield(it, nil) {
					stopped = true
					return errStop
				}
			}
			return nil
		})
		if err != nil && !stopped {
			yield(state.Item{}, s.c.fail("state.Query "+strconv.Quote(prefix), err))
		}
	}
}

var _ interface {
	state.Driver
	state.Getter
	state.Lister
	state.Querier
	state.Outbox
} = (*State)(nil)

var _ pubsub.Driver = (*Pubsub)(nil)
