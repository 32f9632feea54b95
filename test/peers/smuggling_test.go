//go:build peers

package peers

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/loam-run/loam/protocol/http1/http1test"
)

var update = flag.Bool("update", false, "rewrite what is expected")

const golden = "testdata/smuggling.txt"

// laxer are the cases that Loam takes and nginx refuses, each with the reason.
var laxer = map[string]string{
	"TE tab before":    "a tab is whitespace as a blank is (RFC 9110, section 5.6.3); what goes on has a blank",
	"CL blanks around": "likewise; what goes on has one blank",
	"OPTIONS of all":   "it is a request of its own kind (RFC 9112, section 3.2.4)",
	"dots in target":   "the route is found, and policies are asked, for the path without dots; the target gets what was sent",
}

// next is what is sent behind a case: whoever reads the case otherwise than it is meant reads this otherwise, too.
const next = "GET /next HTTP/1.1\r\nHost: next\r\nConnection: close\r\n\r\n"

// A verdict is what became of what a client sent on a connection.
type verdict struct {
	answers []answer
	reached []message // the upstream
}

type answer struct {
	status int
	saw    string // the request that the upstream gave it to
}

func (v verdict) String() string {
	var b strings.Builder
	for i, a := range v.answers {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(strconv.Itoa(a.status))
	}
	if len(v.answers) == 0 {
		b.WriteString("closed")
	}
	for i, m := range v.reached {
		b.WriteString([]string{": ", ", "}[min(i, 1)] + m.String())
	}
	return b.String()
}

// whole are the requests that reached the upstream, but for those that were broken off.
func (v verdict) whole() (all []message) {
	for _, m := range v.reached {
		if m.whole {
			all = append(all, m)
		}
	}
	return all
}

// TestSmuggling sends each case of the corpus to Loam and to nginx before the same upstream, alone and with another
// request behind it. Loam takes nothing that nginx refuses; one request never becomes two, nor another; and what stands
// behind it is answered as the request that it is, or not at all.
func TestSmuggling(t *testing.T) {
	up := newUpstream(t)
	beside, version := nginx(t, up.address())
	theirs := verdicts(t, up, beside)
	var ours map[string][2]verdict
	for name, goroutines := range map[string]bool{"loops": false, "goroutines": true} {
		t.Run(name, func(t *testing.T) {
			got := verdicts(t, up, loam(t, up.address(), goroutines))
			for _, c := range http1test.Corpus() {
				judge(t, c, got[c.Name], theirs[c.Name])
				for i := range got[c.Name] {
					if ours != nil && got[c.Name][i].String() != ours[c.Name][i].String() {
						t.Errorf("%s: %s, the other engine %s", c.Name, got[c.Name][i], ours[c.Name][i])
					}
				}
			}
			ours = got
		})
	}
	if t.Failed() && !*update {
		return
	}
	compare(t, table(version, theirs, ours))
}

func verdicts(t *testing.T, up *upstream, f front) map[string][2]verdict {
	t.Helper()
	all := map[string][2]verdict{}
	for _, c := range http1test.Corpus() {
		all[c.Name] = [2]verdict{exchange(t, up, f, c.Raw, ""), exchange(t, up, f, c.Raw, next)}
	}
	return all
}

