package cloudevents

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/loam-run/loam"
)

func TestEncode(t *testing.T) {
	at := time.Date(2026, 11, 21, 7, 0, 0, 5, time.FixedZone("", 3600))
	for name, c := range map[string]struct {
		event loam.Event
		want  string
	}{
		"whole": {
			loam.Event{ID: "1", Source: "orders", Type: "y", Subject: "j", Time: at, ContentType: "application/json", Topic: "t", Data: []byte(`{"n": 1}`),
				Attributes: map[string]string{"traceparent": "00", "x": "a\"b"}, Extra: map[string]json.RawMessage{"n": json.RawMessage("7")}},
			`{"specversion":"1.0","id":"1","source":"orders","type":"y","subject":"j","time":"2026-11-21T06:00:00.000000005Z","datacontenttype":"application/json",` +
				`"topic":"t","pubsubname":"bus","traceparent":"00","x":"a\"b","n":7,"data":{"n": 1}}`,
		},
		"text": {loam.Event{ID: "1", ContentType: "text/plain", Topic: "t", Data: []byte("hi")},
			`{"specversion":"1.0","id":"1","source":"","type":"","datacontenttype":"text/plain","topic":"t","pubsubname":"bus","data":"hi"}`},
		"bytes are never text": {loam.Event{ID: "1", ContentType: "application/octet-stream", Topic: "t", Data: []byte("hi")},
			`{"specversion":"1.0","id":"1","source":"","type":"","datacontenttype":"application/octet-stream","topic":"t","pubsubname":"bus","data_base64":"aGk="}`},
		"no text": {loam.Event{ID: "1", ContentType: "text/plain", Topic: "t", Data: []byte("\xff")},
			`{"specversion":"1.0","id":"1","source":"","type":"","datacontenttype":"text/plain","topic":"t","pubsubname":"bus","data_base64":"/w=="}`},
		"no data": {loam.Event{ID: "1", ContentType: "text/plain", Topic: "t"},
			`{"specversion":"1.0","id":"1","source":"","type":"","datacontenttype":"text/plain","topic":"t","pubsubname":"bus"}`},
		"moved": {loam.Event{ID: "1", ContentType: "text/plain", Topic: "dead", Attributes: map[string]string{"topic": "t"}},
			`{"specversion":"1.0","id":"1","source":"","type":"","datacontenttype":"text/plain","topic":"t","pubsubname":"bus"}`},
		"forged": {loam.Event{ID: "1", ContentType: "text/plain", Topic: "t", Attributes: map[string]string{"id": "2", "data": "x"},
			Extra: map[string]json.RawMessage{"source": json.RawMessage(`"me"`), "broken": json.RawMessage(`1}, "id": "2"`)}},
			`{"specversion":"1.0","id":"1","source":"","type":"","datacontenttype":"text/plain","topic":"t","pubsubname":"bus"}`},
		"raw": {loam.Event{ID: "1", Raw: true, Data: []byte("as it is")}, `as it is`},
	} {
		if got := string(Encode(&c.event, "bus")); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}

func TestDecode(t *testing.T) {
	at := time.Date(2026, 11, 21, 6, 0, 0, 0, time.UTC)
	for text, want := range map[string]loam.Event{
		// As daprd writes it.
		`{"data":{"n":1},"datacontenttype":"application/json","id":"i","pubsubname":"other","source":"app","specversion":"1.0","time":"2026-11-21T06:00:00Z",` +
			`"topic":"t","traceid":"00-1","traceparent":"00-1","tracestate":"","type":"com.dapr.event.sent"}`: {
			ID: "i", Source: "app", Type: "com.dapr.event.sent", Time: at, ContentType: "application/json", Topic: "t", Data: []byte(`{"n":1}`),
			Attributes: map[string]string{"traceid": "00-1", "traceparent": "00-1", "tracestate": ""}},
		`{"specversion":"1.0","id":"i","datacontenttype":"text/plain","data":"h\u00e4","n":5,"o":{"a":1},"nothing":null}`: {
			ID: "i", ContentType: "text/plain", Topic: "t", Data: []byte("hä"), Extra: map[string]json.RawMessage{"n": json.RawMessage("5"), "o": json.RawMessage(`{"a":1}`)}},
		`{"specversion":"1.0","id":7,"data_base64":"/wA="}`:                           {ID: "7", ContentType: "application/json", Topic: "t", Data: []byte("\xff\x00")},
		`{"specversion":"1.0","topic":"first"}`:                                       {ContentType: "application/json", Topic: "t", Attributes: map[string]string{"topic": "first"}},
		`{"specversion":"1.0","datacontenttype":"application/json","data":"text"}`:    {ContentType: "application/json", Topic: "t", Data: []byte(`"text"`)},
		`{"specversion":"1.0","datacontenttype":"text/plain","data":{"n":1}}`:         {ContentType: "text/plain", Topic: "t", Data: []byte(`{"n":1}`)},
		`{"specversion":"1.0","datacontenttype":"application/json","data":null}`:      {ContentType: "application/json", Topic: "t", Data: []byte(`null`)},
		`{"specversion":"1.0","time":"yesterday","datacontenttype":"a/b","data":"x"}`: {ContentType: "a/b", Topic: "t", Data: []byte("x")},
		`{"specversion" : "1.0", "id":"\ud83d\ude00"}`:                                {ID: "😀", ContentType: "application/json", Topic: "t"},
	} {
		got, err := Decode([]byte(" "+text+"\n"), "t")
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", text, err, diff)
		}
	}
	for _, text := range []string{
		"", "null", "[]", `"x"`, "{", `{"specversion":1.0}`, `{"id":"1"}`, `{"specversion":"1.0"} more`, `{"specversion":"1.0","data_base64":"?"}`,
		`{"specversion":"1.0"` + strings.Repeat(`,"a":1`, 3) + manyMembers(MaxMembers) + `}`,
	} {
		if e, err := Decode([]byte(text), "t"); err == nil {
			t.Errorf("%.80s: %+v", text, e)
		}
		if e := Message([]byte(text), "t", false); !e.Raw || string(e.Data) != text || e.Topic != "t" {
			t.Errorf("%.80s as a message: %+v", text, e)
		}
	}
	if e := Message([]byte(`{"specversion":"1.0"}`), "t", true); !e.Raw || string(e.Data) != `{"specversion":"1.0"}` {
		t.Errorf("a message that is wanted raw: %+v", e)
	}
}

