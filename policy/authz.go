package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/internal/cel"
	"github.com/loam-run/loam/route"
)

// An AuthzRule is an expression in CEL (package cel) over a request. It is of type bool and may ask for
//
//	request.method, .scheme, .host, .path, .id   string; path in its normal form, host without port and in lower case
//	request.headers, request.query               map of strings; names of headers in lower case, values of several joined by commas
//	source.address                               string, without port; inRange(source.address, "10.0.0.0/8")
//	peer.subject, peer.server                    string: the client certificate's common name, the name TLS was asked for (SNI)
//	peer.names                                   list of strings: the client certificate's alternative names
//	caller                                       string: the function or app that asks; "" where it is none
//	claims                                       map: of the token that authn verified
type AuthzRule struct {
	Expression string
	Deny       bool   // refuses requests that it is true of; else it lets them pass
	Message    string // to who is refused; "not allowed"
	Where      string // the rule's place in configuration, for errors
}

// authzSteps bounds the steps of one expression for one request, so that no request makes it run for long.
const authzSteps = 50_000

// Authz refuses requests that a Deny is true of and, where there are rules of the other kind, those that none of them is
// true of. A rule that cannot be decided, for a claim that is not there, refuses: has(claims.role) && claims.role == "admin"
// is how to ask.
func Authz(told Told, rules ...AuthzRule) (loam.Policy, error) {
	env := authzEnv()
	p := &authz{told: told}
	for _, r := range rules {
		program, err := r.compile(env)
		if err != nil {
			return nil, err
		}
		message := r.Message
		if message == "" {
			message = "not allowed"
		}
		one := authzRule{program, refusal(loam.PermissionDenied, "authz", message, "")}
		if r.Deny {
			p.deny = append(p.deny, one)
		} else {
			p.allow = append(p.allow, one)
		}
	}
	return func(next loam.Target) loam.Target {
		return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			if err := p.check(req); err != nil {
				told.of(req, Forbidden)
				return nil, err
			}
			return next.Serve(req)
		})
	}, nil
}

func authzEnv() *cel.Env {
	return &cel.Env{
		Variables: map[string]cel.Type{
			"request.method": cel.String, "request.scheme": cel.String, "request.host": cel.String, "request.path": cel.String, "request.id": cel.String,
			"request.headers": cel.Map(cel.String), "request.query": cel.Map(cel.String),
			"source.address": cel.String,
			"peer.subject":   cel.String, "peer.server": cel.String, "peer.names": cel.List(cel.String),
			"caller": cel.String,
			"claims": cel.Map(cel.Dyn),
		},
		Functions: map[string]cel.Function{"inRange": {Params: []cel.Type{cel.String, cel.String}, Result: cel.Bool, Call: inRange}},
	}
}

// inRange tells whether an address is in a network.
func inRange(args []any) (any, error) {
	address, ok := args[0].(string)
	network, ok2 := args[1].(string)
	if !ok || !ok2 {
		return nil, errors.New("inRange is of an address and a network, as strings")
	}
	prefix, err := netip.ParsePrefix(network)
	if err != nil {
		return nil, fmt.Errorf("inRange: %w", err)
	}
	addr, err := netip.ParseAddr(address)
	return err == nil && prefix.Contains(addr.Unmap()), nil // a peer may have no address, such as one on a Unix socket
}

func (r *AuthzRule) compile(env *cel.Env) (*cel.Program, error) {
	program, err := cel.Compile(env, r.Expression, cel.Bool)
	if err != nil {
		return nil, &loam.Error{Code: loam.InvalidArgument, Op: strings.TrimSpace("authz " + r.Where), Err: err, Hint: `write an expression that is true or false, such as request.method == "GET"`}
	}
	return program, nil
}

type authz struct {
	told  Told
	deny  []authzRule
	allow []authzRule
}

type authzRule struct {
	program *cel.Program
	err     error
}

func (p *authz) check(req *loam.Request) error {
	facts := &facts{req: req}
	for i := range p.deny {
		if is, ok := p.deny[i].is(facts); is || !ok {
			return p.deny[i].err
		}
	}
	for i := range p.allow {
		if is, _ := p.allow[i].is(facts); is {
			return nil
		}
	}
	if len(p.allow) > 0 {
		return p.allow[0].err
	}
	return nil
}

// is tells whether the expression is true of a request, and whether that could be decided.
func (r *authzRule) is(f *facts) (is, decided bool) {
	v, err := r.program.Eval(f, authzSteps)
	if err != nil {
		return false, false
	}
	is, decided = v.(bool)
	return is, decided
}

// facts are what expressions ask for, made when they do.
type facts struct {
	req            *loam.Request
	headers, query map[string]string
}

// Var is the value of a variable.
func (f *facts) Var(name string) any {
	req := f.req
	switch name {
	case "request.method":
		return req.Method
	case "request.scheme":
		return req.Scheme
	case "request.host":
		return strings.ToLower(hostOf(req.Authority))
	case "request.path":
		return route.Clean(req.Path)
	case "request.id":
		return req.ID
	case "request.headers":
		if f.headers == nil {
			f.headers = headerMap(req.Header)
		}
		return f.headers
	case "request.query":
		if f.query == nil {
			f.query = queryMap(req.RawQuery)
		}
		return f.query
	case "source.address":
		return addressOf(req.Remote)
	case "peer.subject":
		if req.Peer == nil || len(req.Peer.Chain) == 0 {
			return ""
		}
		return req.Peer.Chain[0].Subject.CommonName
	case "peer.server":
		if req.Peer == nil {
			return ""
		}
		return req.Peer.ServerName
	case "peer.names":
		if req.Peer == nil || len(req.Peer.Chain) == 0 {
			return []string{}
		}
		return names(req.Peer.Chain[0])
	case "caller":
		if req.Caller == nil {
			return ""
		}
		return req.Caller.Name
	case "claims":
		if req.Claims == nil {
			return map[string]any{}
		}
		return req.Claims
	}
	return nil
}
