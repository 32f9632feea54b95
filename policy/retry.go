package policy

import (
	"cmp"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
	"github.com/loam-run/loam/protocol/grpc"
)

// RetryConfig says when a request is sent again. Zero fields take the default beside them.
type RetryConfig struct {
	Attempts   int           // beside the first; 2; negative: none
	On         Conditions    // OnConnect, OnReset and OnRefusedStream where Statuses and GRPC say nothing either
	Statuses   []int         // of HTTP
	GRPC       []loam.Code   // a gRPC call that ends with one of them before any message is sent again, whatever its method
	Backoff    time.Duration // before the first retry, at most: the pause is chosen at random up to it; it doubles; 25ms
	MaxBackoff time.Duration // it doubles up to here; 250ms, and Backoff at least
	Methods    []string      // that may be repeated though the target may have acted; those that are idempotent (RFC 9110, section 9.2.2)
	Body       int           // bytes of a request's body that are kept to be sent again; a larger one is not; 64 KiB
	Budget     *Budget       // shared by all ways to the target; nil: no bound
	Told       Told
}

// Conditions are ways to fail.
type Conditions uint8

// The conditions. The first three hold for connections, the others for the target's answers and for what stands for them:
// a try that took too long is a 504.
const (
	OnConnect       Conditions = 1 << iota // no connection could be made; any method
	OnReset                                // the connection ended before the answer began, as one does that was kept too long
	OnRefusedStream                        // the target surely did not process it; any method
	OnGatewayError                         // 502, 503, 504
	On5xx                                  // 500 to 599
)

// ParseCondition reads a condition's word in configuration.
func ParseCondition(word string) (Conditions, bool) {
	switch word {
	case "connect":
		return OnConnect, true
	case "reset":
		return OnReset, true
	case "refused-stream":
		return OnRefusedStream, true
	case "gateway-error":
		return OnGatewayError, true
	case "5xx":
		return On5xx, true
	}
	return 0, false
}

// longestRetryAfter bounds the pause that a target may ask for by Retry-After (RFC 9110, section 10.2.3). Who asks for
// longer is passed on to the client.
const longestRetryAfter = 10 * time.Second

// Retry sends a request again that failed, after a pause, as long as its deadline and the budget allow. It never does once
// an answer went on. Of the request's body it keeps what was read, up to c.Body; the request's head is put back to what it
// was before each try.
func Retry(c RetryConfig) loam.Policy {
	c.Attempts = cmp.Or(c.Attempts, 2)
	c.Backoff = cmp.Or(c.Backoff, 25*time.Millisecond)
	c.MaxBackoff = max(cmp.Or(c.MaxBackoff, 250*time.Millisecond), c.Backoff)
	c.Body = cmp.Or(c.Body, 64<<10)
	if c.On == 0 && len(c.Statuses) == 0 && len(c.GRPC) == 0 {
		c.On = OnConnect | OnReset | OnRefusedStream
	}
	var codes uint32
	for _, code := range c.GRPC {
		codes |= 1 << code
	}
	return func(next loam.Target) loam.Target {
		if c.Attempts < 0 {
			return next
		}
		return &retry{next: next, c: c, codes: codes}
	}
}

type retry struct {
	next  loam.Target
	c     RetryConfig
	codes uint32 // c.GRPC, a bit each
}

// errGone is the error of a request that could not be sent again after all.
var errGone = loam.Errorf(loam.Unavailable, "retry", "the target failed, and the request's body is gone")

// attempt is a request as it was before it was tried: what a try changed is put back.
type attempt struct {
	req               *loam.Request
	path, query, host string
	affinity          string
	header            loam.Header
	deadline          time.Time
	enders            int
	body              io.ReadCloser
	replay            replay // has body, where that does not keep itself
	safe              bool   // to be repeated though the target may have acted
	whole             bool   // the body can begin anew by itself
}

var attempts = sync.Pool{New: func() any { return new(attempt) }}

func (p *retry) Serve(req *loam.Request) (*loam.Response, error) {
	p.c.Budget.earn(req.Task())
	a := attempts.Get().(*attempt)
	a.begin(req, p)
	for n := 0; ; n++ {
		res, err := p.next.Serve(req)
		why := p.reason(req, res, err)
		if why == 0 || n == p.c.Attempts || !a.mayRepeat(why, res) {
			a.end()
			return res, err
		}
		pause, ok := p.pause(req, res, n)
		if !ok || !a.hasTime(pause) || !p.afford(req) {
			a.end()
			return res, err
		}
		discard(res)
		if !a.rewind(why) {
			a.end()
			return nil, cmp.Or(err, error(errGone))
		}
		a.restore()
		if err := loam.Sleep(req.Task(), pause); err != nil {
			a.end()
			return nil, err
		}
		p.c.Told.of(req, Retried)
	}
}

func (a *attempt) begin(req *loam.Request, p *retry) {
	a.req, a.path, a.query, a.host, a.affinity = req, req.Path, req.RawQuery, req.Authority, req.Affinity
	a.header = append(a.header[:0], req.Header...)
	a.deadline, a.enders, a.body = req.Deadline(), req.Enders(), req.Body
	a.safe = p.safe(req)
	switch k, keeps := a.body.(keeper); {
	case a.body == nil || !a.safe:
	case atHand(req):
		a.whole = true
	case req.Length > int64(p.c.Body):
	case keeps && k.Keep(p.c.Body):
		a.whole = true
	default:
		a.replay.start(a.body, p.c.Body)
		req.Body = &a.replay
		req.AtEnd(a) // the answer may still be read together with the body: it stays until then
		a.enders++
	}
}

