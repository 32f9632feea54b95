package statetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/state"
)

// people are what queries look for, in the order of their keys.
var people = []struct{ key, value string }{
	{"p/1", `{"person": {"org": "A", "id": 1036}, "city": "Seattle", "state": "WA", "tags": ["x", "y"]}`},
	{"p/2", `{"person": {"org": "B", "id": 1028}, "city": "Portland", "state": "OR", "remote": true}`},
	{"p/3", `{"person": {"org": "B", "id": 1071}, "city": "Sacramento", "state": "CA", "remote": false}`},
	{"p/4", `{"person": {"org": "A", "id": 1042.5}, "city": "Spokane", "state": "WA", "a.b": 1}`},
	{"p/5", `{"person": {"org": "A", "id": 9007199254740993}, "city": "Los Angeles", "state": "CA", "boss": null}`},
	{"p/6", `"only a string"`},
	{"p/7", `not JSON`},
	{"q/1", `{"person": {"org": "A", "id": 1036}, "state": "WA"}`},
}

func querier(t *testing.T, d state.Driver) state.Querier {
	t.Helper()
	q, ok := d.(state.Querier)
	if !ok {
		t.Log("not a Querier")
		return nil
	}
	for _, p := range people {
		apply(t, d, state.Op{Key: p.key, Value: []byte(p.value)})
	}
	return q
}

func parse(t *testing.T, text string) *state.Query {
	t.Helper()
	q, err := state.ParseQuery([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return q
}

func query(t *testing.T, d state.Driver) {
	qr := querier(t, d)
	if qr == nil {
		return
	}
	for text, want := range map[string]string{
		`{"filter": {"EQ": {"state": "CA"}}}`:                                         "3 5",
		`{"filter": {"NEQ": {"state": "CA"}}}`:                                        "1 2 4",
		`{"filter": {"EQ": {"person.org": "A"}}}`:                                     "1 4 5",
		`{"filter": {"EQ": {"person.id": 1036}}}`:                                     "1",
		`{"filter": {"EQ": {"person.id": 1036.0}}}`:                                   "1",
		`{"filter": {"EQ": {"person.id": "1036"}}}`:                                   "",
		`{"filter": {"EQ": {"person.id": 9007199254740992}}}`:                         "",
		`{"filter": {"GT": {"person.id": 1036}}}`:                                     "3 4 5",
		`{"filter": {"GTE": {"person.id": 1042.5}}}`:                                  "3 4 5",
		`{"filter": {"LT": {"person.id": 1036}}}`:                                     "2",
		`{"filter": {"LTE": {"person.id": 1036}}}`:                                    "1 2",
		`{"filter": {"GT": {"city": "Seattle"}}}`:                                     "4",
		`{"filter": {"GT": {"remote": false}}}`:                                       "",
		`{"filter": {"EQ": {"remote": true}}}`:                                        "2",
		`{"filter": {"NEQ": {"remote": true}}}`:                                       "3",
		`{"filter": {"EQ": {"boss": null}}}`:                                          "5",
		`{"filter": {"EQ": {"a.b": 1}}}`:                                              "4",
		`{"filter": {"EQ": {"tags": ["x", "y"]}}}`:                                    "1",
		`{"filter": {"EQ": {"person": {"id": 1028, "org": "B"}}}}`:                    "2",
		`{"filter": {"EQ": {"nothing.at.all": 1}}}`:                                   "",
		`{"filter": {"IN": {"state": ["CA", "OR"]}}}`:                                 "2 3 5",
		`{"filter": {"IN": {"state": []}}}`:                                           "",
		`{"filter": {"AND": [{"EQ": {"state": "CA"}}, {"EQ": {"person.org": "A"}}]}}`: "5",
		`{"filter": {"OR": [{"EQ": {"state": "OR"}}, {"AND": [{"EQ": {"state": "WA"}}, {"GT": {"person.id": 1040}}]}]}}`:        "2 4",
		`{"filter": {}, "sort": [{"key": "person.id", "order": "DESC"}]}`:                                                       "5 3 4 1 2 6",
		`{"filter": {"EQ": {"person.org": "A"}}, "sort": [{"key": "state"}, {"key": "person.id", "order": "DESC"}]}`:            "5 4 1",
		`{"filter": {"EQ": {"person.org": "A"}}, "sort": [{"key": "state", "order": "DESC"}, {"key": "city", "order": "ASC"}]}`: "1 4 5",
		`{"filter": {"EQ": {"person.org": "A"}}, "sort": [{"key": "boss"}]}`:                                                    "1 4 5",
		`{"filter": {"EQ": {"person.org": "A"}}, "sort": [{"key": "boss", "order": "DESC"}]}`:                                   "5 1 4",
		`{}`: "1 2 3 4 5 6 7",
	} {
		page, err := qr.Query(t.Context(), "p/", parse(t, text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		var got []string
		for _, it := range page.Items {
			i := slices.IndexFunc(people, func(p struct{ key, value string }) bool { return p.key == it.Key })
			if i < 0 || it.ETag == "" || string(it.Value) != people[i].value {
				t.Errorf("%s: %+v", text, it)
			}
			got = append(got, strings.TrimPrefix(it.Key, "p/"))
		}
		if strings.Join(got, " ") != want || page.Token != "" {
			t.Errorf("%s: %q (token %q), want %s", text, got, page.Token, want)
		}
	}
}

// queryByPages goes through all that a query selects a page at a time, while other keys come and go.
func queryByPages(t *testing.T, d state.Driver) {
	qr, ok := d.(state.Querier)
	if !ok {
		t.Log("not a Querier")
		return
	}
	var ops []state.Op
	for i := range 50 {
		ops = append(ops, state.Op{Key: fmt.Sprintf("k%02d\xff", i), Value: fmt.Appendf(nil, `{"n": %d, "even": %t}`, i/7, i%2 == 0)})
	}
	apply(t, d, ops...)
	for _, sort := range []string{``, `"sort": [{"key": "n"}],`, `"sort": [{"key": "n", "order": "DESC"}, {"key": "nothing"}],`} {
		for _, limit := range []int{1, 4, 24, 25, 26} {
			var got []string
			token := ""
			for range 100 {
				page, err := qr.Query(t.Context(), "k", parse(t, fmt.Sprintf(`{"filter": {"EQ": {"even": true}}, %s "page": {"limit": %d, "token": %q}}`, sort, limit, token)))
				if err != nil {
					t.Fatal(err)
				}
				if len(page.Items) > limit {
					t.Fatalf("%d items where %d were asked for", len(page.Items), limit)
				}
				for _, it := range page.Items {
					got = append(got, it.Key)
				}
				apply(t, d, state.Op{Key: "k00\xff-between", Value: []byte(`{"n": 0}`)})
				if token = page.Token; token == "" {
					break
				}
			}
			slices.Sort(got)
			if n := len(slices.Compact(slices.Clone(got))); n != 25 || len(got) != 25 {
				t.Errorf("%s by %d: %d items, %d of them different, want 25", sort, limit, len(got), n)
			}
		}
	}
	if _, err := qr.Query(t.Context(), "k", parse(t, `{"page": {"limit": 1, "token": "forged"}}`)); loam.CodeOf(err) != loam.InvalidArgument {
		t.Errorf("a token that is none: %v", err)
	}
}
