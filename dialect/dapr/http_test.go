package dapr

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/dialect"
)

// A step is one request and what is answered.
type step struct {
	do     string // method, path and query
	body   string
	header []string
	status int
	want   string            // the body, whole; "*": whatever it is
	has    map[string]string // headers
}

func run(t *testing.T, to loam.Target, steps []step) {
	t.Helper()
	for _, s := range steps {
		method, target, _ := strings.Cut(s.do, " ")
		r := do(t, to, method, target, s.body, s.header...)
		if r.status != s.status || s.want != "*" && strings.TrimSpace(r.body) != s.want {
			t.Errorf("%s %s\n got %d %s\nwant %d %s", s.do, s.body, r.status, r.body, s.status, s.want)
		}
		for name, want := range s.has {
			if got := r.header.Get(name); got != want && (want != "*" || got == "") {
				t.Errorf("%s: %s is %q, not %q", s.do, name, got, want)
			}
		}
	}
}

func failed(code, message string) string {
	b, _ := json.Marshal(map[string]string{"errorCode": code})
	m, _ := json.Marshal(message)
	return strings.TrimSuffix(string(b), "}") + `,"message":` + string(m) + "}"
}

func TestState(t *testing.T) {
	a := newAPI(t, nil)
	run(t, a.HTTP(), []step{
		{do: "GET /v1.0/state/store/one", status: 204},
		{do: "POST /v1.0/state/store", body: `[{"key":"one","value":{"a":1}},{"key":"two","value":"text"}]`, status: 204},
		{do: "GET /v1.0/state/store/one", status: 200, want: `{"a":1}`, has: map[string]string{"ETag": "*", "Content-Type": "application/json"}},
		{do: "GET /v1.0/state/store/one/", status: 200, want: `{"a":1}`},
		{do: "GET //v1.0/state//store/one?consistency=strong", status: 200, want: `{"a":1}`},
		{do: "GET /v1.0/state/store/two", status: 200, want: `"text"`},
		{do: "PUT /v1.0/state/store", body: `[{"key":"big","value":12345678901234567890.5}]`, status: 204},
		{do: "GET /v1.0/state/store/big", status: 200, want: `12345678901234567890.5`},
		{do: "POST /v1.0/state/store", body: `[]`, status: 204},
		{do: "POST /v1.0/state/store", body: `[{"key":"short","value":1}]`, status: 204},
		{do: "POST /v1.0/state/store?metadata.ttlInSeconds=100", body: `[{"key":"short","value":1}]`, status: 204},
		{do: "GET /v1.0/state/store/short", status: 200, want: "1", has: map[string]string{"metadata.ttlExpireTime": "*"}},
		{do: "POST /v1.0/state/store", body: `[{"key":"short","value":1,"metadata":{"ttlInSeconds":"soon"}}]`, status: 400, want: "*"},
		{do: "POST /v1.0/state/store", body: `[{"key":"one","value":2,"etag":"wrong"}]`, status: 409, want: "*"},
		{do: "POST /v1.0/state/store", body: `[{"key":"one","value":2,"options":{"concurrency":"first-write"}}]`, status: 409, want: "*"},
		{do: "POST /v1.0/state/store", body: `[{"key":"new","value":2,"options":{"concurrency":"first-write","consistency":"eventual"}}]`, status: 204},
		{do: "POST /v1.0/state/store", body: `[{"key":"one","value":2,"options":{"concurrency":"never"}}]`, status: 400, want: "*"},
		{do: "DELETE /v1.0/state/store/one", header: []string{"If-Match: wrong"}, status: 409, want: "*"},
		{do: "GET /v1.0/state/store/one", status: 200, want: `{"a":1}`},
		{do: "DELETE /v1.0/state/store/one", status: 204},
		{do: "GET /v1.0/state/store/one", status: 204},
		{do: "DELETE /v1.0/state/store/one", status: 204},
		{do: "POST /v1.0/state/store/bulk", body: `{"keys":["two","none"],"parallelism":2}`, status: 200, want: "*"},
		{do: "POST /v1.0/state/store/bulk", body: `{"keys":[]}`, status: 200, want: `[]`},
		{do: "POST /v1.0/state/store/transaction", body: `{"operations":[]}`, status: 204},
		{
			do: "POST /v1.0/state/store/transaction", status: 204,
			body: `{"operations":[{"operation":"upsert","request":{"key":"a","value":1}},{"operation":"upsert","request":{"key":"a","value":2}},{"operation":"delete","request":{"key":"two"}}],"metadata":{"x":"y"}}`,
		},
		{do: "GET /v1.0/state/store/a", status: 200, want: "2"},
		{do: "GET /v1.0/state/store/two", status: 204},
		{do: "PUT /v1.0/state/store/transaction", body: `{"operations":[{"operation":"upsert","request":{"key":"b","value":1}},{"operation":"delete","request":{"key":"a","etag":"wrong"}}]}`, status: 409, want: "*"},
		{do: "GET /v1.0/state/store/b", status: 204},
	})
}

