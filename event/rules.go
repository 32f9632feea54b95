package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/internal/cel"
)

// steps is how many a rule may take for one event.
const steps = 10_000

// environment is what rules may name: event, with what its envelope holds.
var environment = &cel.Env{Variables: map[string]cel.Type{"event": cel.Map(cel.Dyn)}}

// A rule is a Rule, compiled.
type rule struct {
	match *cel.Program // nil: every event
	path  string
}

// CheckMatch tells what is wrong with the match of a rule.
func CheckMatch(expression string) error {
	_, err := cel.Compile(environment, expression, cel.Bool)
	return err
}

// Compile prepares the rules for Path: done once, before the first event. A match that cannot be compiled is an error.
func (s *Subscription) Compile() error {
	rules, err := compile(s.Rules)
	if err == nil {
		s.rules, s.compiled = rules, true
	}
	return err
}

func compile(in []Rule) ([]rule, error) {
	rules := make([]rule, len(in))
	for i, r := range in {
		rules[i].path = r.Path
		if strings.TrimSpace(r.Match) == "" {
			continue
		}
		var err error
		if rules[i].match, err = cel.Compile(environment, r.Match, cel.Bool); err != nil {
			return nil, &loam.Error{Code: loam.InvalidArgument, Op: "match " + strconv.Quote(r.Match), Err: err}
		}
	}
	return rules, nil
}

// Path is where an event goes: the path of the first rule that matches, or Default. Where that is "", it goes nowhere: an
// error with Drop() true. A rule that cannot be evaluated for this event (it asks for a member that is not there) is an
// error without, as Dapr has it: such an event is tried again, or goes to the dead letter topic.
func (s *Subscription) Path(e *loam.Event) (string, error) {
	rules := s.rules
	if !s.compiled {
		var err error
		if rules, err = compile(s.Rules); err != nil {
			return "", err
		}
	}
	return path(rules, s.Default, e, s.Component)
}

func path(rules []rule, otherwise string, e *loam.Event, component string) (string, error) {
	vars := variables{e: e, component: component}
	for _, r := range rules {
		if r.match == nil {
			return r.path, nil
		}
		v, err := r.match.Eval(&vars, steps)
		if err == nil {
			is, ok := v.(bool)
			if is {
				return r.path, nil
			}
			if !ok {
				err = errors.New("it does not say true or false")
			}
		}
		if err != nil {
			return "", loam.Errorf(loam.FailedPrecondition, "deliver", "the rule for %s cannot be evaluated for this event: %w", r.path, err)
		}
	}
	if otherwise == "" {
		return "", dropped{loam.Errorf(loam.NotFound, "deliver", "no rule of the subscription matches the event")}
	}
	return otherwise, nil
}

// variables are an event's envelope, as rules see it: read when the first of them asks.
type variables struct {
	e         *loam.Event
	component string
	event     map[string]any
}

// Var is the variable event.
func (v *variables) Var(string) any {
	if v.event == nil {
		d := json.NewDecoder(bytes.NewReader(Envelope(v.e, v.component)))
		d.UseNumber()
		if d.Decode(&v.event) != nil {
			v.event = map[string]any{} // it is nested too deep to be read
		}
	}
	return v.event
}
