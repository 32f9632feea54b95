// Package statetest is what every driver of the state capability must do. A component's own test calls Run.
package statetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/state"
)

// Run tests the drivers that open returns: each call an empty one. The driver's clock must be time.Now's. What a driver's
// Limits say that it cannot is not asked for; what it can beside the least (GetOne, List, Query) is.
func Run(t *testing.T, open func(t *testing.T) state.Driver) {
	for name, test := range map[string]struct {
		run   func(*testing.T, state.Driver)
		needs func(state.Limits) bool // nil: nothing
	}{
		"get what was put":           {getWhatWasPut, nil},
		"delete":                     {remove, nil},
		"bulk":                       {bulk, nil},
		"bulk in one":                {bulkInOne, transactions},
		"get one":                    {getOne, nil},
		"conditions":                 {conditions, etags},
		"all or nothing":             {allOrNothing, both},
		"ops in order":               {opsInOrder, transactions},
		"ops meet what was done":     {opsMeetWhatWasDone, both},
		"life ends":                  {lifeEnds, ttl},
		"a life that was lengthened": {lifeLengthened, ttl},
		"list":                       {list, nil},
		"query":                      {query, nil},
		"query by pages":             {queryByPages, nil},
		"concurrent increment":       {concurrentIncrement, etags},
		"values are copies":          {valuesAreCopies, nil},
		"keys are copies":            {keysAreCopies, nil},
		"keys of any bytes":          {keysOfAnyBytes, nil},
		"nothing half seen":          {nothingHalfSeen, both},
		"an ended context":           {anEndedContext, nil},
	} {
		t.Run(name, func(t *testing.T) {
			d := open(t)
			if test.needs != nil && !test.needs(limitsOf(d)) {
				t.Log("the driver says that it cannot")
				return
			}
			test.run(t, d)
		})
	}
}

func limitsOf(d state.Driver) state.Limits {
	if l, ok := d.(state.Limited); ok {
		return l.Limits()
	}
	return state.Limits{}
}

func transactions(l state.Limits) bool { return !l.NoTransactions }
func etags(l state.Limits) bool        { return !l.NoETags }
func ttl(l state.Limits) bool          { return !l.NoTTL }
func both(l state.Limits) bool         { return transactions(l) && etags(l) }

// apply does ops: together as far as the driver can, else one after the other.
func apply(t *testing.T, d state.Driver, ops ...state.Op) []string {
	t.Helper()
	most := len(ops)
	switch l := limitsOf(d); {
	case l.NoTransactions:
		most = 1
	case l.MaxOps > 0:
		most = min(most, l.MaxOps)
	}
	var etags []string
	for some := range slices.Chunk(ops, most) {
		e, err := d.Apply(t.Context(), some)
		if err != nil {
			t.Fatal(err)
		}
		if len(e) != len(some) {
			t.Fatalf("%d ETags for %d ops", len(e), len(some))
		}
		etags = append(etags, e...)
	}
	return told(t, d, ops, etags)
}

