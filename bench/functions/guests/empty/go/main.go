//go:build wasip1

// Command go is the empty guest in Go: what a call of it takes is the host's.
package main

//go:wasmexport loam_serve
func serve() {}

func main() {}
