package policy

import (
	"math/rand/v2"
	"time"

	"github.com/loam-run/loam"
)

// FaultConfig makes a share of requests slow, or fail, to see whether callers bear it.
type FaultConfig struct {
	Delay FaultDelay
	Abort FaultAbort
	Told  Told
}

// A FaultDelay holds requests back for Duration; 0: none.
type FaultDelay struct {
	Duration time.Duration
	Percent  float64 // of the requests, from 0 to 100
}

// A FaultAbort answers in the target's place, by Status or, where that is 0, by GRPC as an error; OK: it does not.
type FaultAbort struct {
	Status  int
	GRPC    loam.Code
	Percent float64 // of the requests, from 0 to 100
}

// Fault delays and aborts requests. Who is aborted may have been delayed before.
func Fault(c FaultConfig) loam.Policy {
	err := refusal(c.Abort.GRPC, "fault", "fault injection", "it is on purpose: see the policy's fault")
	return func(next loam.Target) loam.Target {
		return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			if c.Delay.Duration > 0 && by(c.Delay.Percent) {
				c.Told.of(req, Delayed)
				if err := delay(req, c.Delay.Duration); err != nil {
					return nil, err
				}
			}
			if (c.Abort.Status != 0 || c.Abort.GRPC != loam.OK) && by(c.Abort.Percent) {
				c.Told.of(req, Aborted)
				if c.Abort.Status == 0 {
					return nil, err
				}
				return loam.NewResponse(c.Abort.Status, "text/plain; charset=utf-8", []byte("fault injection\n")), nil
			}
			return next.Serve(req)
		})
	}
}

// delay waits for d, or until the request's time is over.
func delay(req *loam.Request, d time.Duration) error {
	task := req.Task()
	late := false
	if end := req.Deadline(); !end.IsZero() && end.Before(task.Now().Add(d)) {
		d, late = end.Sub(task.Now()), true
	}
	if err := loam.Sleep(task, d); err != nil {
		return err
	}
	if late {
		return loam.Errorf(loam.DeadlineExceeded, "fault", "the request's time was over while it was held back")
	}
	return nil
}

// by is true for a share of percent of the calls.
func by(percent float64) bool {
	return percent >= 100 || percent > 0 && rand.Float64()*100 < percent
}