// An ETag that was answered is one to save and delete with.
func TestStateETag(t *testing.T) {
	a := newAPI(t, nil)
	save := func(etag string) int {
		return do(t, a.HTTP(), "POST", "/v1.0/state/store", fmt.Sprintf(`[{"key":"k","value":1,"etag":%q}]`, etag)).status
	}
	if s := save(""); s != 204 {
		t.Fatalf("saved with %d", s)
	}
	first := do(t, a.HTTP(), "GET", "/v1.0/state/store/k", "").header.Get("ETag")
	if s := save(first); s != 204 {
		t.Fatalf("saved with %d", s)
	}
	if s := save(first); s != 409 {
		t.Errorf("an old ETag: %d", s)
	}
	second := do(t, a.HTTP(), "GET", "/v1.0/state/store/k", "").header.Get("ETag")
	if r := do(t, a.HTTP(), "DELETE", "/v1.0/state/store/k", "", "If-Match: "+first); r.status != 409 {
		t.Errorf("deleted with an old ETag: %d", r.status)
	}
	if r := do(t, a.HTTP(), "DELETE", "/v1.0/state/store/k", "", "If-Match: "+second); r.status != 204 {
		t.Errorf("deleted with %d", r.status)
	}
}

// Bodies of errors, word for word where clients look at them.
func TestErrorBodies(t *testing.T) {
	a := newAPI(t, nil)
	none := newAPI(t, func(o *dialect.Options, _ *Settings) { o.Capabilities = &components{} })
	errorInfo := func(reason, metadata string) string {
		return `{"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"dapr.io","metadata":` + metadata + `,"reason":"` + reason + `"}`
	}
	resource := func(typ, name, description string) string {
		return `{"@type":"type.googleapis.com/google.rpc.ResourceInfo","description":"` + description + `","owner":"","resource_name":"` + name + `","resource_type":"` + typ + `"}`
	}
	run(t, a.HTTP(), []step{
		{
			do: "GET /v1.0/state/nope/k", status: 400,
			want: `{"errorCode":"ERR_STATE_STORE_NOT_FOUND","message":"state store nope is not found","details":[` + errorInfo("DAPR_STATE_NOT_FOUND", `{"appID":"orders"}`) + `]}`,
		},
		{
			do: "GET /v1.0/state/store/a%7C%7Cb", status: 400,
			want: `{"errorCode":"ERR_MALFORMED_REQUEST","message":"input key/keyPrefix 'a||b' can't contain '||'","details":[{"@type":"type.googleapis.com/google.rpc.BadRequest","field_violations":[{"description":"input key/keyPrefix 'a||b' can't contain '||'","field":"a||b"}]},` +
				resource("state", "store", "") + "," + errorInfo("DAPR_STATE_ILLEGAL_KEY", "null") + `]}`,
		},
		{do: "POST /v1.0/state/store", body: `[{"value":1}]`, status: 400, want: failed("ERR_MALFORMED_REQUEST", `"key" is a required field`)},
		{do: "POST /v1.0/state/store", body: `{`, status: 400, want: failed("ERR_MALFORMED_REQUEST", "unexpected end of JSON input")},
		{do: "POST /v1.0/state/store/bulk", body: `x`, status: 400, want: failed("ERR_MALFORMED_REQUEST", "failed deserializing HTTP body: invalid character 'x' looking for beginning of value")},
		{do: "POST /v1.0/state/store/transaction", body: `{"operations":[{"operation":"list","request":{}}]}`, status: 400, want: failed("ERR_NOT_SUPPORTED_STATE_OPERATION", "operation type list not supported")},
		{
			do: "POST /v1.0-alpha1/state/store/query", body: `{"filter":{"LIKE":{"a":1}}}`, status: 500, want: "*",
		},
		{
			do: "POST /v1.0/publish/nope/topic", status: 404,
			want: `{"errorCode":"ERR_PUBSUB_NOT_FOUND","message":"pubsub nope is not found","details":[` + errorInfo("DAPR_PUBSUB_NOT_FOUND", "null") + `]}`,
		},
		{
			do: "POST /v1.0/publish/bus/", status: 404,
			want: `{"errorCode":"ERR_TOPIC_NAME_EMPTY","message":"topic is empty in pubsub bus","details":[` + resource("pubsub", "bus", "topic is empty in pubsub bus") + "," + errorInfo("DAPR_PUBSUB_TOPIC_NAME_EMPTY", "null") + `]}`,
		},
		{do: "POST /v1.0/publish/bus/t?metadata.rawPayload=maybe", status: 400, want: "*"},
		{do: "POST /v1.0/publish/bulk/bus/t", body: `[{"entryId":"1","event":1,"contentType":"text/plain"}]`, status: 400, want: "*"},
		{do: "GET /v1.0/secrets/nope/k", status: 401, want: failed("ERR_SECRET_STORE_NOT_FOUND", "failed finding secret store with key nope")},
		{do: "GET /v1.0/secrets/vault/none", status: 500, want: "*"},
		{do: "GET /v1.0/configuration/nope", status: 400, want: failed("ERR_CONFIGURATION_STORE_NOT_FOUND", "configuration store nope not found")},
		{do: "GET /v1.0/configuration/settings/subscribe", status: 500, want: failed("ERR_APP_CHANNEL_NIL", "app channel is not initialized. cannot subscribe to configuration updates")},
		{do: "GET /v1.0/configuration/settings/none/unsubscribe", status: 500, want: `{"message":"failed to unsubscribe to configuration request none: subscription does not exist"}`},
		{do: "POST /v1.0-alpha1/lock/nope", body: `{"resourceId":"r","lockOwner":"me","expiryInSeconds":1}`, status: 400, want: failed("ERR_LOCK_STORE_NOT_FOUND", "lock store nope not found")},
		{do: "POST /v1.0-alpha1/lock/locks", body: `{"lockOwner":"me","expiryInSeconds":1}`, status: 400, want: failed("ERR_MALFORMED_REQUEST", "ResourceId is empty in lock store locks")},
		{do: "POST /v1.0-alpha1/lock/locks", body: `{"resourceId":"r","expiryInSeconds":1}`, status: 400, want: failed("ERR_MALFORMED_REQUEST", "LockOwner is empty in lock store locks")},
		{do: "POST /v1.0-alpha1/lock/locks", body: `{"resourceId":"r","lockOwner":"me"}`, status: 400, want: failed("ERR_MALFORMED_REQUEST", "ExpiryInSeconds is not positive in lock store locks")},
		{do: "POST /v1.0/bindings/nope", body: `{"operation":"create"}`, status: 500, want: failed("ERR_INVOKE_OUTPUT_BINDING", "error invoking output binding nope: couldn't find output binding nope")},
		{do: "PUT /v1.0-alpha1/crypto/nope/encrypt", status: 400, want: failed("ERR_CRYPTO_PROVIDER_NOT_FOUND", "crypto provider nope not found")},
		{do: "PUT /v1.0-alpha1/crypto/keys/encrypt", status: 400, want: failed("ERR_BAD_REQUEST", "invalid request: missing header 'dapr-key-name'")},
		{do: "PUT /v1.0-alpha1/crypto/keys/encrypt", header: []string{"dapr-key-name: rsa.pem"}, status: 400, want: failed("ERR_BAD_REQUEST", "invalid request: missing header 'dapr-key-wrap-algorithm'")},
		{
			do: "POST /v1.0/jobs/j", body: `{"name":"j"}`, status: 400,
			want: `{"errorCode":"DAPR_SCHEDULER_JOB_NAME","message":"Set the job name in the url only","details":[` + errorInfo("DAPR_SCHEDULER_JOB_NAME", `{"appID":"orders"}`) + `]}`,
		},
		{
			do: "POST /v1.0/jobs/j", body: `{}`, status: 400,
			want: `{"errorCode":"DAPR_SCHEDULER_SCHEDULE_EMPTY","message":"Schedule is empty","details":[` + errorInfo("DAPR_SCHEDULER_SCHEDULE_EMPTY", `{"appID":"orders","namespace":""}`) + `]}`,
		},
		{do: "GET /v1.0/jobs/none", status: 500, want: "*"},
		{do: "GET /v1.0/state/lost/k", status: 500, want: "*"},
		{do: "GET /v1.0/actors/t/1/state/k", status: 501, want: failed("ERR_ACTOR_RUNTIME_NOT_FOUND", "actors: not implemented by this runtime; docs/dapr.md lists what is")},
		{do: "POST /v1.0/workflows/dapr/w/start", status: 501, want: failed("ERR_WORKFLOW_COMPONENT_NOT_FOUND", "workflows: not implemented by this runtime; docs/dapr.md lists what is")},
		{do: "POST /v1.0-alpha2/conversation/llm/converse", status: 501, want: "*"},
		{do: "POST /v1.0/shutdown", status: 403, want: "*"},
	})
	run(t, none.HTTP(), []step{
		{
			do: "GET /v1.0/state/store/k", status: 500,
			want: `{"errorCode":"ERR_STATE_STORE_NOT_CONFIGURED","message":"state store store is not configured","details":[` + errorInfo("DAPR_STATE_NOT_CONFIGURED", `{"appID":"orders"}`) + `]}`,
		},
		{
			do: "POST /v1.0/publish/bus/t", status: 400,
			want: `{"errorCode":"ERR_PUBSUB_NOT_CONFIGURED","message":"pubsub bus is not configured","details":[` + errorInfo("DAPR_PUBSUB_NOT_CONFIGURED", "null") + `]}`,
		},
		{do: "GET /v1.0/secrets/vault/k", status: 500, want: failed("ERR_SECRET_STORES_NOT_CONFIGURED", "secret store is not configured")},
		{do: "GET /v1.0/configuration/settings", status: 500, want: failed("ERR_CONFIGURATION_STORE_NOT_CONFIGURED", "configuration stores not configured")},
		{do: "POST /v1.0-alpha1/unlock/locks", body: `{"resourceId":"r","lockOwner":"me"}`, status: 500, want: failed("ERR_LOCK_STORE_NOT_CONFIGURED", "lock store is not configured")},
		{do: "PUT /v1.0-alpha1/crypto/keys/decrypt", status: 500, want: failed("ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED", "crypto providers not configured")},
	})
}

