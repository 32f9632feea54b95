package resource

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

var (
	methodForm = regexp.MustCompile(`^[A-Z][A-Z-]*$`)
	mediaForm  = regexp.MustCompile(`^[a-z0-9.+-]+/([a-z0-9.+-]+|\*)$`)
)

func (c *check) policy(p *Policy) {
	gateways := len(p.TargetRefs) > 0
	for i, t := range p.TargetRefs {
		at := fmt.Sprintf("spec.targetRefs[%d].", i)
		c.name(at+"name", t.Name)
		c.name(at+"sectionName", t.SectionName)
		gateways = gateways && t.Kind == "Gateway"
		group := "loam.dev"
		if t.Kind == "Gateway" || strings.HasSuffix(t.Kind, "Route") {
			group = "gateway.networking.k8s.io"
		} else if t.SectionName != "" {
			c.add(at+"sectionName", "a "+t.Kind+" has no sections", "delete it")
		}
		if t.Group != "" && t.Group != group {
			c.add(at+"group", t.Kind+" is not of "+t.Group, "write group: "+group)
		}
		if slices.Contains(p.TargetRefs[:i], t) {
			c.add(at+"name", "is there twice", "keep one of them")
		}
	}
	says := false
	for name := range c.places {
		says = says || strings.HasPrefix(name, "spec.") && !strings.HasPrefix(name, "spec.targetRefs")
	}
	if !says && !c.has("spec") {
		c.add("spec", "says nothing to do", "write timeout, retry, rateLimit or another")
	}
	if p.Connections != nil && !gateways {
		c.add("spec.connections", "is of Gateways, and not all targetRefs are", "put it in a Policy of its own for Gateways")
	}
	c.patience(p)
	c.bounds(p)
	c.callers(p)
	if f := p.Fault; f != nil {
		if f.Delay == nil && f.Abort == nil {
			c.add("spec.fault", "does nothing", "write delay: {duration: 100ms} or abort: {status: 503}")
		}
		if f.Delay != nil {
			c.time("spec.fault.delay.duration", f.Delay.Duration, time.Millisecond, time.Hour)
		}
		if f.Abort != nil {
			c.oneOf("spec.fault.abort", "status: 503", "status", "grpcStatus")
			if f.Abort.Status != 0 {
				c.between("spec.fault.abort.status", f.Abort.Status, 200, 599, "write one such as 503")
			}
		}
	}
	for i, m := range p.Mirror {
		c.mirror(fmt.Sprintf("spec.mirror[%d].", i), m)
	}
	if p.CORS != nil {
		c.cors("spec.cors.", *p.CORS)
	}
	if z := p.Compression; z != nil {
		for i, t := range z.Types {
			if !mediaForm.MatchString(t) {
				c.add(fmt.Sprintf("spec.compression.types[%d]", i), strconv.Quote(t)+" is not a media type", "write one such as application/json or text/*")
			}
		}
	}
	if l := p.AccessLog; l != nil && l.Sample != nil && (*l.Sample < 0 || *l.Sample > 1) {
		c.add("spec.accessLog.sample", fmt.Sprintf("%v is not between 0 and 1", *l.Sample), "write a share, such as 0.01")
	}
}

// patience checks what waits and tries again.
func (c *check) patience(p *Policy) {
	if t := p.Timeout; t != nil {
		for _, f := range []struct {
			name string
			d    *time.Duration
		}{{"request", t.Request}, {"backendRequest", t.BackendRequest}, {"idle", t.Idle}} {
			if f.d != nil {
				c.time("spec.timeout."+f.name, *f.d, 0, 30*day)
			}
		}
		if t.Request != nil && t.BackendRequest != nil && *t.Request > 0 && *t.BackendRequest > *t.Request {
			c.add("spec.timeout.backendRequest", fmt.Sprintf("%s is more than the %s of the whole request", t.BackendRequest, t.Request), "write less")
		}
	}
	if r := p.Retry; r != nil {
		at := "spec.retry."
		c.between(at+"attempts", r.Attempts, 0, 100, "write how often it may be tried again, 0 for never")
		c.time(at+"backoff", r.Backoff, 0, time.Minute)
		c.time(at+"maxBackoff", r.MaxBackoff, 0, time.Hour)
		c.time(at+"perTry", r.PerTry, 0, day)
		if r.MaxBackoff < r.Backoff {
			c.add(at+"maxBackoff", fmt.Sprintf("%s is less than the first backoff of %s", r.MaxBackoff, r.Backoff), "write more")
		}
		for i, on := range r.On {
			if code, err := strconv.Atoi(string(on)); (err != nil || code < 400 || code > 599) && !slices.Contains(RetryOn, string(on)) {
				c.add(fmt.Sprintf("%son[%d]", at, i), strconv.Quote(string(on))+" is no reason to retry", meant(string(on), RetryOn, "write a status from 400 to 599, or one of "))
			}
		}
		for i, m := range r.Methods {
			if !methodForm.MatchString(m) {
				c.add(fmt.Sprintf("%smethods[%d]", at, i), strconv.Quote(m)+" is not a method", "write one such as "+cmpMethod(m))
			}
		}
		if r.Budget != nil {
			c.between(at+"budget.minPerSecond", r.Budget.MinPerSecond, 0, 1_000_000, "write how many retries a second are always allowed")
		}
	}
	if h := p.Hedge; h != nil {
		c.time("spec.hedge.after", h.After, time.Millisecond, time.Hour)
		c.between("spec.hedge.max", h.Max, 1, 10, "write how many more requests may be sent")
	}
}