func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`,"m` + strings.Repeat("x", i+1) + `":1`)
	}
	return b.String()
}

func TestComplete(t *testing.T) {
	e, err := Complete([]byte(`{"id":"i","topic":"forged","pubsubname":"forged","data":{"n":1},"x":"y"}`), "t")
	if want := (loam.Event{ID: "i", ContentType: "application/json", Topic: "t", Data: []byte(`{"n":1}`), Attributes: map[string]string{"x": "y"}}); err != nil || !cmp.Equal(e, want) {
		t.Errorf("%v %s", err, cmp.Diff(want, e))
	}
	if _, err := Complete([]byte(`[]`), "t"); err == nil {
		t.Error("a list is no envelope")
	}
}

// FuzzDecode: whatever bytes a broker holds, they are an event or a raw message, and an event is the same after it was
// written and read again.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"specversion":"1.0","id":"1","source":"s","type":"y","subject":"j","time":"2026-11-21T06:00:00.5+01:00","datacontenttype":"text/plain","data":"x","n":1.50,"a":"b"}`))
	f.Add([]byte(`{"specversion":"1.0","data_base64":"/wA=","topic":"x","datacontenttype":"application/octet-stream"}`))
	f.Add([]byte(`{"specversion":"1.0","data":{"a":[1,2,{"b":null}]},"\ud800":"\udfff"}`))
	f.Add([]byte(`{"specversion":"1.0","datacontenttype":"a/b+json; x=y","data":"\u0000"}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m := Message(b, "t", false); m.Raw != (m.Data != nil && string(m.Data) == string(b) && m.Raw) || m.Topic != "t" {
			t.Fatalf("%+v", m)
		}
		e, err := Decode(b, "t")
		if err != nil {
			return
		}
		text := Encode(&e, "bus")
		if !json.Valid(text) {
			t.Fatalf("%s became %s, which is no JSON", b, text)
		}
		again, err := Decode(text, "t")
		if err != nil {
			t.Fatalf("%s became %s: %v", b, text, err)
		}
		if IsJSON(e.ContentType) && !json.Valid(e.Data) { // data_base64 of what only says that it is JSON
			e.Data, again.Data = nil, nil
		}
		if !utf8.ValidString(e.Topic) {
			return
		}
		for name, value := range e.Extra { // written compactly or not, it says the same
			e.Extra[name], again.Extra[name] = compact(value), compact(again.Extra[name])
		}
		if len(e.Data) == 0 && len(again.Data) == 0 {
			e.Data, again.Data = nil, nil
		}
		if !e.Time.Equal(again.Time) {
			t.Fatalf("%v became %v", e.Time, again.Time)
		}
		e.Time, again.Time = time.Time{}, time.Time{}
		if diff := cmp.Diff(e, again); diff != "" {
			t.Fatalf("%s\nbecame\n%s\n%s", b, text, diff)
		}
	})
}

func compact(b json.RawMessage) json.RawMessage {
	var v any
	if json.Unmarshal(b, &v) != nil {
		return b
	}
	b, _ = json.Marshal(v)
	return b
}

func BenchmarkEncode(b *testing.B) {
	e := loam.Event{ID: "5d1c1e3f", Source: "orders", Type: "com.dapr.event.sent", Time: time.Now(), ContentType: "application/json", Topic: "orders",
		Attributes: map[string]string{"traceid": "00-1", "traceparent": "00-1"}, Data: []byte(`{"id": 7, "price": 12.5, "items": ["a", "b"]}`)}
	b.ReportAllocs()
	for b.Loop() {
		Encode(&e, "bus")
	}
}

func BenchmarkDecode(b *testing.B) {
	text := []byte(`{"data":{"id":7,"price":12.5,"items":["a","b"]},"datacontenttype":"application/json","id":"5d1c1e3f","pubsubname":"bus","source":"orders","specversion":"1.0",` +
		`"time":"2026-11-21T06:00:00Z","topic":"orders","traceid":"00-1","traceparent":"00-1","tracestate":"","type":"com.dapr.event.sent"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(text, "orders"); err != nil {
			b.Fatal(err)
		}
	}
}