func TestOthers(t *testing.T) {
	a := newAPI(t, nil)
	run(t, a.HTTP(), []step{
		{do: "POST /v1.0/publish/bus/topic", body: `{"a":1}`, header: []string{"Content-Type: application/json"}, status: 204},
		{do: "POST /v1.0/publish/bus/with/slash?metadata.ttlInSeconds=10", body: `text`, status: 204},
		{do: "POST /v1.0/publish/bus/topic?metadata.rawPayload=true", body: `raw`, status: 204},
		{do: "POST /v1.0/publish/bus/topic", body: `no envelope`, header: []string{"Content-Type: application/cloudevents+json"}, status: 500, want: "*"},
		{do: "POST /v1.0/publish/bulk/bus/topic", body: `[{"entryId":"1","event":{"a":1},"contentType":"application/json"},{"entryId":"2","event":"text","contentType":"text/plain"},{"entryId":"3","event":"AAE=","contentType":"application/octet-stream"}]`, status: 204},
		{do: "POST /v1.0-alpha1/publish/bulk/bus/topic", body: `[{"entryId":"1","event":1,"contentType":"application/json"},{"entryId":"1","event":2,"contentType":"application/json"}]`, status: 400, want: "*"},

		{do: "GET /v1.0/secrets/vault/token", status: 200, want: `{"token":"s3cret"}`},

		{do: "POST /v1.0-alpha1/lock/locks", body: `{"resourceId":"r","lockOwner":"me","expiryInSeconds":60}`, status: 200, want: `{"success":true}`},
		{do: "POST /v1.0-alpha1/lock/locks", body: `{"resource_id":"r","lock_owner":"you","expiry_in_seconds":"60"}`, status: 200, want: `{"success":false}`},
		{do: "POST /v1.0-alpha1/unlock/locks", body: `{"resourceId":"r","lockOwner":"you"}`, status: 200, want: `{"status":2}`},
		{do: "POST /v1.0-alpha1/unlock/locks", body: `{"resourceId":"none","lockOwner":"you"}`, status: 200, want: `{"status":1}`},
		{do: "POST /v1.0-alpha1/unlock/locks", body: `{"resourceId":"r","lockOwner":"me"}`, status: 200, want: `{"status":0}`},

		{do: "POST /v1.0/bindings/echo", body: `{"operation":"create","data":{"a": 1},"metadata":{"given":"x"}}`, header: []string{"traceparent: 00-1-2-01"}, status: 200, want: `{"a": 1}`, has: map[string]string{"metadata.operation": "create", "metadata.given": "x", "metadata.trace": "00-1-2-01"}},
		{do: "PUT /v1.0/bindings/echo", body: `{"operation":"get"}`, status: 204, has: map[string]string{"metadata.operation": "get"}},
		{do: "POST /v1.0/bindings/echo", body: `{"operation":"fail"}`, status: 500, want: "*", has: map[string]string{"metadata.operation": "fail"}},
		{do: "POST /v1.0/bindings/echo", body: `{"operation":"drop"}`, status: 400, want: "*"},

		{do: "POST /v1.0/jobs/j", body: `{"schedule":"@every 1h","repeats":3,"data":{"a":[1,"x",true,null]},"failurePolicy":{"constant":{"interval":"2s","maxRetries":4}}}`, status: 204},
		{do: "POST /v1.0-alpha1/jobs/j", body: `{"schedule":"@every 1h"}`, status: 409, want: "*"},
		{do: "GET /v1.0/jobs/j", status: 200, want: `{"name":"j","schedule":"@every 1h","repeats":3,"data":{"@type":"type.googleapis.com/google.protobuf.Value","value":{"a":[1,"x",true,null]}},"failurePolicy":{"constant":{"interval":"2s","maxRetries":4}}}`},
		{do: "POST /v1.0/jobs/j", body: `{"due_time":"1h","overwrite":true}`, status: 204},
		{do: "GET /v1.0-alpha1/jobs/j", status: 200, want: "*"},
		{do: "DELETE /v1.0/jobs/j", status: 204},
		{do: "DELETE /v1.0/jobs/j", status: 204},

		{do: "GET /v1.0/healthz", status: 204},
		{do: "GET /v1.0/healthz?appid=orders", status: 204},
		{do: "GET /v1.0/healthz?appid=other", status: 500, want: failed("ERR_HEALTH_APPID_NOT_MATCH", "dapr app-id does not match")},
		{do: "GET /v1.0/healthz/outbound", status: 204},
		{do: "PUT /v1.0/metadata/color", body: "blue", status: 204},
	})
}

