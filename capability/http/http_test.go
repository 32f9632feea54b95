package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func granted(readOnly bool, names ...string) *loam.Caller {
	return &loam.Caller{Name: "orders", Grants: []loam.Grant{{Capability: "http", Component: Component, Names: names, ReadOnly: readOnly}}}
}

func serve(t *testing.T, h http.HandlerFunc) (address string, s *Sender) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	s = New()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return strings.TrimPrefix(server.URL, "http://"), s
}

func echo(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	w.Header().Set("Location", "/elsewhere")
	w.Header().Add("X-Two", "1")
	w.Header().Add("X-Two", "2")
	w.WriteHeader(302)
	fmt.Fprintf(w, "%s %s %v %s %s %s", r.Method, r.URL, r.Header["X-A"], r.UserAgent(), r.Host, b)
}

func TestSend(t *testing.T) {
	address, s := serve(t, echo)
	send := func(caller *loam.Caller, r api.HttpSendRequest) (*api.HttpSendResponse, error) {
		out, err := s.Methods()["http.Send"](t.Context(), caller, r.AppendProto(nil))
		if err != nil {
			return nil, err
		}
		var resp api.HttpSendResponse
		return &resp, resp.ParseProto(out)
	}
	resp, err := send(granted(false, address), api.HttpSendRequest{
		Url: "http://" + address + "/a?b=c#d", Body: []byte("body"),
		Headers: []api.Header{{Name: "X-A", Value: "1"}, {Name: "x-a", Value: "2"}, {Name: "User-Agent", Value: "test"}, {Name: "Host", Value: "elsewhere"}, {Name: "Connection", Value: "close"}},
	})
	if err != nil || resp.Status != 302 || string(resp.Body) != "POST /a?b=c [1 2] test "+address+" body" {
		t.Errorf("%+v %v", resp, err)
	}
	two := 0
	for _, h := range resp.Headers {
		if h.Name == "X-Two" {
			two++
		}
	}
	if two != 2 {
		t.Errorf("headers: %+v", resp.Headers)
	}
	url := "http://" + address + "/v1/orders"
	for _, c := range []struct {
		what   string
		caller *loam.Caller
		r      api.HttpSendRequest
		code   loam.Code
	}{
		{"a granted host", granted(false, address), api.HttpSendRequest{Url: url, Method: "DELETE"}, loam.OK},
		{"a granted URL", granted(false, "http://"+address+"/v1/*"), api.HttpSendRequest{Url: url}, loam.OK},
		{"by another case", granted(false, address), api.HttpSendRequest{Url: "HTTP://" + address}, loam.OK},
		{"another path", granted(false, "http://"+address+"/v2/*"), api.HttpSendRequest{Url: url}, loam.PermissionDenied},
		{"another scheme", granted(false, "https://"+address+"/*"), api.HttpSendRequest{Url: url}, loam.PermissionDenied},
		{"another host", granted(false, "example.org"), api.HttpSendRequest{Url: url}, loam.PermissionDenied},
		{"another port", granted(false, "127.0.0.1"), api.HttpSendRequest{Url: url}, loam.PermissionDenied},
		{"nobody", nil, api.HttpSendRequest{Url: url}, loam.PermissionDenied},
		{"all hosts are all public ones", granted(false), api.HttpSendRequest{Url: url}, loam.PermissionDenied},
		{"so is a star", granted(false, "*"), api.HttpSendRequest{Url: url}, loam.PermissionDenied},
		{"read", granted(true, address), api.HttpSendRequest{Url: url, Method: "HEAD"}, loam.OK},
		{"write with a grant to read", granted(true, address), api.HttpSendRequest{Url: url, Method: "PUT"}, loam.PermissionDenied},
		{"a way out of the path", granted(false, "http://"+address+"/v1/*"), api.HttpSendRequest{Url: "http://" + address + "/v1/../secret"}, loam.InvalidArgument},
		{"an escaped one", granted(false, "http://"+address+"/v1/*"), api.HttpSendRequest{Url: "http://" + address + "/v1/%2e%2e/secret"}, loam.InvalidArgument},
		{"a user", granted(false, address), api.HttpSendRequest{Url: "http://user:s3cret@" + address}, loam.InvalidArgument},
		{"no host", granted(false, ""), api.HttpSendRequest{Url: "http:///x"}, loam.InvalidArgument},
		{"a file", granted(false), api.HttpSendRequest{Url: "file:///etc/passwd"}, loam.InvalidArgument},
		{"no URL", granted(false), api.HttpSendRequest{Url: ":\x7f"}, loam.InvalidArgument},
		{"a huge URL", granted(false), api.HttpSendRequest{Url: url + strings.Repeat("x", maxURL)}, loam.InvalidArgument},
		{"no method", granted(false, address), api.HttpSendRequest{Url: url, Method: "G T"}, loam.InvalidArgument},
		{"a tunnel", granted(false, address), api.HttpSendRequest{Url: url, Method: "CONNECT"}, loam.InvalidArgument},
		{"a forged line", granted(false, address), api.HttpSendRequest{Url: url, Headers: []api.Header{{Name: "a", Value: "b\r\nc: d"}}}, loam.InvalidArgument},
		{"a forged name", granted(false, address), api.HttpSendRequest{Url: url, Headers: []api.Header{{Name: "a: b\r\nc", Value: "d"}}}, loam.InvalidArgument},
		{"a negative timeout", granted(false, address), api.HttpSendRequest{Url: url, TimeoutMs: -1}, loam.InvalidArgument},
	} {
		_, err := send(c.caller, c.r)
		if loam.CodeOf(err) != c.code || err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, want %v", c.what, err, c.code)
		}
	}
}

