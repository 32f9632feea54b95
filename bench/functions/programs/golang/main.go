//go:build wasip1

// Command golang is the programs' Go one: JSON, sorting, maps and hashing with the standard library, as functions that
// are written in Go do.
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o golang.wasm .
package main

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
)

func main() {}

type order struct {
	ID    int               `json:"id"`
	Name  string            `json:"name"`
	Price float64           `json:"price"`
	Tags  map[string]string `json:"tags"`
}

const text = `[{"id":1,"name":"widget","price":9.5,"tags":{"color":"red","size":"m"}},{"id":2,"name":"gadget","price":3.25},
{"id":3,"name":"doohickey","price":7,"tags":{"color":"blue"}}]`

//go:wasmexport run
func run(n uint32) uint32 {
	sum := uint32(0)
	for ; n > 0; n-- {
		var orders []order
		if err := json.Unmarshal([]byte(text), &orders); err != nil {
			panic(err)
		}
		slices.SortFunc(orders, func(a, b order) int { return strings.Compare(a.Name, b.Name) })
		out, err := json.Marshal(orders)
		if err != nil {
			panic(err)
		}
		hash := sha256.Sum256(out)
		sum += binary.LittleEndian.Uint32(hash[:])
	}
	return sum
}