// end keeps nothing of a request that was answered.
func (a *attempt) end() {
	if a.replay.from == nil {
		a.forget()
	}
}

// RequestEnded gives the request its own body back, which is closed with it.
func (a *attempt) RequestEnded() {
	a.req.Body = a.body
	a.forget()
}

func (a *attempt) forget() {
	clear(a.header)
	a.replay.forget()
	a.req, a.body, a.header = nil, nil, a.header[:0]
	a.path, a.query, a.host, a.affinity, a.safe, a.whole = "", "", "", "", false, false
	attempts.Put(a)
}

// restore puts the request back to what it was.
func (a *attempt) restore() {
	req := a.req
	req.EndTry(a.enders)
	req.Path, req.RawQuery, req.Authority = a.path, a.query, a.host
	req.Header = append(req.Header[:0], a.header...)
	req.Affinity = a.affinity // a service does not keep to an endpoint that was tried
	req.SetDeadline(a.deadline)
}

// mayRepeat tells whether the request can be sent again after it failed for that reason, by an answer that is thrown away
// then, or an error.
func (a *attempt) mayRepeat(why Conditions, res *loam.Response) bool {
	switch {
	case !a.safe && why&(OnConnect|OnRefusedStream) == 0:
		return false
	case a.untouched(why):
		return true
	case a.replay.from != nil:
		return a.replay.whole()
	}
	return a.whole || res == nil
}

// untouched tells whether nothing was read of the body.
func (a *attempt) untouched(why Conditions) bool {
	return a.body == nil || why&OnConnect != 0 && a.replay.from == nil
}

// rewind begins the body anew, once nobody reads it any more: where there was an answer, that was closed.
func (a *attempt) rewind(why Conditions) bool {
	if a.untouched(why) {
		return true
	}
	r, ok := a.req.Body.(rewinder)
	return ok && r.Rewind()
}

// safe tells whether a request may be repeated though the target may have acted on it: its method says so, or a key by
// which the target knows it again, or it is a gRPC call and codes of those were asked for.
func (p *retry) safe(req *loam.Request) bool {
	if p.c.Methods == nil && idempotent(req.Method) || slices.Contains(p.c.Methods, req.Method) {
		return true
	}
	return p.codes != 0 && grpc.Is(req.Header.Get("Content-Type")) || req.Header.Has("Idempotency-Key")
}

// reason is why to send the request again: the condition that it met; 0: none.
func (p *retry) reason(req *loam.Request, res *loam.Response, err error) Conditions {
	if err != nil {
		return p.failure(req, err)
	}
	if res.Tunnel != nil {
		return 0
	}
	if p.codes != 0 {
		if code, ok := grpc.ParseCode(res.Header); ok && p.codes>>code&1 != 0 {
			return OnGatewayError
		}
	}
	return p.status(res.Status)
}

func (p *retry) status(status int) Conditions {
	switch {
	case status < 400:
	case p.c.On&On5xx != 0 && status >= 500 && status <= 599:
		return On5xx
	case p.c.On&OnGatewayError != 0 && status >= 502 && status <= 504:
		return OnGatewayError
	case slices.Contains(p.c.Statuses, status):
		return OnGatewayError
	}
	return 0
}

func (p *retry) failure(req *loam.Request, err error) Conditions {
	code := loam.CodeOf(err)
	if code == loam.Canceled || errors.Is(err, errRefused) {
		return 0
	}
	if how := cause(err) & p.c.On; how != 0 {
		return how
	}
	if p.codes>>code&1 != 0 && grpc.Is(req.Header.Get("Content-Type")) {
		return OnGatewayError
	}
	return p.status(protocol.HTTPStatus(code))
}

// cause is which of the conditions of connections an error means; 0: none. Only a client that says so is believed that
// nothing was sent: any request may be sent again then.
func cause(err error) (how Conditions) {
	var op *net.OpError
	switch {
	case errors.Is(err, protocol.ErrConnect):
		how = OnConnect
	case errors.Is(err, protocol.ErrNotProcessed):
		if how = OnRefusedStream; errors.As(err, &op) && op.Op == "dial" {
			how |= OnConnect
		}
	case errors.Is(err, protocol.ErrConnectionLost), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		how = OnReset
	}
	return how
}

// pause is how long to wait before the next try, at random so that clients that failed together do not come back
// together. It is false where none shall follow.
func (p *retry) pause(req *loam.Request, res *loam.Response, n int) (time.Duration, bool) {
	task := req.Task()
	most := p.c.MaxBackoff
	if n < 30 {
		most = min(most, p.c.Backoff<<n)
	}
	d := rand.N(most + 1)
	if res != nil {
		after := retryAfter(res.Header.Get("Retry-After"), task.Now())
		if after > longestRetryAfter {
			return 0, false
		}
		d = max(d, after)
	}
	return d, true
}

// hasTime tells whether the request's time outlasts a pause.
func (a *attempt) hasTime(pause time.Duration) bool {
	return a.deadline.IsZero() || a.req.Task().Now().Add(pause).Before(a.deadline)
}

func (p *retry) afford(req *loam.Request) bool {
	if p.c.Budget.spend(req.Task()) {
		return true
	}
	p.c.Told.of(req, OverBudget)
	return false
}

// retryAfter reads the field Retry-After: seconds or a date; 0 where it says nothing.
func retryAfter(value string, now time.Time) time.Duration {
	if value == "" {
		return 0
	}
	if s, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(s) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
