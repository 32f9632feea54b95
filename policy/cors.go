package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
)

// CORSConfig says which pages of other origins may call (the Fetch standard's CORS protocol), in the words of the Gateway
// API's HTTPCORSFilter.
type CORSConfig struct {
	AllowOrigins     []string      // "https://shop.example.com", "https://*.example.com:8443" for what ends so, "*" for all
	AllowCredentials bool          // with cookies and Authorization
	AllowMethods     []string      // beside GET, HEAD and POST; "*" for all
	AllowHeaders     []string      // beside those that are always; "*" for all
	ExposeHeaders    []string      // of answers that pages may read; "*" for all
	MaxAge           time.Duration // that a browser may remember the answer to a preflight; 5s
}

// CORS answers preflights, and tells browsers of answers which pages may read them; what it refuses, errors of policies
// and targets further in too, browsers keep from the page. It decides nothing for clients that are no browsers.
func CORS(c CORSConfig) (loam.Policy, error) {
	p := &cors{c: c, methods: strings.Join(c.AllowMethods, ", "), headers: strings.Join(c.AllowHeaders, ", "), expose: strings.Join(c.ExposeHeaders, ", ")}
	if c.MaxAge == 0 {
		c.MaxAge = 5 * time.Second
	}
	p.maxAge = strconv.FormatInt(int64(c.MaxAge/time.Second), 10)
	for _, o := range c.AllowOrigins {
		one, err := parseOrigin(o)
		if err != nil {
			return nil, err
		}
		p.origins = append(p.origins, one)
	}
	return func(next loam.Target) loam.Target {
		return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) { return p.serve(req, next) })
	}, nil
}

type cors struct {
	c                                CORSConfig
	origins                          []origin
	methods, headers, expose, maxAge string
}

func (p *cors) serve(req *loam.Request, next loam.Target) (*loam.Response, error) {
	from := req.Header.Get("Origin")
	if from == "" {
		res, err := next.Serve(req)
		if err == nil && !p.anyone() {
			vary(&res.Header, "Origin")
		}
		return res, err
	}
	allowed := p.allows(from)
	if method := req.Header.Get("Access-Control-Request-Method"); req.Method == "OPTIONS" && method != "" {
		return p.preflight(req, from, method, allowed), nil
	}
	res, err := next.Serve(req)
	if err != nil {
		switch loam.CodeOf(err) {
		case loam.Canceled, loam.Unknown, loam.Internal, loam.DataLoss: // the listener writes them down
			return nil, err
		}
		res = answer(req, err)
	}
	for _, name := range []string{"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Access-Control-Expose-Headers"} {
		res.Header.Del(name) // it is this policy that decides
	}
	p.allow(&res.Header, from, allowed)
	if allowed && p.expose != "" {
		res.Header.Add("Access-Control-Expose-Headers", p.expose)
	}
	return res, nil
}

func (p *cors) preflight(req *loam.Request, from, method string, allowed bool) *loam.Response {
	res := &loam.Response{Status: 204}
	h := &res.Header
	p.allow(h, from, allowed)
	if !allowed {
		return res
	}
	// Where there are credentials, browsers do not take * for all (Fetch, 3.2.5).
	if slices.Contains(p.c.AllowMethods, "*") {
		if p.c.AllowCredentials && token(method) {
			h.Add("Access-Control-Allow-Methods", method)
		} else {
			h.Add("Access-Control-Allow-Methods", "*")
		}
	} else if p.methods != "" {
		h.Add("Access-Control-Allow-Methods", p.methods)
	}
	if asked := req.Header.Get("Access-Control-Request-Headers"); slices.Contains(p.c.AllowHeaders, "*") {
		if !p.c.AllowCredentials {
			h.Add("Access-Control-Allow-Headers", "*")
		} else if asked != "" && !slices.ContainsFunc(strings.Split(asked, ","), func(s string) bool { return !token(strings.Trim(s, " \t")) }) {
			h.Add("Access-Control-Allow-Headers", asked)
		}
	} else if p.headers != "" {
		h.Add("Access-Control-Allow-Headers", p.headers)
	}
	h.Add("Access-Control-Max-Age", p.maxAge)
	return res
}

// anyone tells whether every origin gets the same answer.
func (p *cors) anyone() bool {
	return !p.c.AllowCredentials && slices.ContainsFunc(p.origins, func(o origin) bool { return o.any })
}

func (p *cors) allows(from string) bool {
	return slices.ContainsFunc(p.origins, func(o origin) bool {
		return o.any && (from != "null" || !p.c.AllowCredentials) || o.is(from)
	})
}

func (p *cors) allow(h *loam.Header, from string, allowed bool) {
	if p.anyone() {
		h.Add("Access-Control-Allow-Origin", "*")
		return
	}
	vary(h, "Origin")
	if !allowed {
		return
	}
	h.Add("Access-Control-Allow-Origin", from)
	if p.c.AllowCredentials {
		h.Add("Access-Control-Allow-Credentials", "true")
	}
}

// An origin is a pattern for origins.
type origin struct {
	any    bool   // *
	scheme string // with ://
	host   string // "" any; ".example.com" what ends so
	suffix bool
	port   string // with its colon
}

func parseOrigin(s string) (origin, error) {
	if s == "*" {
		return origin{any: true}, nil
	}
	scheme, rest, ok := strings.Cut(strings.ToLower(s), "://")
	o := origin{scheme: scheme + "://"}
	o.host = hostOf(rest)
	o.port = rest[len(o.host):]
	if o.host, o.suffix = strings.CutPrefix(o.host, "*"); o.suffix && o.host != "" && o.host[0] != '.' {
		ok = false
	}
	if !ok || scheme == "" || !o.suffix && o.host == "" || strings.ContainsAny(o.host+o.port, "/*?# ") {
		return origin{}, fmt.Errorf("%q is not an origin: write one such as https://shop.example.com, https://*.example.com or *", s)
	}
	return o, nil
}

// is tells whether the pattern takes an origin as a browser sends it.
func (o *origin) is(from string) bool {
	if o.any || len(from) > 512 {
		return false
	}
	rest, ok := strings.CutPrefix(strings.ToLower(from), o.scheme)
	if !ok {
		return false
	}
	host := hostOf(rest)
	if rest[len(host):] != o.port || strings.ContainsAny(host, "/?#@ ,") {
		return false
	}
	if o.suffix {
		return len(host) > len(o.host) && strings.HasSuffix(host, o.host)
	}
	return host == o.host
}

// vary adds a name to the field Vary, once.
func vary(h *loam.Header, name string) {
	for _, v := range h.Values("Vary") {
		for one := range strings.SplitSeq(v, ",") {
			if one = strings.Trim(one, " \t"); one == "*" || strings.EqualFold(one, name) {
				return
			}
		}
	}
	h.Add("Vary", name)
}

// token tells whether s is a token (RFC 9110, section 5.6.2).
func token(s string) bool {
	return s != "" && len(s) <= 256 && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", c)
	})
}
