package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/admin"
	"github.com/loam-run/loam/snapshot"
)

// current is what admin can ask of one generation.
type current struct {
	wrong   []string // components whose declaration is
	status  admin.Status
	backups map[string]func(ctx context.Context, path string) error // by component
}

// Status tells how every resource is.
func (s *server) Status() admin.Status {
	if c := s.status.Load(); c != nil {
		return c.status
	}
	return admin.Status{Version: s.o.Version, PID: os.Getpid(), Started: s.started}
}

// Target is a function or app by name.
func (s *server) Target(kind, name string) loam.Target {
	for ref, h := range *s.named.Load() {
		if strings.EqualFold(ref.Kind, kind) && ref.Name == name {
			return h
		}
	}
	return nil
}

// callee is the function, app or service that a call by name is for.
func (s *server) callee(name string) (loam.Target, error) {
	named := *s.named.Load()
	for _, kind := range []string{"Function", "App", "Service"} {
		if h := named[snapshot.TargetRef{Kind: kind, Name: name}]; h != nil {
			return asked{h}, nil
		}
	}
	return nil, &loam.Error{
		Code: loam.NotFound, Op: "invoke", Err: fmt.Errorf("there is no function, app or service %q", name), Hint: "see what there is: loam get",
	}
}

// Backup copies a component's store.
func (s *server) Backup(ctx context.Context, component, path string) error {
	c := s.status.Load()
	if c == nil || c.backups[component] == nil {
		return &loam.Error{
			Code: loam.NotFound, Op: fmt.Sprintf("backup of %q", component), Err: errors.New("no open component of that name has a store of its own to copy"),
			Hint: "see loam get component; default is the embedded store",
		}
	}
	p, err := s.gate.enter(ctx)
	if err != nil {
		return err
	}
	if p != nil {
		return loam.Errorf(loam.Unavailable, "backup", "another process has taken over; ask again")
	}
	defer s.gate.leave()
	return c.backups[component](ctx, path)
}

// publish puts together what admin tells of the present generation, and says so where it changed.
func (s *server) publish() {
	c := &current{status: admin.Status{Version: s.o.Version, PID: os.Getpid(), Started: s.started}, backups: map[string]func(context.Context, string) error{}}
	for key, x := range s.components {
		if b, ok := x.driver.(interface {
			Backup(ctx context.Context, path string) error
		}); ok {
			c.backups[key.name] = b.Backup
		}
	}
	for name, l := range s.listeners {
		if l.listener != nil && !strings.HasPrefix(name, "api/") {
			c.status.URLs = append(c.status.URLs, "http://"+l.listener.Addr().String())
		}
	}
	slices.Sort(c.status.URLs)
	for _, st := range s.plan.Statuses {
		kind, name, _ := strings.Cut(st.Key, "/")
		r := admin.Resource{Kind: kind, Name: name, Ready: st.Ready, Reason: st.Reason, File: st.File, Line: st.Line}
		for _, p := range st.Problems {
			r.Message = strings.TrimPrefix(r.Message+"\n"+p.Error(), "\n")
		}
		for _, p := range st.Warnings {
			r.Warnings = append(r.Warnings, p.Error())
		}
		if err := s.failures[st.Key]; err != nil && st.Ready {
			r.Ready, r.Reason, r.Message = false, "Failed", err.Error()
			if hint := loam.HintOf(err); hint != "" {
				r.Message += "; " + hint
			}
		}
		if kind == "Component" && !st.Ready {
			c.wrong = append(c.wrong, name)
		}
		r.Detail = s.detail(st.Key)
		if (st.Previous || !r.Ready) && r.Detail != "" && kind != "Gateway" {
			r.Detail = "previous version: " + r.Detail
		}
		c.status.Resources = append(c.status.Resources, r)
	}
	before := s.status.Swap(c)
	if s.o.Changed != nil && (before == nil || !slices.EqualFunc(before.status.Resources, c.status.Resources, sameResource)) {
		s.o.Changed(c.status)
	}
}

func sameResource(a, b admin.Resource) bool {
	return a.Kind == b.Kind && a.Name == b.Name && a.Ready == b.Ready && a.Message == b.Message && a.Detail == b.Detail
}

// detail says what runs for a resource.
func (s *server) detail(key string) string {
	kind, name, _ := strings.Cut(key, "/")
	switch kind {
	case "Function", "App", "Service":
		h := s.targets[snapshot.TargetRef{Kind: kind, Name: name}]
		if h == nil {
			return ""
		}
		v := h.current.Load()
		said := "ready"
		switch {
		case v == nil:
			return ""
		case v.state != nil:
			said = v.state()
		}
		if kind == "App" {
			said += s.addresses(name)
		}
		return said
	case "Gateway":
		var at []string
		for _, l := range s.plan.Listeners {
			if sock := s.listeners[l.Name]; l.Gateway == name && sock != nil && sock.listener != nil {
				at = append(at, "http://"+sock.listener.Addr().String())
			}
		}
		return strings.Join(at, " ")
	case "HTTPRoute":
		n := 0
		for _, r := range s.plan.Routes {
			if strings.HasPrefix(r.Name, key+" ") {
				n++
			}
		}
		return fmt.Sprintf("%d rules", n)
	case "Component":
		for k, c := range s.components {
			if k.name == name && c.driver != nil {
				return "open"
			}
		}
	case "Subscription":
		for _, sub := range s.plan.Subscriptions {
			if sub.Name == name {
				return sub.Topic + " → " + strings.ToLower(sub.Target.Kind) + " " + sub.Target.Name
			}
		}
	}
	return ""
}

// addresses are where an app's APIs are served: "; dapr http 127.0.0.1:3500, grpc 127.0.0.1:50001".
func (s *server) addresses(app string) string {
	var all strings.Builder
	for _, p := range s.plan.APIs {
		a := s.apis[p.Key()]
		if p.App != app || a == nil {
			continue
		}
		var at []string
		for _, sock := range a.plan.Sockets {
			if l := s.listeners[apiListener(a.plan, sock)]; l != nil && l.listener != nil {
				at = append(at, sock.Name+" "+l.listener.Addr().String())
			}
		}
		if len(at) > 0 {
			all.WriteString("; " + p.Dialect + " " + strings.Join(at, ", "))
		}
	}
	return all.String()
}
