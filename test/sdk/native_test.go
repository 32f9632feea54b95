//go:build sdk

package sdk

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/loam-run/loam/api"
)

// native builds a program of testdata for this machine and runs it on lines.
func native(t *testing.T, lines []string, compiler string, args ...string) []string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	if out, err := exec.Command(compiler, append(args, "-o", program)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s\nis it there? run test/sdk/install.sh", compiler, err, out)
	}
	cmd := exec.Command(program)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes()[max(0, stderr.Len()-4000):])
	}
	got := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(got) != len(lines) {
		t.Fatalf("%d answers to %d lines", len(got), len(lines))
	}
	return got
}

// The C SDK stays within its memory whatever reaches it, and always answers.
func TestCWithSanitizers(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pieces := []string{"/", "hello", "notes", "echo", "locks", "ask", "events", "%", "%2", "%2f", "%00", "%C3%B6", "..", "?", "&", "=", "+", "{name}", "ü", "\xff", "", "a", strings.Repeat("x", 5000)}
	text := func(n int) (s string) {
		for range random.IntN(n) {
			s += pieces[random.IntN(len(pieces))]
		}
		return s
	}
	names := []string{"ce-id", "Ce-SpecVersion", "ce-", "ce-subject", "CE-X", "content-type", "", "x"}
	item := (&api.StateGetResponse{Items: []api.StateItem{{Key: "k", Value: []byte("41"), Etag: "1"}}}).AppendProto(nil)
	answers := [][]byte{nil, item, item[:len(item)-1], []byte("\xff"), (&api.HttpSendResponse{Status: 200, Body: make([]byte, 9000)}).AppendProto(nil),
		(&api.FileGetResponse{Data: []byte("x\x00y"), Metadata: []api.Attribute{{Name: "by", Value: "b"}}}).AppendProto(nil),
		(&api.FileListResponse{Items: []api.FileItem{{Name: "a", Size: -1}}, Prefixes: []string{"", "b/"}, Next: "c"}).AppendProto(nil),
		(&api.JobsGetResponse{Jobs: []api.Job{{Name: "j", Repeats: 1<<32 - 1, Data: []byte{0}, Retries: -1}}}).AppendProto(nil)}
	methods := []string{"GET", "POST", "PUT", "DELETE", "HEAD", "", "ü"}
	var lines []string
	for range 3000 {
		head := api.RequestHead{
			Method: methods[random.IntN(len(methods))], Authority: text(3), Path: "/" + text(6), Query: text(6), Id: "r", Length: int64(random.IntN(3) - 1),
		}
		if random.IntN(2) == 0 {
			head.Path = []string{"/hello/" + text(3), "/notes/" + text(3), "/events/notes", "/ask/a/" + text(4), "/fetch", "/locks/a/b", "/settings", "/visits",
				"/files/" + text(3), "/folder", "/seal/k", "/cipher/k", "/sign/k", "/keys/k", "/bind/" + text(2), "/jobs/" + text(3), "/job/" + text(3), "/tick"}[random.IntN(18)]
		}
		for range random.IntN(5) {
			head.Headers = append(head.Headers, api.Header{Name: names[random.IntN(len(names))], Value: text(5)})
		}
		body := text(8)
		if head.Length >= 0 {
			head.Length = int64(len(body))
		}
		answer := answers[random.IntN(len(answers))]
		if strings.HasPrefix(head.Path, "/hello/") && len(answer) == 0 {
			answer = item // without an item there is nothing to index
		}
		lines = append(lines, fmt.Sprintf("%x %x %x", head.AppendProto(nil), body, answer))
	}
	statuses := map[uint32]int{}
	for i, line := range native(t, lines, "cc", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "testdata/host.c") {
		head, _, _ := strings.Cut(line, " ")
		b, err := hex.DecodeString(head)
		var resp api.ResponseHead
		if err != nil || resp.ParseProto(b) != nil || resp.Status != 0 && (resp.Status < 200 || resp.Status > 599) {
			t.Fatalf("%s was answered %q", lines[i], line)
		}
		statuses[resp.Status]++
	}
	for _, want := range []uint32{200, 204, 400, 404, 405, 500} {
		if statuses[want] == 0 {
			t.Errorf("no request was answered %d: %v", want, statuses)
		}
	}
}

// The Rust SDK reads as JSON what encoding/json does, and nothing else.
func TestRustJSON(t *testing.T) {
	texts := []string{
		`null`, ` true `, `false`, `0`, `-0`, `12`, `-9223372036854775808`, `9223372036854775807`, `9223372036854775808`, `1.5`, `1e3`, `-1.25E-3`, `01`, `1.`, `.5`, `+1`, `-`, `1e`, `--1`, `1-2`,
		`""`, `"a"`, `"\u00fc\n\/\b\f\t\r\\\""`, `"\ud83d\ude00"`, `"\ud83d"`, `"\ud83dx"`, `"\ud83d\u0041"`, `"\ude00"`, `"\x"`, `"\u12"`, `"\u+123"`, "\"\x01\"", "\"\n\"", `"ü😀"`, `"`, `"\`, "\"\xff\"",
		`[]`, `[ ]`, `[1,2]`, `[1,]`, `[,1]`, `[1 2]`, `[`, `]`, `{}`, `{"a":1}`, `{ "a" : [ { "b" : null } ] , "c" : "d" }`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{a:1}`, `{1:2}`, `{"a":1 "b":2}`, `{"a":1,"a":2}`,
		``, ` `, `nul`, `nulll`, `truefalse`, `1 2`, "\ufeff1", "\u00a01", "\v1",
		strings.Repeat("[", 60) + strings.Repeat("]", 60),
	}
	const other = "{}[]\",:\\u0e.-+ \n\xc3"
	random := rand.New(rand.NewPCG(3, 4))
	whole := len(texts)
	for range 3000 { // the same with bytes lost, doubled or turned into others
		b := []byte(texts[random.IntN(whole)])
		for range random.IntN(3) {
			if len(b) == 0 {
				break
			}
			i := random.IntN(len(b))
			switch random.IntN(3) {
			case 0:
				b = append(b[:i:i], b[i+1:]...)
			case 1:
				b = append(b[:i+1:i+1], b[i:]...)
			default:
				b[i] = other[random.IntN(len(other))]
			}
		}
		texts = append(texts, string(b))
	}
	lines := make([]string, len(texts))
	for i, s := range texts {
		lines[i] = hex.EncodeToString([]byte(s))
	}
	read := 0
	for i, got := range native(t, lines, "rustc", "--edition=2021", "-Adead_code", "testdata/json.rs") {
		var want, back any
		err := json.Unmarshal([]byte(texts[i]), &want)
		if strings.ToValidUTF8(texts[i], "") != texts[i] {
			if got != "error" {
				t.Errorf("%q is not UTF-8 and was read as %s", texts[i], got)
			}
			continue
		}
		if (err == nil) != (got != "error") {
			t.Errorf("%q was read as %s; encoding/json says %v", texts[i], got, err)
			continue
		}
		if err != nil {
			continue
		}
		read++
		if err := json.Unmarshal([]byte(got), &back); err != nil || !reflect.DeepEqual(want, back) {
			t.Errorf("%q came back as %q (%v)", texts[i], got, err)
		}
	}
	if read < 300 {
		t.Errorf("only %d texts were JSON", read)
	}
	deep := native(t, []string{hex.EncodeToString([]byte(strings.Repeat("[", 100000)))}, "rustc", "--edition=2021", "-Adead_code", "testdata/json.rs")
	if deep[0] != "error" {
		t.Errorf("what is too deep was read as %.100q", deep[0])
	}
}
