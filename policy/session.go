package policy

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
)

// SessionConfig sends a client to the endpoint again that it was sent to before, as the Gateway API's SessionPersistence
// does. Zero fields take the default beside them.
type SessionConfig struct {
	Name      string        // of the cookie or header; "loam-session"
	Header    bool          // in a header, in place of a cookie
	Lifetime  time.Duration // of a session from its begin; 0: as long as the client keeps it
	Permanent bool          // the cookie outlives the browser; it needs Lifetime
	Path      string        // of the cookie; "/"
}

// Session reads the endpoint's name from the request for the service to keep to (Request.Affinity), and tells the client the
// name where it is another than before: its endpoint is gone, or it had none. A client may write there what it likes: it
// is a wish, and names nothing that it could not reach anyway.
func Session(c SessionConfig) loam.Policy {
	c.Name = cmp.Or(c.Name, "loam-session")
	c.Path = cmp.Or(c.Path, "/")
	return func(next loam.Target) loam.Target {
		return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			now := req.Task().Now()
			asked, ends := c.read(req, now)
			req.Affinity = asked
			res, err := next.Serve(req)
			if err != nil || req.Affinity == "" || req.Affinity == asked {
				return res, err
			}
			if c.Lifetime > 0 && ends.IsZero() {
				ends = now.Add(c.Lifetime)
			}
			c.write(res, req, ends, now)
			return res, nil
		})
	}
}

// longestAffinity bounds the names of endpoints.
const longestAffinity = 128

// read finds the session of a request: the endpoint's name and, where sessions end, when.
func (c *SessionConfig) read(req *loam.Request, now time.Time) (affinity string, ends time.Time) {
	var value string
	if c.Header {
		value = req.Header.Get(c.Name)
	} else {
		value = cookie(req.Header, c.Name)
	}
	if value == "" || len(value) > longestAffinity+20 {
		return "", time.Time{}
	}
	if c.Lifetime > 0 {
		until, name, ok := strings.Cut(value, ".")
		seconds, err := strconv.ParseInt(until, 36, 64)
		if ends = time.Unix(seconds, 0); !ok || err != nil || !ends.After(now) || ends.After(now.Add(c.Lifetime+time.Second)) {
			return "", time.Time{}
		}
		value = name
	}
	for i := range len(value) {
		if !cookieByte(value[i]) {
			return "", time.Time{}
		}
	}
	return value, ends
}

func (c *SessionConfig) write(res *loam.Response, req *loam.Request, ends, now time.Time) {
	value := req.Affinity
	if !ends.IsZero() {
		value = strconv.FormatInt(ends.Unix(), 36) + "." + value
	}
	if c.Header {
		res.Header.Set(c.Name, value)
		return
	}
	value = c.Name + "=" + value + "; Path=" + c.Path + "; HttpOnly; SameSite=Lax"
	if c.Permanent && !ends.IsZero() {
		value += "; Max-Age=" + strconv.FormatInt(int64(ends.Sub(now)/time.Second), 10)
	}
	if req.Scheme == "https" {
		value += "; Secure"
	}
	res.Header.Add("Set-Cookie", value)
}

// cookie is the value of a cookie of that name, the first one (RFC 6265, section 5.4); "" where there is none.
func cookie(h loam.Header, name string) string {
	for i := range h {
		if len(h[i].Name) != 6 || !strings.EqualFold(h[i].Name, "cookie") {
			continue
		}
		for pair := range strings.SplitSeq(h[i].Value, ";") {
			if n, value, ok := strings.Cut(strings.Trim(pair, " \t"), "="); ok && n == name {
				return strings.Trim(value, `"`)
			}
		}
	}
	return ""
}

// cookieByte tells whether a cookie's value may have that byte (RFC 6265, section 4.1.1).
func cookieByte(c byte) bool {
	return c > ' ' && c < 0x7f && c != '"' && c != ',' && c != ';' && c != '\\'
}
