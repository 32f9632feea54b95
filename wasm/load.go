package wasm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/wasm/guest"
)

// A loading is one attempt to load a function, which many calls may wait for.
type loading struct {
	tasks []loam.Task
	done  bool
	err   error
	at    time.Time // it was done
}

// retryAfter is how long a function that could not be loaded is not tried again: it may take seconds to fail.
const retryAfter = 5 * time.Second

// load waits until the function is loaded. It takes long, so it is done beside the call's task.
func (v *visit) load() error {
	m := v.module
	v.usage.coldBy(ColdLoad)
	m.mu.Lock()
	if m.program != nil {
		v.program = m.program
		m.mu.Unlock()
		return nil
	}
	if f := m.failed; f != nil && v.began.Sub(f.at) < retryAfter {
		m.mu.Unlock()
		return f.err
	}
	l := m.loading
	if l == nil {
		l = &loading{}
		m.loading = l
		m.stats.Loaded.Add(1)
		m.done.Go(func() { m.loadNow(l) })
	}
	l.tasks = append(l.tasks, v.task)
	m.mu.Unlock()
	for {
		err := v.task.Park(v.until)
		m.mu.Lock()
		done := l.done
		v.program = m.program
		m.mu.Unlock()
		switch {
		case done && l.err != nil:
			return l.err
		case done && v.program != nil:
			return nil
		case m.life.Err() != nil:
			err = context.Canceled
		case err == nil:
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			m.stats.Limits[guest.LimitWall].Add(1)
			err = context.DeadlineExceeded
		}
		return &loam.Error{
			Code: loam.CodeOf(err), Op: op(m.name), Err: fmt.Errorf("request %s waited for it to be loaded: %w", v.req.ID, err),
			Hint: "raise its spec.timeout",
		}
	}
}

func (m *Module) loadNow(l *loading) {
	err := m.load(m.life)
	m.mu.Lock()
	m.loading, m.failed = nil, nil
	l.done, l.err, l.at = true, err, time.Now()
	if err != nil && m.life.Err() == nil {
		m.failed = l
	}
	tasks := l.tasks
	m.mu.Unlock()
	for _, t := range tasks {
		t.Wake()
	}
}

// tidy ends sessions that were idle for long, and unloads the function where it was itself. What is shared by requests
// stays for as long as the function does.
func (m *Module) tidy(now time.Time) {
	if left := m.failures.rest(now); left > 0 {
		m.log.Warn("guests failed more often than was told", "left_out", left)
	}
	m.mu.Lock()
	var gone []*instance
	if m.sessions != nil {
		gone = m.sessions.expire(now.Add(-m.config.Session.Idle))
	}
	unload := m.program != nil && m.calls == 0 && m.config.Idle > 0 && now.Sub(m.used) > m.config.Idle &&
		m.config.Isolation != IsolationShared && (m.sessions == nil || m.sessions.len() == 0)
	m.mu.Unlock()
	for _, i := range gone {
		m.destroy(i)
	}
	if unload {
		m.unload()
	}
}

// unload gives back what the function holds, if no call is under way.
func (m *Module) unload() {
	m.mu.Lock()
	if m.calls > 0 {
		m.mu.Unlock()
		return
	}
	p, idle := m.program, m.idle
	m.program, m.idle = nil, nil
	if m.sessions != nil {
		idle = append(idle, m.sessions.expire(time.Now().Add(time.Hour))...)
	}
	m.mu.Unlock()
	if p == nil {
		return
	}
	if p.hooks.destroy && m.config.Isolation == IsolationRequest && p.image != nil {
		if i, err := p.fork(); err == nil {
			idle = append(idle, i)
		}
	}
	for _, i := range idle {
		m.destroy(i)
	}
	p.release()
	m.stats.Unloaded.Add(1)
}

// destroy runs the guest's last hook, if it has one, and closes the instance.
func (m *Module) destroy(i *instance) {
	if i.program.hooks.destroy {
		task, end := loam.NewTask(context.Background())
		i.prepare(task, time.Now().Add(m.config.Timeout), m.config.CPU)
		i.stdout = lineWriter{log: m.log, limit: &m.lines, stream: "stdout"}
		i.stderr = lineWriter{log: m.log, limit: &m.lines, stream: "stderr"}
		if err := i.run(hookDestroy); err != nil {
			m.log.Warn("guest failed while it was unloaded", "error", i.failure(&m.recipe, "unloading it", err))
		}
		i.finish()
		end()
	}
	i.close()
}
