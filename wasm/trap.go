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

// failure says what became of a guest that did not return, and logs it where the guest is to blame: the first of each
// second in full, of the others how many they were. err is the engine's, or what ended the guest.
func (i *instance) failure(r *recipe, doing string, err error) error {
	e := &loam.Error{Code: loam.Internal, Op: op(r.name)}
	var exit *wasi.Exit
	var own *loam.Error
	switch {
	case errors.As(err, &own):
		e.Code, e.Err, e.Hint = own.Code, fmt.Errorf("%s: %w", doing, own.Err), own.Hint
		if own.Code == loam.Internal {
			i.tell(r, e, "guest failed", doing, err)
		}
	case errors.Is(err, errCPU):
		e.Code, e.Err = loam.DeadlineExceeded, fmt.Errorf("%s: it used more than its %v of processor time and was ended", doing, r.config.CPU)
		e.Hint = "raise its spec.cpu, or do less for one request"
		i.tell(r, e, "guest ended", doing, err)
	case errors.Is(err, context.DeadlineExceeded):
		i.call.Used.Limits[guest.LimitWall]++
		e.Code, e.Err = loam.DeadlineExceeded, fmt.Errorf("%s: it was not done in time and was ended", doing)
		e.Hint = fmt.Sprintf("its spec.timeout is %v; the caller or route may give less", r.config.Timeout)
		i.tell(r, e, "guest ended", doing, err)
	case errors.Is(err, context.Canceled):
		e.Code, e.Err = loam.Canceled, fmt.Errorf("%s: nobody waits for it any more; it was ended", doing)
	case errors.As(err, &exit):
		e.Err = fmt.Errorf("%s: %w", doing, exit)
		e.Hint = "its log lines say why"
		i.tell(r, e, "guest failed", doing, err)
	default:
		cause := causeOf(err)
		e.Err = fmt.Errorf("%s: trap: %s", doing, cause)
		i.tell(r, e, "guest trapped", doing, err)
	}
	return e
}

// tell logs that a guest failed, with the stack of where it was.
func (i *instance) tell(r *recipe, e *loam.Error, what, doing string, err error) {
	e.Logged = true
	if !r.failures.allow(time.Now()) {
		return
	}
	attrs := []any{"doing", doing, "cause", causeOf(err), "stack", i.program.stack(err)}
	if req := i.call.Request; req != nil {
		attrs = append(attrs, "method", req.Method, "path", req.Path)
	}
	if e.Hint != "" {
		attrs = append(attrs, "hint", e.Hint)
	}
	r.log.Error(what, attrs...)
}

// causeOf is what happened, of the engine's error.
func causeOf(err error) string {
	var trap rewrite.Trap
	var exit *wasi.Exit
	var own *loam.Error
	switch {
	case errors.As(err, &trap):
		return trap.Error()
	case errors.Is(err, errStack):
		return errStack.Error()
	case errors.Is(err, errCPU):
		return errCPU.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return "out of time"
	case errors.As(err, &exit):
		return exit.Error()
	case errors.As(err, &own) && own.Err != nil:
		return own.Err.Error()
	}
	cause, _, _ := strings.Cut(err.Error(), "\n")
	return strings.TrimPrefix(cause, "wasm error: ")
}

// stack is where the guest was, of the engine's error: the innermost function first.
func (p *program) stack(err error) (stack []string) {
	_, rest, _ := strings.Cut(err.Error(), "wasm stack trace:\n")
	for line := range strings.SplitSeq(rest, "\n") {
		if line = strings.TrimSpace(line); line != "" {
			stack = append(stack, p.function(line))
		}
	}
	return stack
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
