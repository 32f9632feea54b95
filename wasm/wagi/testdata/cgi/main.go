// Command cgi is a web server as Go's own library makes a CGI program of it.
package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"os"
)

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /orders/{id}", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		http.SetCookie(w, &http.Cookie{Name: "seen", Value: r.PathValue("id")})
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, "%s %s?%s %s %s %s %d %s", r.Method, r.URL.Path, r.URL.RawQuery, r.Host, r.RemoteAddr, r.Header.Get("X-Name"), r.ContentLength, b)
	})
	if err := cgi.Serve(mux); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
