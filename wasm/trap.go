package wasm

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/guest"
	"github.com/loam-run/loam/wasm/rewrite"
	"github.com/loam-run/loam/wasm/wasi"
)

// failure says what became of a guest that did not return. err is the engine's, or what ended the guest.
func (i *instance) failure(r *recipe, doing string, err error) error {
	e := &loam.Error{Code: loam.Internal, Op: op(r.name)}
	var exit *wasi.Exit
	var own *loam.Error
	switch {
	case errors.As(err, &own):
		e.Code, e.Err, e.Hint = own.Code, fmt.Errorf("%s: %w", doing, own.Err), own.Hint
	case errors.Is(err, errCPU):
		e.Code, e.Err = loam.DeadlineExceeded, fmt.Errorf("%s: it used more than its %v of processor time and was ended", doing, r.config.CPU)
		e.Hint = "raise its spec.cpu, or do less for one request"
	case errors.Is(err, context.DeadlineExceeded):
		i.call.Used.Limits[guest.LimitWall]++
		e.Code, e.Err = loam.DeadlineExceeded, fmt.Errorf("%s: it was not done in time and was ended", doing)
		e.Hint = fmt.Sprintf("its spec.timeout is %v; the caller or route may give less", r.config.Timeout)
	case errors.Is(err, context.Canceled):
		e.Code, e.Err = loam.Canceled, fmt.Errorf("%s: nobody waits for it any more; it was ended", doing)
	case errors.As(err, &exit):
		e.Err = fmt.Errorf("%s: %w", doing, exit)
		e.Hint = "its log lines say why"
	default:
		cause, stack := i.program.explain(err)
		e.Err = fmt.Errorf("%s: trap: %s", doing, cause)
		if ok, _ := i.stderr.limit.allow(time.Now()); ok { // a guest that traps at each request does not fill the log
			r.log.Error("guest trapped", "doing", doing, "cause", cause, "stack", stack)
		}
	}
	return e
}

// explain takes the engine's error apart: what happened, and where, the innermost function first.
func (p *program) explain(err error) (cause string, stack []string) {
	var trap rewrite.Trap
	cause, rest, _ := strings.Cut(err.Error(), "\n")
	switch {
	case errors.As(err, &trap):
		cause = trap.Error()
	case errors.Is(err, errStack):
		cause = errStack.Error()
	}
	cause = strings.TrimPrefix(cause, "wasm error: ")
	_, rest, _ = strings.Cut(rest, "wasm stack trace:\n")
	for line := range strings.SplitSeq(rest, "\n") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		stack = append(stack, p.function(line))
	}
	return cause, stack
}

// function is the function of a line of the engine's stack, with the place where it is declared if the guest says that. The engine
// knows their indexes, in the rewritten module: ".$7(i32) i32".
func (p *program) function(line string) string {
	name, _, _ := strings.Cut(line, "(")
	digits, ok := strings.CutPrefix(name, ".$")
	if !ok {
		return name
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		return name
	}
	return p.symbol(uint32(n)).String()
}

// symbol is what is known of a function. What is known of all of them is read when it is first needed.
func (p *program) symbol(f uint32) Symbol {
	p.symbolOnce.Do(func() {
		p.symbolOf = p.code.symbols()
		for n := range p.symbolOf {
			p.lastSymbol = max(p.lastSymbol, n)
		}
	})
	s, ok := p.symbolOf[f]
	switch {
	case ok:
	case len(p.symbolOf) > 0 && f > p.lastSymbol:
		s.Name = "(indirect call)" // the rewriter has put it behind all others
	default:
		s.Name = "$" + strconv.FormatUint(uint64(f), 10)
	}
	return s
}
