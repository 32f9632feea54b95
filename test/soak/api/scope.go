//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	dapr "github.com/loam-run/loam/api/dapr"
	layotto "github.com/loam-run/loam/api/layotto"
)

// tokens are wrong, or not there. What needs none is answered without.
func tokens(ctx context.Context, a *attacker) error {
	web, calls := newClient(false), newClient(true)
	defer web.close()
	defer calls.close()
	get := frame((&dapr.GetStateRequest{StoreName: "store", Key: "large0"}).AppendProto(nil))
	for n := 0; ctx.Err() == nil; n++ {
		wrong := []string{"", " ", "open", token + "x", strings.ToUpper(token), strings.Repeat("t", 8000), "' OR 1=1 --"}[n%7]
		for _, path := range []string{"/v1.0/state/store/large0", "/v1.0/metadata", "/v1.0/secrets/vault/open", "/v1.0/invoke/victim/method/x", "/v1.0/healthz/../metadata", "/v1.0/shutdown"} {
			method := "GET"
			if path == "/v1.0/shutdown" {
				method = "POST"
			}
			status, answer, err := web.ask(ctx, method, "http://"+a.http+path, "", "dapr-api-token", wrong)
			if err == nil {
				err = a.check(path, status, answer, []int{401}, "invalid api token")
			}
			if err := over(ctx, err); err != nil {
				return err
			}
		}
		for _, method := range []string{dapr.MethodDaprGetState, "/dapr.proto.runtime.v1.Dapr/Shutdown", "/no.Service/Method", dapr.MethodDaprSubscribeConfiguration} {
			if wrong == " " {
				continue // which is none in HTTP/2 either, and the client does not send it
			}
			status, words, err := calls.call(ctx, a.dapr, method, get, "Dapr-Api-Token", wrong)
			if err == nil {
				err = a.check(method, status, words, []int{unauthenticated}, "")
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

// tricks are names that lead elsewhere where they are taken for paths.
var tricks = []string{
	"../outside", "../../etc/passwd", "/etc/passwd", "..", ".", "a/../../outside", "..\\outside", "....//outside", "%2e%2e/outside", "..%2foutside",
	"\x00", "../outside\x00.txt", "mine\x00", "file:///etc/passwd", "~/outside", "$HOME/outside", "../secrets.json", "../data/admin.token", "/proc/self/environ", "\u2024\u2024/outside",
	strings.Repeat("../", 300) + "etc/passwd", "..;/outside", "CON", "a\nb",
}

// httpPaths are in keys, in secrets' names and in paths themselves.
func httpPaths(ctx context.Context, a *attacker) error {
	c := newClient(false)
	defer c.close()
	for n := 0; ctx.Err() == nil; n++ {
		name := tricks[n%len(tricks)]
		escaped := strings.ReplaceAll(url.QueryEscape(name), ".", "%2E")
		asks := []struct {
			path string
			want []int
		}{
			{"/v1.0/secrets/vault/" + escaped, []int{400, 403, 500}},
			{"/v1.0/secrets/vault/denied", []int{403}},
			{"/v1.0/state/store/" + escaped, []int{204, 400}},
			{"/v1.0/state/theirs/" + escaped, []int{400}},
			{"/v1.0/state/" + escaped + "/large0", []int{400, 404}},
			{"/v1.0/secrets/" + escaped + "/open", []int{401, 403, 404, 500}},
			{"/v1.0/state/store/..%2f..%2fsecrets%2fvault%2fdenied", []int{204}},
			{"/v1.0/state/store/../../secrets/vault/denied", []int{403}},
			{"/v1.0/configuration/settings?key=" + url.QueryEscape(name), []int{200, 204, 400}},
			{"/v1.0/%2e%2e/secrets/vault/denied", []int{400, 404}},
			{"//v1.0//secrets//vault//denied", []int{403}},
		}
		for _, q := range asks {
			status, answer, err := c.ask(ctx, "GET", "http://"+a.http+q.path, "")
			if err == nil && status != 204 {
				err = a.check(q.path, status, answer, q.want, "")
			} else if err == nil {
				err = a.check(q.path, status, "-", q.want, "")
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

// bindingPaths are names of files of a binding, which are below its folder whatever they say.
func bindingPaths(ctx context.Context, a *attacker) error {
	c := newClient(true)
	defer c.close()
	for n := 0; ctx.Err() == nil; n++ {
		for _, op := range []string{"create", "get", "list", "delete"} {
			name := tricks[n%len(tricks)]
			m := &dapr.InvokeBindingRequest{Name: "files", Operation: op, Data: []byte("mine"), Metadata: map[string]string{"fileName": name}}
			if op != "list" && strings.HasSuffix(name, "mine") {
				continue
			}
			status, words, err := c.call(ctx, a.dapr, dapr.MethodDaprInvokeBinding, frame(m.AppendProto(nil)))
			if err == nil {
				err = a.check(fmt.Sprintf("%s of %q", op, name), status, words, []int{ok, invalid, notFound, precondition, internal}, "")
			}
			if err := over(ctx, err); err != nil {
				return err
			}
		}
		if !rest(ctx, 20*time.Millisecond) {
			return nil
		}
	}
	return nil
}

// filePaths are names of files of Layotto's API.
func filePaths(ctx context.Context, a *attacker) error {
	c := newClient(true)
	defer c.close()
	for n := 0; ctx.Err() == nil; n++ {
		name := tricks[n%len(tricks)]
		file := &layotto.FileRequest{StoreName: "disk", Name: name}
		for method, m := range map[string]message{
			layotto.MethodRuntimeGetFile:     &layotto.GetFileRequest{StoreName: "disk", Name: name},
			layotto.MethodRuntimePutFile:     &layotto.PutFileRequest{StoreName: "disk", Name: name, Data: []byte("mine")},
			layotto.MethodRuntimeDelFile:     &layotto.DelFileRequest{Request: file},
			layotto.MethodRuntimeGetFileMeta: &layotto.GetFileMetaRequest{Request: file},
			layotto.MethodRuntimeListFile:    &layotto.ListFileRequest{Request: file},
		} {
			status, words, err := c.call(ctx, a.layotto, method, frame(m.AppendProto(nil)))
			if err != nil && err.Error() == "no message came" {
				status, words, err = ok, "-", nil // an empty file
			}
			if err == nil {
				err = a.check(fmt.Sprintf("%s of %q", method, name), status, words, []int{ok, invalid, notFound, precondition, internal}, "")
			}
			leads := strings.Contains("/"+name+"/", "/../") || strings.HasPrefix(name, "/") || strings.ContainsAny(name, "\x00\\\n") || name == "."
			if err == nil && leads && status == ok && method != layotto.MethodRuntimeListFile {
				err = fmt.Errorf("%s of %q was done", method, name)
			}
			if err := over(ctx, err); err != nil {
				return err
			}
		}
		if !rest(ctx, 20*time.Millisecond) {
			return nil
		}
	}
	return nil
}

// separators are in keys that would be another app's, were they taken.
func separators(ctx context.Context, a *attacker) error {
	c := newClient(true)
	defer c.close()
	for n := 0; ctx.Err() == nil; n++ {
		key := []string{"other||a", "||", "a||", "lock|||a"}[n%4]
		for _, q := range []struct {
			address, method string
			m               message
		}{
			{a.dapr, dapr.MethodDaprGetState, &dapr.GetStateRequest{StoreName: "store", Key: key}},
			{a.dapr, dapr.MethodDaprSaveState, &dapr.SaveStateRequest{StoreName: "store", States: []dapr.StateItem{{Key: key}}}},
			{a.layotto, layotto.MethodRuntimeGetState, &layotto.GetStateRequest{StoreName: "store", Key: key}},
			{a.layotto, layotto.MethodRuntimeSaveState, &layotto.SaveStateRequest{StoreName: "store", States: []layotto.StateItem{{Key: key}}}},
		} {
			status, words, err := c.call(ctx, q.address, q.method, frame(q.m.AppendProto(nil)))
			if err == nil {
				err = a.check(q.method+" of "+key, status, words, []int{invalid}, "can't contain '||'")
			}
			if err := over(ctx, err); err != nil {
				return err
			}
		}
		if !rest(ctx, 20*time.Millisecond) {
			return nil
		}
	}
	return nil
}

// brokenUploads send 32 MB of a file and then end without a word: nothing of it is kept.
func brokenUploads(ctx context.Context, a *attacker) error {
	for n := 0; ctx.Err() == nil; n++ {
		c := newClient(true)
		call, cut := context.WithCancel(ctx)
		first := frame((&layotto.PutFileRequest{StoreName: "disk", Name: fmt.Sprintf("broken/%d/%d", a.at, n)}).AppendProto(nil))
		part := frame((&layotto.PutFileRequest{Data: bytes.Repeat([]byte("x"), 256<<10)}).AppendProto(nil))
		r, w := io.Pipe()
		done := make(chan error, 1)
		go func() {
			res, err := c.open(call, a.layotto, layotto.MethodRuntimePutFile, r)
			if err == nil { // it may be refused, while others hold the memory
				discard(res.Body)
				var status int
				var words string
				if status, words, err = statusOf(res); err == nil {
					err = a.check("an upload", status, words, []int{exhausted}, "large messages hold")
				}
			} else {
				a.count("broken off")
				err = nil
			}
			done <- err
		}()
		_, err := w.Write(first)
		for i := 0; i < 128 && err == nil; i++ {
			_, err = w.Write(part) // it fails when it is refused
		}
		cut()
		_ = w.CloseWithError(errors.New("cut off"))
		err = <-done
		c.close()
		if err != nil {
			return over(ctx, err)
		}
		if !rest(ctx, time.Second) {
			return nil
		}
	}
	return nil
}
