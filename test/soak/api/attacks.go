//go:build linux

package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	dapr "github.com/loam-run/loam/api/dapr"
	layotto "github.com/loam-run/loam/api/layotto"
)

// Statuses of gRPC.
const (
	ok, canceled, invalid, deadline, notFound, denied, exhausted = 0, 1, 3, 4, 5, 7, 8
	precondition, aborted, unimplemented, internal, unavailable  = 9, 10, 12, 13, 14
	unauthenticated                                              = 16
)

const (
	large     = 1 << 20 // bytes of each of the values that slow readers ask for
	larges    = 16      // how many there are
	mostBytes = 4 << 20 // of a body, as the sidecar has it by default
)

func (s *soak) attacks() []attack {
	return []attack{
		{name: "types of JSON", do: jsonTypes},
		{name: "types of protobuf", do: protoTypes},
		{name: "huge bodies", do: hugeBodies, many: 2},
		{name: "endless bodies", do: endlessBodies, many: 2},
		{name: "huge messages", do: hugeMessages, many: 2},
		{name: "endless messages", do: endlessMessages, many: 2},
		{name: "slow senders of heads", do: slowHeads, many: 100},
		{name: "slow senders of bodies", do: slowBodies, many: 100},
		{name: "slow senders of messages", do: slowMessages, many: 4},
		{name: "slow readers of answers", do: slowReaders, many: 40},
		{name: "slow readers of messages", do: slowMessageReaders, many: 40},
		{name: "slow readers of changes", do: slowWatchers, many: 40},
		{name: "bulk gets of one key", do: sameKey, many: 2},
		{name: "idle streams", do: idleStreams},
		{name: "tokens", do: tokens},
		{name: "paths in HTTP", do: httpPaths},
		{name: "paths in bindings", do: bindingPaths},
		{name: "paths in files", do: filePaths},
		{name: "keys with separators", do: separators},
		{name: "uploads broken off", do: brokenUploads, many: 2},
	}
}

// prepare stores what slow readers ask for.
func (s *soak) prepare() error {
	c := newClient(true)
	defer c.close()
	value := bytes.Repeat([]byte("x"), large)
	for i := range larges {
		key := fmt.Sprint("large", i)
		for _, at := range []struct {
			address, method string
			m               message
		}{
			{s.dapr, dapr.MethodDaprSaveState, &dapr.SaveStateRequest{StoreName: "store", States: []dapr.StateItem{{Key: key, Value: value}}}},
			{s.layotto, layotto.MethodRuntimeSaveState, &layotto.SaveStateRequest{StoreName: "store", States: []layotto.StateItem{{Key: key, Value: value}}}},
		} {
			if status, words, err := c.call(context.Background(), at.address, at.method, frame(at.m.AppendProto(nil))); status != ok || err != nil {
				return errors.Join(fmt.Errorf("prepare: %d %s", status, words), err)
			}
		}
	}
	return nil
}

// ---- Wrong types

