package event

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/loam-run/loam"
)

func TestRules(t *testing.T) {
	order := loam.Event{
		ID: "1", Source: "shop", Type: "order.created", ContentType: "application/json", Topic: "orders", Data: []byte(`{"total": 120, "items": ["a"], "customer": {"vip": true}}`),
		Attributes: map[string]string{"region": "eu"}, Extra: map[string]json.RawMessage{"priority": json.RawMessage("7")},
	}
	text := loam.Event{ID: "2", Type: "note", ContentType: "text/plain", Topic: "orders", Data: []byte("hello")}
	object := loam.Event{ID: "3", Topic: "orders", Raw: true, Data: []byte(`{"kind": "bare"}`)}
	bytes := loam.Event{ID: "4", Topic: "orders", Raw: true, Data: []byte("\xff")}
	for match, want := range map[string]string{ // which of the four it matches; ? where it cannot be evaluated
		`event.type == "order.created"`:                   "yn?n",
		`event.topic == "orders"`:                         "yy?y",
		`event.pubsubname == "bus"`:                       "yy?y",
		`event.data.total > 100`:                          "y???",
		`has(event.data.total) && event.data.total > 500`: "nn??",
		`has(event.region) && event.region == "eu"`:       "ynnn",
		`has(event.priority) && event.priority > 5`:       "ynnn",
		`has(event.data) && event.data == "hello"`:        "nynn",
		`has(event.kind) && event.kind == "bare"`:         "nnyn",
		`event.data.customer.vip`:                         "y???",
		`event.data.items.exists(i, i == "a")`:            "y???",
		`event.id`:                                        "????",
		``:                                                "yyyy",
		" ":                                               "yyyy",
	} {
		s := Subscription{Component: "bus", Rules: []Rule{{Match: match, Path: "/matched"}}, Default: "/default"}
		for _, compiled := range []bool{false, true} {
			if compiled {
				if err := s.Compile(); err != nil {
					t.Fatal(match, err)
				}
			}
			got := ""
			for _, e := range []loam.Event{order, text, object, bytes} {
				path, err := s.Path(&e)
				var drop interface{ Drop() bool }
				switch {
				case err != nil && errors.As(err, &drop):
					t.Errorf("%s: %v is an end, where it should be tried again", match, err)
				case err != nil:
					got += "?"
				case path == "/matched":
					got += "y"
				case path == "/default":
					got += "n"
				}
			}
			if got != want {
				t.Errorf("%s: %s, want %s", match, got, want)
			}
		}
	}
}

func TestRulesInOrder(t *testing.T) {
	s := Subscription{Rules: []Rule{{`event.type == "a"`, "/a"}, {`event.type.startsWith("a")`, "/begins"}, {`event.type == "b"`, "/b"}}}
	if err := s.Compile(); err != nil {
		t.Fatal(err)
	}
	for typ, want := range map[string]string{"a": "/a", "ab": "/begins", "b": "/b", "c": ""} {
		path, err := s.Path(&loam.Event{Type: typ})
		var drop interface{ Drop() bool }
		if path != want || (err != nil) != (want == "") || want == "" && (!errors.As(err, &drop) || !drop.Drop()) {
			t.Errorf("%s: %q, %v", typ, path, err)
		}
	}
	for _, match := range []string{`event.type ==`, `order.id == 1`, `event.type.size()`} {
		broken := Subscription{Rules: []Rule{{match, "/"}}}
		if broken.Compile() == nil || CheckMatch(match) == nil {
			t.Errorf("%s is a match", match)
		}
		if _, err := broken.Path(&loam.Event{}); loam.CodeOf(err) != loam.InvalidArgument {
			t.Errorf("%s: %v", match, err)
		}
	}
	if err := CheckMatch(`event.data.n > 1 && event.type in ["a", "b"]`); err != nil {
		t.Error(err)
	}
}

// A function's route obeys the same rules.
func TestRouteByRules(t *testing.T) {
	var g got
	s := &Subscription{Rules: []Rule{{`event.type == "OrderCreated"`, "/created"}}}
	if err := s.Compile(); err != nil {
		t.Fatal(err)
	}
	r := Route{Target: record(&g, 200, ""), Path: "/unheard", Rules: s}
	if err := r.Deliver(t.Context(), created, 1); err != nil || g.path != "/created" {
		t.Errorf("%q, %v", g.path, err)
	}
	other := created
	other.Type, g = "Other", got{}
	var drop interface{ Drop() bool }
	if err := r.Deliver(t.Context(), other, 1); !errors.As(err, &drop) || !drop.Drop() || g.path != "" {
		t.Errorf("%q, %v", g.path, err)
	}
}

func TestRawToApps(t *testing.T) {
	for data, want := range map[string]string{
		`{"order": 7}`: `{"order": 7}`, // as Dapr has it: whatever object it is
		"\xff":         `{"specversion":"1.0","id":"1","source":"Dapr","type":"com.dapr.event.sent","datacontenttype":"application/octet-stream","topic":"t","pubsubname":"bus","data_base64":"/w=="}`,
		`"x"`:          `{"specversion":"1.0","id":"1","source":"Dapr","type":"com.dapr.event.sent","datacontenttype":"application/octet-stream","topic":"t","pubsubname":"bus","data_base64":"Ingi"}`,
	} {
		e := loam.Event{ID: "1", Topic: "t", Raw: true, Data: []byte(data)}
		if got := string(Envelope(&e, "bus")); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", data, got, want)
		}
	}
}

// To functions, what is no string is text where it has one, and what no header can be called is left out.
func TestBinaryExtra(t *testing.T) {
	var g got
	e := loam.Event{ID: "1", Topic: "t", Attributes: map[string]string{"bad name": "x", "topic": "first", "ok": "1"},
		Extra: map[string]json.RawMessage{"n": json.RawMessage("7"), "o": json.RawMessage(`{}`), "b:c": json.RawMessage("1")}}
	if err := (Route{Target: record(&g, 200, ""), Path: "/"}).Deliver(t.Context(), e, 1); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range g.header {
		if strings.HasPrefix(f.Name, "Ce-") {
			names = append(names, f.Name+"="+f.Value)
		}
	}
	if s := strings.Join(names, " "); !strings.Contains(s, "Ce-Topic=t") || !strings.Contains(s, "Ce-n=7") || !strings.Contains(s, "Ce-ok=1") || strings.Contains(s, "bad") || strings.Contains(s, "first") || strings.Contains(s, "Ce-o=") || strings.Contains(s, "b:c") {
		t.Error(s)
	}
}
