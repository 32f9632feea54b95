package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
	"github.com/loam-run/loam/telemetry"
)

// Telemetry is what a server has counted.
type Telemetry interface {
	// Traffic is what routes sent to their targets since the process began.
	Traffic() []Traffic
	// Usage is what functions used.
	Usage(q telemetry.UsageQuery) ([]telemetry.UsageSum, error)
	// WriteMetrics writes everything that is counted in Prometheus' text format.
	WriteMetrics(w io.Writer) error
	// Profile writes a CPU profile of a function's code, in pprof's format, of the calls that begin within d.
	Profile(ctx context.Context, function string, d time.Duration, w io.Writer) error
}

// Traffic is what one route sent to one target.
type Traffic struct {
	Route    string        `json:"route"`
	Target   string        `json:"target"`
	Requests uint64        `json:"requests"`
	Errors   uint64        `json:"errors"` // 5xx, and what had no answer
	InFlight int64         `json:"inFlight"`
	P50      time.Duration `json:"p50"` // ns
	P99      time.Duration `json:"p99"`
}

// Usage is what one function used in some time.
type Usage struct {
	Function          string    `json:"function"`
	From              time.Time `json:"from"`
	Calls             int64     `json:"calls"`
	Failed            int64     `json:"failed"` // of the calls
	ColdLoad          int64     `json:"coldLoad"`
	ColdStart         int64     `json:"coldStart"`
	ColdFork          int64     `json:"coldFork"`
	CPUSeconds        float64   `json:"cpuSeconds"`
	WallSeconds       float64   `json:"wallSeconds"`
	MemoryGiBSeconds  float64   `json:"memoryGiBSeconds"`
	RequestBytes      int64     `json:"requestBytes"`
	ResponseBytes     int64     `json:"responseBytes"`
	CapabilityCalls   int64     `json:"capabilityCalls"`
	CapabilitySent    int64     `json:"capabilitySentBytes"`
	CapabilityReceive int64     `json:"capabilityReceivedBytes"`
}

func usageOf(s telemetry.UsageSum) Usage {
	return Usage{
		Function: s.Function, From: s.From, Calls: s.Calls, Failed: s.Failed, ColdLoad: s.ColdLoad, ColdStart: s.ColdStart, ColdFork: s.ColdFork,
		CPUSeconds: float64(s.CPU) / 1e9, WallSeconds: float64(s.Wall) / 1e9, MemoryGiBSeconds: float64(s.Memory) / (1 << 20) / 1e6,
		RequestBytes: s.In, ResponseBytes: s.Out, CapabilityCalls: s.CapCalls, CapabilitySent: s.Sent, CapabilityReceive: s.Received,
	}
}

// span is what usage is summed up by.
func span(by string) (time.Duration, error) {
	switch by {
	case "":
		return 0, nil
	case "hour":
		return time.Hour, nil
	case "day":
		return 24 * time.Hour, nil
	}
	return 0, loam.Errorf(loam.InvalidArgument, "usage", "by %q: it is hour or day", by)
}

// handleTelemetry adds what is counted to the endpoint.
func handleTelemetry(mux *http.ServeMux, s Telemetry, log *slog.Logger) {
	mux.HandleFunc("GET /v1/traffic", func(w http.ResponseWriter, _ *http.Request) { sendJSON(w, s.Traffic()) })
	mux.HandleFunc("GET /v1/usage", func(w http.ResponseWriter, r *http.Request) {
		lines, err := usage(s, r.URL.Query())
		if err != nil {
			http.Error(w, err.Error(), protocol.HTTPStatus(loam.CodeOf(err)))
			return
		}
		sendJSON(w, lines)
	})
	mux.Handle("GET /metrics", metrics(s, log))
	mux.HandleFunc("GET /v1/profile/{function}", func(w http.ResponseWriter, r *http.Request) {
		d, err := time.ParseDuration(r.FormValue("for"))
		if err == nil && (d <= 0 || d > MaxProfile) {
			err = fmt.Errorf("it takes up to %s", MaxProfile)
		}
		if err != nil {
			http.Error(w, "profile: "+err.Error(), http.StatusBadRequest)
			return
		}
		var b bytes.Buffer // an error must not come after half a profile
		if err := s.Profile(r.Context(), r.PathValue("function"), d, &b); err != nil {
			http.Error(w, err.Error(), protocol.HTTPStatus(loam.CodeOf(err)))
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = b.WriteTo(w) // who went away needs no answer
	})
}

// MaxProfile is how long a profile takes at most.
const MaxProfile = 5 * time.Minute

func sendJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // who went away needs no answer
}

