// Command stock is a function of Loam's own ABI beside those of Layotto's: it writes what they read.
package main

import loam "github.com/loam-run/loam/sdk/go"

func init() {
	loam.Handle("PUT /stock/{name}", func(r *loam.Request) (*loam.Response, error) {
		count, err := r.Body()
		if err != nil {
			return nil, err
		}
		_, err = loam.State("redis").Put(r.PathValue("name"), count)
		return nil, err
	})
}

func main() {}
