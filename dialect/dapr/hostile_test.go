package dapr

import (
	"bytes"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/dialect"
)

// endless is a body that never ends and counts what was read of it.
type endless struct{ read int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.read += int64(len(p))
	return copy(p, bytes.Repeat([]byte("["), len(p))), nil
}

func (e *endless) Close() error { return nil }

// A body beyond the limit is refused when the limit is reached, whether it says its length or not.
func TestHugeBodies(t *testing.T) {
	a := newAPI(t, nil)
	for _, target := range []string{
		"POST /v1.0/state/store", "POST /v1.0/state/store/bulk", "POST /v1.0/state/store/transaction", "POST /v1.0-alpha1/state/store/query",
		"POST /v1.0/publish/bus/topic", "POST /v1.0/publish/bulk/bus/topic", "POST /v1.0/bindings/echo", "POST /v1.0-alpha1/lock/locks",
		"POST /v1.0-alpha1/unlock/locks", "POST /v1.0/jobs/j", "PUT /v1.0/metadata/k", "POST /v1.0-alpha1/subtlecrypto/keys/encrypt",
		"PUT /v1.0-alpha1/crypto/keys/decrypt", "PUT /v1.0-alpha1/crypto/keys/encrypt",
	} {
		for _, length := range []int64{-1, 1 << 40} {
			method, path, _ := strings.Cut(target, " ")
			body := &endless{}
			req := loam.NewRequest(t.Context())
			req.Method, req.Path, req.Body, req.Length = method, path, body, length
			req.Header.Add("dapr-key-name", "rsa.pem")
			req.Header.Add("dapr-key-wrap-algorithm", "RSA")
			res, err := a.HTTP().Serve(req)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			if res.Status < 400 || body.read > 4*a.maxBody {
				t.Errorf("%s of %d bytes: %d %s, %d bytes read", target, length, res.Status, text, body.read)
			}
			if res.Status != http.StatusRequestEntityTooLarge && !strings.Contains(path, "crypto/keys") {
				t.Errorf("%s of %d bytes: %d %s", target, length, res.Status, text)
			}
			_ = res.Close()
			req.Release()
		}
	}
}

// Names that look like paths are names: nothing outside the component is reached, nor another component.
func TestPathTricks(t *testing.T) {
	a := newAPI(t, nil)
	for _, key := range []string{"../../etc/passwd", "..", ".", "a/b", "a//b", "/", "%2e%2e", "a?b=c", "a#b", "a b", "a+b", "\x00", "a\x00b", "\u202e", "日本", strings.Repeat("k", 900)} {
		path := "/v1.0/state/store/" + strings.ReplaceAll(url.QueryEscape(key), ".", "%2E") // bare dots are cleaned away, as Dapr does
		body := `[{"key":` + quoteJSON(key) + `,"value":"mine"}]`
		if r := do(t, a.HTTP(), "POST", "/v1.0/state/store", body); r.status != 204 {
			t.Errorf("save %q: %d %s", key, r.status, r.body)
		}
		if r := do(t, a.HTTP(), "GET", path, ""); r.status != 200 || r.body != `"mine"` {
			t.Errorf("get %q: %d %s", key, r.status, r.body)
		}
		if r := do(t, a.HTTP(), "DELETE", path, ""); r.status != 204 {
			t.Errorf("delete %q: %d %s", key, r.status, r.body)
		}
		if r := do(t, a.HTTP(), "GET", path, ""); r.status != 204 {
			t.Errorf("%q is still there: %d %s", key, r.status, r.body)
		}
	}
	run(t, a.HTTP(), []step{
		{do: "GET /v1.0/state/store/", status: 404, want: "*"},
		{do: "GET /v1.0/state/store/%zz", status: 400, want: `failed to unescape request parameter "key". Error: invalid URL escape "%zz"`},
		{do: "GET /v1.0/state/..%2Fvault/token", status: 400, want: "*"},
		{do: "GET /v1.0/state/store/../../secrets/vault/none", status: 500, want: "*"}, // it is cleaned, as Dapr does
		{do: "GET /v1.0/secrets/vault/..%2F..%2Fetc%2Fpasswd", status: 500, want: "*"},
		{do: "GET /v1.0/secrets/vault/%00", status: 500, want: "*"},
		{do: "GET /v1.0/state/store/" + strings.Repeat("k", 5000), status: 400, want: "*"},
		{do: "POST /v1.0-alpha1/subtlecrypto/keys/getkey", body: `{"name":"../../../etc/hostname"}`, status: 500, want: "*"},
		{do: "GET /", status: 404, want: "*"},
		{do: "GET /v1.0", status: 404, want: "*"},
		{do: "GET /v1.0/", status: 404, want: "*"},
		{do: "GET /v2.0/state/store/k", status: 404, want: "*"},
		{do: "TRACE /v1.0/state/store/k", status: 404, want: "*"},
	})
	if r := do(t, a.HTTP(), "GET", "/v1.0/secrets/vault/..%2F..%2Fetc%2Fpasswd", ""); strings.Contains(r.body, "root:") {
		t.Error("a file was read")
	}
}

