package layotto

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/loam-run/loam"
)

// HTTP serves what Layotto serves on its actuator's port.
func (a *API) HTTP() loam.Target { return loam.TargetFunc(a.serveActuator) }

// maxActuatorBody is how much of a request is read.
const maxActuatorBody = 64 << 10

// The states of health, in Layotto's words.
const (
	up   = "UP"
	down = "DOWN"
)

// health is an answer about health, and a part of one.
type health struct {
	Status     string            `json:"status"`
	Components map[string]health `json:"components,omitempty"`
	Details    map[string]string `json:"details,omitempty"`
}

func (a *API) serveActuator(req *loam.Request) (*loam.Response, error) {
	what, ok := strings.CutPrefix(req.Path, "/actuator/")
	if !ok {
		return answerJSON(http.StatusNotFound, nil), nil
	}
	reads := req.Method == http.MethodGet || req.Method == http.MethodHead
	switch what = strings.TrimSuffix(what, "/"); what {
	case "health/liveness", "health/readiness":
		if !reads {
			return notAllowed("GET, HEAD"), nil
		}
		return a.health(what == "health/readiness"), nil
	case "info":
		if !reads {
			return notAllowed("GET, HEAD"), nil
		}
		return answerJSON(http.StatusOK, map[string]any{"app": map[string]string{"name": "Loam", "version": a.opts.Version}}), nil
	case "logger":
		if req.Method != http.MethodPost {
			return notAllowed("POST"), nil
		}
		return a.logger(req)
	}
	if strings.HasPrefix(what, "health") { // Layotto answers so where it does not know what is asked for
		return answerJSON(http.StatusServiceUnavailable, map[string]any{}), nil
	}
	return answerJSON(http.StatusNotFound, nil), nil
}

// health tells whether the process is to be begun again (it never is while it can answer), or is to be sent requests.
func (a *API) health(readiness bool) *loam.Response {
	status, state, details := http.StatusOK, up, map[string]string{"reason": ""}
	if readiness && a.opts.Healthy != nil {
		if err := a.opts.Healthy(); err != nil {
			status, state, details = http.StatusServiceUnavailable, down, map[string]string{"reason": words(err)}
		}
	}
	return answerJSON(status, health{Status: state, Components: map[string]health{"runtime_startup": {Status: state, Details: details}}})
}

// logger changes how much is logged of a component.
func (a *API) logger(req *loam.Request) (*loam.Response, error) {
	var in struct{ Component, Level string }
	var body []byte
	if req.Body != nil {
		var err error
		if body, err = io.ReadAll(io.LimitReader(req.Body, maxActuatorBody+1)); err != nil {
			return nil, err
		}
	}
	if len(body) > maxActuatorBody {
		return answerJSON(http.StatusRequestEntityTooLarge, nil), nil
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return answerJSON(http.StatusBadRequest, map[string]string{"error": "the body is JSON: {component, level}"}), nil
	}
	if a.opts.SetLevel == nil {
		return answerJSON(http.StatusNotImplemented, map[string]string{"error": "the log's level does not change while it runs"}), nil
	}
	if err := a.opts.SetLevel(in.Component, in.Level); err != nil {
		return answerJSON(http.StatusBadRequest, map[string]string{"error": words(err)}), nil
	}
	return answerJSON(http.StatusOK, map[string]any{}), nil
}

func notAllowed(methods string) *loam.Response {
	res := answerJSON(http.StatusMethodNotAllowed, nil)
	res.Header.Add("Allow", methods)
	return res
}

func answerJSON(status int, v any) *loam.Response {
	var body []byte
	if v != nil {
		var err error
		if body, err = json.Marshal(v); err != nil {
			panic("layotto: " + err.Error()) // strings and maps of them only
		}
	}
	return loam.NewResponse(status, "application/json", body)
}
