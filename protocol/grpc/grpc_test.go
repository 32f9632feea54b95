package grpc_test

import (
	"errors"
	"math"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol/grpc"
)

func TestIs(t *testing.T) {
	for contentType, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "application/grpc;charset=utf-8": true,
		"application/grpc-web": false, "application/grpcx": false, "application/json": false, "": false,
	} {
		if got := grpc.Is(contentType); got != want {
			t.Errorf("Is(%q) = %t", contentType, got)
		}
	}
}

func TestParseTimeout(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "3S": 3 * time.Second, "4m": 4 * time.Millisecond, "5u": 5 * time.Microsecond,
		"99999999n": 99999999, "0S": 0, "99999999H": math.MaxInt64,
	} {
		if got, ok := grpc.ParseTimeout(value); !ok || got != want {
			t.Errorf("ParseTimeout(%q) = %v, %t, want %v", value, got, ok, want)
		}
	}
	for _, value := range []string{"", "1", "S", "1s", "-1S", "1.5S", "123456789S", " 1S", "1 S", "1S "} {
		if got, ok := grpc.ParseTimeout(value); ok {
			t.Errorf("ParseTimeout(%q) = %v, want a refusal", value, got)
		}
	}
}

func TestErrorResponse(t *testing.T) {
	err := &loam.Error{Code: loam.Unavailable, Op: "app", Err: errors.New("niemand hört zu 100%\n"), Hint: "start it"}
	res := grpc.ErrorResponse(err)
	if res.Status != 200 || res.Header.Get("Content-Type") != "application/grpc" || res.Header.Get("grpc-status") != "14" {
		t.Errorf("status %d, header %v", res.Status, res.Header)
	}
	message, bad := url.PathUnescape(res.Header.Get("grpc-message"))
	if want := "app: unavailable: niemand hört zu 100%\n (start it)"; bad != nil || message != want {
		t.Errorf("message %q, %v, want %q", message, bad, want)
	}
	if code, ok := grpc.ParseCode(res.Header); !ok || code != loam.Unavailable {
		t.Errorf("Status = %v, %t", code, ok)
	}
	if res := grpc.ErrorResponse(errors.New("secret")); strings.Contains(res.Header.Get("grpc-message"), "secret") {
		t.Error("the words of an error that nobody classified reach a stranger")
	}
	long := grpc.EncodeMessage(strings.Repeat("ä", 1<<16))
	if len(long) > 5<<10 {
		t.Errorf("a message of %d bytes", len(long))
	}
}
