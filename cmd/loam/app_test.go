package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
)

// daprApp is an app as somebody writes it for Dapr, by HTTP: `daprapp PORT`. It subscribes to the topic orders by itself,
// keeps what it is brought, and answers GET /seen with that, a line each.
func daprApp() {
	var mu sync.Mutex
	var seen []string
	keep := func(what string, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(err)
		}
		var event struct{ Data json.RawMessage }
		if json.Unmarshal(body, &event) == nil && event.Data != nil {
			body = event.Data
		}
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, what+" "+strings.TrimSpace(string(body)))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /dapr/subscribe", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `[{"pubsubname": "pubsub", "topic": "orders", "route": "/orders"}]`)
	})
	mux.HandleFunc("GET /seen", func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		sorted := slices.Sorted(slices.Values(seen))
		fmt.Fprintln(w, strings.Join(sorted, "\n"))
	})
	mux.HandleFunc("OPTIONS /tick", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from %s, token %q\n", os.Args[1], r.Header.Get("Dapr-Api-Token"))
	})
	mux.HandleFunc("POST /", func(_ http.ResponseWriter, r *http.Request) { keep(r.URL.Path, r) })
	l, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err == nil {
		err = http.Serve(l, mux)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