func judge(t *testing.T, c http1test.Case, ours, theirs [2]verdict) {
	t.Helper()
	alone, pair := ours[0].whole(), ours[1].whole()
	for i, m := range append(ours[0].reached, ours[1].reached...) {
		if m.behind != "" {
			t.Errorf("%s: request %d: %s", c.Name, i, m)
		}
		if strings.Contains(m.fields, "upgrade") && strings.Contains(m.fields, "h2c") {
			t.Errorf("%s: the upstream is asked to change to HTTP/2 on a connection that passes by all policies", c.Name)
		}
	}
	switch { // whether it is taken is the same with both, and as the corpus has it
	case len(alone) > 1:
		t.Errorf("%s: it became %d requests: %s", c.Name, len(alone), ours[0])
	case c.Status != 0 && len(alone) > 0:
		t.Errorf("%s: refused with %d, but it reached the upstream: %s", c.Name, c.Status, ours[0])
	case c.Status != 0 && (len(ours[0].answers) != 1 || ours[0].answers[0].status != c.Status):
		t.Errorf("%s: %s, want %d", c.Name, ours[0], c.Status)
	case c.Status != 0 && (len(pair) > 0 || len(ours[1].answers) != 1):
		t.Errorf("%s: what stands behind a request that is refused must go the same way: %s", c.Name, ours[1])
	case c.Status == 0 && len(ours[0].answers) != 1:
		t.Errorf("%s: %s", c.Name, ours[0])
	case c.Status == 0 && len(alone) == 1 && (len(pair) == 0 || pair[0].String() != alone[0].String() || pair[0].body != alone[0].body):
		t.Errorf("%s: with another request behind it it is another: %s and %s", c.Name, ours[0], ours[1])
	case len(pair) > 2 || len(pair) == 2 && pair[1].String() != "GET /next 0":
		t.Errorf("%s: what stands behind it became %s", c.Name, ours[1])
	}
	for i, a := range ours[1].answers {
		if a.saw != "" && a.saw != pair[i].line {
			t.Errorf("%s: the answer to %s is given to request %d", c.Name, a.saw, i)
		}
	}
	their := theirs[0].whole()
	switch reason := laxer[c.Name]; {
	case len(alone) > 0 && len(their) == 0 && reason == "":
		t.Errorf("%s: taken as %s, nginx refuses: %s", c.Name, ours[0], theirs[0])
	case reason != "" && (len(alone) == 0 || len(their) > 0):
		t.Errorf("%s: is no case that we take and nginx refuses: %s, %s", c.Name, ours[0], theirs[0])
	case len(alone) > 0 && len(their) > 0 && (alone[0].line != their[0].line || alone[0].body != their[0].body):
		t.Errorf("%s: %s, nginx has %s", c.Name, ours[0], theirs[0])
	}
}

// exchange sends raw on a connection of its own and reads what is answered until that is closed.
func exchange(t *testing.T, up *upstream, f front, raw, behind string) verdict {
	t.Helper()
	c, err := f.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, raw+behind); err != nil {
		t.Fatal(err)
	}
	var v verdict
	for r := bufio.NewReader(c); ; {
		first, err := r.Peek(5)
		if len(first) == 0 {
			if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("%q: nobody closes the connection", raw)
			}
			break
		}
		if string(first) != "HTTP/" { // an answer to a request of HTTP/0.9, which is a body and nothing else
			_, _ = io.Copy(io.Discard, r)
			v.answers = append(v.answers, answer{status: 9})
			break
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("%q is answered with what is none: %v", raw, err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		if res.StatusCode == http.StatusContinue {
			continue
		}
		v.answers = append(v.answers, answer{res.StatusCode, res.Header.Get("X-Saw")})
		if behind == "" && len(v.answers) == 1 { // whoever has more to say may, but nobody waits for us
			if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil && !errors.Is(err, net.ErrClosed) {
				break // it is closed at the other end
			}
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	v.reached = up.take(t)
	return v
}

// table is what is expected: a paragraph for each case.
func table(version string, theirs, ours map[string][2]verdict) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "What becomes of each case of http1test.Corpus, alone and with another request behind it: the answers' statuses, and what\nreaches the upstream with the length of its body. Beside Loam: %s. 9 is an answer without a head.\n", version)
	taken := [2]int{}
	for _, c := range http1test.Corpus() {
		fmt.Fprintf(&b, "\n%s %q\n", c.Name, c.Raw)
		for i, v := range [][2]verdict{theirs[c.Name], ours[c.Name]} {
			fmt.Fprintf(&b, "  %-6s %s\n         %s\n", []string{"nginx", "loam"}[i], v[0], v[1])
			if len(v[0].whole()) > 0 {
				taken[i]++
			}
		}
	}
	fmt.Fprintf(&b, "\n%d cases: nginx takes %d, Loam %d.\n", len(http1test.Corpus()), taken[0], taken[1])
	return b.Bytes()
}

func compare(t *testing.T, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(golden, got, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatalf("%v: make it with: go test -tags peers -run TestSmuggling ./test/peers -update", err)
	}
	if bytes.Equal(got, want) {
		return
	}
	g, w := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
	for i := range max(len(g), len(w)) {
		if i >= len(g) || i >= len(w) || !bytes.Equal(g[i], w[i]) {
			t.Fatalf("%s differs at line %d (nginx of another version? -update rewrites it):\n%s\nwant:\n%s", golden, i+1, line(g, i), line(w, i))
		}
	}
}

func line(all [][]byte, i int) []byte {
	if i < len(all) {
		return all[i]
	}
	return []byte("(the end)")
}
