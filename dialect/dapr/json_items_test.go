package dapr

import (
	"encoding/json"
	"reflect"
	"testing"
)

// What is read without reflection is what encoding/json reads.
func FuzzParseItems(f *testing.F) {
	for _, text := range []string{
		`[]`, ` [ ] `, `[{}]`, `null`, `{}`, `[null]`, `[1]`, ``, `[`, `[[]]`, `[{"key":"k","value":1}`,
		`[{"key":"k","value":"v"}]`, " [ {\n\"key\" :\t\"k\" , \"value\" : [ 1 , {\"a\":\"}\"} ] } , {\"key\":\"l\",\"value\":-1.5e3 }\r\n] ",
		`[{"key":"k","value":{"a":"\\\"]"},"etag":"7"},{"value":true,"key":"l","etag":null}]`, `[{"key":null,"value":null}]`,
		`[{"key":"\u0041","value":"x"}]`, "[{\"key\":\"\xff\",\"value\":\"\xff\"}]", `[{"Key":"k","VALUE":1}]`, `[{"key":"a","key":"b"}]`,
		`[{"key":1}]`, `[{"etag":2,"key":"k"}]`, `[{"key":"k","metadata":{"ttlInSeconds":"1"},"options":{"consistency":"strong"}}]`, `[{"other":[{}],"key":"k"}]`,
		`[{"value":"\\","key":"k"}]`, `[{"value":"","key":""}]`, `[{"etag":"a","etag":null}]`, `[{"key":"k","value":1},]`, `[{"key":"k","value":1}] x`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var want []jsonItem
		wantErr := json.Unmarshal(text, &want)
		got, err := parseItems(text)
		if (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
			t.Fatalf("%q: %v, encoding/json says %v", text, err, wantErr)
		}
		if len(got)+len(want) > 0 && err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, encoding/json reads %+v", text, got, want)
		}
	})
}

func TestPlainItems(t *testing.T) {
	if items, ok := plainItems([]byte(`[{"key":"k","value":{"a":[1]},"etag":"7"}]`)); !ok || len(items) != 1 || items[0].Key != "k" || string(items[0].Value) != `{"a":[1]}` || *items[0].ETag != "7" {
		t.Errorf("%+v, %t", items, ok)
	}
	if _, ok := plainItems([]byte(`[{"key":"k","metadata":{}}]`)); ok {
		t.Error("metadata were read")
	}
}

func BenchmarkParseItems(b *testing.B) {
	text := []byte(`[{"key":"key-1","value":"0123456789012345678901234567890123456789012345678901234567890123456789"}]`)
	b.Run("encoding/json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var items []jsonItem
			if err := json.Unmarshal(text, &items); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("plain", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := parseItems(text); err != nil {
				b.Fatal(err)
			}
		}
	})
}
