package policy

import (
	"bytes"
	"cmp"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"

	"github.com/loam-run/loam"
)

// CompressionConfig makes answers smaller for who accepts it. Zero fields take the default beside them.
type CompressionConfig struct {
	Algorithms []string // br, zstd, gzip or deflate, the first the most wanted among those a client likes as much; gzip
	MinSize    int64    // bytes of a body that is known to be smaller go as they are; 1024
	Types      []string // media types, "text/*" for all of text; text/*, JSON, JavaScript, XML, Wasm and SVG
	AtOnce     int      // bodies that are compressed at once, each of which takes 1 MB; what is beyond goes as it is; 128
}

// Compression compresses the bodies of answers (RFC 9110, section 8.4) as they pass. What is compressed already, a part of
// something (206), or marked no-transform goes as it is. A body of unknown length is handed on piece by piece as it comes,
// so that streams of events stay streams. An entity tag becomes a weak one, since the bytes are not those it was for.
func Compression(c CompressionConfig) (loam.Policy, error) {
	if len(c.Algorithms) == 0 {
		c.Algorithms = []string{"gzip"}
	}
	if c.MinSize == 0 {
		c.MinSize = 1024
	}
	if len(c.Types) == 0 {
		c.Types = []string{"text/*", "application/json", "application/javascript", "application/xml", "application/wasm", "image/svg+xml"}
	}
	c.AtOnce = cmp.Or(c.AtOnce, 128)
	p := &compression{c: c}
	for _, name := range c.Algorithms {
		if newEncoder(name) == nil {
			return nil, loam.Errorf(loam.InvalidArgument, "compression", "%q is no algorithm: write br, zstd, gzip or deflate", name)
		}
		p.pools = append(p.pools, &sync.Pool{New: func() any { return &squeezer{encoder: newEncoder(name), in: new([16 << 10]byte)} }})
	}
	return func(next loam.Target) loam.Target {
		return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			algorithm := negotiate(req.Header, c.Algorithms) // before the target may change the header
			res, err := next.Serve(req)
			if err == nil && p.fits(req, res) {
				vary(&res.Header, "Accept-Encoding")
				if algorithm >= 0 && req.Method != "HEAD" && p.begin() {
					p.compress(res, algorithm)
				}
			}
			return res, err
		})
	}, nil
}

// encoder is what all algorithms have in common.
type encoder interface {
	io.WriteCloser
	Flush() error
	Reset(io.Writer)
}

// newEncoder makes one, at a level that keeps up with a network. Windows are small, since many bodies are compressed at once.
// It is nil where the name is no algorithm's.
func newEncoder(name string) encoder {
	switch name {
	case "gzip":
		w, _ := gzip.NewWriterLevel(io.Discard, 4) // it fails for no such level
		return w
	case "deflate":
		w, _ := zlib.NewWriterLevel(io.Discard, 4) // likewise
		return w
	case "br":
		return brotli.NewWriterOptions(io.Discard, brotli.WriterOptions{Quality: 4, LGWin: 16})
	case "zstd":
		w, err := zstd.NewWriter(io.Discard, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(128<<10), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic("zstd: " + err.Error()) // the options are constants
		}
		return w
	}
	return nil
}

type compression struct {
	c     CompressionConfig
	pools []*sync.Pool // of *squeezer, one for each of c.Algorithms
	inUse atomic.Int64
}

// fits tells whether an answer is one to compress, for who accepts it.
func (p *compression) fits(req *loam.Request, res *loam.Response) bool {
	switch {
	case res.Tunnel != nil, res.Status == 204, res.Status == 206, res.Status == 304,
		res.Body == nil && req.Method != "HEAD", res.Length >= 0 && res.Length < p.c.MinSize && req.Method != "HEAD":
		return false
	}
	if e := res.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") || res.Header.Has("Content-Range") {
		return false
	}
	if strings.Contains(strings.ToLower(res.Header.Get("Cache-Control")), "no-transform") {
		return false
	}
	media, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";")
	media = strings.ToLower(strings.Trim(media, " \t"))
	return media != "" && slices.ContainsFunc(p.c.Types, func(t string) bool {
		if all, ok := strings.CutSuffix(t, "*"); ok {
			return strings.HasPrefix(media, all)
		}
		return media == t
	})
}

// begin counts a body as being compressed, where it may be.
func (p *compression) begin() bool {
	if p.inUse.Add(1) <= int64(p.c.AtOnce) {
		return true
	}
	p.inUse.Add(-1)
	return false
}

