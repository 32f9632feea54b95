// Command guest is a Proxy-Wasm filter for tests, written against the ABI itself: each path does one thing.
package main

import (
	"fmt"
	"strconv"
	"strings"
	"unsafe"
)

type ptr = unsafe.Pointer

//go:wasmimport env proxy_log
func proxyLog(level uint32, p ptr, n uint32) uint32

//go:wasmimport env proxy_get_log_level
func proxyGetLogLevel(out ptr) uint32

//go:wasmimport env proxy_get_current_time_nanoseconds
func proxyGetTime(out ptr) uint32

//go:wasmimport env proxy_set_tick_period_milliseconds
func proxySetTick(n uint32) uint32

//go:wasmimport env proxy_done
func proxyDone() uint32

//go:wasmimport env proxy_set_effective_context
func proxySetEffectiveContext(id uint32) uint32

//go:wasmimport env proxy_get_status
func proxyGetStatus(code, p, n ptr) uint32

//go:wasmimport env proxy_get_configuration
func proxyGetConfiguration(p, n ptr) uint32

//go:wasmimport env proxy_get_buffer_status
func proxyGetBufferStatus(id uint32, size, flags ptr) uint32

//go:wasmimport env proxy_get_buffer_bytes
func proxyGetBufferBytes(id, start, size uint32, p, n ptr) uint32

//go:wasmimport env proxy_set_buffer_bytes
func proxySetBufferBytes(id, start, size uint32, p ptr, n uint32) uint32

//go:wasmimport env proxy_get_header_map_size
func proxyGetMapSize(id uint32, n ptr) uint32

//go:wasmimport env proxy_get_header_map_pairs
func proxyGetMapPairs(id uint32, p, n ptr) uint32

//go:wasmimport env proxy_set_header_map_pairs
func proxySetMapPairs(id uint32, p ptr, n uint32) uint32

//go:wasmimport env proxy_get_header_map_value
func proxyGetMapValue(id uint32, k ptr, kn uint32, p, n ptr) uint32

//go:wasmimport env proxy_add_header_map_value
func proxyAddMapValue(id uint32, k ptr, kn uint32, p ptr, n uint32) uint32

//go:wasmimport env proxy_replace_header_map_value
func proxyReplaceMapValue(id uint32, k ptr, kn uint32, p ptr, n uint32) uint32

//go:wasmimport env proxy_remove_header_map_value
func proxyRemoveMapValue(id uint32, k ptr, kn uint32) uint32

//go:wasmimport env proxy_get_property
func proxyGetProperty(k ptr, kn uint32, p, n ptr) uint32

//go:wasmimport env proxy_set_property
func proxySetProperty(k ptr, kn uint32, p ptr, n uint32) uint32

//go:wasmimport env proxy_continue_stream
func proxyContinue(stream uint32) uint32

//go:wasmimport env proxy_close_stream
func proxyClose(stream uint32) uint32

//go:wasmimport env proxy_send_local_response
func proxySendLocalResponse(code uint32, details ptr, dn uint32, body ptr, bn uint32, headers ptr, hn uint32, grpc int32) uint32

//go:wasmimport env proxy_http_call
func proxyHTTPCall(up ptr, un uint32, headers ptr, hn uint32, body ptr, bn uint32, trailers ptr, tn uint32, timeout uint32, token ptr) uint32

//go:wasmimport env proxy_get_state
func proxyGetState(store ptr, sn uint32, key ptr, kn uint32, p, n ptr) uint32

//go:wasmimport env proxy_invoke_service
func proxyInvokeService(id ptr, in uint32, method ptr, mn uint32, param ptr, pn uint32, p, n ptr) uint32

//go:wasmimport env proxy_define_metric
func proxyDefineMetric(kind uint32, p ptr, n uint32, id ptr) uint32

//go:wasmimport env proxy_get_shared_data
func proxyGetSharedData(k ptr, kn uint32, p, n, cas ptr) uint32

//go:wasmimport env proxy_call_foreign_function
func proxyCallForeignFunction(name ptr, nn uint32, args ptr, an uint32, p, n ptr) uint32