func jsonTypes(ctx context.Context, a *attacker) error {
	c := newClient(false)
	defer c.close()
	deep := strings.Repeat("[", 100_000)
	asks := []struct {
		method, path, body string
		want               []int
		words              string
	}{
		{"POST", "/v1.0/state/store", `{"key": 1}`, []int{400}, "ERR_MALFORMED_REQUEST"},
		{"POST", "/v1.0/state/store", `[{"key": {}}]`, []int{400}, "ERR_MALFORMED_REQUEST"},
		{"POST", "/v1.0/state/store", `[{"key": "a", "etag": 7, "value": 1}]`, []int{400}, "ERR_MALFORMED_REQUEST"},
		{"POST", "/v1.0/state/store", `[{"key": "a", "metadata": [1]}]`, []int{400}, "ERR_MALFORMED_REQUEST"},
		{"POST", "/v1.0/state/store", `[{"value": 1}]`, []int{400}, "key"},
		{"POST", "/v1.0/state/store", deep, []int{400}, "ERR_MALFORMED_REQUEST"},
		{"POST", "/v1.0/state/store", "\xff\xfe\x00", []int{400}, "ERR_MALFORMED_REQUEST"},
		{"POST", "/v1.0/state/store/bulk", `{"keys": "a"}`, []int{400}, "ERR_MALFORMED_REQUEST"},
		{"POST", "/v1.0/state/store/bulk", `{"keys": ["a"], "parallelism": "x"}`, []int{400}, "ERR_MALFORMED_REQUEST"},
		{"POST", "/v1.0/state/store/transaction", `{"operations": [{"operation": 1}]}`, []int{400}, "ERR_"},
		{"POST", "/v1.0/state/store/transaction", `{"operations": [{"operation": "upsert", "request": "x"}]}`, []int{400}, "ERR_"},
		{"POST", "/v1.0-alpha1/state/store/query", `{"filter": {"EQ": 7}}`, []int{400, 500}, "ERR_STATE_QUERY"},
		{"POST", "/v1.0/publish/bulk/bus/topic", `{"entries": 1}`, []int{400, 500}, "ERR_"},
		{"POST", "/v1.0/bindings/files", `{"operation": 7}`, []int{400}, "ERR_"},
		{"POST", "/v1.0/bindings/files", `[]`, []int{400}, "ERR_"},
		{"POST", "/v1.0-alpha1/lock/locks", `{"resourceId": [], "lockOwner": "me", "expiryInSeconds": 1}`, []int{400}, "ERR_"},
		{"POST", "/v1.0-alpha1/lock/locks", `{"resourceId": "r", "lockOwner": "me", "expiryInSeconds": "x"}`, []int{400}, "ERR_"},
		{"POST", "/v1.0/jobs/j", `{"schedule": 7}`, []int{400}, ""},
		{"POST", "/v1.0/jobs/j", `{"dueTime": "never"}`, []int{400}, ""},
		{"POST", "/v1.0-alpha1/subtlecrypto/keys/getkey", `{"name": 1}`, []int{400}, "ERR_"},
		{"GET", "/v1.0/configuration/nothing?key=" + strings.Repeat("k", 4000), "", []int{400, 404}, "ERR_"},
		{"GET", "/v1.0/nothing/of/this", "", []int{404}, ""},
		{"BREW", "/v1.0/state/store/a", "", []int{404, 405, 501}, ""},
	}
	for n := 0; ctx.Err() == nil; n++ {
		q := asks[n%len(asks)]
		status, answer, err := c.ask(ctx, q.method, "http://"+a.http+q.path, q.body)
		if err == nil {
			err = a.check(q.method+" "+q.path+" "+brief(q.body), status, answer, q.want, q.words)
		}
		if err := over(ctx, err); err != nil || !rest(ctx, 5*time.Millisecond) {
			return err
		}
	}
	return nil
}

