package resource

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam/internal/size"
)

var (
	nameForm      = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	envForm       = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	headerForm    = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
	componentForm = regexp.MustCompile(`^[a-z]+\.[a-z][a-z0-9.-]*$`)
	daprNameForm  = regexp.MustCompile(`^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$`)
	annotations   = []string{DefaultAnnotation, FatalAnnotation, TryAnnotation}
)

// A check collects what is wrong with one object.
type check struct {
	*Object
	problems []Problem
}

func (c *check) add(path, what, hint string) {
	c.problems = append(c.problems, c.Problem(path, what, hint))
}

// validate finds what is wrong with an object by itself. A field left empty that must be there was reported by the
// decoder, so that an empty value is nobody's problem here.
func validate(o *Object) []Problem {
	c := &check{Object: o}
	name := c.name
	app, _ := o.Spec.(*App)
	if strings.HasPrefix(o.APIVersion, "dapr.io/") || app != nil && (app.API.Dapr != nil || app.API.Layotto != nil) {
		name = c.daprName // its keys begin with it: it comes along as it is
	}
	name("metadata.name", o.Name)
	for _, a := range slices.Sorted(maps.Keys(o.Annotations)) {
		at := "metadata.annotations." + a
		if value := o.Annotations[a]; strings.HasPrefix(a, "loam.dev/") && !slices.Contains(annotations, a) {
			c.add(at, "there is no such annotation", meant(a, annotations, "those of Loam are "))
		} else if (a == DefaultAnnotation || a == FatalAnnotation) && value != "true" && value != "false" {
			c.add(at, strconv.Quote(value)+" is none of its values", `write "true" or "false"`)
		}
	}
	for i, s := range o.Scopes {
		at := "scopes[" + strconv.Itoa(i) + "]"
		if name(at, s); slices.Contains(o.Scopes[:i], s) {
			c.add(at, strconv.Quote(s)+" is there twice", "keep one of them")
		}
	}
	switch s := o.Spec.(type) {
	case *Function:
		c.function(s)
	case *App:
		c.app(s)
	case *Component:
		c.component(s)
	case *Subscription:
		c.subscription(s)
	case *Gateway:
		c.gateway(s)
	case *HTTPRoute:
		c.httpRoute(s)
	case *GRPCRoute:
		c.grpcRoute(s)
	case *TLSRoute:
		c.tlsRoute(s)
	case *TCPRoute:
		c.tcpRoute(s)
	case *Service:
		c.service(s)
	case *Policy:
		c.policy(s)
	case *Configuration:
		c.configuration(s)
	case *Resiliency:
		c.resiliency(s)
	case *HTTPEndpoint:
		c.httpEndpoint(s)
	case *Secret:
		c.secret(s)
	}
	return c.problems
}

// name checks the name of a resource (RFC 1123, as Kubernetes has it).
func (c *check) name(path, name string) {
	switch {
	case name == "" || nameForm.MatchString(name) && len(name) <= 253:
	case len(name) > 253:
		c.add(path, fmt.Sprintf("has %d characters, more than the 253 of a name", len(name)), "shorten it")
	default:
		hint := "write lower-case letters, digits, - and ., a letter or digit at both ends"
		better := strings.Trim(strings.NewReplacer("_", "-", " ", "-", "/", "-").Replace(strings.ToLower(name)), "-.")
		if nameForm.MatchString(better) {
			hint = "write " + better
		}
		c.add(path, strconv.Quote(name)+" is not a name", hint)
	}
}