func TestAnswersThatDoNotCome(t *testing.T) {
	release := make(chan struct{})
	address, s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			<-release
		case "/large":
			for range MaxBody/(1<<20) + 1 {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		case "/broken":
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("half"))
		}
	})
	defer close(release)
	caller := granted(false, address, "127.0.0.1:1")
	send := func(ctx context.Context, url string, ms int64) error {
		_, err := s.Send(ctx, caller, &api.HttpSendRequest{Url: url, TimeoutMs: ms})
		return err
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		what string
		err  error
		code loam.Code
	}{
		{"slow", send(t.Context(), "http://"+address+"/slow", 20), loam.DeadlineExceeded},
		{"canceled", send(canceled, "http://"+address+"/slow", 0), loam.Canceled},
		{"large", send(t.Context(), "http://"+address+"/large", 0), loam.ResourceExhausted},
		{"broken", send(t.Context(), "http://"+address+"/broken", 0), loam.Unavailable},
		{"refused", send(t.Context(), "http://127.0.0.1:1/", 0), loam.Unavailable},
	} {
		if loam.CodeOf(c.err) != c.code {
			t.Errorf("%s: %v, want %v", c.what, c.err, c.code)
		}
	}
}

func TestPublic(t *testing.T) {
	for a, want := range map[string]bool{
		"93.184.216.34": true, "2606:2800:220:1::1": true, "127.0.0.1": false, "::1": false, "10.1.2.3": false, "192.168.1.1": false,
		"172.16.0.1": false, "169.254.169.254": false, "fe80::1": false, "fd00::1": false, "0.0.0.0": false, "::": false, "100.64.0.1": false,
		"::ffff:127.0.0.1": false, "::ffff:169.254.169.254": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false, "224.0.0.1": false, "255.255.255.255": false,
	} {
		if got := public(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: public %t", a, got)
		}
		if err := publicOnly("tcp", net.JoinHostPort(a, "80"), nil); errors.Is(err, errPrivate) == want {
			t.Errorf("%s: %v", a, err)
		}
	}
}

// However a URL is written, what passes the grant goes to the host that was granted.
func FuzzURL(f *testing.F) {
	for _, u := range []string{"https://api.example.org/v1/x", "http://api.example.org@evil/", "https://API.example.org:443", "https://api.example.org\\@evil/"} {
		f.Add(u)
	}
	caller := granted(false, "api.example.org")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := parse(text)
		if err != nil {
			return
		}
		s := &Sender{}
		if _, err := s.check(caller, u, "GET"); err == nil {
			req, err := http.NewRequest("GET", u.String(), nil)
			if err == nil && !strings.EqualFold(req.URL.Host, "api.example.org") {
				t.Errorf("%q goes to %q", text, req.URL.Host)
			}
		}
	})
}