// over is an error, unless all is over.
func over(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// protoTypes sends what is no message, or one of other fields, to methods of both APIs.
func protoTypes(ctx context.Context, a *attacker) error {
	c := newClient(true)
	defer c.close()
	const d, l = "/dapr.proto.runtime.v1.Dapr/", "/spec.proto.runtime.v1.Runtime/"
	var at []struct{ address, method string }
	for _, m := range []string{"GetState", "GetBulkState", "SaveState", "DeleteState", "ExecuteStateTransaction", "PublishEvent", "BulkPublishEvent", "InvokeBinding", "GetSecret", "GetConfiguration", "TryLockAlpha1", "SubtleSignAlpha1", "ScheduleJob", "InvokeService", "SubscribeTopicEventsAlpha1", "SubscribeConfiguration", "EncryptAlpha1"} {
		at = append(at, struct{ address, method string }{a.dapr, d + m})
	}
	for _, m := range []string{"InvokeService", "GetConfiguration", "SaveConfiguration", "SubscribeConfiguration", "TryLock", "GetNextId", "GetState", "SaveState", "ExecuteStateTransaction", "PublishEvent", "SubscribeTopicEvents", "GetFile", "PutFile", "ListFile", "InvokeBinding", "GetSecret"} {
		at = append(at, struct{ address, method string }{a.layotto, l + m})
	}
	bodies := map[string][]byte{
		"a field that does not end":    {0x0a, 0xff, 0xff, 0xff, 0xff, 0x07, 'x'},
		"a number for a text":          {0x08, 0x01},
		"a number that does not end":   bytes.Repeat([]byte{0x88}, 20),
		"a group":                      {0x0b, 0x0b, 0x0b},
		"field 0":                      {0x02, 0x01, 'x'},
		"text that is no UTF-8":        {0x0a, 0x02, 0xff, 0xfe},
		"a field with itself inside":   nest(10_000),
		"nothing":                      {},
		"bytes that nobody has chosen": nil,
	}
	for n := 0; ctx.Err() == nil; n++ {
		q := at[n%len(at)]
		for what, body := range bodies {
			if body == nil {
				body = make([]byte, 1+rand.IntN(200))
				for i := range body {
					body[i] = byte(rand.Uint32())
				}
			}
			status, words, err := c.call(ctx, q.address, q.method, frame(body))
			if err == nil {
				err = a.check(q.method+" of "+what, status, words, []int{invalid, notFound, denied, precondition, unimplemented, internal, unavailable}, "")
			}
			if err := over(ctx, err); err != nil {
				return err
			}
		}
		if !rest(ctx, 10*time.Millisecond) {
			return nil
		}
	}
	return nil
}

// nest is a message within a message, so deep.
func nest(deep int) []byte {
	b := []byte("x")
	for range deep {
		b = append(binary.AppendUvarint([]byte{0x0a}, uint64(len(b))), b...)
		if len(b) > 64<<10 {
			break
		}
	}
	return b
}

// ---- Huge and endless

// hugeBodies say how large they are, and send it too.
func hugeBodies(ctx context.Context, a *attacker) error {
	paths := []string{"/v1.0/state/store", "/v1.0/publish/bus/topic", "/v1.0/bindings/files", "/v1.0/state/store/transaction", "/v1.0/jobs/j", "/v1.0-alpha1/lock/locks"}
	body := `[{"key":"a","value":"` + strings.Repeat("x", 2*mostBytes) + `"}]`
	for n := 0; ctx.Err() == nil; n++ {
		c := newClient(n%2 == 1)
		status, answer, err := c.ask(ctx, "POST", "http://"+a.http+paths[n/2%len(paths)], body)
		c.close()
		if err != nil && over(ctx, err) != nil {
			a.count("cut off") // it may not have read the answer while it still sent
			err = nil
		} else if err == nil {
			err = a.check(paths[n/2%len(paths)], status, answer, []int{413, 429}, " large")
		}
		if err := over(ctx, err); err != nil || !rest(ctx, 50*time.Millisecond) {
			return err
		}
	}
	return nil
}

// endlessBodies are in chunks, of which there is no last one.
func endlessBodies(ctx context.Context, a *attacker) error {
	head := "POST /v1.0/state/store HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nDapr-Api-Token: " + token + "\r\n\r\n"
	chunk := "10000\r\n" + strings.Repeat("[", 0x10000) + "\r\n"
	for ctx.Err() == nil {
		sent, answer, err := a.pour(ctx, head, chunk)
		switch {
		case err != nil:
			return over(ctx, err)
		case sent > 64<<20:
			return fmt.Errorf("it took %d bytes of an endless body", sent)
		}
		if answer == "" {
			a.count("cut off")
		} else if err := a.check("an endless body", statusLine(answer), answer, []int{413, 429}, " large"); err != nil {
			return err
		}
		if !rest(ctx, 100*time.Millisecond) {
			return nil
		}
	}
	return nil
}

func statusLine(answer string) (status int) {
	_, _ = fmt.Sscanf(answer, "HTTP/1.1 %d ", &status) // 0 is no status that is wanted
	return status
}

// pour sends head, and then more as long as it is taken, and reads what comes back.
func (a *attacker) pour(ctx context.Context, head, more string) (sent int, answer string, err error) {
	conn, err := net.Dial("tcp", a.http)
	if err != nil {
		return 0, "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	read := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(conn) // what there was before it was cut off
		read <- string(b)
	}()
	if _, err := io.WriteString(conn, head); err != nil {
		return 0, "", err
	}
	for sent < 65<<20 {
		n, err := io.WriteString(conn, more)
		sent += n
		if err != nil {
			break // it is closed
		}
	}
	return sent, <-read, nil
}

func hugeMessages(ctx context.Context, a *attacker) error {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, 64<<20)) // into memory
	_ = z.Close()
	zipped := frame(bomb.Bytes())
	zipped[0] = 1
	value := bytes.Repeat([]byte("x"), 2*mostBytes)
	asks := []struct {
		what, address, method string
		body                  []byte
		header                []string
		want                  []int
	}{
		{"more than there may be", a.dapr, dapr.MethodDaprSaveState, frame((&dapr.SaveStateRequest{StoreName: "store", States: []dapr.StateItem{{Key: "a", Value: value}}}).AppendProto(nil)), nil, []int{exhausted}},
		{"more than there may be", a.layotto, layotto.MethodRuntimeSaveState, frame((&layotto.SaveStateRequest{StoreName: "store", States: []layotto.StateItem{{Key: "a", Value: value}}}).AppendProto(nil)), nil, []int{exhausted}},
		{"four gigabytes announced", a.dapr, dapr.MethodDaprSaveState, []byte{0, 0xff, 0xff, 0xff, 0xff}, nil, []int{exhausted}},
		{"what unpacks to 64 MB", a.dapr, dapr.MethodDaprSaveState, zipped, []string{"Grpc-Encoding", "gzip"}, []int{exhausted}},
		{"what unpacks to 64 MB", a.layotto, layotto.MethodRuntimeSaveState, zipped, []string{"Grpc-Encoding", "gzip"}, []int{exhausted}},
		{"what is said to be packed", a.dapr, dapr.MethodDaprSaveState, append([]byte{1}, frame([]byte("xxxx"))[1:]...), []string{"Grpc-Encoding", "gzip"}, []int{internal}},
		{"what is packed in no way", a.dapr, dapr.MethodDaprSaveState, frame(nil), []string{"Grpc-Encoding", "snappy"}, []int{unimplemented}},
		{"half a message", a.dapr, dapr.MethodDaprSaveState, []byte{0, 0, 0, 1, 0, 'x'}, nil, []int{internal}},
		{"two messages", a.dapr, dapr.MethodDaprGetState, append(frame(nil), frame(nil)...), nil, []int{internal}},
	}
	for n := 0; ctx.Err() == nil; n++ {
		q := asks[n%len(asks)]
		c := newClient(true)
		status, words, err := c.call(ctx, q.address, q.method, q.body, q.header...)
		c.close()
		if err == nil {
			err = a.check(q.what, status, words, q.want, "")
		}
		if err := over(ctx, err); err != nil || !rest(ctx, 20*time.Millisecond) {
			return err
		}
	}
	return nil
}

