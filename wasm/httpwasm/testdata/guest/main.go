// Command guest is an http-wasm handler for tests: each path does one thing.
package main

import (
	"strconv"
	"strings"
	"unsafe"
)

//go:wasmimport http_handler enable_features
func enableFeatures(f uint32) uint32

//go:wasmimport http_handler get_config
func getConfig(p unsafe.Pointer, n uint32) uint32

//go:wasmimport http_handler log
func log(level int32, p unsafe.Pointer, n uint32)

//go:wasmimport http_handler log_enabled
func logEnabled(level int32) uint32

//go:wasmimport http_handler get_method
func getMethod(p unsafe.Pointer, n uint32) uint32

//go:wasmimport http_handler set_method
func setMethod(p unsafe.Pointer, n uint32)

//go:wasmimport http_handler get_uri
func getURI(p unsafe.Pointer, n uint32) uint32

//go:wasmimport http_handler set_uri
func setURI(p unsafe.Pointer, n uint32)

//go:wasmimport http_handler get_protocol_version
func getProtocolVersion(p unsafe.Pointer, n uint32) uint32

//go:wasmimport http_handler get_source_addr
func getSourceAddr(p unsafe.Pointer, n uint32) uint32

//go:wasmimport http_handler get_header_names
func getHeaderNames(kind uint32, p unsafe.Pointer, n uint32) uint64

//go:wasmimport http_handler get_header_values
func getHeaderValues(kind uint32, name unsafe.Pointer, nameLen uint32, p unsafe.Pointer, n uint32) uint64

//go:wasmimport http_handler set_header_value
func setHeaderValue(kind uint32, name unsafe.Pointer, nameLen uint32, p unsafe.Pointer, n uint32)

//go:wasmimport http_handler add_header_value
func addHeaderValue(kind uint32, name unsafe.Pointer, nameLen uint32, p unsafe.Pointer, n uint32)

//go:wasmimport http_handler remove_header
func removeHeader(kind uint32, name unsafe.Pointer, nameLen uint32)

//go:wasmimport http_handler read_body
func readBody(kind uint32, p unsafe.Pointer, n uint32) uint64

//go:wasmimport http_handler write_body
func writeBody(kind uint32, p unsafe.Pointer, n uint32)

//go:wasmimport http_handler get_status_code
func getStatusCode() uint32

//go:wasmimport http_handler set_status_code
func setStatusCode(n uint32)

const (
	request = iota
	response
	requestTrailer
	responseTrailer
)

func ptr(s string) unsafe.Pointer { return unsafe.Pointer(unsafe.StringData(s)) }

func size(s string) uint32 { return uint32(len(s)) }

// text reads what has a buffer, as the ABI wants it: ask for the length, then for the text.
func text(f func(unsafe.Pointer, uint32) uint32) string {
	b := make([]byte, f(nil, 0))
	if len(b) == 0 {
		return ""
	}
	return string(b[:f(unsafe.Pointer(&b[0]), uint32(len(b)))])
}

func list(f func(unsafe.Pointer, uint32) uint64) []string {
	n := f(nil, 0)
	if n == 0 {
		return nil
	}
	b := make([]byte, uint32(n))
	f(unsafe.Pointer(&b[0]), uint32(len(b)))
	all := strings.Split(string(b), "\x00")
	if len(all)-1 != int(n>>32) {
		panic("the count is wrong")
	}
	return all[:len(all)-1]
}

func names(kind uint32) []string {
	return list(func(p unsafe.Pointer, n uint32) uint64 { return getHeaderNames(kind, p, n) })
}

func values(kind uint32, name string) []string {
	return list(func(p unsafe.Pointer, n uint32) uint64 { return getHeaderValues(kind, ptr(name), size(name), p, n) })
}

func set(kind uint32, name, value string) {
	setHeaderValue(kind, ptr(name), size(name), ptr(value), size(value))
}

func add(kind uint32, name, value string) {
	addHeaderValue(kind, ptr(name), size(name), ptr(value), size(value))
}

func body(kind uint32) string {
	var all strings.Builder
	var b [1000]byte
	for {
		n := readBody(kind, unsafe.Pointer(&b[0]), uint32(len(b)))
		all.Write(b[:uint32(n)])
		if n>>32 != 0 {
			return all.String()
		}
	}
}

func write(kind uint32, s string) { writeBody(kind, ptr(s), size(s)) }

func say(level int32, s string) { log(level, ptr(s), size(s)) }

var (
	started = func() string { // before the first request
		say(0, "starting")
		return text(getConfig) + strconv.Itoa(int(enableFeatures(7)))
	}()
	served int
)

