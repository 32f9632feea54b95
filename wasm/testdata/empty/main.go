// Command empty is a function that answers nothing: what a call of it takes is the host's.
package main

//go:wasmexport loam_serve
func serve() {}

func main() {}
