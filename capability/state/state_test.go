package state

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
)

func TestSetOptions(t *testing.T) {
	for name, c := range map[string]struct {
		etag, concurrency, consistency string
		metadata                       map[string]string
		want                           Op
		fails                          bool
	}{
		"nothing said":               {want: Op{}},
		"an etag":                    {etag: "7", want: Op{IfMatch: "7"}},
		"an etag, first write":       {etag: "7", concurrency: "first-write", want: Op{IfMatch: "7"}},
		"an etag, last write":        {etag: "7", concurrency: "last-write", consistency: "strong", want: Op{IfMatch: "7"}},
		"first write":                {concurrency: "first-write", consistency: "eventual", want: Op{IfAbsent: true}},
		"last write":                 {concurrency: "last-write", want: Op{}},
		"a life":                     {metadata: map[string]string{"ttlInSeconds": "90"}, want: Op{TTL: 90 * time.Second}},
		"a life in another case":     {metadata: map[string]string{"TTLinseconds": "90"}, want: Op{TTL: 90 * time.Second}},
		"for ever":                   {metadata: map[string]string{"ttlInSeconds": "-1"}, want: Op{}},
		"a projection":               {metadata: map[string]string{"outbox.projection": "TRUE"}, want: Op{Projection: true}},
		"no projection":              {metadata: map[string]string{"outbox.projection": "false"}, want: Op{}},
		"an unknown concurrency":     {concurrency: "first", fails: true},
		"an unknown consistency":     {consistency: "weak", fails: true},
		"a life that is no number":   {metadata: map[string]string{"ttlInSeconds": "1m"}, fails: true},
		"a life before now":          {metadata: map[string]string{"ttlInSeconds": "-2"}, fails: true},
		"a life of too many seconds": {metadata: map[string]string{"ttlInSeconds": "2147483648"}, fails: true},
	} {
		var op Op
		err := op.SetOptions(c.etag, c.concurrency, c.consistency, c.metadata)
		if c.fails {
			if loam.CodeOf(err) != loam.InvalidArgument {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil || op.IfMatch != c.want.IfMatch || op.IfAbsent != c.want.IfAbsent || op.TTL != c.want.TTL || op.Projection != c.want.Projection {
			t.Errorf("%s: %+v, %v", name, op, err)
		}
	}
}

// plain is a driver that can no more than it must: no transactions, no ETags, no lives; and whose server may be away.
type plain struct {
	items map[string][]byte
	away  func(key string) error
	calls atomic.Int64
}

func (p *plain) Limits() Limits { return Limits{NoETags: true, NoTransactions: true, NoTTL: true} }
func (p *plain) Close() error   { return nil }

func (p *plain) Get(_ context.Context, keys []string) ([]Item, error) {
	p.calls.Add(1)
	items := make([]Item, len(keys))
	for i, k := range keys {
		if p.away != nil && p.away(k) != nil {
			return nil, p.away(k)
		}
		items[i].Key = k
		if v, ok := p.items[k]; ok {
			items[i].Value, items[i].ETag = v, "1"
		}
	}
	return items, nil
}

func (p *plain) Apply(_ context.Context, ops []Op) ([]string, error) {
	p.calls.Add(1)
	if len(ops) != 1 {
		return nil, errors.New("it has no transactions")
	}
	if p.away != nil && p.away(ops[0].Key) != nil {
		return nil, p.away(ops[0].Key)
	}
	if ops[0].Delete {
		delete(p.items, ops[0].Key)
		return []string{""}, nil
	}
	p.items[ops[0].Key] = ops[0].Value
	return []string{"1"}, nil
}

var all = &loam.Caller{Name: "orders", Grants: []loam.Grant{{Capability: "state", Component: "s"}}}

func TestViews(t *testing.T) {
	d := &plain{items: map[string][]byte{}}
	s, err := Open("s", d, Options{})
	if err != nil {
		t.Fatal(err)
	}
	orders, err1 := s.For("orders", "")
	again, err2 := s.For("orders", "")
	carts, err3 := s.For("carts", "")
	if err := errors.Join(err1, err2, err3); err != nil || orders != again || orders == carts {
		t.Fatalf("%v: a view is made once for each app", err)
	}
	if errs := orders.Write(t.Context(), all, []Op{{Key: "k", Value: []byte("mine")}}); errs != nil {
		t.Fatal(errs)
	}
	if string(d.items["orders||k"]) != "mine" {
		t.Errorf("stored: %q", d.items)
	}
	one, err := orders.GetOne(t.Context(), all, "k", GetOptions{})
	if err != nil || one.Key != "k" || string(one.Value) != "mine" {
		t.Errorf("%+v, %v", one, err)
	}
	if items, err := carts.Get(t.Context(), all, "k"); err != nil || items[0].ETag != "" || items[0].Key != "k" {
		t.Errorf("another app sees %+v, %v", items, err)
	}
	if _, err := orders.GetOne(t.Context(), all, "a||b", GetOptions{}); loam.CodeOf(err) != loam.InvalidArgument {
		t.Errorf("a key with a separator: %v", err)
	}
	only := &loam.Caller{Name: "orders", Grants: []loam.Grant{{Capability: "state", Component: "s", Names: []string{"k"}}}}
	if _, err := orders.GetOne(t.Context(), only, "k", GetOptions{}); err != nil {
		t.Errorf("a grant is for keys as the app writes them: %v", err)
	}
	if _, err := orders.GetOne(t.Context(), only, "l", GetOptions{}); loam.CodeOf(err) != loam.PermissionDenied {
		t.Errorf("no grant: %v", err)
	}
}

func TestLimits(t *testing.T) {
	d := &plain{items: map[string][]byte{}}
	s := New("s", d)
	if f := s.Features(); len(f) != 0 || s.MaxTransaction() != 0 || s.Instant() {
		t.Errorf("features %q, %d ops", f, s.MaxTransaction())
	}
	for name, ops := range map[string][]Op{
		"two ops": {{Key: "a"}, {Key: "b"}}, "a life": {{Key: "a", TTL: time.Second}}, "an ETag": {{Key: "a", IfMatch: "1"}}, "absent": {{Key: "a", IfAbsent: true}},
	} {
		if _, err := s.Apply(t.Context(), all, ops, nil, nil); loam.CodeOf(err) != loam.Unimplemented {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Query(t.Context(), all, &Query{}); loam.CodeOf(err) != loam.Unimplemented {
		t.Errorf("a query: %v", err)
	}
	if _, err := s.List(t.Context(), all, "", "", 1); loam.CodeOf(err) != loam.Unimplemented {
		t.Errorf("a list: %v", err)
	}
	if d.calls.Load() != 0 {
		t.Errorf("the driver was asked %d times", d.calls.Load())
	}
}

// Each op is answered for itself, whatever became of the others.
func TestWriteAndGetBulk(t *testing.T) {
	away := loam.Errorf(loam.Unavailable, "driver", "this shard is away")
	d := &plain{items: map[string][]byte{}, away: func(key string) error {
		if key == "away" {
			return away
		}
		return nil
	}}
	s := New("s", d)
	some := &loam.Caller{Name: "x", Grants: []loam.Grant{{Capability: "state", Component: "s", Names: []string{"a", "b", "away"}}}}
	ops := []Op{{Key: "a", Value: []byte("1")}, {Key: "denied"}, {Key: "away"}, {Key: "b", Value: []byte("2")}, {Key: "", Value: nil}, {Key: "a", Value: []byte("3")}}
	errs := s.Write(t.Context(), some, ops)
	codes := make([]loam.Code, len(errs))
	for i, err := range errs {
		codes[i] = loam.CodeOf(err)
	}
	if want := []loam.Code{loam.OK, loam.PermissionDenied, loam.Unavailable, loam.OK, loam.InvalidArgument, loam.OK}; !slices.Equal(codes, want) {
		t.Errorf("%v", errs)
	}
	if string(d.items["a"]) != "3" || string(d.items["b"]) != "2" || len(d.items) != 2 {
		t.Errorf("stored: %q", d.items)
	}
	if errs := s.Write(t.Context(), some, ops[:1]); errs != nil {
		t.Errorf("all were done: %v", errs)
	}
	if errs := s.Write(t.Context(), some, make([]Op, MaxOps+1)); len(errs) != MaxOps+1 || loam.CodeOf(errs[0]) != loam.InvalidArgument {
		t.Errorf("too many: %d errors", len(errs))
	}
	if errs := s.Write(t.Context(), some, nil); errs != nil {
		t.Errorf("nothing: %v", errs)
	}

	for _, parallel := range []int{0, 1, 100} {
		results, err := s.GetBulk(t.Context(), some, []string{"b", "away", "denied", "a", "nothing"}, parallel, GetOptions{})
		if err != nil || len(results) != 5 {
			t.Fatal(results, err)
		}
		if string(results[0].Item.Value) != "2" || loam.CodeOf(results[1].Err) != loam.Unavailable || loam.CodeOf(results[2].Err) != loam.PermissionDenied ||
			string(results[3].Item.Value) != "1" || loam.CodeOf(results[4].Err) != loam.PermissionDenied || results[1].Item.Key != "away" {
			t.Errorf("%+v", results)
		}
	}
}

func TestCrypt(t *testing.T) {
	const first, second = "00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100ffeeddccbbaa9988"
	d := &plain{items: map[string][]byte{}}
	open := func(settings map[string]string) (*Store, error) { return Open("s", d, Options{Settings: settings}) }
	s, err := open(map[string]string{"primaryEncryptionKey": first, "primaryEncryptionKeyName": "vault"})
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{"k": "secret", "empty": ""} {
		if errs := s.Write(t.Context(), all, []Op{{Key: key, Value: []byte(value)}}); errs != nil {
			t.Fatal(errs)
		}
		if it, err := s.GetOne(t.Context(), all, key, GetOptions{}); err != nil || string(it.Value) != value {
			t.Errorf("%q came back as %+v, %v", value, it, err)
		}
	}
	if !strings.HasSuffix(string(d.items["k"]), "||vault") || strings.Contains(string(d.items["k"]), "secret") {
		t.Errorf("stored: %s", d.items["k"])
	}
	// As daprd wrote it, by the same key.
	key, _ := hex.DecodeString(first)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := []byte("twelve bytes")
	d.items["theirs"] = []byte(base64.StdEncoding.EncodeToString(gcm.Seal(nonce, nonce, []byte("of daprd"), nil)) + "||vault")
	// A new primary key, the old one second: both are read.
	s, err = open(map[string]string{"primaryEncryptionKey": second, "secondaryEncryptionKey": first, "secondaryEncryptionKeyName": "vault"})
	if err != nil {
		t.Fatal(err)
	}
	if errs := s.Write(t.Context(), all, []Op{{Key: "new", Value: []byte("newer")}}); errs != nil {
		t.Fatal(errs)
	}
	items, err := s.Get(t.Context(), all, "k", "theirs", "new", "nothing")
	if err != nil || string(items[0].Value) != "secret" || string(items[1].Value) != "of daprd" || string(items[2].Value) != "newer" || items[3].ETag != "" {
		t.Errorf("%+v, %v", items, err)
	}
	// Both of one name, as of one secret: the key that fits is found.
	both, err := open(map[string]string{"primaryEncryptionKey": second, "primaryEncryptionKeyName": "vault", "secondaryEncryptionKey": first, "secondaryEncryptionKeyName": "vault"})
	if err != nil {
		t.Fatal(err)
	}
	if it, err := both.GetOne(t.Context(), all, "k", GetOptions{}); err != nil || string(it.Value) != "secret" {
		t.Errorf("of the second key of one name: %+v, %v", it, err)
	}
	for name, stored := range map[string]string{"not encrypted": "plain", "another key": "AAAA||who", "damaged": string(d.items["k"][1:]), "short": "AAAA||vault", "no base64": "?||vault"} {
		d.items["bad"] = []byte(stored)
		if _, err := s.GetOne(t.Context(), all, "bad", GetOptions{}); loam.CodeOf(err) != loam.DataLoss {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, settings := range map[string]map[string]string{
		"no hexadecimal": {"primaryEncryptionKey": "secret!"}, "a wrong length": {"primaryEncryptionKey": "0011"}, "only a second": {"secondaryEncryptionKey": first},
		"a name that separates": {"primaryEncryptionKey": first, "primaryEncryptionKeyName": "a||b"},
	} {
		if _, err := open(settings); loam.CodeOf(err) != loam.InvalidArgument || strings.Contains(err.Error(), "secret!") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpen(t *testing.T) {
	for name, settings := range map[string]map[string]string{
		"a prefix that separates": {"keyPrefix": "a||b"}, "half an outbox": {"outboxPublishTopic": "t"},
	} {
		if _, err := Open("s", &plain{}, Options{Settings: settings}); loam.CodeOf(err) != loam.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseQuery(t *testing.T) {
	for text, why := range map[string]string{
		``: "EOF", `[]`: "array", `{"filter": []}`: "one member", `{"filter": {"EQ": {"a": 1}, "NEQ": {"a": 2}}}`: "one member",
		`{"filter": {"XOR": []}}`: `"XOR"`, `{"filter": {"EQ": 1}}`: "one member", `{"filter": {"EQ": {"a": 1, "b": 2}}}`: "one member", `{"filter": {"IN": {"a": 1}}}`: "list",
		`{"filter": {"AND": [{"EQ": {"a": 1}}]}}`: "at least two", `{"filter": {"AND": {}}}`: "at least two", `{"filter": {"OR": [1, 2]}}`: "one member",
		`{"sort": [{"order": "ASC"}]}`: "without a key", `{"sort": [{"key": "a", "order": "up"}]}`: "neither", `{"page": {"limit": -1}}`: "at least 0", `{} {}`: "more behind",
		`{"filter": ` + strings.Repeat(`{"AND": [{"EQ": {"a": 1}}, `, maxDepth+1) + `{"EQ": {"a": 1}}` + strings.Repeat(`]}`, maxDepth+1) + `}`: "inside each other",
		`{"filter": {"IN": {"a": [` + strings.Repeat("1,", maxFilters) + `1]}}}`:                                                                "filters and values",
		strings.Repeat(" ", MaxQuery) + "{}": "bytes",
	} {
		if _, err := ParseQuery([]byte(text)); loam.CodeOf(err) != loam.InvalidArgument || !strings.Contains(err.Error(), why) {
			t.Errorf("%.100s: %v, want %s", text, err, why)
		}
	}
}

// FuzzParseQuery: whatever a program sends as a query is refused, or can be asked of any value, page by page.
func FuzzParseQuery(f *testing.F) {
	f.Add([]byte(`{"filter": {"AND": [{"EQ": {"a.b": 1}}, {"NOT": 1}]}}`), []byte(`{"a": {"b": 1.0}}`))
	f.Add([]byte(`{"filter": {"OR": [{"GT": {"a": "x"}}, {"IN": {"a": [null, 1e400, {}]}}]}, "sort": [{"key": "a", "order": "DESC"}], "page": {"limit": 1}}`), []byte(`{"a": 1e999}`))
	f.Add([]byte(`{"page": {"limit": 1, "token": "WyJYdz09Il0"}}`), []byte(`x`))
	f.Fuzz(func(t *testing.T, text, value []byte) {
		q, err := ParseQuery(text)
		if err != nil {
			if loam.CodeOf(err) != loam.InvalidArgument {
				t.Fatal(err)
			}
			return
		}
		items := []Item{{Key: "k\xff", Value: value, ETag: "1"}, {Key: "l", Value: []byte(`{"a": 2}`), ETag: "2"}, {Key: "m", Value: text, ETag: "3"}}
		each := func(yield func(Item, error) bool) {
			for _, it := range items {
				if !yield(it, nil) {
					return
				}
			}
		}
		q.Limit = 0
		whole, err := Select(q, each)
		if err != nil {
			if loam.CodeOf(err) != loam.InvalidArgument {
				t.Fatal(err)
			}
			return
		}
		var paged []Item
		q.Limit = 1
		for range 5 {
			page, err := Select(q, each)
			if err != nil || len(page.Items) > 1 {
				t.Fatalf("%+v, %v", page, err)
			}
			paged = append(paged, page.Items...)
			if q.Token = page.Token; q.Token == "" {
				break
			}
		}
		if !slices.EqualFunc(whole.Items, paged, func(a, b Item) bool { return a.Key == b.Key }) {
			t.Fatalf("%s: %v at once, %v by pages", text, whole.Items, paged)
		}
	})
}

// Numbers are compared as what they are, not as the nearest float.
func TestCompare(t *testing.T) {
	number := func(s string) any { return json.Number(s) }
	ordered := []any{absent{}, nil, false, true, number("-1e400"), number("-1"), number("0"), number("9007199254740992"), number("9007199254740993"), number("1e400"), "", "a", "b", []any{}}
	for i, a := range ordered {
		for j, b := range ordered {
			if got := compare(a, b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%v against %v: %d", a, b, got)
			}
		}
	}
}

// besideTask is a driver that tasks ask without Await: it notes which task did.
type besideTask struct {
	*plain
	t     loam.Task
	asked *[]loam.Task
}

func (d besideTask) In(t loam.Task) Driver {
	if _, ok := t.(elsewhere); ok {
		return nil
	}
	d.t = t
	return d
}

func (d besideTask) GetOne(context.Context, string, GetOptions) (Item, error) {
	*d.asked = append(*d.asked, d.t)
	return Item{}, nil
}

// elsewhere is a task that the driver has no way for.
type elsewhere struct{ loam.Task }

func TestIn(t *testing.T) {
	task, end := loam.NewTask(t.Context())
	defer end()
	var asked []loam.Task
	s, err := New("s", besideTask{plain: &plain{}, asked: &asked}).For("app", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, view := range []*Store{s, s.In(task)} {
		if _, err := view.GetOne(t.Context(), &loam.Caller{Grants: []loam.Grant{{Capability: "state", Component: "s"}}}, "k", GetOptions{}); err != nil {
			t.Error(err)
		}
	}
	if !slices.Equal(asked, []loam.Task{nil, task}) {
		t.Errorf("asked in %v", asked)
	}
	if s.In(elsewhere{task}) != nil {
		t.Error("asked in a task that the driver does not take")
	}
	guard := func(ctx context.Context, do func(context.Context) error) error { return do(ctx) }
	if s.Guarded(guard).In(task) != nil || New("p", &plain{}).In(task) != nil {
		t.Error("a store that blocks is asked in a task")
	}
}

// awaits counts how often a task lets something block.
type awaits struct {
	loam.Task
	n int
}

func (a *awaits) Await(fn func()) { a.n++; a.Task.Await(fn) }

// inPlace is a driver in memory.
type inPlace struct{ *plain }

func (inPlace) Instant() bool { return true }

// written is a besideTask that notes Get and Apply too.
type written struct{ besideTask }

func (d written) In(t loam.Task) Driver { return written{d.besideTask.In(t).(besideTask)} }

func (d written) Get(ctx context.Context, keys []string) ([]Item, error) {
	*d.asked = append(*d.asked, d.t)
	return d.plain.Get(ctx, keys)
}

func (d written) Apply(ctx context.Context, ops []Op) ([]string, error) {
	*d.asked = append(*d.asked, d.t)
	return d.plain.Apply(ctx, ops)
}

// A caller in a task asks in it what can be asked there, and gets the same answers.
func TestTaskMethods(t *testing.T) {
	own, end := loam.NewTask(t.Context())
	defer end()
	var asked []loam.Task
	stores := map[string]*Store{
		"blocks": New("blocks", &plain{items: map[string][]byte{"k": []byte("v")}}),
		"memory": New("memory", inPlace{&plain{items: map[string][]byte{"k": []byte("v")}}}),
		"tasked": New("tasked", written{besideTask{plain: &plain{items: map[string][]byte{"k": []byte("v")}}, asked: &asked}}),
	}
	find := func(name string) (*Store, error) { return stores[name], nil }
	bus := func(string) (Bus, error) { return nil, loam.Errorf(loam.NotFound, "pubsub", "none") }
	whole, tasks := Methods(find, bus), TaskMethods(find, bus)
	caller := &loam.Caller{Grants: []loam.Grant{{Capability: "state", Component: "*"}}}
	many := make([]string, few+1)
	for i := range many {
		many[i] = "k"
	}
	for _, c := range []struct {
		method, component string
		in                interface{ AppendProto([]byte) []byte }
		awaits            int
		asked             bool
		code              loam.Code
	}{
		{"state.Get", "blocks", &api.StateGetRequest{Component: "blocks", Keys: []string{"k"}}, 1, false, loam.OK},
		{"state.Get", "memory", &api.StateGetRequest{Component: "memory", Keys: []string{"k"}}, 0, false, loam.OK},
		{"state.Get", "memory", &api.StateGetRequest{Component: "memory", Keys: many}, 1, false, loam.OK},
		{"state.Get", "tasked", &api.StateGetRequest{Component: "tasked", Keys: []string{"k"}}, 0, true, loam.OK},
		{"state.Get", "tasked", &api.StateGetRequest{Component: "tasked"}, 0, false, loam.InvalidArgument},
		{"state.Apply", "blocks", &api.StateApplyRequest{Component: "blocks", Ops: []api.StateOp{{Key: "k", Value: []byte("w")}}}, 1, false, loam.OK},
		{"state.Apply", "memory", &api.StateApplyRequest{Component: "memory", Ops: []api.StateOp{{Key: "k", Value: []byte("w")}}}, 0, false, loam.OK},
		{"state.Apply", "tasked", &api.StateApplyRequest{Component: "tasked", Ops: []api.StateOp{{Key: "k", Value: []byte("w")}}}, 0, true, loam.OK},
		{"state.Apply", "tasked", &api.StateApplyRequest{Component: "tasked", Events: []api.Publication{{Topic: "t"}}}, 0, false, loam.NotFound},
	} {
		asked = nil
		task := &awaits{Task: own}
		in := c.in.AppendProto(nil)
		got, err := tasks[c.method](t.Context(), task, caller, in)
		if loam.CodeOf(err) != c.code || task.n != c.awaits || (len(asked) == 1 && asked[0] == loam.Task(task)) != c.asked {
			t.Errorf("%s of %s: %v, %d awaits, asked in %v", c.method, c.component, err, task.n, asked)
		}
		if want, err := whole[c.method](t.Context(), caller, in); loam.CodeOf(err) != c.code || !bytes.Equal(got, want) {
			t.Errorf("%s of %s: %q, not %q (%v)", c.method, c.component, got, want, err)
		}
	}
}