//go:wasmexport proxy_abi_version_0_2_1
func abiVersion() {}

// What the host was given, so that it is not collected before it is used.
var (
	given [][]byte
	play  string // on the host, while it wants memory
)

//go:wasmexport proxy_on_memory_allocate
func memoryAllocate(n uint32) ptr {
	switch play {
	case "null":
		return nil
	case "outside":
		return ptr(uintptr(0xfffffff0))
	case "again":
		var p, size uint32
		proxyGetProperty(addr("request\x00path"), 12, ptr(&p), ptr(&size))
	case "trap":
		panic("no memory")
	}
	b := make([]byte, n)
	given = append(given, b)
	return ptr(&b[0])
}

func addr(s string) ptr { return ptr(unsafe.StringData(s)) }

func size(s string) uint32 { return uint32(len(s)) }

// text calls what gives a text.
func text(f func(p, n ptr) uint32) string {
	var p ptr
	var n uint32
	if s := f(ptr(&p), ptr(&n)); s != 0 {
		return "status " + strconv.Itoa(int(s))
	}
	if n == 0 {
		return ""
	}
	return strings.Clone(unsafe.String((*byte)(p), n))
}

func buffer(id uint32) string {
	return text(func(p, n ptr) uint32 { return proxyGetBufferBytes(id, 0, 1<<30, p, n) })
}

func value(id uint32, key string) string {
	return text(func(p, n ptr) uint32 { return proxyGetMapValue(id, addr(key), size(key), p, n) })
}

func property(path string) string {
	return text(func(p, n ptr) uint32 { return proxyGetProperty(addr(path), size(path), p, n) })
}

func add(id uint32, key, v string) uint32 {
	return proxyAddMapValue(id, addr(key), size(key), addr(v), size(v))
}

func replace(id uint32, key, v string) uint32 {
	return proxyReplaceMapValue(id, addr(key), size(key), addr(v), size(v))
}

func number(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 | int(b[3])<<24 }

// pairs reads a map.
func pairs(id uint32) (all []string) {
	b := []byte(text(func(p, n ptr) uint32 { return proxyGetMapPairs(id, p, n) }))
	if len(b) < 4 || strings.HasPrefix(string(b), "status ") {
		return []string{string(b)}
	}
	n := number(b)
	at := 4 + 8*n
	for i := range n {
		k, v := number(b[4+8*i:]), number(b[8+8*i:])
		all = append(all, string(b[at:at+k])+"="+string(b[at+k+1:at+k+1+v]))
		at += k + v + 2
	}
	return all
}

func encode(kv ...string) string {
	word := func(n int) string { return string([]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)}) }
	s := word(len(kv) / 2)
	for _, p := range kv {
		s += word(len(p))
	}
	return s + strings.Join(kv, "\x00") + "\x00"
}

func respond(code uint32, body string, kv ...string) uint32 {
	h := ""
	if len(kv) > 0 {
		h = encode(kv...)
	}
	return proxySendLocalResponse(code, addr("details"), 7, addr(body), size(body), addr(h), size(h), -1)
}

func say(level uint32, s string) uint32 { return proxyLog(level, addr(s), size(s)) }

var (
	begun  []string // what happened before the first request
	served int
	path   string // of the request
	do     string
	token  uint32
)

//go:wasmexport proxy_on_context_create
func contextCreate(id, parent uint32) {
	if parent == 0 {
		begun = append(begun, fmt.Sprint("root ", id, " ", property("plugin_root_id"), property("request\x00path")))
		return
	}
	served++
}

//go:wasmexport proxy_on_vm_start
func vmStart(id, n uint32) uint32 {
	begun = append(begun, fmt.Sprint("vm ", id, n, buffer(6)))
	return 1
}

//go:wasmexport proxy_on_configure
func configure(id, n uint32) uint32 {
	settings := text(func(p, n ptr) uint32 { return proxyGetConfiguration(p, n) })
	begun = append(begun, fmt.Sprint("plugin ", id, n, buffer(7), settings))
	say(2, "configured")
	if settings == "refuse" {
		return 0
	}
	return 1
}

const (
	goOn = iota
	pause
)

