package policy

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"github.com/loam-run/loam"
)

// expand undoes a content encoding, by other code than that which made it where there is some.
func expand(encoding string, r io.Reader) (io.Reader, error) {
	switch encoding {
	case "gzip":
		return gzip.NewReader(r)
	case "deflate":
		return zlib.NewReader(r)
	case "br":
		return brotli.NewReader(r), nil
	case "zstd":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return r, nil
}

func compressed(t testing.TB, c CompressionConfig, req *loam.Request, res *loam.Response) *loam.Response {
	t.Helper()
	p, err := Compression(c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := p(&fixed{res: res}).Serve(req)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func text(body string, header ...string) *loam.Response {
	res := status(200, append([]string{"Content-Type", "text/plain; charset=utf-8"}, header...)...)
	res.Body, res.Length = io.NopCloser(strings.NewReader(body)), int64(len(body))
	return res
}

// What is compressed is what comes out, by every algorithm, whole and in pieces, again and again by the same encoders.
func TestCompressionRoundTrip(t *testing.T) {
	bodies := []string{strings.Repeat("loam ", 1000), strings.Repeat("x", 300<<10), strings.Repeat("abcdefghij", 1<<10) + "é"}
	for _, name := range []string{"gzip", "deflate", "br", "zstd"} {
		p, err := Compression(CompressionConfig{Algorithms: []string{name}})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			for _, body := range bodies {
				for _, unknown := range []bool{false, true} {
					res := text(body, "ETag", `"v1"`, "Content-Length", "5", "Accept-Ranges", "bytes")
					if unknown {
						res.Length = -1
					}
					res, err := p(&fixed{res: res}).Serve(get(t, "/", "Accept-Encoding", "br, zstd, gzip, deflate"))
					if err != nil {
						t.Fatal(err)
					}
					if res.Length != -1 || res.Header.Get("Content-Encoding") != name || res.Header.Get("ETag") != `W/"v1"` ||
						res.Header.Get("Vary") != "Accept-Encoding" || res.Header.Has("Content-Length") || res.Header.Has("Accept-Ranges") {
						t.Errorf("%s: %+v", name, res)
					}
					small, err := io.ReadAll(res.Body)
					if err != nil || len(small) > len(body)/4 {
						t.Errorf("%s: %d bytes of %d, %v", name, len(small), len(body), err)
					}
					r, err := expand(name, bytes.NewReader(small))
					if err != nil {
						t.Fatal(err)
					}
					if got, err := io.ReadAll(r); string(got) != body || err != nil {
						t.Errorf("%s: %d bytes of %d came back, %v", name, len(got), len(body), err)
					}
					for range 2 {
						if err := res.Close(); err != nil {
							t.Error(err)
						}
					}
					if _, err := res.Body.Read(make([]byte, 1)); err == nil {
						t.Error("a body that was closed is read: its encoder may be another's")
					}
				}
			}
		}
	}
}

// What is left as it is.
func TestCompressionLeaves(t *testing.T) {
	long := strings.Repeat("loam ", 1000)
	gz := []string{"Accept-Encoding", "gzip"}
	with := func(change func(*loam.Response)) *loam.Response {
		res := text(long)
		change(res)
		return res
	}
	for _, c := range []struct {
		name   string
		header []string
		method string
		res    *loam.Response
		vary   bool
	}{
		{"not accepted", nil, "GET", text(long), true},
		{"something else accepted", []string{"Accept-Encoding", "br"}, "GET", text(long), true},
		{"small", gz, "GET", text("small"), false},
		{"another type", gz, "GET", with(func(r *loam.Response) { r.Header.Set("Content-Type", "image/png") }), false},
		{"no type", gz, "GET", with(func(r *loam.Response) { r.Header.Del("Content-Type") }), false},
		{"compressed already", gz, "GET", text(long, "Content-Encoding", "br"), false},
		{"no-transform", gz, "GET", text(long, "Cache-Control", "max-age=1, No-Transform"), false},
		{"a part", gz, "GET", with(func(r *loam.Response) { r.Status = 206 }), false},
		{"a range", gz, "GET", text(long, "Content-Range", "bytes 0-1/2"), false},
		{"no content", gz, "GET", with(func(r *loam.Response) { r.Status, r.Body, r.Length = 204, nil, 0 }), false},
		{"not modified", gz, "GET", with(func(r *loam.Response) { r.Status, r.Body, r.Length = 304, nil, 0 }), false},
		{"HEAD", gz, "HEAD", with(func(r *loam.Response) { r.Body = nil }), true},
		{"gRPC", gz, "POST", with(func(r *loam.Response) { r.Header.Set("Content-Type", "application/grpc") }), false},
	} {
		before := c.res.Header.Get("Content-Encoding")
		req := get(t, "/", c.header...)
		req.Method = c.method
		res := compressed(t, CompressionConfig{}, req, c.res)
		if res.Header.Get("Content-Encoding") != before || (res.Header.Get("Vary") == "Accept-Encoding") != c.vary {
			t.Errorf("%s: %v", c.name, res.Header)
		}
	}
	p, err := Compression(CompressionConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p(&fixed{err: errBroken}).Serve(get(t, "/", gz...)); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	if _, err := Compression(CompressionConfig{Algorithms: []string{"lzma"}}); loam.CodeOf(err) != loam.InvalidArgument {
		t.Error(err)
	}
}

// An event of a stream comes out before the next goes in.
func TestCompressionStreams(t *testing.T) {
	for _, name := range []string{"gzip", "deflate", "br", "zstd"} {
		in, out := io.Pipe()
		res := status(200, "Content-Type", "text/event-stream")
		res.Body, res.Length = in, -1
		res = compressed(t, CompressionConfig{Algorithms: []string{name}}, get(t, "/", "Accept-Encoding", "*"), res)
		plain, piece := io.Pipe()
		done := make(chan error)
		go func() { // what a browser does
			_, err := io.Copy(piece, res.Body)
			done <- errors.Join(err, piece.Close())
		}()
		events := make(chan string)
		go func() {
			defer close(events)
			r, err := expand(name, plain)
			if err != nil {
				events <- err.Error()
				return
			}
			b := make([]byte, 100)
			for {
				n, err := r.Read(b)
				if n > 0 {
					events <- string(b[:n])
				}
				if err != nil {
					return
				}
			}
		}()
		for _, event := range []string{"data: 1\n\n", "data: 2\n\n"} {
			if _, err := out.Write([]byte(event)); err != nil {
				t.Fatal(err)
			}
			if got := <-events; got != event {
				t.Errorf("%s: %q, want %q", name, got, event)
			}
		}
		_ = out.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, more := <-events; more {
			t.Errorf("%s: there is more", name)
		}
		_ = res.Close()
	}
}

// So many bodies are compressed at once and no more: each takes memory.
func TestCompressionAtOnce(t *testing.T) {
	p, err := Compression(CompressionConfig{AtOnce: 2})
	if err != nil {
		t.Fatal(err)
	}
	serve := func() *loam.Response {
		res, err := p(&fixed{res: text(strings.Repeat("loam ", 1000))}).Serve(get(t, "/", "Accept-Encoding", "gzip"))
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	first, second, third := serve(), serve(), serve()
	if !second.Header.Has("Content-Encoding") || third.Header.Has("Content-Encoding") || third.Length != 5000 {
		t.Errorf("%v, %v", second.Header, third.Header)
	}
	for range 2 {
		_ = first.Close()
	}
	if fourth, fifth := serve(), serve(); !fourth.Header.Has("Content-Encoding") || fifth.Header.Has("Content-Encoding") {
		t.Errorf("%v, %v", fourth.Header, fifth.Header)
	}
}

// A body that breaks off breaks off for the client too.
func TestCompressionBroken(t *testing.T) {
	res := text("")
	res.Body, res.Length = io.NopCloser(io.MultiReader(strings.NewReader(strings.Repeat("x", 5000)), errReader{errBroken})), 10_000
	res = compressed(t, CompressionConfig{}, get(t, "/", "Accept-Encoding", "gzip"), res)
	if _, err := io.ReadAll(res.Body); !errors.Is(err, errBroken) {
		t.Error(err)
	}
}

func TestNegotiate(t *testing.T) {
	ours := []string{"br", "zstd", "gzip"}
	for value, want := range map[string]string{
		"": "", "gzip": "gzip", "gzip, br": "br", "gzip;q=1, br;q=0.5": "gzip", "gzip;q=0.5,br;q=0.5": "br", "*": "br", "*;q=0.1": "br",
		"*, br;q=0": "zstd", "gzip;q=0": "", "gzip;q=0, *": "br", "identity": "", "identity, gzip": "gzip", "identity;q=1, gzip;q=0.5": "",
		"identity;q=0, gzip;q=0.001": "gzip", "GZIP": "gzip", "x-gzip": "gzip", "gzip;Q=0.8": "gzip", "gzip ; q=0.8": "gzip", "gzip;q=2": "", "gzip;q=x": "",
		"gzip;q=-1": "", "gzip;level=9": "", ",,": "", "deflate": "", "br;q=1.0, gzip;q=1.00": "br", "gzip;q=NaN": "",
	} {
		got := ""
		if i := negotiate(loam.Header{{Name: "accept-encoding", Value: value}}, ours); i >= 0 {
			got = ours[i]
		}
		if got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
	if i := negotiate(loam.Header{{Name: "Accept-Encoding", Value: "zstd;q=0.1"}, {Name: "Accept-Encoding", Value: "gzip"}}, ours); i != 2 {
		t.Errorf("two fields: %d", i)
	}
}

func FuzzAcceptEncoding(f *testing.F) {
	for _, s := range []string{"gzip", "gzip;q=0.5, *;q=0", "identity;q=0", ";;,,=", "br;q=1e-3", "\xff"} {
		f.Add(s)
	}
	ours := []string{"br", "gzip"}
	f.Fuzz(func(t *testing.T, value string) {
		h := loam.Header{{Name: "Accept-Encoding", Value: value}}
		if i := negotiate(h, ours); i >= len(ours) || i >= 0 && !strings.Contains(strings.ToLower(value), ours[i]) && !strings.Contains(value, "*") {
			t.Errorf("%q: %d, which was not asked for", value, i)
		}
		if q := weight(h, "gzip"); q < 0 || q > 1000 {
			t.Errorf("%q: a weight of %d", value, q)
		}
	})
}

func BenchmarkCompression(b *testing.B) {
	body := strings.Repeat("all that is gold does not glitter, ", 500)
	for _, name := range []string{"gzip", "br", "zstd"} {
		b.Run(name, func(b *testing.B) {
			p, err := Compression(CompressionConfig{Algorithms: []string{name}})
			if err != nil {
				b.Fatal(err)
			}
			buf := make([]byte, 32<<10)
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			req := get(b, "/", "Accept-Encoding", name)
			for b.Loop() {
				res, err := p(&fixed{res: text(body)}).Serve(req)
				if err != nil {
					b.Fatal(err)
				}
				for err == nil {
					_, err = res.Body.Read(buf)
				}
				_ = res.Close()
			}
		})
	}
}