// endlessMessages are messages to methods that take one, and a body to one that takes none of that kind.
func endlessMessages(ctx context.Context, a *attacker) error {
	one := frame((&dapr.GetStateRequest{StoreName: "store", Key: "a"}).AppendProto(nil))
	for n := 0; ctx.Err() == nil; n++ {
		c := newClient(true)
		sent := &endless{of: bytes.Repeat(one, 1000)}
		method, want := dapr.MethodDaprGetState, []int{internal}
		if n%2 == 1 {
			method, want = "/no.Service/Method", []int{2}
		}
		res, err := c.open(ctx, a.dapr, method, sent)
		if err == nil {
			_, err = io.ReadAll(res.Body)
			var status int
			var words string
			if err == nil {
				status, words, err = statusOf(res)
			}
			_ = res.Body.Close()
			if err == nil {
				err = a.check(method, status, words, want, "")
			}
		}
		c.close()
		if err != nil {
			return over(ctx, err)
		}
		if !rest(ctx, 50*time.Millisecond) {
			return nil
		}
	}
	return nil
}

// endless is a body without an end.
type endless struct {
	of []byte
	at int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.of[e.at:])
	e.at = (e.at + n) % len(e.of)
	return n, nil
}

// ---- Slow senders

// slowHeads send a byte of a head now and then.
func slowHeads(ctx context.Context, a *attacker) error {
	for ctx.Err() == nil {
		if err := a.trickle(ctx, "GET /v1.0/state/store/a HTTP/1.1\r\nX: ", []int{0, 408}); err != nil {
			return over(ctx, err)
		}
	}
	return nil
}

// slowBodies stop in the midst of a body.
func slowBodies(ctx context.Context, a *attacker) error {
	for ctx.Err() == nil {
		if err := a.stall(ctx, "POST /v1.0/state/store HTTP/1.1\r\nHost: x\r\nDapr-Api-Token: "+token+"\r\nContent-Length: 4000000\r\n\r\n"+strings.Repeat("[", 1<<20), []int{408, 429}); err != nil {
			return over(ctx, err)
		}
	}
	return nil
}

