// Command program is a CGI program for tests: an ordinary Go main that reads standard input and writes standard output.
package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

var served int // by this instance

func main() {
	served++
	switch path := os.Getenv("PATH_INFO"); path {
	case "/echo":
		b, err := io.ReadAll(os.Stdin)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		fmt.Printf("Status: 201 Created\r\nContent-Type: %s\r\nX-Served: %d\r\n\r\n", os.Getenv("CONTENT_TYPE"), served)
		os.Stdout.Write(b)
	case "/environment":
		fmt.Print("content-type: text/plain\n\n")
		all := os.Environ()
		slices.Sort(all)
		fmt.Printf("%s\n%q", strings.Join(all, "\n"), os.Args)
	case "/exit":
		fmt.Print("Content-Type: text/plain\n\nall is well")
		fmt.Fprintln(os.Stderr, "nothing is well")
		os.Exit(3)
	case "/exit0":
		fmt.Print("Content-Type: text/plain\n\nall is well")
		os.Exit(0)
	case "/panic":
		panic("oh no")
	case "/loop":
		for {
			served++
		}
	case "/silent":
	case "/fields":
		fmt.Print(strings.Repeat("a: b\n", 2000), "\n")
	case "/large":
		fmt.Print("Content-Type: text/plain\n\n")
		for {
			fmt.Println(strings.Repeat("x", 1000))
		}
	default: // a path is what to print, its escapes resolved
		fmt.Print(strings.TrimPrefix(path, "/print/"))
	}
}