func usage(s Telemetry, q url.Values) ([]Usage, error) {
	by, err := span(q.Get("by"))
	if err != nil {
		return nil, err
	}
	query := telemetry.UsageQuery{Function: q.Get("function"), By: by}
	if since := q.Get("since"); since != "" {
		if query.Since, err = time.Parse(time.RFC3339, since); err != nil {
			return nil, &loam.Error{Code: loam.InvalidArgument, Op: "usage", Err: err, Hint: "write since as 2026-01-31T00:00:00Z"}
		}
	}
	sums, err := s.Usage(query)
	lines := make([]Usage, len(sums))
	for i, sum := range sums {
		lines[i] = usageOf(sum)
	}
	return lines, err
}

func metrics(s Telemetry, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		if err := s.WriteMetrics(w); err != nil {
			log.Debug("metrics were not read to their end", "error", err)
		}
	})
}

// Traffic asks what routes sent to their targets.
func (c *Client) Traffic(ctx context.Context) (all []Traffic, err error) {
	err = c.ask(ctx, "/v1/traffic", &all)
	return all, err
}

// Usage asks what functions used since then, "" for all of them, summed up by "hour", "day" or not at all.
func (c *Client) Usage(ctx context.Context, function string, since time.Time, by string) (all []Usage, err error) {
	q := url.Values{"function": {function}, "by": {by}}
	if !since.IsZero() {
		q.Set("since", since.UTC().Format(time.RFC3339))
	}
	err = c.ask(ctx, "/v1/usage?"+q.Encode(), &all)
	return all, err
}

// Profile writes a CPU profile of a function to w, of the calls that begin within d.
func (c *Client) Profile(ctx context.Context, function string, d time.Duration, w io.Writer) error {
	res, err := c.do(ctx, http.MethodGet, "/v1/profile/"+url.PathEscape(function)+"?for="+d.String(), nil, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10)) // only to tell why
		return errors.New(strings.TrimSpace(string(b)))
	}
	_, err = io.Copy(w, res.Body)
	return err
}

// retryMetrics is how long to wait for an address that is not free.
const retryMetrics = time.Second

// ServeMetrics serves /metrics to whoever reaches the address, and the same at /, where those of daprd are asked for, until
// ctx ends. Where the address is not free it waits until it is: the process before this one may still have it.
func ServeMetrics(ctx context.Context, address string, s Telemetry, log *slog.Logger) {
	var config net.ListenConfig
	var socket net.Listener
	for told := false; ; {
		var err error
		if socket, err = config.Listen(ctx, "tcp", address); err == nil {
			break
		}
		if !told && ctx.Err() == nil {
			told = true
			log.Error("metrics are not served yet", "address", address, "error", err, "hint", "free the address, or choose another one: --metrics HOST:PORT")
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retryMetrics):
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics(s, log))
	mux.Handle("GET /{$}", metrics(s, log))
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	log.Info("metrics", "url", fmt.Sprintf("http://%s/metrics", socket.Addr()))
	var done sync.WaitGroup
	defer done.Wait()
	done.Go(func() {
		<-ctx.Done()
		_ = server.Close() // the socket is of no use to anybody any more
	})
	if err := server.Serve(socket); !errors.Is(err, http.ErrServerClosed) {
		log.Error("metrics ended", "error", err)
	}
}