//go:wasmexport proxy_on_request_headers
func requestHeaders(id, n, end uint32) uint32 {
	path, query, _ := strings.Cut(value(0, ":path"), "?")
	do = value(0, "X-Do")
	switch path {
	case "/local":
		respond(418, "short and stout "+strings.Join(begun, ", "), "x-a", "1", "X-A", "2", "content-length", "99")
		return pause
	case "/headers":
		if all := pairs(0); len(all) != int(n) {
			panic("the number of headers is wrong")
		}
		respond(200, strings.Join(pairs(0), " ")+fmt.Sprint(" end ", end, " ", served))
	case "/statuses":
		respond(200, statuses(id))
	case "/property":
		var b strings.Builder
		for _, p := range []string{"request path", "request url_path", "request query", "request host", "request scheme", "request method",
			"request id", "request size", "request headers x-do", "request nothing", "source address", "source port", "response code", "plugin_name", "own"} {
			fmt.Fprintf(&b, "%s: %q\n", p, property(strings.ReplaceAll(p, " ", "\x00")))
			if p == "source port" {
				fmt.Fprintf(&b, "set: %d\n", proxySetProperty(addr("own"), 3, addr("mine"), 4))
			}
		}
		respond(200, b.String())
	case "/call":
		call(query, "GET", "/x?y=z", "")
		if do != "go on" {
			return pause
		}
	case "/pause":
		return pause
	case "/close":
		proxyClose(0)
		return pause
	case "/log":
		for level := range uint32(7) {
			begun = append(begun, strconv.Itoa(int(say(level, "level "+strconv.Itoa(int(level))))))
		}
		respond(200, strings.Join(begun[len(begun)-7:], ""))
	case "/loop":
		for {
			served++
		}
	case "/trap":
		panic("oh no")
	case "/lie":
		respond(200, fmt.Sprint(lie(query)))
	case "/play":
		play = query
		respond(200, property("request\x00path"))
		play = ""
	case "/late": // in on_log
	case "/state":
		s := text(func(p, n ptr) uint32 {
			return proxyGetState(addr("redis"), 5, addr(query), size(query), p, n)
		})
		if do == "swallow" {
			s = ""
		}
		if do == "pause" && strings.HasPrefix(s, "status") {
			return pause
		}
		proxySetBufferBytes(1, 0, 0, addr(s), size(s))
	case "/refused":
		add(2, "a b", "c")
		replace(2, ":status", "101")
		proxySetBufferBytes(1, 0, 0, ptr(uintptr(0xffffffff)), 9)
	case "/empty":
		proxySetBufferBytes(1, 0, 0, nil, 0)
	case "/type":
		replace(2, ":status", "203")
		add(2, "Content-Type", "text/x-test")
		s := "with a type"
		proxySetBufferBytes(1, 0, 0, addr(s), size(s))
	}
	if strings.Contains(do, "request") {
		replace(0, ":method", "PUT")
		replace(0, ":path", "/other?"+query)
		replace(0, "x-added", "by the guest")
		proxyRemoveMapValue(0, addr("X-Secret"), 8)
	}
	return goOn
}

func call(upstream, method, path, body string) uint32 {
	h := encode(":method", method, ":path", path, ":authority", "upstream.example", "x-from", "guest")
	return proxyHTTPCall(addr(upstream), size(upstream), addr(h), size(h), addr(body), size(body), nil, 0, 1000, ptr(&token))
}

//go:wasmexport proxy_on_http_call_response
func httpCallResponse(id, of, fields, n, trailers uint32) {
	if id != 1 || of == 0 || of > token {
		panic("an answer to what was not asked")
	}
	if do == "again" {
		do = ""
		call("http://second.example", "POST", "/", "more")
		return
	}
	var code uint32
	text(func(p, n ptr) uint32 { return proxyGetStatus(ptr(&code), p, n) })
	s := fmt.Sprintf("%d %d %s %s", fields, code, value(6, "x-answer"), buffer(4))
	if do == "resume" {
		add(0, "x-called", s)
		proxyContinue(0)
		return
	}
	if do == "go on" {
		say(2, "called "+s)
		return
	}
	respond(200, s)
}

