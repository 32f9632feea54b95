// Package nethttp carries requests from net/http to targets, for what is served by it: the admin endpoint.
package nethttp

import (
	"cmp"
	"crypto/rand"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
)

// Handler serves a target by net/http. Bodies stream both ways; a target's panic is its request's 500 and nobody
// else's trouble.
func Handler(target loam.Target, o protocol.Options) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		req := FromHTTP(r)
		defer req.Release()
		status, sent := http.StatusInternalServerError, int64(0)
		defer func() {
			if req.Observer != nil {
				req.Observer.Observe(req, status, sent, time.Since(start))
			}
		}()
		res, err := (*loam.Response)(nil), refuse(r, o.MaxBody)
		if err == nil {
			if o.MaxBody > 0 && req.Body != nil {
				req.Body = http.MaxBytesReader(w, req.Body, o.MaxBody)
			}
			res, err = protocol.Serve(target, req, o.Log)
		}
		if err != nil {
			res = protocol.ErrorResponse(err, req.ID)
		}
		status = cmp.Or(res.Status, http.StatusOK)
		sent, err = send(w, r.Method, res, req.ID)
		if err != nil && r.Context().Err() == nil {
			o.Log.Warn("answer broken off", "request", req.ID, "path", req.Path, "error", err)
			panic(http.ErrAbortHandler) // so that the peer sees a broken answer and not a short one
		}
	})
}

// refuse is the error of a request that no target shall see.
func refuse(r *http.Request, maxBody int64) error {
	switch {
	case r.Method == http.MethodConnect:
		return loam.Errorf(loam.Unimplemented, "request", "CONNECT: this is no forward proxy")
	case maxBody > 0 && r.ContentLength > maxBody:
		return protocol.TooLarge(maxBody)
	}
	return nil
}

// FromHTTP makes a request of net/http's. The header Host is the Authority; hop-by-hop fields are left out.
func FromHTTP(r *http.Request) *loam.Request {
	req := loam.NewRequest(r.Context())
	req.Method, req.Authority, req.Remote = r.Method, r.Host, r.RemoteAddr
	req.Scheme = "http"
	if r.TLS != nil {
		req.Scheme = "https"
	}
	req.Path, req.RawQuery = r.URL.EscapedPath(), r.URL.RawQuery
	if req.Path == "" {
		req.Path = "/"
	}
	req.Header = appendFields(req.Header, r.Header)
	if req.ID = req.Header.Get(protocol.RequestID); !protocol.ValidID(req.ID) {
		req.ID = rand.Text()
		req.Header.Set(protocol.RequestID, req.ID)
	}
	if req.Length = r.ContentLength; r.Body != nil && r.Body != http.NoBody {
		req.Body = r.Body
	}
	return req
}

// appendFields adds net/http's header, without the fields that end here and those that Connection names.
func appendFields(to loam.Header, from http.Header) loam.Header {
	var named []string
	for _, v := range from["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			named = append(named, http.CanonicalHeaderKey(strings.TrimSpace(name)))
		}
	}
next:
	for name, values := range from {
		if protocol.HopByHop(name) {
			continue
		}
		for _, n := range named {
			if n == name {
				continue next
			}
		}
		for _, v := range values {
			to.Add(name, v)
		}
	}
	return to
}

// send writes an answer and tells how many bytes its body had.
func send(w http.ResponseWriter, method string, res *loam.Response, id string) (sent int64, err error) {
	defer func() { _ = res.Close() }() // the answer was sent whole by then, or err says that it was not
	status := cmp.Or(res.Status, http.StatusOK)
	h := w.Header()
	for _, f := range res.Header {
		if name := http.CanonicalHeaderKey(f.Name); !protocol.HopByHop(name) && name != "Content-Length" {
			h[name] = append(h[name], f.Value)
		}
	}
	if h.Get(protocol.RequestID) == "" {
		h.Set(protocol.RequestID, id)
	}
	bodiless := status == http.StatusNoContent || status == http.StatusNotModified
	head := method == http.MethodHead
	known := res.Length >= 0 && (res.Body != nil || res.Length == 0)
	if !bodiless && (head && res.Length > 0 || !head && known) {
		h.Set("Content-Length", strconv.FormatInt(res.Length, 10))
	}
	w.WriteHeader(status)
	switch {
	case bodiless || head || res.Body == nil:
		return 0, nil
	case known:
		sent, err = io.Copy(w, res.Body)
		if err == nil && sent != res.Length {
			err = io.ErrUnexpectedEOF
		}
	default:
		sent, err = stream(w, res.Body)
	}
	for _, f := range res.Trailer {
		h.Add(http.TrailerPrefix+f.Name, f.Value)
	}
	return sent, err
}

// stream copies a body whose end is not known, handing on what there is as it comes: the head first, for a stream of
// events opens long before the first of them.
func stream(w http.ResponseWriter, body io.Reader) (sent int64, err error) {
	flush := http.NewResponseController(w)
	if err := flush.Flush(); err != nil {
		return 0, err
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return sent, err
			}
			sent += int64(n)
			if err := flush.Flush(); err != nil {
				return sent, err
			}
		}
		if err == io.EOF {
			return sent, nil
		}
		if err != nil {
			return sent, err
		}
	}
}
