// Command dapr is an order desk that was written for Dapr: all it knows is Dapr's HTTP API at localhost. Nothing in it
// is for Loam, and it answers the same beside daprd.
//
//	POST /orders {"id":"a1","item":"apple","count":2}   takes an order and tells all desks
//	GET  /orders/a1                                     the order; confirmed once the event came back
//	GET  /seen/a1                                       who took the order, as this desk was told
//	GET  /ask/DESK/a1                                   what another desk says of an order
//	GET  /greeting                                      a secret
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// An order is what is taken, kept and told of.
type order struct {
	ID     string `json:"id"`
	Item   string `json:"item"`
	Count  int    `json:"count"`
	Desk   string `json:"desk"`   // that took it
	Status string `json:"status"` // open or confirmed
}

// A desk speaks to its sidecar.
type desk struct {
	name   string
	dapr   string // the sidecar's URL
	client *http.Client
}

func main() {
	d := &desk{
		name: cmp.Or(os.Getenv("DESK"), "dapr-desk"), dapr: "http://127.0.0.1:" + cmp.Or(os.Getenv("DAPR_HTTP_PORT"), "3500"),
		client: &http.Client{Timeout: 10 * time.Second},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /dapr/subscribe", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, []map[string]string{{"pubsubname": "pubsub", "topic": "orders", "route": "/events/orders"}}, nil)
	})
	mux.HandleFunc("POST /events/orders", d.told)
	mux.HandleFunc("POST /orders", d.take)
	mux.HandleFunc("GET /orders/{id}", func(w http.ResponseWriter, r *http.Request) { d.show(w, r, "order/") })
	mux.HandleFunc("GET /seen/{id}", func(w http.ResponseWriter, r *http.Request) { d.show(w, r, "seen/") })
	mux.HandleFunc("GET /ask/{desk}/{id}", d.ask)
	mux.HandleFunc("GET /greeting", func(w http.ResponseWriter, r *http.Request) {
		var secret map[string]string
		_, err := d.call(r.Context(), "GET", "/v1.0/secrets/secrets/greeting", nil, &secret)
		answer(w, secret, err)
	})
	server := &http.Server{Addr: "127.0.0.1:" + cmp.Or(os.Getenv("PORT"), "6001"), Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		_ = server.Close() // the sidecar has drained already
	}()
	err := server.ListenAndServe()
	stop()
	if !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

// take keeps an order that nobody has taken yet, and tells all desks.
func (d *desk) take(w http.ResponseWriter, r *http.Request) {
	var o order
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil || o.ID == "" || o.Item == "" || o.Count < 1 {
		http.Error(w, `an order looks like {"id":"a1","item":"apple","count":2}`, http.StatusBadRequest)
		return
	}
	o.Desk, o.Status = d.name, "open"
	item := []map[string]any{{"key": "order/" + o.ID, "value": o, "options": map[string]string{"concurrency": "first-write"}}}
	status, err := d.call(r.Context(), "POST", "/v1.0/state/statestore", item, nil)
	if status == http.StatusConflict {
		http.Error(w, "there is an order of that id", http.StatusConflict)
		return
	}
	if err == nil {
		_, err = d.call(r.Context(), "POST", "/v1.0/publish/pubsub/orders", o, nil)
	}
	answer(w, o, err)
}

// told is an event: an order was taken somewhere. This desk's own is confirmed by it.
func (d *desk) told(w http.ResponseWriter, r *http.Request) {
	var event struct{ Data order }
	err := json.NewDecoder(r.Body).Decode(&event)
	if err != nil {
		answer(w, map[string]string{"status": "DROP"}, nil)
		return
	}
	o := event.Data
	operations := []map[string]any{{"operation": "upsert", "request": map[string]any{"key": "seen/" + o.ID, "value": map[string]string{"desk": o.Desk}}}}
	if o.Desk == d.name {
		o.Status = "confirmed"
		operations = append(operations, map[string]any{"operation": "upsert", "request": map[string]any{"key": "order/" + o.ID, "value": o}})
	}
	_, err = d.call(r.Context(), "POST", "/v1.0/state/statestore/transaction", map[string]any{"operations": operations}, nil)
	answer(w, map[string]string{"status": "SUCCESS"}, err)
}

func (d *desk) show(w http.ResponseWriter, r *http.Request, prefix string) {
	var value map[string]any
	status, err := d.call(r.Context(), "GET", "/v1.0/state/statestore/"+url.PathEscape(prefix+r.PathValue("id")), nil, &value)
	if status == http.StatusNoContent {
		http.Error(w, "no such order", http.StatusNotFound)
		return
	}
	answer(w, value, err)
}

func (d *desk) ask(w http.ResponseWriter, r *http.Request) {
	var value map[string]any
	path := "/v1.0/invoke/" + url.PathEscape(r.PathValue("desk")) + "/method/orders/" + url.PathEscape(r.PathValue("id"))
	status, err := d.call(r.Context(), "GET", path, nil, &value)
	if status == http.StatusNotFound {
		http.Error(w, "it has no such order", http.StatusNotFound)
		return
	}
	answer(w, value, err)
}

// call asks the sidecar; what it answers goes into out, where there is one.
func (d *desk) call(ctx context.Context, method, path string, in, out any) (status int, err error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, d.dapr+path, body)
	if err != nil {
		return 0, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, err
	}
	if resp.StatusCode >= 300 {
		return resp.StatusCode, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, b)
	}
	if out != nil && len(b) > 0 {
		err = json.Unmarshal(b, out)
	}
	return resp.StatusCode, err
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // who asked is gone where it cannot be sent
}