func (p *compression) compress(res *loam.Response, algorithm int) {
	h := &res.Header
	for _, name := range []string{"Content-Length", "Content-MD5", "Content-Digest", "Accept-Ranges"} { // of bytes that nobody gets
		h.Del(name)
	}
	h.Set("Content-Encoding", p.c.Algorithms[algorithm])
	if tag := h.Get("ETag"); strings.HasPrefix(tag, `"`) {
		h.Set("ETag", "W/"+tag)
	}
	pool := p.pools[algorithm]
	s := pool.Get().(*squeezer)
	s.out.Reset()
	s.encoder.Reset(&s.out)
	res.Body = &squeezed{from: res.Body, squeezer: s, pool: pool, inUse: &p.inUse, stream: res.Length < 0}
	res.Length = -1
}

// squeezer is what is costly to make.
type squeezer struct {
	encoder encoder
	in      *[16 << 10]byte
	out     bytes.Buffer
}

// squeezed is a body that is compressed while it is read.
type squeezed struct {
	from io.ReadCloser
	*squeezer
	pool   *sync.Pool
	inUse  *atomic.Int64
	stream bool  // what there is is handed on before more is waited for
	err    error // what follows what is in out
}

func (b *squeezed) Read(p []byte) (int, error) {
	if b.squeezer == nil {
		return 0, io.ErrClosedPipe
	}
	for b.out.Len() == 0 && b.err == nil {
		b.fill()
	}
	if b.out.Len() > 0 {
		return b.out.Read(p)
	}
	return 0, b.err
}

// fill reads a piece and compresses it. What the encoder writes goes to memory: it cannot fail but for a bug of its own.
func (b *squeezed) fill() {
	n, err := b.from.Read(b.in[:])
	if _, bad := b.encoder.Write(b.in[:n]); bad != nil {
		b.err = bad
		return
	}
	switch {
	case err == io.EOF:
		if b.err = b.encoder.Close(); b.err == nil {
			b.err = io.EOF
		}
	case err != nil:
		b.err = err
	case b.stream && n > 0 && n < len(b.in):
		b.err = b.encoder.Flush()
	}
}

// Buffered is how many bytes a Read gives without waiting.
func (b *squeezed) Buffered() int {
	if b.squeezer == nil {
		return 0
	}
	return b.out.Len()
}

// Close gives the encoder back, once: the body below may be another's after that.
func (b *squeezed) Close() error {
	s := b.squeezer
	if s == nil {
		return nil
	}
	b.squeezer = nil
	b.inUse.Add(-1)
	if s.out.Cap() <= 256<<10 {
		s.encoder.Reset(io.Discard)
		b.pool.Put(s)
	}
	return b.from.Close()
}

// negotiate picks an algorithm by the field Accept-Encoding (RFC 9110, section 12.5.3): the one with the highest weight and,
// among those, the first of algorithms; -1: none, or none that is liked better than no compression.
func negotiate(h loam.Header, algorithms []string) int {
	best, most := -1, 0
	for i, name := range algorithms {
		if q := weight(h, name); q > most {
			best, most = i, q
		}
	}
	if namedWeight(h, "identity") > most {
		return -1
	}
	return best
}

// weight is what a client gives an encoding, from 0 to 1000, by name or by *.
func weight(h loam.Header, name string) int {
	if q := namedWeight(h, name); q >= 0 {
		return q
	}
	return max(namedWeight(h, "*"), 0)
}

// namedWeight is the weight of an encoding that is named, -1 where it is not.
func namedWeight(h loam.Header, name string) int {
	for i := range h {
		if len(h[i].Name) != 15 || !strings.EqualFold(h[i].Name, "Accept-Encoding") {
			continue
		}
		for one := range strings.SplitSeq(h[i].Value, ",") {
			encoding, parameter, weighted := strings.Cut(one, ";")
			encoding = strings.Trim(encoding, " \t")
			if !strings.EqualFold(encoding, name) && (name != "gzip" || !strings.EqualFold(encoding, "x-gzip")) {
				continue
			}
			if !weighted {
				return 1000
			}
			return quality(parameter)
		}
	}
	return -1
}

// quality reads a weight (RFC 9110, section 12.4.2); 0 where it is none.
func quality(parameter string) int {
	value, ok := strings.CutPrefix(strings.ToLower(strings.Trim(parameter, " \t")), "q=")
	if !ok || len(value) > 5 {
		return 0
	}
	q, err := strconv.ParseFloat(value, 64)
	if err != nil || !(q >= 0 && q <= 1) {
		return 0
	}
	return int(q * 1000)
}