//go:wasmexport proxy_on_request_body
func requestBody(id, n, end uint32) uint32 {
	if b := buffer(0); len(b) != int(n) {
		panic("the size of the body is wrong")
	}
	switch {
	case strings.Contains(do, "request"):
		proxySetBufferBytes(0, 0, 0, addr("before "), 7)
		proxySetBufferBytes(0, 1<<32-1, 0, addr(" after"), 6)
		proxySetBufferBytes(0, 7, 1, addr("B"), 1)
	case do == "echo":
		b := buffer(0)
		respond(200, b+fmt.Sprint(" end ", end, " ", served))
	}
	return goOn
}

//go:wasmexport proxy_on_response_headers
func responseHeaders(id, n, end uint32) uint32 {
	if all := pairs(2); len(all) != int(n) {
		panic("the number of headers is wrong")
	}
	add(2, "x-status", value(2, ":status"))
	if r := replace(0, "x-late", "1"); r != 2 {
		panic("a request was changed that was sent")
	}
	if strings.Contains(do, "deny") {
		respond(403, "no")
	}
	return goOn
}

//go:wasmexport proxy_on_response_body
func responseBody(id, n, end uint32) uint32 {
	if strings.Contains(do, "write") {
		s := strings.ToUpper(buffer(1)) + "!"
		proxySetBufferBytes(1, 0, n, addr(s), size(s))
		replace(2, ":status", "203")
	}
	return goOn
}

//go:wasmexport proxy_on_response_trailers
func responseTrailers(id, n uint32) uint32 {
	add(3, "x-trailers", strconv.Itoa(int(n)))
	return goOn
}

//go:wasmexport proxy_on_done
func onDone(id uint32) uint32 {
	if do == "go on" {
		return 0
	}
	return 1
}

//go:wasmexport proxy_on_log
func onLog(id uint32) {
	if do == "trap at the end" {
		panic("oh no")
	}
	s := fmt.Sprint("done ", proxyDone(), " ", value(2, ":status"), " ", add(2, "x", "y"), " ", respond(200, ""), " ", proxySetBufferBytes(1, 0, 0, addr("x"), 1))
	say(2, s)
}

// statuses are what functions say that do nothing, or cannot do what is asked.
func statuses(id uint32) string {
	var n uint32
	p := ptr(&n)
	var all []string
	for name, s := range map[string]uint32{
		"tick":             proxySetTick(5),
		"tick off":         proxySetTick(0),
		"done":             proxyDone(),
		"context":          proxySetEffectiveContext(id),
		"root":             proxySetEffectiveContext(1),
		"no context":       proxySetEffectiveContext(99),
		"metric":           proxyDefineMetric(0, addr("m"), 1, p),
		"shared data":      proxyGetSharedData(addr("k"), 1, p, p, p),
		"foreign":          proxyCallForeignFunction(addr("f"), 1, nil, 0, p, p),
		"no map":           proxyGetMapSize(8, p),
		"grpc map":         proxyGetMapSize(4, p),
		"no key":           proxyGetMapValue(0, addr("nokey"), 5, p, p),
		"no buffer":        proxyGetBufferStatus(9, p, p),
		"call's buffer":    proxyGetBufferStatus(4, p, p),
		"tcp buffer":       proxyGetBufferStatus(2, p, p),
		"settings":         proxySetBufferBytes(7, 0, 0, addr("x"), 1),
		"call data":        proxySetBufferBytes(8, 0, 0, addr("x"), 1),
		"much call data":   proxySetBufferBytes(8, 0, 0, addr(strings.Repeat("x", 1<<17)), 1<<17),
		"name":             add(2, "a b", "c"),
		"splitting":        add(2, "a", "b\r\nc: d"),
		"status 101":       replace(2, ":status", "101"),
		"no status":        proxyRemoveMapValue(2, addr(":status"), 7),
		"method":           replace(0, ":method", "A B"),
		"path":             replace(0, ":path", "http://x/"),
		"authority":        replace(0, ":authority", "a/b"),
		"scheme":           replace(0, ":scheme", "file"),
		"pseudo":           add(0, ":x", "y"),
		"pairs":            proxySetMapPairs(0, addr("\x01\x00\x00\x00\xff\xff\xff\xff"), 8),
		"close response":   proxyClose(1),
		"continue tcp":     proxyContinue(2),
		"continue nothing": proxyContinue(7),
		"local 101":        respond(101, ""),
		"local header":     respond(200, "", "a b", "c"),
		"call":             proxyHTTPCall(nil, 0, nil, 0, nil, 0, nil, 0, 0, p),
		"level":            proxyGetLogLevel(p),
		"time":             proxyGetTime(ptr(new(uint64))),
		"beyond a body":    proxyGetBufferBytes(0, 1, 1, p, p),
	} {
		all = append(all, fmt.Sprint(name, " ", s))
	}
	return strings.Join(all, ", ")
}

