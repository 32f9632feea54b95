//go:build wasip1

// Command go reads an order as JSON and answers with its sum: a request as functions get them, with the standard
// library's reflection and its garbage.
package main

import (
	"encoding/json"

	loam "github.com/loam-run/loam/sdk/go"
)

type order struct {
	Items []struct {
		ID    int     `json:"id"`
		Name  string  `json:"name"`
		Price float64 `json:"price"`
	} `json:"items"`
}

func init() {
	loam.Handle("POST /", func(r *loam.Request) (*loam.Response, error) {
		b, err := r.Body()
		if err != nil {
			return nil, err
		}
		var o order
		if err := json.Unmarshal(b, &o); err != nil {
			return nil, err
		}
		sum := 0.0
		for _, i := range o.Items {
			sum += i.Price
		}
		b, err = json.Marshal(map[string]any{"items": len(o.Items), "sum": sum})
		return loam.Bytes(200, "application/json", b), err
	})
}

func main() {}