// trickle sends a byte each second until the other side has enough.
func (a *attacker) trickle(ctx context.Context, begin string, want []int) error {
	return a.exchange(ctx, begin, want, func(conn net.Conn) {
		for rest(ctx, time.Second) {
			if _, err := io.WriteString(conn, "x"); err != nil {
				return
			}
		}
	})
}

// stall sends no more.
func (a *attacker) stall(ctx context.Context, begin string, want []int) error {
	return a.exchange(ctx, begin, want, func(net.Conn) {})
}

// exchange begins something and waits for its end, which is the other side's to make, within a minute.
func (a *attacker) exchange(ctx context.Context, begin string, want []int, more func(net.Conn)) error {
	conn, err := net.Dial("tcp", a.http)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := io.WriteString(conn, begin); err != nil {
		a.count("cut off")
		return nil
	}
	go more(conn)
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	b, err := io.ReadAll(conn)
	if e, timeout := errors.AsType[net.Error](err); timeout && e.Timeout() && ctx.Err() == nil {
		return fmt.Errorf("it waited for a slow sender for a minute")
	}
	if ctx.Err() != nil {
		return nil
	}
	status := statusLine(string(b))
	if status == 0 {
		a.count("cut off")
		return nil
	}
	return a.check("a slow sender", status, string(b), want, "")
}

// slowMessages are all but their last byte of the largest that there may be, 200 at a time.
func slowMessages(ctx context.Context, a *attacker) error {
	address, method := a.dapr, dapr.MethodDaprSaveState
	if a.at%2 == 1 {
		address, method = a.layotto, layotto.MethodRuntimeSaveState
	}
	part := frame(make([]byte, mostBytes-1000))
	part = part[:len(part)-1]
	for ctx.Err() == nil {
		c := newClient(true)
		errs := make(chan error, 200)
		for range cap(errs) {
			go func() {
				limit, stop := context.WithTimeout(ctx, 90*time.Second)
				defer stop()
				r, w := io.Pipe()
				defer w.Close()
				res, err := c.open(limit, address, method, io.MultiReader(bytes.NewReader(part), r))
				if err == nil {
					var status int
					var words string
					_, _ = io.ReadAll(res.Body) // the status tells
					_ = res.Body.Close()
					if status, words, err = statusOf(res); err == nil {
						err = a.check("half a message", status, words, []int{invalid, exhausted}, "")
					}
				}
				errs <- over(ctx, err)
			}()
		}
		var first error
		for range cap(errs) {
			first = errors.Join(first, <-errs)
		}
		c.close()
		if first != nil {
			return errors.New(brief(first.Error()))
		}
	}
	return nil
}

// ---- Slow readers

// slowReaders ask for 20 MB and read nothing of it.
func slowReaders(ctx context.Context, a *attacker) error {
	var keys []string
	for i := range larges {
		keys = append(keys, fmt.Sprintf(`"large%d"`, i))
	}
	body := `{"keys": [` + strings.Join(keys, ",") + `]}`
	ask := fmt.Sprintf("POST /v1.0/state/store/bulk HTTP/1.1\r\nHost: x\r\nDapr-Api-Token: %s\r\nContent-Length: %d\r\n\r\n%s", token, len(body), body)
	for ctx.Err() == nil {
		conn, err := net.Dial("tcp", a.http)
		if err != nil {
			return over(ctx, err)
		}
		_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
		if _, err := io.WriteString(conn, ask); err != nil {
			_ = conn.Close()
			return over(ctx, err)
		}
		if rest(ctx, 40*time.Second) {
			_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
			b, err := io.ReadAll(conn)
			switch {
			case statusLine(string(b)) == 429:
				err = a.check("a slow reader", 429, string(b), []int{429}, "large messages hold")
			case err == nil && len(b) > larges*large:
				err = fmt.Errorf("it kept all of an answer of %d bytes for 40 seconds", len(b))
			default:
				a.count("cut off")
				err = nil
			}
			if err != nil {
				_ = conn.Close()
				return over(ctx, err)
			}
		}
		_ = conn.Close()
	}
	return nil
}

