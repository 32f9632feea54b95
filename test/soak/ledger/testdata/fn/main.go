// Command fn is the function that soak-ledger counts: how much a call of it takes, the caller says.
package main

import (
	"bytes"
	"strconv"

	loam "github.com/loam-run/loam/sdk/go"
)

func init() {
	loam.Handle("POST /work", work)
	loam.Handle("POST /pass/{target}", pass)
}

func main() {}

// work makes as many capability calls as it is told, and answers as many bytes.
func work(r *loam.Request) (*loam.Response, error) {
	if _, err := r.Body(); err != nil {
		return nil, err
	}
	calls, err := strconv.Atoi(r.Query().Get("calls"))
	if err != nil {
		return nil, err
	}
	for range calls {
		if _, err := loam.State("").Get("nothing"); !loam.IsNotFound(err) {
			return nil, loam.Errorf(loam.Internal, "nothing is there: %v", err)
		}
	}
	n, err := strconv.Atoi(r.Query().Get("bytes"))
	if err != nil {
		return nil, err
	}
	return loam.Bytes(200, "text/plain", bytes.Repeat([]byte("x"), n)), nil
}

// pass has another function do it.
func pass(r *loam.Request) (*loam.Response, error) {
	body, err := r.Body()
	if err != nil {
		return nil, err
	}
	resp, err := loam.Invoke(r.PathValue("target"), "/work?"+r.RawQuery, loam.Outgoing{Body: body})
	if err != nil {
		return nil, err
	}
	return loam.Bytes(resp.Status, "text/plain", resp.Body), nil
}