//go:wasmexport handle_request
func handleRequest() uint64 {
	served++
	uri := text(getURI)
	path, query, _ := strings.Cut(uri, "?")
	switch path {
	case "/echo":
		setStatusCode(201)
		for _, name := range names(request) {
			for _, v := range values(request, strings.ToUpper(name)) {
				add(response, "X-"+name, v)
			}
		}
		set(response, "x-set", "1")
		set(response, "X-Set", "2")
		add(response, "X-Gone", "1")
		removeHeader(response, ptr("x-gone"), 6)
		set(responseTrailer, "X-End", "here")
		write(response, text(getMethod)+" "+uri+" "+text(getProtocolVersion)+" "+text(getSourceAddr)+" "+started+" "+strconv.Itoa(served)+" ")
		write(response, body(request)+body(request))
		return 0
	case "/log":
		say(-1, "debug words")
		say(1, "warning words")
		say(7, "no level")
		set(response, "X-Enabled", strconv.Itoa(int(logEnabled(1)))+strconv.Itoa(int(logEnabled(3))))
		return 0
	case "/default":
		return 0
	case "/loop":
		for {
			served++
		}
	case "/trap":
		panic("oh no")
	case "/lie": // the name of a function, its numbers
		lie(query)
		return 0
	}
	if v := values(request, "X-Do"); len(v) == 1 && strings.Contains(v[0], "request") {
		m, u := "PUT", "/other?"+query+"&more=1"
		setMethod(ptr(m), size(m))
		setURI(ptr(u), size(u))
		set(request, "X-Added", "by the guest")
		removeHeader(request, ptr("x-secret"), 8)
		write(request, "rewritten ")
		write(request, body(request))
	}
	return 77<<32 | 1
}

//go:wasmexport handle_response
func handleResponse(ctx, isError uint32) {
	if isError != 0 {
		say(2, "it failed")
		return
	}
	do := strings.Join(values(request, "X-Do"), "")
	add(response, "X-Ctx", strconv.Itoa(int(ctx)))
	add(response, "X-Status", strconv.Itoa(int(getStatusCode())))
	switch {
	case strings.Contains(do, "read"):
		b := body(response)
		add(response, "X-Length", strconv.Itoa(len(b)))
		add(response, "X-Trailer", strings.Join(values(responseTrailer, "x-end"), ""))
		if strings.Contains(do, "write") {
			setStatusCode(203)
			write(response, strings.ToUpper(b))
			write(response, "!")
		}
	case strings.Contains(do, "replace"):
		write(response, "replaced")
	case strings.Contains(do, "late"):
		set(request, "X-Late", "1")
	case strings.Contains(do, "trap"):
		panic("oh no")
	}
}

// lie calls a function with any numbers.
func lie(query string) {
	name, rest, _ := strings.Cut(query, ",")
	var p [5]uint32
	for i, s := range strings.Split(rest, ",") {
		n, _ := strconv.ParseUint(s, 10, 32)
		p[i] = uint32(n)
	}
	at := func(i int) unsafe.Pointer { return unsafe.Pointer(uintptr(p[i])) }
	switch name {
	case "get_config":
		getConfig(at(0), p[1])
	case "log":
		log(int32(p[0]), at(1), p[2])
	case "get_method":
		getMethod(at(0), p[1])
	case "set_method":
		setMethod(at(0), p[1])
	case "get_uri":
		getURI(at(0), p[1])
	case "set_uri":
		setURI(at(0), p[1])
	case "get_protocol_version":
		getProtocolVersion(at(0), p[1])
	case "get_source_addr":
		getSourceAddr(at(0), p[1])
	case "get_header_names":
		getHeaderNames(p[0], at(1), p[2])
	case "get_header_values":
		getHeaderValues(p[0], at(1), p[2], at(3), p[4])
	case "set_header_value":
		setHeaderValue(p[0], at(1), p[2], at(3), p[4])
	case "add_header_value":
		addHeaderValue(p[0], at(1), p[2], at(3), p[4])
	case "remove_header":
		removeHeader(p[0], at(1), p[2])
	case "read_body":
		readBody(p[0], at(1), p[2])
	case "write_body":
		writeBody(p[0], at(1), p[2])
	case "set_status_code":
		setStatusCode(p[0])
	case "split":
		set(response, "X-A", "b\r\nX-C: d")
	case "name":
		set(response, "X-A: b\r\nX-C", "d")
	case "flood":
		for i := range 2000 {
			add(response, "X-"+strconv.Itoa(i), "1")
		}
	case "uri":
		u := "http://other/ a"
		setURI(ptr(u), size(u))
	case "large":
		for {
			write(response, strings.Repeat("x", 10_000))
		}
	default:
		panic("no " + name)
	}
}

func main() {}