// slowMessageReaders do the same over gRPC.
func slowMessageReaders(ctx context.Context, a *attacker) error {
	var keys []string
	for i := range larges {
		keys = append(keys, fmt.Sprint("large", i))
	}
	address, method, m := a.dapr, dapr.MethodDaprGetBulkState, message(&dapr.GetBulkStateRequest{StoreName: "store", Keys: keys})
	if a.at%2 == 1 {
		address, method, m = a.layotto, layotto.MethodRuntimeGetBulkState, &layotto.GetBulkStateRequest{StoreName: "store", Keys: keys}
	}
	for ctx.Err() == nil {
		c := newClient(true)
		res, err := c.open(ctx, address, method, bytes.NewReader(frame(m.AppendProto(nil))))
		if err != nil {
			return over(ctx, err)
		}
		if rest(ctx, 40*time.Second) {
			b, err := io.ReadAll(res.Body)
			status, words, e := statusOf(res)
			switch {
			case e == nil && status == exhausted:
				err = a.check("a slow reader", status, words, []int{exhausted}, "large messages hold")
			case err == nil && len(b) > larges*large:
				err = fmt.Errorf("it kept all of an answer of %d bytes for 40 seconds", len(b))
			default:
				a.count("cut off")
				err = nil
			}
			if err != nil {
				return over(ctx, err)
			}
		}
		_ = res.Body.Close()
		c.close()
	}
	return nil
}

// slowWatchers watch what changes all the time, and read nothing of it.
func slowWatchers(ctx context.Context, a *attacker) error {
	change := newClient(true)
	defer change.close()
	for n := 0; ctx.Err() == nil; n++ {
		c := newClient(true)
		watch := &layotto.SubscribeConfigurationRequest{StoreName: "settings", AppId: "mesh", Keys: []string{fmt.Sprint("slow", a.at)}}
		r, w := io.Pipe()
		go func() { _, _ = w.Write(frame(watch.AppendProto(nil))) }() // it is open as long as the stream
		head := make(chan *closer, 1)
		go func() {
			res, err := c.open(ctx, a.layotto, layotto.MethodRuntimeSubscribeConfiguration, r)
			if err != nil {
				head <- nil
				return
			}
			head <- &closer{res.Body}
		}()
		value := strings.Repeat("x", 500<<10)
		for i := range 40 { // five times what a stream may be behind
			m := &layotto.SaveConfigurationRequest{StoreName: "settings", AppId: "mesh", Items: []layotto.ConfigurationItem{{Key: fmt.Sprint("slow", a.at), Content: fmt.Sprint(n, i, value)}}}
			status, words, err := change.call(ctx, a.layotto, layotto.MethodRuntimeSaveConfiguration, frame(m.AppendProto(nil)))
			if err == nil {
				err = a.check("a change", status, words, []int{ok, exhausted}, "")
			}
			if err != nil {
				return over(ctx, err)
			}
		}
		rest(ctx, 20*time.Second)
		_ = w.Close()
		if h := <-head; h != nil {
			_ = h.Close()
		}
		c.close()
	}
	return nil
}

type closer struct{ io.ReadCloser }

// sameKey asks for one large value a thousand times at once.
func sameKey(ctx context.Context, a *attacker) error {
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = "large0"
	}
	text := `{"keys": ["` + strings.Join(keys, `","`) + `"]}`
	for n := 0; ctx.Err() == nil; n++ {
		c := newClient(n%3 > 0)
		var size int
		var err error
		switch n % 3 {
		case 0:
			var answer string
			_, answer, err = c.ask(ctx, "POST", "http://"+a.http+"/v1.0/state/store/bulk", text)
			size = len(answer)
		case 1:
			var answer string
			_, answer, err = c.call(ctx, a.dapr, dapr.MethodDaprGetBulkState, frame((&dapr.GetBulkStateRequest{StoreName: "store", Keys: keys}).AppendProto(nil)))
			size = len(answer)
		case 2:
			var answer string
			_, answer, err = c.call(ctx, a.layotto, layotto.MethodRuntimeGetBulkState, frame((&layotto.GetBulkStateRequest{StoreName: "store", Keys: keys}).AppendProto(nil)))
			size = len(answer)
		}
		c.close()
		if err == nil && size > 256<<20 {
			err = fmt.Errorf("an answer of %d bytes", size)
		}
		if err := over(ctx, err); err != nil {
			return err
		}
		if ctx.Err() == nil {
			a.count("bounded")
		}
		if !rest(ctx, 2*time.Second) {
			return nil
		}
	}
	return nil
}