func (c *check) function(f *Function) {
	if !strings.HasSuffix(f.File, ".wasm") {
		hint := "name what the build leaves, ending in .wasm"
		if strings.HasSuffix(f.File, ".go") {
			hint = "write source: " + folder(f.File)
		}
		c.add("spec.file", strconv.Quote(f.File)+" is not a Wasm module", hint)
	}
	if f.ABI == "wagi" && f.Isolation != "request" {
		c.add("spec.isolation", "a program of the ABI wagi ends with each request, so there is nothing to keep", "leave isolation out, or write request")
	}
	switch {
	case f.Isolation == "session" && (f.Session == nil || (f.Session.Header == "") == (f.Session.Cookie == "")):
		c.add("spec.session", "nothing says which requests are of one session", "write session: {cookie: cart}, or {header: X-Session}")
	case f.Isolation != "session" && f.Session != nil:
		c.add("spec.session", "isolation "+f.Isolation+" has no sessions", "write isolation: session")
	}
	if s := f.Session; s != nil {
		c.between("spec.session.max", s.Max, 0, 1_000_000, "write how many sessions may be at once")
		c.time("spec.session.idle", s.Idle, 0, 7*24*time.Hour)
	}
	if f.Warmup != nil {
		c.path("spec.warmup.path", f.Warmup.Path)
	}
	c.time("spec.cpu", f.CPU, 0, 24*time.Hour)
	c.time("spec.idle", f.Idle, 0, 365*24*time.Hour)
	c.between("spec.queue", f.Queue, 0, 1_000_000, "write how many requests may wait")
	c.between("spec.limits.calls", f.Limits.Calls, 0, 1_000_000_000, "write how many capability calls a request may make")
	if f.Settings != "" && f.ABI != "http-wasm" && f.ABI != "proxy-wasm" {
		c.add("spec.settings", "guests of the ABI "+f.ABI+" have no settings of their own", "use env")
	}
	if len(f.Settings) > 64<<10 {
		c.add("spec.settings", size.Format(int64(len(f.Settings)))+" of settings are more than 64Ki", "keep large data elsewhere")
	}
	c.source(f.Source)
	c.env(f.Env)
	if f.Timeout <= 0 || f.Timeout > 24*time.Hour {
		c.add("spec.timeout", f.Timeout.String()+" is not between 1ms and 24h", "write one such as 30s")
	}
	if f.Memory < 1<<20 || f.Memory > 4<<30 {
		c.add("spec.memory", size.Format(int64(f.Memory))+" is not between 1Mi and 4Gi, which is all that Wasm can address", "write one such as 128Mi")
	}
	if f.Concurrency < 1 || f.Concurrency > 100_000 {
		c.add("spec.concurrency", strconv.Itoa(f.Concurrency)+" is not between 1 and 100000", "write how many requests it may serve at once")
	}
	c.grants(f.Grants)
}

func folder(file string) string {
	dir := path.Dir(file)
	if dir == "." || strings.HasPrefix(dir, ".") || strings.HasPrefix(dir, "/") {
		return dir
	}
	return "./" + dir
}

func (c *check) source(source string) {
	if strings.HasSuffix(source, ".go") {
		c.add("spec.source", strconv.Quote(source)+" is a file", "write the folder of its package: "+folder(source))
	}
}

func (c *check) env(env map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if !envForm.MatchString(name) {
			c.add("spec.env."+name, strconv.Quote(name)+" is not the name of a variable", "write letters, digits and _, no digit first")
		} else if strings.ContainsRune(env[name], 0) {
			c.add("spec.env."+name, "a variable cannot hold a zero byte", "delete it")
		}
	}
}

func (c *check) grants(grants []Grant) {
	for i, g := range grants {
		at := fmt.Sprintf("spec.grants[%d].", i)
		if g.Component != "*" {
			c.daprName(at+"component", g.Component)
		}
		for j, n := range g.Names {
			if star := strings.Index(n, "*"); star >= 0 && star < len(n)-1 {
				c.add(fmt.Sprintf("%snames[%d]", at, j), strconv.Quote(n)+" has a * before its end", "write * as the last character: it stands for all that begins so")
			}
		}
	}
}

func (c *check) app(a *App) {
	var ways []string
	for _, w := range []struct {
		name string
		set  bool
	}{{"address", a.Address != ""}, {"command", len(a.Command) > 0}, {"source", a.Source != ""}} {
		if w.set {
			ways = append(ways, w.name)
		}
	}
	switch {
	case len(ways) == 0 && (a.API.Dapr != nil || a.API.Layotto != nil): // it only asks
	case len(ways) == 0:
		c.add("spec", "does not say what the app is", "write address: 127.0.0.1:9000 where it runs already, or command: [./mailer], or source: ./mailer")
	case len(ways) > 1:
		c.add("spec."+ways[1], "an app has one of "+strings.Join(ways, " and ")+", not both", "keep one of them")
	}
	if a.Address != "" {
		c.address("spec.address", a.Address)
		for name, unset := range map[string]bool{"dir": a.Dir == "", "env": len(a.Env) == 0, "port": a.Port == 0} {
			if !unset {
				c.add("spec."+name, "is for a program that Loam starts, not for one that runs at an address", "delete it, or write command in place of address")
			}
		}
	}
	if len(a.Command) > 0 && a.Command[0] == "" {
		c.add("spec.command[0]", "is empty", "write the program")
	}
	c.source(a.Source)
	c.env(a.Env)
	for _, name := range []string{"PORT", "LOAM_APP"} {
		if _, ok := a.Env[name]; ok {
			hint := "delete it"
			if name == "PORT" {
				hint = "write spec.port"
			}
			c.add("spec.env."+name, name+" is set by Loam", hint)
		}
	}
	if a.Port != 0 {
		c.port("spec.port", a.Port)
	}
	if s := a.Protocol; (s == "https" || s == "grpcs") && a.Address == "" && len(ways) > 0 {
		c.add("spec.protocol", "a program that Loam starts listens on loopback, without TLS", "write "+strings.TrimSuffix(strings.Replace(s, "https", "http", 1), "s"))
	}
	c.between("spec.maxConcurrency", a.MaxConcurrency, 0, 1_000_000, "write how many requests it may be sent at once")
	h := a.Health
	c.path("spec.health.path", h.Path)
	c.time("spec.health.interval", h.Interval, 0, day)
	c.time("spec.health.timeout", h.Timeout, time.Millisecond, time.Hour)
	c.between("spec.health.threshold", h.Threshold, 1, 1000, "write how many probes in a row may fail")
	c.grants(a.Grants)
	c.api(a.API)
}

