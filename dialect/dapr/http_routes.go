package dapr

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// A route is one of the HTTP API's.
type route struct {
	methods string            // with commas between them; "": any
	version string            // v1.0, v1.0-alpha1
	pattern string            // state/{storeName}/{key}; an asterisk at the end is the rest of the path
	group   string            // that spec.api of Configuration allows or denies
	serve   func(*call) error // nil: it is an invocation
}

const (
	v1       = "v1.0"
	v1alpha1 = "v1.0-alpha1"
	v1alpha2 = "v1.0-alpha2"
	v1beta1  = "v1.0-beta1"

	postPut = "POST,PUT"
)

// httpRoutes are all routes of Dapr 1.18. Of two that match, the first is taken.
func httpRoutes() []route {
	routes := slices.Concat(publicRoutes(), []route{
		{"GET", v1, "state/{storeName}/{key}", "state", (*call).getState},
		{postPut, v1, "state/{storeName}", "state", (*call).saveState},
		{"DELETE", v1, "state/{storeName}/{key}", "state", (*call).deleteState},
		{postPut, v1, "state/{storeName}/bulk", "state", (*call).bulkGetState},
		{postPut, v1, "state/{storeName}/transaction", "state", (*call).transactState},
		{postPut, v1alpha1, "state/{storeName}/query", "state", (*call).queryState},

		{"GET", v1, "secrets/{secretStoreName}/bulk", "secrets", (*call).bulkGetSecret},
		{"GET", v1, "secrets/{secretStoreName}/{key}", "secrets", (*call).getSecret},

		{postPut, v1, "publish/bulk/{pubsubname}/*", "publish", (*call).bulkPublish},
		{postPut, v1alpha1, "publish/bulk/{pubsubname}/*", "publish", (*call).bulkPublish},
		{postPut, v1, "publish/{pubsubname}/*", "publish", (*call).publish},
		{postPut, v1, "publish/{pubsubname}", "publish", (*call).publish}, // of an empty topic, which is an error that says so

		{postPut, v1, "bindings/{name}", "bindings", (*call).invokeBinding},

		{"POST", v1alpha1, "lock/{storeName}", "lock", (*call).tryLock},
		{"POST", v1alpha1, "unlock/{storeName}", "unlock", (*call).unlock},

		{"PUT", v1alpha1, "crypto/{name}/encrypt", "crypto", (*call).encrypt},
		{"PUT", v1alpha1, "crypto/{name}/decrypt", "crypto", (*call).decrypt},
		{"POST", v1alpha1, "subtlecrypto/{name}/getkey", "subtlecrypto", (*call).subtleGetKey},
		{"POST", v1alpha1, "subtlecrypto/{name}/encrypt", "subtlecrypto", (*call).subtleEncrypt},
		{"POST", v1alpha1, "subtlecrypto/{name}/decrypt", "subtlecrypto", (*call).subtleDecrypt},
		{"POST", v1alpha1, "subtlecrypto/{name}/wrapkey", "subtlecrypto", (*call).subtleWrapKey},
		{"POST", v1alpha1, "subtlecrypto/{name}/unwrapkey", "subtlecrypto", (*call).subtleUnwrapKey},
		{"POST", v1alpha1, "subtlecrypto/{name}/sign", "subtlecrypto", (*call).subtleSign},
		{"POST", v1alpha1, "subtlecrypto/{name}/verify", "subtlecrypto", (*call).subtleVerify},

		{"POST", v1, "shutdown", "shutdown", (*call).shutdown},

		{postPut, v1, "actors/{actorType}/{actorId}/state", "actors", (*call).noActors},
		{"GET,POST,PUT,DELETE", v1, "actors/{actorType}/{actorId}/method/{method}", "actors", (*call).noActors},
		{"GET", v1, "actors/{actorType}/{actorId}/state/{key}", "actors", (*call).noActors},
		{"GET,POST,PUT,DELETE", v1, "actors/{actorType}/{actorId}/reminders/{name}", "actors", (*call).noActors},
		{"POST,PUT,DELETE", v1, "actors/{actorType}/{actorId}/timers/{name}", "actors", (*call).noActors},

		{"POST", v1alpha1, "conversation/{name}/converse", "conversation", (*call).noConversation},
		{"POST", v1alpha2, "conversation/{name}/converse", "conversation", (*call).noConversation},

		{"", v1, "invoke/*", "invoke", nil},
	})
	for _, version := range [...]string{v1, v1alpha1} {
		routes = append(routes,
			route{"GET", version, "configuration/{storeName}", "configuration", (*call).getConfiguration},
			route{"GET", version, "configuration/{storeName}/subscribe", "configuration", (*call).subscribeConfiguration},
			route{"GET", version, "configuration/{storeName}/{configurationSubscribeID}/unsubscribe", "configuration", (*call).unsubscribeConfiguration},
			route{"POST", version, "jobs/{name}", "jobs", (*call).scheduleJob},
			route{"GET", version, "jobs/{name}", "jobs", (*call).getJob},
			route{"DELETE", version, "jobs/{name}", "jobs", (*call).deleteJob},
		)
	}
	for _, version := range [...]string{v1, v1beta1, v1alpha1} {
		routes = append(routes, route{"GET", version, "workflows/{workflowComponent}/{instanceID}", "workflows", (*call).noWorkflows})
		for _, verb := range [...]string{"{workflowName}/start", "{instanceID}/raiseEvent/{eventName}", "{instanceID}/pause", "{instanceID}/resume", "{instanceID}/terminate", "{instanceID}/purge"} {
			routes = append(routes, route{"POST", version, "workflows/{workflowComponent}/" + verb, "workflows", (*call).noWorkflows})
		}
	}
	return routes
}

