package snapshot

import (
	"fmt"
	"strings"
	"time"

	"github.com/loam-run/loam/resource"
)

// filters is what the filters at a place of o say: of a rule, or of one of its backendRefs. prefix is what the rule's
// only match asks paths to begin with.
func (b *builder) filters(o *resource.Object, at, rule string, filters []resource.Filter, prefix string) layer {
	var l layer
	for i, f := range filters {
		at := fmt.Sprintf("%s.filters[%d]", at, i)
		switch {
		case f.RequestHeaderModifier != nil:
			l.RequestHeaders = headers(*f.RequestHeaderModifier)
		case f.ResponseHeaderModifier != nil:
			l.ResponseHeaders = headers(*f.ResponseHeaderModifier)
		case f.RequestRedirect != nil:
			r := f.RequestRedirect
			l.Redirect = &Redirect{Scheme: r.Scheme, Hostname: r.Hostname, Port: r.Port, Path: change(r.Path, prefix), Status: r.StatusCode}
			if r.Scheme != "" && r.Port == 0 {
				l.Redirect.Port = map[string]int{"http": 80, "https": 443}[r.Scheme]
			}
		case f.URLRewrite != nil:
			l.Rewrite = &Rewrite{Hostname: f.URLRewrite.Hostname, Path: change(f.URLRewrite.Path, prefix)}
		case f.RequestMirror != nil:
			l.Mirrors = append(l.Mirrors, b.mirror(o, at+".requestMirror", *f.RequestMirror)...)
		case f.CORS != nil:
			l.CORS = cors(*f.CORS)
		case f.ExtensionRef != nil:
			name := f.ExtensionRef.Name
			p := b.policies[name]
			if p == nil {
				b.missingPolicy(o, at+".extensionRef.name", name)
				l.Broken = "Policy/" + name + " is not there" // the standard: a filter that cannot be found must not be skipped
				continue
			}
			b.used[name] = true
			l = p.counting(rule).and(l)
		}
	}
	return l
}

func (b *builder) missingPolicy(o *resource.Object, path, name string) {
	if e := b.entries["Policy/"+name]; e != nil {
		b.fault(unresolved, o.Problem(path, "Policy/"+name+" is broken", "mend it, "+e.where(o.File)))
		return
	}
	var names []string
	for n := range b.policies {
		names = append(names, n)
	}
	hint := "declare it"
	if near := meant(name, names, ""); strings.HasPrefix(near, "did you mean") {
		hint = near
	}
	b.fault(unresolved, o.Problem(path, fmt.Sprintf("there is no policy %q", name), hint))
}

// says is what a rule's own fields say.
func says(name string, r rule) layer {
	l := layer{timeout: resource.PolicyTimeout{Request: r.timeouts.Request, BackendRequest: r.timeouts.BackendRequest}}
	if t := r.retry; t != nil {
		l.Retry = &Retry{
			State: name + " retry", Attempts: t.Attempts, On: []string{"connect", "reset", "refused-stream"}, Statuses: t.Codes,
			Backoff: t.Backoff, MaxBackoff: max(t.Backoff, min(10*t.Backoff, time.Minute)), BudgetPercent: budgetPercent, BudgetMin: budgetMin,
		}
	}
	return l
}

func headers(h resource.HeaderModifier) *Headers {
	out := &Headers{Remove: h.Remove}
	for _, v := range h.Set {
		out.Set = append(out.Set, Field(v))
	}
	for _, v := range h.Add {
		out.Add = append(out.Add, Field(v))
	}
	return out
}

func change(p *resource.PathModifier, prefix string) *PathChange {
	switch {
	case p == nil:
		return nil
	case p.ReplaceFullPath != nil:
		return &PathChange{Full: true, Replace: *p.ReplaceFullPath}
	}
	return &PathChange{Prefix: prefix, Replace: strings.TrimSuffix(*p.ReplacePrefixMatch, "/")}
}

func cors(c resource.CORS) *CORS {
	return &CORS{c.AllowOrigins, c.AllowCredentials, c.AllowMethods, c.AllowHeaders, c.ExposeHeaders, time.Duration(c.MaxAge) * time.Second}
}

// mirror is nothing where its backend is not there: the standard leaves it out, and the status says so.
func (b *builder) mirror(o *resource.Object, at string, m resource.Mirror) []Mirror {
	to := b.backend(o, at+".backendRef", m.BackendRef.Kind, m.BackendRef.Name, m.BackendRef.Port)
	if to.Broken != "" {
		return nil
	}
	out := Mirror{Backend: to.TargetRef, Subset: to.Subset, Percent: 100}
	switch {
	case m.Percent != nil:
		out.Percent = float64(*m.Percent)
	case m.Fraction != nil:
		out.Percent = 100 * float64(m.Fraction.Numerator) / float64(m.Fraction.Denominator)
	}
	return []Mirror{out}
}