func (c *check) address(at, address string) {
	host, port, err := net.SplitHostPort(address)
	n, perr := strconv.Atoi(port)
	if err != nil || host == "" || strings.Contains(host, "/") || perr != nil || n < 1 || n > 65535 {
		hint := "write host and port: 127.0.0.1:9000"
		if rest, ok := strings.CutPrefix(address, "http://"); ok {
			hint = "write " + strings.TrimSuffix(rest, "/")
		} else if err != nil && !strings.Contains(address, ":") {
			hint = "write its port too: " + address + ":9000"
		}
		c.add(at, strconv.Quote(address)+" is not an address", hint)
	}
}

func (c *check) port(at string, port int) {
	if port < 1 || port > 65535 {
		c.add(at, strconv.Itoa(port)+" is not a port", "write a number from 1 to 65535")
	}
}

// between checks a number's range.
func (c *check) between(at string, n, low, high int, say string) {
	if n < low || n > high {
		c.add(at, fmt.Sprintf("%d is not between %d and %d", n, low, high), say)
	}
}

// time checks a duration's range; unset is fine where it is as low.
func (c *check) time(at string, d, low, high time.Duration) {
	if d < low || d > high {
		c.add(at, fmt.Sprintf("%s is not between %s and %s", d, low, high), "write one such as "+max(low, min(time.Second, high)).String())
	}
}

// written tells whether a field was written, be it with its default.
func (c *check) written(at string) bool {
	_, ok := c.places[at]
	return ok
}

// oneOf checks that just one of the fields below at is set.
func (c *check) oneOf(at string, example string, fields ...string) {
	var set []string
	for _, f := range fields {
		if c.written(at + "." + f) {
			set = append(set, f)
		}
	}
	switch len(set) {
	case 0:
		c.add(at, "has none of "+strings.Join(fields, ", "), "write one of them: "+example)
	case 1:
	default:
		c.add(at+"."+set[1], "is beside "+set[0]+", and only one of them can be", "keep one of them")
	}
}

func (c *check) path(at, p string) {
	if p != "" && p[0] != '/' {
		c.add(at, strconv.Quote(p)+" is not a path", "write /"+p)
	}
}

func (c *check) topic(at, topic string) {
	if strings.ContainsAny(topic, "*#> \t\n") || len(topic) > 255 {
		c.add(at, strconv.Quote(topic)+" is not a topic", "write one name of up to 255 characters, without spaces, *, # or >")
	}
}

// host checks a hostname, which may begin with *. for any one below it.
func (c *check) host(at, host string) {
	rest := strings.TrimPrefix(host, "*.")
	_, err := netip.ParseAddr(host)
	switch {
	case host == "":
	case err == nil:
		c.add(at, strconv.Quote(host)+" is an IP address", "write a host name, or delete it to take any")
	case nameForm.MatchString(rest) && len(host) <= 253:
	default:
		hint := "write one such as shop.example.com or *.example.com"
		better := strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(host, "http://"), "https://"), "/"))
		if name, _, ok := strings.Cut(better, ":"); ok {
			better = name
		}
		if better != host && nameForm.MatchString(strings.TrimPrefix(better, "*.")) {
			hint = "write " + better
		}
		c.add(at, strconv.Quote(host)+" is not a host name", hint)
	}
}

func (c *check) has(path string) bool {
	return slices.ContainsFunc(c.problems, func(p Problem) bool { return within(p.Path, path) })
}

func (c *check) regexp(at, pattern string) {
	if len(pattern) > 1024 {
		c.add(at, fmt.Sprintf("has %d characters, more than the 1024 of a regular expression", len(pattern)), "shorten it")
		return
	}
	if _, err := regexp.Compile(pattern); err != nil {
		why := strings.TrimPrefix(err.Error(), "error parsing regexp: ")
		hint := "write RE2 syntax"
		if strings.HasPrefix(why, "invalid or unsupported Perl syntax") {
			hint = "write it without: RE2 has no look-around and no back-references"
		}
		c.add(at, strconv.Quote(pattern)+" is not a regular expression: "+why, hint)
	}
}