// publicRoutes are those of the public port too.
func publicRoutes() []route {
	return []route{
		{"GET", v1, "healthz", "healthz", (*call).healthz},
		{"GET", v1, "healthz/outbound", "healthz", (*call).outboundHealthz},
		{"GET", v1, "metadata", "metadata", (*call).getMetadata},
		{"PUT", v1, "metadata/{key}", "metadata", (*call).putMetadata},
	}
}

// A routeTable finds a route without allocating.
type routeTable struct {
	routes   map[string][]compiledRoute // by version and first segment: "v1.0/state"
	fallback bool                       // what no route is for is an invocation by header
	meters   *byVerb                    // of what no route is for; nil: nothing is counted
}

type compiledRoute struct {
	route
	meters   *byVerb
	segments []string // behind the first; "": a parameter; "*": the rest
	names    []string // of the parameters
}

func newRouteTable(routes []route, allowed, denied []AccessRule) *routeTable {
	t := &routeTable{routes: map[string][]compiledRoute{}}
	for _, r := range routes {
		if r.group != "healthz" && (matchesRule(r, denied) || len(ofProtocol(allowed, "http")) > 0 && !matchesRule(r, allowed)) {
			continue
		}
		t.fallback = t.fallback || r.serve == nil
		parts := strings.Split(r.pattern, "/")
		c := compiledRoute{route: r}
		for _, s := range parts[1:] {
			switch {
			case s == "*":
				c.names = append(c.names, s)
			case s[0] == '{':
				c.names = append(c.names, s[1:len(s)-1])
				s = ""
			}
			c.segments = append(c.segments, s)
		}
		key := r.version + "/" + parts[0]
		t.routes[key] = append(t.routes[key], c)
	}
	return t
}

// count has requests counted, by the patterns of their routes.
func (t *routeTable) count(m *Metrics) {
	t.meters = m.verbs(httpServer, "", "")
	for _, routes := range t.routes {
		for i := range routes {
			routes[i].meters = m.verbs(httpServer, "/"+routes[i].version+"/"+routes[i].pattern, routes[i].methods)
		}
	}
}