func quoteJSON(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		if r < ' ' || r == '"' || r == '\\' {
			b.WriteString(`\u00` + string("0123456789abcdef"[r>>4]) + string("0123456789abcdef"[r&15]))
			continue
		}
		b.WriteRune(r)
	}
	return b.String() + `"`
}

// A caller reaches only what it was granted, in the words of each API.
func TestGrants(t *testing.T) {
	a := newAPI(t, func(o *dialect.Options, _ *Settings) {
		o.App.Caller = &loam.Caller{Name: "orders", Grants: []loam.Grant{
			{Capability: "state", Component: "store", Names: []string{"mine/*"}}, {Capability: "secret", Component: "vault", Names: []string{"token"}},
			{Capability: "pubsub", Component: "bus", Names: []string{"topic"}},
		}}
	})
	run(t, a.HTTP(), []step{
		{do: "GET /v1.0/state/store/mine%2F1", status: 204},
		{do: "GET /v1.0/state/store/other", status: 403, want: "*"},
		{do: "POST /v1.0/state/store", body: `[{"key":"other","value":1}]`, status: 403, want: "*"},
		{do: "DELETE /v1.0/state/store/other", status: 403, want: "*"},
		{do: "GET /v1.0/secrets/vault/token", status: 200, want: `{"token":"s3cret"}`},
		{do: "GET /v1.0/secrets/vault/denied", status: 403, want: failed("ERR_PERMISSION_DENIED", `access denied by policy to get "denied" from "vault"`)},
		{do: "POST /v1.0/publish/bus/topic", body: "x", status: 204},
		{do: "POST /v1.0/publish/bus/other", body: "x", status: 403, want: "*"},
		{do: "GET /v1.0/configuration/settings?key=a", status: 403, want: "*"},
		{do: "POST /v1.0-alpha1/lock/locks", body: `{"resourceId":"r","lockOwner":"me","expiryInSeconds":1}`, status: 403, want: "*"},
		{do: "POST /v1.0/bindings/echo", body: `{"operation":"create"}`, status: 403, want: "*"},
		{do: "POST /v1.0/jobs/j", body: `{"dueTime":"1h"}`, status: 403, want: "*"},
		{do: "POST /v1.0-alpha1/subtlecrypto/keys/sign", body: `{"keyName":"rsa.pem","algorithm":"RS256","digest":"AA=="}`, status: 403, want: "*"},
	})
}