func cmpMethod(m string) string {
	if upper := strings.ToUpper(m); methodForm.MatchString(upper) {
		return upper
	}
	return "POST"
}

// bounds checks what counts requests.
func (c *check) bounds(p *Policy) {
	if b := p.Breaker; b != nil {
		at := "spec.breaker."
		c.between(at+"failures", b.Failures, 0, 1_000_000, "write how many failures in a row open it")
		c.between(at+"minRequests", b.MinRequests, 1, 1_000_000, "write how many requests must be seen first")
		c.between(at+"halfOpen", b.HalfOpen, 1, 1000, "write how many tries must succeed to close it")
		c.time(at+"window", b.Window, 100*time.Millisecond, time.Hour)
		c.time(at+"rest", b.Rest, 10*time.Millisecond, time.Hour)
		if b.Failures == 0 && b.ErrorRatio == 0 {
			c.add("spec.breaker", "opens for nothing", "write failures or errorRatio")
		}
	}
	if b := p.Bulkhead; b != nil {
		at := "spec.bulkhead."
		c.between(at+"concurrency", b.Concurrency, 1, 1_000_000, "write how many requests may run at once")
		c.between(at+"queue", b.Queue, 0, 1_000_000, "write how many requests may wait")
		c.time(at+"wait", b.Wait, 0, time.Hour)
		if b.Queue > 0 && b.Wait == 0 {
			c.add(at+"wait", "is missing: who queues must know for how long", "write wait: 1s")
		} else if b.Queue == 0 && b.Wait > 0 {
			c.add(at+"queue", "is missing: nobody can wait", "write queue: 100, or delete wait")
		}
	}
	for i, l := range p.RateLimit {
		at := fmt.Sprintf("spec.rateLimit[%d].", i)
		c.between(at+"requests", l.Requests, 1, 1_000_000_000, "write how many requests may come")
		c.between(at+"burst", l.Burst, 0, 1_000_000_000, "write how many requests may come at once")
		c.time(at+"per", l.Per, time.Millisecond, 30*day)
		for _, f := range [][2]string{{"header", l.Header}, {"claim", l.Claim}} {
			switch by, name := f[0], f[1]; {
			case l.By == by && name == "":
				c.add(at+by, "is missing: by: "+by+" needs its name", "write "+by+": x-user")
			case l.By != by && name != "":
				c.add(at+by, "is for by: "+by, "write by: "+by+", or delete it")
			}
		}
		if l.Header != "" && !headerForm.MatchString(l.Header) {
			c.add(at+"header", strconv.Quote(l.Header)+" is not the name of a header", "write one such as x-user")
		}
		if l.Shared != nil {
			c.name(at+"shared.component", l.Shared.Component)
		}
	}
	if a := p.AdaptiveConcurrency; a != nil {
		at := "spec.adaptiveConcurrency."
		c.between(at+"min", a.Min, 1, 1_000_000, "write how many requests may always run at once")
		c.between(at+"max", a.Max, a.Min, 1_000_000, "write how many requests may run at once at most")
		if c.written(at + "initial") {
			c.between(at+"initial", a.Initial, a.Min, a.Max, "write how many to begin with")
		}
	}
	if l := p.Limits; l != nil {
		if l.HeaderBytes < 0 || l.HeaderBytes > 16<<20 {
			c.add("spec.limits.headerBytes", "is more than 16Mi", "write one such as 64Ki")
		}
		c.between("spec.limits.headerCount", l.HeaderCount, 0, 10_000, "write how many fields a header may have")
	}
	if l := p.Connections; l != nil {
		at := "spec.connections."
		c.between(at+"max", l.Max, 0, 10_000_000, "write how many connections may be open")
		c.between(at+"maxStreams", l.MaxStreams, 0, 10_000, "write how many streams a connection may have")
		c.time(at+"headerTimeout", l.HeaderTimeout, 0, time.Hour)
		c.time(at+"idleTimeout", l.IdleTimeout, 0, day)
	}
}

// callers checks who may call.
func (c *check) callers(p *Policy) {
	if a := p.Authn; a != nil {
		if len(a.JWT) == 0 && a.MTLS == nil {
			c.add("spec.authn", "asks for nothing", "write jwt or mtls")
		}
		for i, j := range a.JWT {
			at := fmt.Sprintf("spec.authn.jwt[%d]", i)
			c.oneOf(at, "jwksFile: ./keys.json", "jwksFile", "jwks", "jwksURL")
			if j.JWKS != "" && !json.Valid([]byte(j.JWKS)) {
				c.add(at+".jwks", "is not JSON", `write a key set: {"keys": […]}`)
			}
			if u, err := url.Parse(j.JWKSURL); j.JWKSURL != "" && (err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http") {
				c.add(at+".jwksURL", strconv.Quote(j.JWKSURL)+" is not a URL", "write one such as https://login.example.com/keys")
			}
			for _, claim := range slices.Sorted(maps.Keys(j.Forward)) {
				if h := j.Forward[claim]; !headerForm.MatchString(h) || slices.Contains(reserved, strings.ToLower(h)) {
					c.add(at+".forward."+claim, strconv.Quote(h)+" is not the name of a header", "write the header that the claim is sent in, such as x-user")
				}
			}
		}
	}
	for i, r := range p.Authz {
		at := fmt.Sprintf("spec.authz[%d]", i)
		c.oneOf(at, `allow: request.method == "GET"`, "allow", "deny")
		if r.Allow == "" && r.Deny == "" && !c.has(at) {
			c.add(at, "is empty", `write allow: request.method == "GET"`)
		}
	}
}