// match finds the route of a clean path and unescapes what its parameters stand for. nil: there is none.
func (t *routeTable) match(method, path string, params *[3]string) (*compiledRoute, error) {
	if path == "" || path[0] != '/' {
		return nil, nil
	}
	path = path[1:]
	i := strings.IndexByte(path, '/')
	if i < 0 {
		return nil, nil
	}
	key, rest := path, ""
	if j := strings.IndexByte(path[i+1:], '/'); j >= 0 {
		key, rest = path[:i+1+j], path[i+1+j+1:]
	}
	candidates := t.routes[key]
	for i := range candidates {
		c := &candidates[i]
		if !c.takes(method) || !c.match(rest, params) {
			continue
		}
		if c.serve == nil {
			return c, nil // an invocation reads its path itself
		}
		for n, name := range c.names {
			u, err := unescapeParam(name, params[n])
			if err != nil {
				return nil, err
			}
			params[n] = u
		}
		return c, nil
	}
	return nil, nil
}

func unescapeParam(name, value string) (string, error) {
	if !strings.ContainsAny(value, "%+") {
		return value, nil
	}
	u, err := url.QueryUnescape(value)
	if err != nil {
		return "", fmt.Errorf("failed to unescape request parameter %q. Error: %w", name, err)
	}
	return u, nil
}

func (c *compiledRoute) takes(method string) bool {
	if c.methods == "" {
		return true
	}
	for rest := c.methods; rest != ""; {
		var m string
		if m, rest, _ = strings.Cut(rest, ","); m == method {
			return true
		}
	}
	return false
}

// match takes the path behind the first segment apart.
func (c *compiledRoute) match(rest string, params *[3]string) bool {
	n := 0
	for _, want := range c.segments {
		if want == "*" {
			if n < len(params) {
				params[n] = rest
			}
			return rest != ""
		}
		var s string
		s, rest, _ = strings.Cut(rest, "/")
		if s == "" || want != "" && s != want {
			return false
		}
		if want == "" {
			if n < len(params) {
				params[n] = s
			}
			n++
		}
	}
	return rest == ""
}

// ofProtocol are the rules for one protocol.
func ofProtocol(rules []AccessRule, protocol string) []AccessRule {
	var of []AccessRule
	for _, r := range rules {
		if r.Protocol == "" || strings.EqualFold(r.Protocol, protocol) {
			of = append(of, r)
		}
	}
	return of
}

// matchesRule tells whether one of the rules is for a route: by its group, or by the path's beginning as older
// Configurations have it.
func matchesRule(r route, rules []AccessRule) bool {
	for _, rule := range ofProtocol(rules, "http") {
		if rule.Name == r.group && shortVersion(rule.Version) == shortVersion(r.version) || strings.HasPrefix(r.version+"/"+r.pattern, rule.Version+"/"+rule.Name) {
			return true
		}
	}
	return false
}

// shortVersion is a version as groups have it: v1 for v1.0, v1alpha1 for v1.0-alpha1.
func shortVersion(v string) string {
	return strings.Replace(strings.Replace(v, ".0-", "", 1), ".0", "", 1)
}

// notBuilt is the answer of what Loam does not do.
func notBuilt(k kind, what string) error {
	return k.failure("%s: not implemented by this runtime; docs/dapr.md lists what is", what)
}

func (c *call) noActors() error       { return notBuilt(errActor, "actors") }
func (c *call) noWorkflows() error    { return notBuilt(errWorkflow, "workflows") }
func (c *call) noConversation() error { return notBuilt(errConversation, "conversation") }

func (c *call) shutdown() error {
	if err := c.api.shutdown(); err != nil {
		return err
	}
	c.empty()
	return nil
}

func (c *call) healthz() error {
	if err := c.api.ready(); err != nil {
		return err
	}
	if c.RawQuery != "" {
		if ids := c.queries("appid"); len(ids) > 0 && ids[0] != c.api.opts.App.ID {
			return errAppID.failure("dapr app-id does not match")
		}
	}
	c.empty()
	return nil
}

// outboundHealthz tells whether the sidecar can serve the program, be the program ready or not.
func (c *call) outboundHealthz() error {
	c.empty() // who reads this was let in: the sockets open when components have been opened
	return nil
}
