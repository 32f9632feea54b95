//go:build wasip1

// Command go answers with what it was sent, by the SDK.
package main

import loam "github.com/loam-run/loam/sdk/go"

func init() {
	loam.Handle("POST /", func(r *loam.Request) (*loam.Response, error) {
		b, err := r.Body()
		return loam.Bytes(200, "text/plain", b), err
	})
}

func main() {}