func TestMetadata(t *testing.T) {
	a := newAPI(t, func(o *dialect.Options, s *Settings) {
		s.AppPort, s.AppProtocol, s.Features = 8080, "http", []string{"X"}
	})
	do(t, a.HTTP(), "PUT", "/v1.0/metadata/color", "blue")
	for name, to := range map[string]loam.Target{"api": a.HTTP(), "public": a.Public()} {
		r := do(t, to, "GET", "/v1.0/metadata", "")
		var got struct {
			ID             string
			RuntimeVersion string
			Extended       map[string]string
			Components     []struct {
				Name, Type, Version string
				Capabilities        []string
			}
			AppConnectionProperties struct{ Port int }
		}
		if err := json.Unmarshal([]byte(r.body), &got); err != nil {
			t.Fatal(err)
		}
		if r.status != 200 || got.ID != "orders" || got.RuntimeVersion != RuntimeVersion || got.Extended["color"] != "blue" || got.Extended["loamVersion"] != "0.6.0" || got.AppConnectionProperties.Port != 8080 {
			t.Errorf("%s: %s", name, r.body)
		}
		found := false
		for _, c := range got.Components {
			found = found || c.Name == "store" && c.Type == "state.in-memory" && strings.Contains(strings.Join(c.Capabilities, " "), "ETAG")
		}
		if !found {
			t.Errorf("%s: the state component is not told of: %s", name, r.body)
		}
	}
	for i := range 2 * maxExtended {
		do(t, a.HTTP(), "PUT", fmt.Sprintf("/v1.0/metadata/k%d", i), "v")
	}
	if n := len(a.extendedMetadata()); n > maxExtended+3 {
		t.Errorf("%d entries are kept", n)
	}
}

