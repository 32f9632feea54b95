package dapr

import (
	"fmt"
	"strings"

	"github.com/loam-run/loam"
)

// Access says which apps may call this one, and what of it: spec.accessControl of Dapr's Configuration.
type Access struct {
	Default     string // "allow" or "deny"; "": deny where there are Policies, else allow
	TrustDomain string // "": public
	Policies    []AccessPolicy
}

// An AccessPolicy is about one app.
type AccessPolicy struct {
	AppID       string
	Namespace   string // required
	TrustDomain string // required; that of this process's apps is the Access's
	Default     string // "": the Access's
	Operations  []AccessOperation
}

// An AccessOperation is about one method, or all below a path.
type AccessOperation struct {
	Name   string   // /orders, /orders/*, /orders/**
	Verbs  []string // of HTTP; "*": any
	Action string   // allow or deny
}

// Check tells what is wrong with it, as Dapr does.
func (a *Access) Check() error {
	if a == nil {
		return nil
	}
	for _, p := range a.Policies {
		switch {
		case p.AppID == "":
			return loam.Errorf(loam.InvalidArgument, "access control", "a policy has no appId")
		case p.TrustDomain == "":
			return loam.Errorf(loam.InvalidArgument, "access control", "the policy for %q has no trustDomain", p.AppID)
		case p.Namespace == "":
			return loam.Errorf(loam.InvalidArgument, "access control", "the policy for %q has no namespace", p.AppID)
		}
	}
	return nil
}

// check asks whether an app may call. caller "" is one that did not prove who it is: the default holds for it, whatever it
// says it is.
func (a *Access) check(caller, namespace, method, verb string, grpc bool) error {
	if a == nil || a.Default == "" && a.TrustDomain == "" && len(a.Policies) == 0 {
		return nil
	}
	action := a.Default
	if action == "" && len(a.Policies) > 0 {
		action = "deny"
	}
	for i := range a.Policies {
		p := &a.Policies[i]
		if caller == "" || p.AppID != caller || p.Namespace != namespace || p.TrustDomain != a.trustDomain() {
			continue
		}
		if p.Default != "" {
			action = p.Default
		}
		action = p.of(method, verb, grpc, action)
		break
	}
	if action == "" || strings.EqualFold(action, "allow") {
		return nil
	}
	if grpc || verb == "" {
		verb = "NONE"
	}
	who := ""
	if caller != "" {
		who = "spiffe://" + a.trustDomain() + "/ns/" + namespace + "/" + caller
	}
	return &loam.Error{
		Code: loam.PermissionDenied,
		Err:  fmt.Errorf("access control policy has denied access to id: %s operation: %s verb: %s", who, method, verb),
		Hint: "see spec.accessControl of the Configuration of the app that was called; who does not prove by mTLS who it is gets defaultAction",
	}
}

func (a *Access) trustDomain() string {
	if a.TrustDomain == "" {
		return "public"
	}
	return a.TrustDomain
}

// of is what the policy says of a method: the first operation that matches it does.
func (p *AccessPolicy) of(method, verb string, grpc bool, otherwise string) string {
	method = strings.TrimPrefix(method, "/")
	if !grpc {
		method = strings.ToLower(method)
	}
	for i := range p.Operations {
		o := &p.Operations[i]
		name := strings.TrimPrefix(o.Name, "/")
		if !grpc {
			name = strings.ToLower(name)
		}
		if matchOperation(name, method) {
			return o.of(verb, grpc, otherwise)
		}
	}
	return otherwise
}

// of is what the operation says of a verb.
func (o *AccessOperation) of(verb string, grpc bool, otherwise string) string {
	if grpc {
		return o.Action
	}
	for _, v := range o.Verbs {
		if v == "*" || strings.EqualFold(v, verb) {
			return o.Action
		}
	}
	return otherwise
}

// matchOperation compares paths by segments. A * is any part of a segment, and the last segment may be missing where it is
// a * alone; ** is all that is left.
func matchOperation(pattern, method string) bool {
	for {
		p, morePattern, further := strings.Cut(pattern, "/")
		if p == "**" {
			return true
		}
		m, rest, more := strings.Cut(method, "/")
		if !matchSegment(p, m) {
			return false
		}
		switch {
		case further && more:
			pattern, method = morePattern, rest
		case further:
			return morePattern == "*" || morePattern == "**"
		default:
			return !more
		}
	}
}

// matchSegment compares with a pattern in which * is any string. It goes back to the last * only: what was matched before
// stays so.
func matchSegment(pattern, s string) bool {
	star, mark := -1, 0
	p := 0
	for i := 0; i < len(s); {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
