package policy

import (
	"fmt"
	"net/netip"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/route"
)

// An AuthzRule is an expression in CEL (cel.dev) over a request. It is of type bool and may ask for
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

// authzCost bounds the steps of one expression for one request, so that no request makes it run for long.
const authzCost = 50_000

// Authz refuses requests that a Deny is true of and, where there are rules of the other kind, those that none of them is
// true of. A rule that cannot be decided, for a claim that is not there, refuses: has(claims.role) && claims.role == "admin"
// is how to ask.
func Authz(told Told, rules ...AuthzRule) (loam.Policy, error) {
	env, err := authzEnv()
	if err != nil {
		return nil, loam.Errorf(loam.Internal, "authz", "%w", err)
	}
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

func authzEnv() (*cel.Env, error) {
	texts := cel.MapType(cel.StringType, cel.StringType)
	return cel.NewEnv(
		cel.Variable("request.method", cel.StringType), cel.Variable("request.scheme", cel.StringType),
		cel.Variable("request.host", cel.StringType), cel.Variable("request.path", cel.StringType), cel.Variable("request.id", cel.StringType),
		cel.Variable("request.headers", texts), cel.Variable("request.query", texts),
		cel.Variable("source.address", cel.StringType),
		cel.Variable("peer.subject", cel.StringType), cel.Variable("peer.server", cel.StringType),
		cel.Variable("peer.names", cel.ListType(cel.StringType)),
		cel.Variable("caller", cel.StringType),
		cel.Variable("claims", cel.MapType(cel.StringType, cel.DynType)),
		cel.Function("inRange", cel.Overload("inRange_string_string", []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType, cel.BinaryBinding(inRange))),
		cel.ASTValidators(cel.ValidateRegexLiterals()),
	)
}

// inRange tells whether an address is in a network.
func inRange(address, network ref.Val) ref.Val {
	a, _ := address.Value().(string)
	n, _ := network.Value().(string)
	prefix, err := netip.ParsePrefix(n)
	if err != nil {
		return types.NewErr("inRange: %v", err)
	}
	addr, err := netip.ParseAddr(a)
	if err != nil {
		return types.False // the peer has none, such as one on a Unix socket
	}
	return types.Bool(prefix.Contains(addr.Unmap()))
}

func (r *AuthzRule) compile(env *cel.Env) (cel.Program, error) {
	wrong := func(err error) error {
		return &loam.Error{Code: loam.InvalidArgument, Op: strings.TrimSpace("authz " + r.Where), Err: err, Hint: `write an expression that is true or false, such as request.method == "GET"`}
	}
	ast, issues := env.Compile(r.Expression)
	if err := issues.Err(); err != nil {
		return nil, wrong(err)
	}
	if t := ast.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		return nil, wrong(fmt.Errorf("the expression is of type %s, not bool", t))
	}
	program, err := env.Program(ast, cel.CostLimit(authzCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, wrong(err)
	}
	return program, nil
}

type authz struct {
	told  Told
	deny  []authzRule
	allow []authzRule
}

type authzRule struct {
	program cel.Program
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
	v, _, err := r.program.Eval(f)
	if err != nil {
		return false, false
	}
	b, ok := v.(types.Bool)
	return bool(b), ok
}

// facts are what expressions ask for, made when they do.
type facts struct {
	req            *loam.Request
	headers, query map[string]string
}

var _ interpreter.Activation = (*facts)(nil)

// Parent is nil: there are no other facts.
func (f *facts) Parent() interpreter.Activation { return nil }

// ResolveName is the value of a variable.
func (f *facts) ResolveName(name string) (any, bool) {
	req := f.req
	switch name {
	case "request.method":
		return req.Method, true
	case "request.scheme":
		return req.Scheme, true
	case "request.host":
		return strings.ToLower(hostOf(req.Authority)), true
	case "request.path":
		return route.Clean(req.Path), true
	case "request.id":
		return req.ID, true
	case "request.headers":
		if f.headers == nil {
			f.headers = headerMap(req.Header)
		}
		return f.headers, true
	case "request.query":
		if f.query == nil {
			f.query = queryMap(req.RawQuery)
		}
		return f.query, true
	case "source.address":
		return addressOf(req.Remote), true
	case "peer.subject":
		if req.Peer == nil || len(req.Peer.Chain) == 0 {
			return "", true
		}
		return req.Peer.Chain[0].Subject.CommonName, true
	case "peer.server":
		if req.Peer == nil {
			return "", true
		}
		return req.Peer.ServerName, true
	case "peer.names":
		if req.Peer == nil || len(req.Peer.Chain) == 0 {
			return []string{}, true
		}
		return names(req.Peer.Chain[0]), true
	case "caller":
		if req.Caller == nil {
			return "", true
		}
		return req.Caller.Name, true
	case "claims":
		if req.Claims == nil {
			return map[string]any{}, true
		}
		return req.Claims, true
	}
	return nil, false
}