// Whatever is asked, there is an answer, whose body is as long as it says.
func FuzzHTTP(f *testing.F) {
	a := newAPI(f, nil)
	for _, r := range httpRoutes() {
		methods := r.methods
		if methods == "" {
			continue // it leaves this process
		}
		f.Add(strings.Split(methods, ",")[0], "/"+r.version+"/"+strings.NewReplacer("{storeName}", "store", "{pubsubname}", "bus", "*", "t", "{name}", "echo").Replace(r.pattern), "metadata.ttlInSeconds=1", `[{"key":"k","value":1}]`)
	}
	f.Add("PUT", "/v1.0-alpha1/crypto/keys/decrypt", "", "dapr.io/enc/v1\n{}\n\n")
	f.Add("POST", "/v1.0/state/store/transaction", "", `{"operations":[{"operation":"upsert","request":{"key":"a","value":[[[]]]}}]}`)
	f.Add("GET", "//..//v1.0/./state/%2f/%", "key=%&metadata.=&&==", "")
	f.Fuzz(func(t *testing.T, method, path, query, body string) {
		if p := cleanPath(path); strings.Contains(p, "/invoke") || strings.Contains(strings.ToLower(path+query), "dapr-app-id") {
			return
		}
		req := loam.NewRequest(t.Context())
		defer req.Release()
		req.Method, req.Path, req.RawQuery = method, path, query
		req.Body, req.Length = io.NopCloser(strings.NewReader(body)), int64(len(body))
		res, err := a.HTTP().Serve(req)
		if err != nil {
			t.Fatalf("%s %q: %v", method, path, err)
		}
		if res.Status < 200 || res.Status > 599 {
			t.Errorf("%s %q: status %d", method, path, res.Status)
		}
		for _, h := range res.Header {
			if strings.ContainsAny(h.Name+h.Value, "\r\n") {
				t.Errorf("%s %q: header %q: %q", method, path, h.Name, h.Value)
			}
		}
		if res.Body != nil {
			n, err := io.Copy(io.Discard, res.Body)
			if err != nil || res.Length >= 0 && n != res.Length {
				t.Errorf("%s %q: a body of %d bytes, not %d: %v", method, path, n, res.Length, err)
			}
		}
		if err := res.Close(); err != nil {
			t.Error(err)
		}
	})
}

// What a job's data is as JSON is the same after it was kept as protobuf; bytes that are none give an error or JSON.
func FuzzValue(f *testing.F) {
	f.Add([]byte(`{"a":[1,"x",true,null,{"b":{}}]}`))
	f.Add([]byte(`-0.5e-7`))
	f.Add([]byte{2<<3 | 1, 0, 0, 0, 0, 0, 0, 0xf0, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		if out, err := appendValueJSON(nil, b, 0); err == nil && !json.Valid(out) {
			t.Errorf("%x gave %q", b, out)
		}
		encoded, err := valueOf(b)
		if err != nil {
			return
		}
		out, err := appendValueJSON(nil, encoded, 0)
		if err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		again, err := valueOf(out)
		if err != nil || !bytes.Equal(again, encoded) {
			t.Errorf("%q became %q", b, out)
		}
	})
}

// Routes are found whatever else is in the path.
func TestRoutesAreFound(t *testing.T) {
	table := newRouteTable(httpRoutes(), nil, nil)
	words := []string{"a", "bulk", "transaction", "state", "%2F", "query", "v1.0", "..", "é"}
	for _, r := range httpRoutes() {
		for range 50 {
			var want []string
			var parts []string
			for _, s := range strings.Split(r.pattern, "/") {
				if s == "*" || s[0] == '{' {
					w := words[rand.IntN(len(words))]
					parts, want = append(parts, w), append(want, w)
					continue
				}
				parts = append(parts, s)
			}
			path := "/" + r.version + "/" + strings.Join(parts, "/")
			if cleanPath(path) != path {
				continue
			}
			for method := range strings.SplitSeq(r.methods, ",") {
				var params [3]string
				found, err := table.match(method, path, &params)
				if err != nil || found == nil || found.version != r.version {
					t.Fatalf("%s %s: %v, %v", method, path, found, err)
				}
				if found.pattern != r.pattern {
					continue // a word that is another route's
				}
				for i := 0; i < len(want) && r.serve != nil; i++ {
					if u, _ := url.QueryUnescape(want[i]); params[i] != u {
						t.Errorf("%s %s: parameter %d is %q", method, path, i, params[i])
					}
				}
			}
		}
	}
}