// What is encrypted is decrypted, whole and in parts, by HTTP.
func TestCrypto(t *testing.T) {
	a := newAPI(t, nil)
	plain := strings.Repeat("a secret ", 5000)
	sealed := do(t, a.HTTP(), "PUT", "/v1.0-alpha1/crypto/keys/encrypt", plain, "dapr-key-name: rsa.pem", "dapr-key-wrap-algorithm: rsa")
	if sealed.status != 200 || sealed.header.Get("Content-Type") != "application/octet-stream" {
		t.Fatalf("%d %s", sealed.status, sealed.body)
	}
	opened := do(t, a.HTTP(), "PUT", "/v1.0-alpha1/crypto/keys/decrypt", sealed.body)
	if opened.status != 200 || opened.body != plain {
		t.Fatalf("%d %.100s", opened.status, opened.body)
	}
	if r := do(t, a.HTTP(), "PUT", "/v1.0-alpha1/crypto/keys/decrypt", strings.Replace(sealed.body, "dapr.io", "dapr.xy", 1)); r.status == 200 {
		t.Error("a header that was changed was taken")
	}
	var got subtleResult
	r := do(t, a.HTTP(), "POST", "/v1.0-alpha1/subtlecrypto/keys/encrypt", `{"plaintext":"aGVsbG8=","algorithm":"RSA-OAEP-256","keyName":"rsa.pem"}`)
	if err := json.Unmarshal([]byte(r.body), &got); err != nil || r.status != 200 {
		t.Fatalf("%d %s: %v", r.status, r.body, err)
	}
	again, err := json.Marshal(map[string]any{"ciphertext": got.Ciphertext, "algorithm": "RSA-OAEP-256", "keyName": "rsa.pem"})
	if err != nil {
		t.Fatal(err)
	}
	if r = do(t, a.HTTP(), "POST", "/v1.0-alpha1/subtlecrypto/keys/decrypt", string(again)); strings.TrimSpace(r.body) != `{"plaintext":"aGVsbG8="}` {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r = do(t, a.HTTP(), "POST", "/v1.0-alpha1/subtlecrypto/keys/getkey", `{"name":"rsa.pem","format":"JSON"}`); r.status != 200 || !strings.Contains(r.body, `\"kty\":\"RSA\"`) {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r = do(t, a.HTTP(), "POST", "/v1.0-alpha1/subtlecrypto/keys/getkey", `{"name":"rsa.pem","format":"XML"}`); r.status != 400 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func TestToken(t *testing.T) {
	a := newAPI(t, func(o *dialect.Options, _ *Settings) { o.App.APIToken = "t0ken" })
	run(t, a.HTTP(), []step{
		{do: "GET /v1.0/state/store/k", status: 401, want: "invalid api token"},
		{do: "GET /v1.0/state/store/k", header: []string{"dapr-api-token: wrong"}, status: 401, want: "invalid api token"},
		{do: "GET /v1.0/state/store/k", header: []string{"Dapr-Api-Token: t0ken"}, status: 204},
		{do: "GET /v1.0/healthz", status: 204},
		{do: "GET /v1.0/healthz/outbound", status: 204},
		{do: "PUT /v1.0/healthz", status: 401, want: "invalid api token"},
		{do: "GET /v1.0/metadata", status: 401, want: "invalid api token"},
	})
	run(t, a.Public(), []step{
		{do: "GET /v1.0/metadata", status: 200, want: "*"},
		{do: "GET /v1.0/state/store/k", status: 404, want: "404 page not found"},
	})
}

func TestHealthy(t *testing.T) {
	a := newAPI(t, func(o *dialect.Options, _ *Settings) { o.Healthy = func() error { return errors.New("state lost") } })
	run(t, a.HTTP(), []step{
		{do: "GET /v1.0/healthz", status: 500, want: failed("ERR_HEALTH_NOT_READY", "dapr is not ready: [state lost]")},
		{do: "GET /v1.0/healthz/outbound", status: 204},
	})
}

func TestAccessRules(t *testing.T) {
	only := newAPI(t, func(_ *dialect.Options, s *Settings) { s.Allowed = []AccessRule{{"state", "v1.0", "http"}} })
	not := newAPI(t, func(_ *dialect.Options, s *Settings) {
		s.Denied = []AccessRule{{"state", "v1", ""}, {"publish", "v1.0-alpha1", "http"}, {"secrets", "v1", "grpc"}}
	})
	run(t, only.HTTP(), []step{
		{do: "GET /v1.0/state/store/k", status: 204},
		{do: "GET /v1.0/healthz", status: 204},
		{do: "GET /v1.0/secrets/vault/token", status: 404, want: "404 page not found"},
		{do: "POST /v1.0-alpha1/state/store/query", body: "{}", status: 404, want: "404 page not found"},
	})
	for path, denied := range map[string]bool{"GET /v1.0/state/store/k": true, "GET /v1.0/secrets/vault/token": false, "POST /v1.0-alpha1/publish/bulk/bus/t": true, "POST /v1.0/publish/bulk/bus/t": false} {
		method, path, _ := strings.Cut(path, " ")
		var params [3]string
		r, err := not.routes.match(method, path, &params)
		if err != nil || (r == nil) != denied {
			t.Errorf("%s %s: denied is %t, %v", method, path, r == nil, err)
		}
	}
}

func TestCORS(t *testing.T) {
	a := newAPI(t, func(o *dialect.Options, s *Settings) {
		s.AllowedOrigins, o.App.APIToken = "https://a.example,https://*.b.example", "t0ken"
	})
	run(t, a.HTTP(), []step{
		{
			do: "OPTIONS /v1.0/state/store/k", status: 200, header: []string{"Origin: https://x.b.example", "Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: dapr-api-token"},
			has: map[string]string{"Access-Control-Allow-Origin": "https://x.b.example", "Access-Control-Allow-Methods": "PUT", "Access-Control-Allow-Headers": "dapr-api-token"},
		},
		{do: "OPTIONS /v1.0/state/store/k", status: 200, header: []string{"Origin: https://evil.example", "Access-Control-Request-Method: PUT"}, has: map[string]string{"Access-Control-Allow-Origin": ""}},
		{do: "GET /v1.0/state/store/k", status: 204, header: []string{"Origin: https://a.example", "dapr-api-token: t0ken"}, has: map[string]string{"Access-Control-Allow-Origin": "https://a.example"}},
		{do: "GET /v1.0/state/store/k", status: 204, header: []string{"Origin: https://b.example", "dapr-api-token: t0ken"}, has: map[string]string{"Access-Control-Allow-Origin": ""}},
		{do: "GET /v1.0/state/store/k", status: 401, want: "invalid api token", header: []string{"Origin: https://a.example"}},
	})
	all := newAPI(t, func(_ *dialect.Options, s *Settings) { s.AllowedOrigins = "*" })
	run(t, all.HTTP(), []step{
		{do: "GET /v1.0/state/store/k", status: 204, header: []string{"Origin: https://a.example"}, has: map[string]string{"Access-Control-Allow-Origin": "*"}},
	})
}