// told are the ETags that ops were answered with, or, where the driver does not tell them, those that are read afterwards.
func told(t *testing.T, d state.Driver, ops []state.Op, etags []string) []string {
	t.Helper()
	if !limitsOf(d).NoNewETags {
		return etags
	}
	keys := make([]string, len(ops))
	for i, op := range ops {
		keys[i] = op.Key
		if etags[i] != "" {
			t.Errorf("the driver says that it does not tell new ETags, and tells %q", etags[i])
		}
	}
	items, err := d.Get(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	for i, it := range items {
		if !ops[i].Delete {
			etags[i] = it.ETag
		}
	}
	return etags
}

func get(t *testing.T, d state.Driver, key string) state.Item {
	t.Helper()
	items, err := d.Get(t.Context(), []string{key})
	if err != nil {
		t.Fatal(err)
	}
	return items[0]
}

func getWhatWasPut(t *testing.T, d state.Driver) {
	if it := get(t, d, "k"); it.ETag != "" || it.Key != "k" || it.Value != nil {
		t.Errorf("a key that is not there: %+v", it)
	}
	for _, value := range []string{"one", "", "\x00\xff not UTF-8", strings.Repeat("large", 100_000)} {
		etag := apply(t, d, state.Op{Key: "k", Value: []byte(value)})[0]
		it := get(t, d, "k")
		if string(it.Value) != value || it.ETag != etag || etag == "" || !it.Expires.IsZero() {
			t.Errorf("put %d bytes with ETag %q, got %d bytes with %q", len(value), etag, len(it.Value), it.ETag)
		}
	}
}

func remove(t *testing.T, d state.Driver) {
	first := apply(t, d, state.Op{Key: "k", Value: []byte("x")})[0]
	if etag := apply(t, d, state.Op{Key: "k", Delete: true})[0]; etag != "" {
		t.Errorf("a delete has the ETag %q", etag)
	}
	if it := get(t, d, "k"); it.ETag != "" {
		t.Errorf("still there: %+v", it)
	}
	apply(t, d, state.Op{Key: "k", Delete: true}) // what is not there can be deleted
	if again := apply(t, d, state.Op{Key: "k", Value: []byte("x")})[0]; again == first && etags(limitsOf(d)) {
		t.Errorf("the ETag %q came again", first)
	}
}

func bulk(t *testing.T, d state.Driver) {
	var ops []state.Op
	for i := range 100 {
		ops = append(ops, state.Op{Key: fmt.Sprint(i), Value: fmt.Append(nil, i)})
	}
	apply(t, d, ops...)
	items, err := d.Get(t.Context(), []string{"99", "nothing", "0", "99"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, it := range items {
		got = append(got, it.Key+"="+string(it.Value))
	}
	if want := []string{"99=99", "nothing=", "0=0", "99=99"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// bulkInOne writes and reads as much at once as a caller may.
func bulkInOne(t *testing.T, d state.Driver) {
	n := state.MaxOps
	if most := limitsOf(d).MaxOps; most > 0 {
		n = min(n, most)
	}
	ops, keys := make([]state.Op, n), make([]string, n)
	for i := range n {
		keys[i] = fmt.Sprintf("key-%d", i)
		ops[i] = state.Op{Key: keys[i], Value: fmt.Append(nil, i)}
	}
	etags, err := d.Apply(t.Context(), ops)
	if err != nil || len(etags) != n {
		t.Fatalf("%d ETags, %v", len(etags), err)
	}
	etags = told(t, d, ops, etags)
	items, err := d.Get(t.Context(), keys)
	if err != nil || len(items) != n {
		t.Fatalf("%d items, %v", len(items), err)
	}
	for i, it := range items {
		if it.Key != keys[i] || string(it.Value) != fmt.Sprint(i) || it.ETag != etags[i] {
			t.Fatalf("item %d is %+v, its ETag was %s", i, it, etags[i])
		}
	}
}

func getOne(t *testing.T, d state.Driver) {
	g, ok := d.(state.Getter)
	if !ok {
		t.Log("not a Getter")
		return
	}
	read := func(key string, o state.GetOptions) state.Item {
		t.Helper()
		it, err := g.GetOne(t.Context(), key, o)
		if err != nil {
			t.Fatal(err)
		}
		return it
	}
	if it := read("k", state.GetOptions{}); it.ETag != "" || it.Key != "k" || it.Value != nil {
		t.Errorf("a key that is not there: %+v", it)
	}
	op := state.Op{Key: "k", Value: []byte("x")}
	if ttl(limitsOf(d)) {
		op.TTL = time.Hour
	}
	etag := apply(t, d, op)[0]
	one, many := read("k", state.GetOptions{}), get(t, d, "k")
	if one.ETag != etag || one.Key != "k" || string(one.Value) != "x" || !one.Expires.Equal(many.Expires) {
		t.Errorf("GetOne: %+v, Get: %+v", one, many)
	}
	if it := read("k", state.GetOptions{Eventual: true}); string(it.Value) != "x" && it.ETag != "" {
		t.Errorf("an older value will do, and it is %+v", it)
	}
	apply(t, d, state.Op{Key: "k", Delete: true})
	if it := read("k", state.GetOptions{}); it.ETag != "" {
		t.Errorf("still there: %+v", it)
	}
}

// opsInOrder: the last op for a key is what is there.
func opsInOrder(t *testing.T, d state.Driver) {
	etags := apply(t, d,
		state.Op{Key: "a", Value: []byte("1")}, state.Op{Key: "b", Delete: true}, state.Op{Key: "a", Value: []byte("2")},
		state.Op{Key: "b", Value: []byte("3")}, state.Op{Key: "c", Value: []byte("4")}, state.Op{Key: "c", Delete: true})
	a, b, c := get(t, d, "a"), get(t, d, "b"), get(t, d, "c")
	if string(a.Value) != "2" || a.ETag != etags[2] || string(b.Value) != "3" || b.ETag != etags[3] || c.ETag != "" {
		t.Errorf("after %q: %+v, %+v, %+v", etags, a, b, c)
	}
}

// opsMeetWhatWasDone: a condition is about what the ops before it left, and one that does not hold undoes them.
func opsMeetWhatWasDone(t *testing.T, d state.Driver) {
	first := apply(t, d, state.Op{Key: "k", Value: []byte("1")})[0]
	for name, c := range map[string]struct {
		want loam.Code
		ops  []state.Op
	}{
		"absent after a delete":      {loam.OK, []state.Op{{Key: "k", Delete: true}, {Key: "k", Value: []byte("2"), IfAbsent: true}}},
		"absent after a write":       {loam.AlreadyExists, []state.Op{{Key: "new", Value: []byte("2")}, {Key: "new", Value: []byte("3"), IfAbsent: true}}},
		"deleted if absent":          {loam.AlreadyExists, []state.Op{{Key: "k", Delete: true, IfAbsent: true}}},
		"deleted if absent, it is":   {loam.OK, []state.Op{{Key: "none", Delete: true, IfAbsent: true}}},
		"match after a write":        {loam.Aborted, []state.Op{{Key: "k", Value: []byte("2")}, {Key: "k", Value: []byte("3"), IfMatch: first}}},
		"match after a delete":       {loam.Aborted, []state.Op{{Key: "k", Delete: true}, {Key: "k", Value: []byte("3"), IfMatch: first}}},
		"match, then whatever it is": {loam.OK, []state.Op{{Key: "k", Value: []byte("2"), IfMatch: first}, {Key: "k", Value: []byte("3")}}},
	} {
		apply(t, d, state.Op{Key: "k", Delete: true}, state.Op{Key: "new", Delete: true}, state.Op{Key: "none", Delete: true})
		first = apply(t, d, state.Op{Key: "k", Value: []byte("1")})[0]
		for i := range c.ops {
			if c.ops[i].IfMatch != "" {
				c.ops[i].IfMatch = first
			}
		}
		_, err := d.Apply(t.Context(), c.ops)
		if loam.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		if it := get(t, d, "k"); c.want != loam.OK && (string(it.Value) != "1" || it.ETag != first || get(t, d, "new").ETag != "") {
			t.Errorf("%s: refused, and something was done: %+v", name, it)
		}
	}
}

func conditions(t *testing.T, d state.Driver) {
	refused := func(want loam.Code, op state.Op) {
		t.Helper()
		before := get(t, d, op.Key)
		_, err := d.Apply(t.Context(), []state.Op{op})
		if loam.CodeOf(err) != want || !strings.Contains(fmt.Sprint(err), op.Key) {
			t.Errorf("%+v: %v, want %v naming the key", op, err, want)
		}
		if after := get(t, d, op.Key); after.ETag != before.ETag {
			t.Errorf("%+v: refused, and changed the item", op)
		}
	}
	refused(loam.Aborted, state.Op{Key: "k", Value: []byte("x"), IfMatch: "no such"})
	first := apply(t, d, state.Op{Key: "k", Value: []byte("1"), IfAbsent: true})[0]
	refused(loam.AlreadyExists, state.Op{Key: "k", Value: []byte("x"), IfAbsent: true})
	second := apply(t, d, state.Op{Key: "k", Value: []byte("2"), IfMatch: first})[0]
	refused(loam.Aborted, state.Op{Key: "k", Value: []byte("x"), IfMatch: first})
	refused(loam.Aborted, state.Op{Key: "k", Delete: true, IfMatch: first})
	apply(t, d, state.Op{Key: "k", Delete: true, IfMatch: second})
	refused(loam.Aborted, state.Op{Key: "k", Delete: true, IfMatch: second})
}

func allOrNothing(t *testing.T, d state.Driver) {
	apply(t, d, state.Op{Key: "b", Value: []byte("before")})
	_, err := d.Apply(t.Context(), []state.Op{
		{Key: "a", Value: []byte("x")}, {Key: "b", Value: []byte("x")}, {Key: "b2", Delete: true}, {Key: "c", Value: []byte("x"), IfMatch: "wrong"},
	})
	if loam.CodeOf(err) != loam.Aborted {
		t.Errorf("%v, want aborted", err)
	}
	if get(t, d, "a").ETag != "" || string(get(t, d, "b").Value) != "before" || get(t, d, "c").ETag != "" {
		t.Error("a refused transaction left something behind")
	}
}

func lifeEnds(t *testing.T, d state.Driver) {
	apply(t, d, state.Op{Key: "short", Value: []byte("x"), TTL: 30 * time.Millisecond}, state.Op{Key: "long", Value: []byte("x"), TTL: time.Hour})
	if it := get(t, d, "long"); time.Until(it.Expires) < 59*time.Minute || time.Until(it.Expires) > time.Hour {
		t.Errorf("it expires at %v", it.Expires)
	}
	deadline := time.Now().Add(10 * time.Second)
	for get(t, d, "short").ETag != "" {
		if time.Now().After(deadline) {
			t.Fatal("it does not expire")
		}
	}
	apply(t, d, state.Op{Key: "short", Value: []byte("y"), IfAbsent: true}) // gone is gone
	if it := get(t, d, "short"); string(it.Value) != "y" || !it.Expires.IsZero() {
		t.Errorf("written anew: %+v", it)
	}
}

// lifeLengthened: each write says anew how long a key lives.
func lifeLengthened(t *testing.T, d state.Driver) {
	apply(t, d, state.Op{Key: "forever", Value: []byte("x"), TTL: 30 * time.Millisecond}, state.Op{Key: "long", Value: []byte("x"), TTL: 30 * time.Millisecond},
		state.Op{Key: "short", Value: []byte("x")}, state.Op{Key: "probe", Value: []byte("x"), TTL: 60 * time.Millisecond})
	apply(t, d, state.Op{Key: "forever", Value: []byte("y")}, state.Op{Key: "long", Value: []byte("y"), TTL: time.Hour},
		state.Op{Key: "short", Value: []byte("y"), TTL: 30 * time.Millisecond})
	deadline := time.Now().Add(10 * time.Second)
	for get(t, d, "short").ETag != "" || get(t, d, "probe").ETag != "" {
		if time.Now().After(deadline) {
			t.Fatal("a life that was ended by a later write does not end")
		}
	}
	if it := get(t, d, "forever"); string(it.Value) != "y" || !it.Expires.IsZero() {
		t.Errorf("written without a TTL: %+v", it)
	}
	if it := get(t, d, "long"); string(it.Value) != "y" || time.Until(it.Expires) < 59*time.Minute {
		t.Errorf("written with a longer TTL: %+v", it)
	}
}

func list(t *testing.T, d state.Driver) {
	l, ok := d.(state.Lister)
	if !ok {
		t.Log("not a Lister")
		return
	}
	for _, k := range []string{"a/1", "a/2", "a/3", "a/é", "a\xff", "b/1", "a"} {
		apply(t, d, state.Op{Key: k, Value: []byte("x")})
	}
	if ttl(limitsOf(d)) {
		apply(t, d, state.Op{Key: "a/gone", Value: []byte("x"), TTL: time.Millisecond})
		for deadline := time.Now().Add(10 * time.Second); get(t, d, "a/gone").ETag != "" && time.Now().Before(deadline); {
		}
	}
	for _, c := range []struct {
		prefix, after string
		limit         int
		want          []string
	}{
		{"a/", "", 10, []string{"a/1", "a/2", "a/3", "a/é"}},
		{"a/", "a/1", 2, []string{"a/2", "a/3"}},
		{"a", "", 10, []string{"a", "a/1", "a/2", "a/3", "a/é", "a\xff"}},
		{"", "a\xff", 10, []string{"b/1"}},
		{"c", "", 10, nil},
		{"a/", "b", 10, nil},
	} {
		items, err := l.List(t.Context(), c.prefix, c.after, c.limit)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, it := range items {
			got = append(got, it.Key)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("List(%q, %q, %d) = %q, want %q", c.prefix, c.after, c.limit, got, c.want)
		}
	}
}

func concurrentIncrement(t *testing.T, d state.Driver) {
	const workers, rounds = 8, 25
	var working sync.WaitGroup
	for range workers {
		working.Go(func() {
			for range rounds {
				for {
					items, err := d.Get(context.Background(), []string{"n"})
					if err != nil {
						t.Error(err)
						return
					}
					op := state.Op{Key: "n", Value: append(items[0].Value, '1'), IfMatch: items[0].ETag, IfAbsent: items[0].ETag == ""}
					_, err = d.Apply(context.Background(), []state.Op{op})
					if code := loam.CodeOf(err); code == loam.Aborted || code == loam.AlreadyExists {
						continue
					}
					if err != nil {
						t.Error(err)
					}
					break
				}
			}
		})
	}
	working.Wait()
	if n := len(get(t, d, "n").Value); n != workers*rounds {
		t.Errorf("%d increments are there, of %d", n, workers*rounds)
	}
}

func valuesAreCopies(t *testing.T, d state.Driver) {
	value := []byte("mine")
	apply(t, d, state.Op{Key: "k", Value: value})
	copy(value, "his!")
	_ = append(get(t, d, "k").Value, "more"...) // to change what was handed out is forbidden; to append to it is not
	_ = append(get(t, d, "k").Value, "less"...)
	if got := get(t, d, "k").Value; string(got) != "mine" {
		t.Errorf("somebody's buffer was kept: %q", got)
	}
}

// keysAreCopies: strings of a request lie in buffers that are used again.
func keysAreCopies(t *testing.T, d state.Driver) {
	buffer := []byte("first")
	apply(t, d, state.Op{Key: unsafe.String(&buffer[0], len(buffer)), Value: []byte("x")})
	copy(buffer, "later")
	if get(t, d, "first").ETag == "" || get(t, d, "later").ETag != "" {
		t.Error("somebody's buffer was kept as a key")
	}
}

func keysOfAnyBytes(t *testing.T, d state.Driver) {
	keys := []string{"a", "a\x00b", "a\x00", "\x00", "\xff\xfe", "ä", "%_", "' OR 1=1 --", strings.Repeat("k", state.MaxKey)}
	if limitsOf(d).TextKeys {
		binary := func(k string) bool { return !utf8.ValidString(k) }
		i := slices.IndexFunc(keys, binary)
		if _, err := d.Apply(t.Context(), []state.Op{{Key: keys[i]}}); loam.CodeOf(err) != loam.InvalidArgument {
			t.Errorf("a key that is no text: %v", err)
		}
		if _, err := d.Get(t.Context(), keys); loam.CodeOf(err) != loam.InvalidArgument {
			t.Errorf("keys of which one is no text: %v", err)
		}
		keys = slices.DeleteFunc(keys, binary)
	}
	for _, k := range keys {
		apply(t, d, state.Op{Key: k, Value: []byte("value of " + k)})
	}
	items, err := d.Get(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	for i, it := range items {
		if it.Key != keys[i] || string(it.Value) != "value of "+keys[i] {
			t.Errorf("key %q came back as %q with %q", keys[i], it.Key, it.Value)
		}
	}
	if l, ok := d.(state.Lister); ok {
		items, err := l.List(t.Context(), "a", "", 10)
		if err != nil || len(items) != 3 || items[1].Key != "a\x00" || items[2].Key != "a\x00b" {
			t.Errorf("List: %+v, %v", items, err)
		}
	}
}

// nothingHalfSeen moves money between two accounts from many sides: whoever reads both at once sees the same sum.
func nothingHalfSeen(t *testing.T, d state.Driver) {
	apply(t, d, state.Op{Key: "x", Value: []byte("500")}, state.Op{Key: "y", Value: []byte("500")})
	read := func() (etags [2]string, x, y int) {
		items, err := d.Get(context.Background(), []string{"x", "y"})
		if err != nil {
			t.Error(err)
			return etags, 0, 0
		}
		if _, err := fmt.Sscan(string(items[0].Value)+" "+string(items[1].Value), &x, &y); err != nil || x+y != 1000 {
			t.Errorf("half a transaction: %q and %q", items[0].Value, items[1].Value)
		}
		return [2]string{items[0].ETag, items[1].ETag}, x, y
	}
	var working sync.WaitGroup
	for range 8 {
		working.Go(func() {
			for done := 0; done < 10 && !t.Failed(); {
				etags, x, y := read()
				_, err := d.Apply(context.Background(), []state.Op{
					{Key: "x", Value: fmt.Append(nil, x-1), IfMatch: etags[0]}, {Key: "y", Value: fmt.Append(nil, y+1), IfMatch: etags[1]},
				})
				if err == nil {
					done++
				} else if loam.CodeOf(err) != loam.Aborted {
					t.Error(err)
				}
			}
		})
	}
	working.Wait()
	if _, x, y := read(); x != 420 || y != 580 {
		t.Errorf("after 80 transfers of 1 from 500 to 500: %d and %d", x, y)
	}
}

// anEndedContext may stop a write or not; what the driver says of it is true.
func anEndedContext(t *testing.T, d state.Driver) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := d.Apply(ctx, []state.Op{{Key: "k", Value: []byte("x")}})
	if there := get(t, d, "k").ETag != ""; there != (err == nil) || err != nil && loam.CodeOf(err) != loam.Canceled {
		t.Errorf("Apply said %v, and the key is there: %t", err, there)
	}
}
