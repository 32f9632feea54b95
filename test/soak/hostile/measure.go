//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"
)

// A meter is the process that is both the neighbours' client and the plain route's upstream. It shares its core with the
// attackers' clients, whose work must not count as Loam's: so it is a process of its own, which the kernel runs before
// them (SCHED_FIFO, by chrt).
type meter struct {
	cmd      *exec.Cmd
	in       io.WriteCloser
	out      *bufio.Reader
	upstream string
	killed   bool
}

// A job is what a meter is asked for, and its answer.
type job struct {
	Address string
	For     time.Duration
}

type measured struct {
	Plain, Function, Late latency // Late: how late the meter itself was with its requests
	Err                   string
}

type latency struct {
	N             int
	P50, P99, Max time.Duration
}

func latencyOf(took []time.Duration) latency {
	slices.Sort(took)
	n := len(took)
	return latency{n, took[n/2], took[n*99/100], took[n-1]}
}

func startMeter() (*meter, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	m := &meter{cmd: exec.Command("chrt", "-f", "1", self, "-meter")}
	m.cmd.Stderr = os.Stderr
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if m.in, err = m.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	m.out = bufio.NewReader(out)
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	if err := m.read(&m.upstream); err != nil {
		return nil, errors.Join(fmt.Errorf("the meter does not start (it has to be root, or have CAP_SYS_NICE): %w", err), m.stop())
	}
	return m, nil
}

func (m *meter) read(v any) error {
	line, err := m.out.ReadBytes('\n')
	if err != nil {
		return err
	}
	return json.Unmarshal(line, v)
}

// measure sends requests for that long.
func (m *meter) measure(address string, length time.Duration) (r measured, err error) {
	if err := json.NewEncoder(m.in).Encode(job{address, length}); err != nil {
		return r, err
	}
	if err := m.read(&r); err != nil {
		return r, err
	}
	if r.Err != "" {
		return r, errors.New(r.Err)
	}
	return r, nil
}

func (m *meter) stop() error {
	err := errors.Join(m.in.Close(), m.cmd.Wait())
	if m.killed {
		return nil
	}
	return err
}

// kill ends it at once, and what it measures.
func (m *meter) kill() {
	m.killed = true
	_ = m.cmd.Process.Kill() // it may have ended
}

// runMeter is the process's life: it measures as it is asked to, until its input ends.
func runMeter() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { // until the process ends
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	}()
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(l.Addr().String()); err != nil {
		return err
	}
	for in := json.NewDecoder(os.Stdin); ; {
		var j job
		if err := in.Decode(&j); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := out.Encode(j.do()); err != nil {
			return err
		}
	}
}

func (j job) do() (r measured) {
	end := time.Now().Add(j.For)
	var group sync.WaitGroup
	var mu sync.Mutex
	var late []time.Duration
	for _, ask := range []struct {
		name, path string
		out        *latency
	}{{"plain", "/", &r.Plain}, {"good", "/good", &r.Function}} {
		group.Go(func() {
			took, own, err := paced(j.Address, ask.name, ask.path, end)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				r.Err = ask.name + ": " + err.Error()
				return
			}
			*ask.out = latencyOf(took)
			late = append(late, own...)
		})
	}
	group.Wait()
	if len(late) > 0 {
		r.Late = latencyOf(late)
	}
	return r
}

// paced sends small requests, 200 a second, each at its time whether the one before took long or not: what waits behind a
// slow one counts as slow too. late is by how much each was sent after its time where no answer was waited for.
func paced(address, name, path string, end time.Time) (took, late []time.Duration, err error) {
	const every = 5 * time.Millisecond
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	text := "POST " + path + " HTTP/1.1\r\nHost: " + name + ".test\r\nContent-Length: 5\r\n\r\nhello"
	began := time.Now()
	for n := 0; time.Now().Before(end); n++ {
		due := began.Add(time.Duration(n) * every)
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
			late = append(late, time.Since(due))
			due = time.Now() // that the meter was late is not Loam's
		}
		if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			return nil, nil, err
		}
		if _, err := io.WriteString(conn, text); err != nil {
			return nil, nil, err
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return nil, nil, err
		}
		b, err := io.ReadAll(res.Body)
		if err != nil {
			return nil, nil, err
		}
		if res.StatusCode != 200 || string(b) != "hello" {
			return nil, nil, fmt.Errorf("%d %q", res.StatusCode, b)
		}
		took = append(took, time.Since(due))
	}
	if len(took) < 100 || len(late) == 0 {
		return nil, nil, fmt.Errorf("%d requests only", len(took))
	}
	return took, late, nil
}
