package registry

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/protocol"
)

const (
	maxBody = 64 << 10 // bytes of an instance
	maxWait = time.Minute
)

// Handler is the registry over HTTP, for who mounts it below a prefix of its choice and says who may call:
//
//	GET    /                            the services, and how many instances each has
//	GET    /SERVICE                     its List; with ?after=VERSION once that is not its version any more, or after
//	                                    ?wait=30s, a minute at most
//	PUT    /SERVICE/ID                  registers an Instance, or says that it is still there
//	DELETE /SERVICE/ID                  deregisters it
func (r *Registry) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { answer(w, r.Services(), nil) })
	mux.HandleFunc("GET /{service}", func(w http.ResponseWriter, req *http.Request) {
		l, err := r.get(req)
		answer(w, l, err)
	})
	mux.HandleFunc("PUT /{service}/{id}", func(w http.ResponseWriter, req *http.Request) {
		i, err := decode(http.MaxBytesReader(w, req.Body, maxBody), req.PathValue("id"))
		if err == nil {
			err = r.Register(req.PathValue("service"), i)
		}
		answer(w, i, err)
	})
	mux.HandleFunc("DELETE /{service}/{id}", func(w http.ResponseWriter, req *http.Request) {
		if err := r.Deregister(req.PathValue("service"), req.PathValue("id")); err != nil {
			answer(w, nil, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

func (r *Registry) get(req *http.Request) (List, error) {
	name, query := req.PathValue("service"), req.URL.Query()
	if !query.Has("after") {
		if err := checkName(name); err != nil {
			return List{}, &loam.Error{Code: loam.InvalidArgument, Op: "list", Err: err}
		}
		return r.List(name), nil
	}
	after, err := strconv.ParseUint(query.Get("after"), 10, 64)
	if err != nil {
		return List{}, loam.Errorf(loam.InvalidArgument, "watch", "after is not a version: %w", err)
	}
	wait := maxWait / 2
	if query.Has("wait") {
		if wait, err = time.ParseDuration(query.Get("wait")); err != nil || wait < 0 || wait > maxWait {
			return List{}, loam.Errorf(loam.InvalidArgument, "watch", "wait is not a duration up to %s", maxWait)
		}
	}
	ctx, cancel := context.WithTimeout(req.Context(), wait)
	defer cancel()
	return r.Watch(ctx, name, after)
}

// decode reads an instance, strictly. Its id is that of the path.
func decode(body io.Reader, id string) (i Instance, err error) {
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(&i); err != nil {
		code := loam.InvalidArgument
		if errors.As(err, new(*http.MaxBytesError)) {
			code = loam.ResourceExhausted
		}
		return i, loam.Errorf(code, "register", "read the instance: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return i, loam.Errorf(loam.InvalidArgument, "register", "there is something after the instance")
	}
	if i.ID != "" && i.ID != id {
		return i, loam.Errorf(loam.InvalidArgument, "register", "the id %q is not that of the path", i.ID)
	}
	i.ID = id
	i.setDefaults()
	return i, nil
}

func answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		res := protocol.ErrorResponse(err, "")
		w.WriteHeader(res.Status)
		_, _ = io.Copy(w, res.Body) // who went away needs no answer
		return
	}
	_ = json.NewEncoder(w).Encode(v)
}
