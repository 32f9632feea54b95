package policy

import (
	"cmp"
	"net"
	"strconv"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/route"
)

// A PathChange gives a request another path, as the Gateway API's HTTPPathModifier does.
type PathChange struct {
	Full    bool   // Replace is all of the path; else it replaces Prefix
	Prefix  string // that matched, in route.Clean's form, by whole segments
	Replace string
}

// of is the path changed. One that does not have the prefix stays.
func (c *PathChange) of(path string) string {
	if c.Full {
		return cmp.Or(c.Replace, "/")
	}
	rest, ok := strings.CutPrefix(route.Clean(path), strings.TrimSuffix(c.Prefix, "/"))
	if !ok || rest != "" && rest[0] != '/' {
		return path
	}
	to := strings.TrimSuffix(c.Replace, "/")
	switch {
	case rest == "" && to == "":
		return "/"
	case rest == "":
		return c.Replace // with the slash at its end, where it has one
	}
	return to + rest
}

// RewriteConfig says what the target is asked for in place of what came. What is zero stays.
type RewriteConfig struct {
	Hostname string // the authority, without a port
	Path     *PathChange
}

// Rewrite changes what the target is asked for. The query stays.
func Rewrite(c RewriteConfig) loam.Policy {
	return func(next loam.Target) loam.Target {
		return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			if c.Hostname != "" {
				req.Authority = c.Hostname
			}
			if c.Path != nil {
				req.Path = c.Path.of(req.Path)
			}
			return next.Serve(req)
		})
	}
}

// RedirectConfig says where to send who asks. What is zero stays as it was asked for.
type RedirectConfig struct {
	Scheme   string
	Hostname string
	Port     int // 0: none is written, since it is the scheme's own
	Path     *PathChange
	Status   int // 301, 302, 303, 307 or 308; 302
}

// Redirect answers every request with another place to ask at, as the Gateway API's HTTPRequestRedirectFilter does.
func Redirect(c RedirectConfig) loam.Policy {
	c.Status = cmp.Or(c.Status, 302)
	return func(loam.Target) loam.Target {
		return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			res := &loam.Response{Status: c.Status, Length: 0}
			res.Header.Add("Location", c.location(req))
			return res, nil
		})
	}
}

func (c *RedirectConfig) location(req *loam.Request) string {
	scheme := cmp.Or(c.Scheme, req.Scheme, "http")
	host := c.Hostname
	if host == "" {
		host = hostOf(req.Authority)
	}
	if c.Port != 0 && (scheme != "http" || c.Port != 80) && (scheme != "https" || c.Port != 443) {
		host = net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(c.Port))
	}
	path := req.Path
	if c.Path != nil {
		path = c.Path.of(path)
	}
	if req.RawQuery != "" {
		path += "?" + req.RawQuery
	}
	return scheme + "://" + host + path
}

// hostOf is an authority without its port; an IPv6 address keeps its brackets.
func hostOf(authority string) string {
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && !strings.Contains(authority[i:], "]") {
		return authority[:i]
	}
	return authority
}
