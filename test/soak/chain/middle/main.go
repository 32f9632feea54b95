//go:build wasip1

// Command middle is the function in the middle of the chain: it hands its request on, and notices if it has served one
// before.
package main

import loam "github.com/loam-run/loam/sdk/go"

var served [][]byte

func init() {
	loam.Handle("/", func(r *loam.Request) (*loam.Response, error) {
		if len(served) > 0 {
			return nil, loam.Errorf(loam.DataLoss, "it served %d requests before, the last with %.40q", len(served), served[len(served)-1])
		}
		b, err := r.Body()
		if err != nil {
			return nil, err
		}
		served = append(served, b)
		resp, err := loam.Invoke("back", "/back", loam.Outgoing{Body: b})
		if err != nil {
			return nil, err
		}
		return loam.Bytes(resp.Status, "text/plain", append([]byte("m:"), resp.Body...)), nil
	})
}

func main() {}