// lie calls a function with any numbers.
func lie(query string) uint32 {
	name, rest, _ := strings.Cut(query, ",")
	var n [10]uint32
	for i, s := range strings.Split(rest, ",") {
		v, _ := strconv.ParseUint(s, 10, 32)
		n[i] = uint32(v)
	}
	p := func(i int) ptr { return ptr(uintptr(n[i])) }
	switch name {
	case "proxy_log":
		return proxyLog(n[0], p(1), n[2])
	case "proxy_get_log_level":
		return proxyGetLogLevel(p(0))
	case "proxy_get_current_time_nanoseconds":
		return proxyGetTime(p(0))
	case "proxy_get_status":
		return proxyGetStatus(p(0), p(1), p(2))
	case "proxy_get_configuration":
		return proxyGetConfiguration(p(0), p(1))
	case "proxy_get_buffer_status":
		return proxyGetBufferStatus(n[0], p(1), p(2))
	case "proxy_get_buffer_bytes":
		return proxyGetBufferBytes(n[0], n[1], n[2], p(3), p(4))
	case "proxy_set_buffer_bytes":
		return proxySetBufferBytes(n[0], n[1], n[2], p(3), n[4])
	case "proxy_get_header_map_size":
		return proxyGetMapSize(n[0], p(1))
	case "proxy_get_header_map_pairs":
		return proxyGetMapPairs(n[0], p(1), p(2))
	case "proxy_set_header_map_pairs":
		return proxySetMapPairs(n[0], p(1), n[2])
	case "proxy_get_header_map_value":
		return proxyGetMapValue(n[0], p(1), n[2], p(3), p(4))
	case "proxy_add_header_map_value":
		return proxyAddMapValue(n[0], p(1), n[2], p(3), n[4])
	case "proxy_replace_header_map_value":
		return proxyReplaceMapValue(n[0], p(1), n[2], p(3), n[4])
	case "proxy_remove_header_map_value":
		return proxyRemoveMapValue(n[0], p(1), n[2])
	case "proxy_get_property":
		return proxyGetProperty(p(0), n[1], p(2), p(3))
	case "proxy_set_property":
		return proxySetProperty(p(0), n[1], p(2), n[3])
	case "proxy_send_local_response":
		return proxySendLocalResponse(n[0], p(1), n[2], p(3), n[4], p(5), n[6], 0)
	case "proxy_http_call":
		return proxyHTTPCall(p(0), n[1], p(2), n[3], p(4), n[5], p(6), n[7], n[8], p(9))
	case "proxy_get_state":
		return proxyGetState(p(0), n[1], p(2), n[3], p(4), p(5))
	case "proxy_invoke_service":
		return proxyInvokeService(p(0), n[1], p(2), n[3], p(4), n[5], p(6), p(7))
	case "flood":
		for i := range 2000 {
			if s := add(0, "x-"+strconv.Itoa(i), "1"); s != 0 {
				return s
			}
		}
	case "large":
		s := strings.Repeat("x", 10_000)
		for {
			if r := proxySetBufferBytes(1, 1<<32-1, 0, addr(s), size(s)); r != 0 {
				return r
			}
		}
	case "calls":
		for {
			if r := call("http://x.example", "GET", "/", ""); r != 0 {
				return r
			}
		}
	}
	panic("no " + name)
}

func main() {}
