package proxywasm

import (
	"encoding/binary"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
)

// What a guest may set.
const (
	maxProperties   = 64      // for a request
	maxPropertySize = 8 << 10 // bytes of a path and its value
)

// path is a property's: its parts are separated by NUL, and some SDKs end it with one.
func (c *call) path() (string, bool) {
	p, ok := c.text(0)
	return strings.TrimSuffix(p, "\x00"), ok
}

// proxy_get_property(path, path_size, &value, &size)
func getProperty(c *call) status {
	path, valid := c.path()
	if !valid {
		return invalidMemoryAccess
	}
	value, found := c.properties[path]
	if !found {
		value, found = c.property(path)
	}
	if !found {
		return notFound
	}
	return c.give(2, value)
}

// proxy_set_property(path, path_size, value, value_size) is for the guest itself: what the host says of a request stays.
func setProperty(c *call) status {
	path, valid1 := c.path()
	value, valid2 := c.in(2)
	if !valid1 || !valid2 {
		return invalidMemoryAccess
	}
	if _, known := c.property(path); known || c.context == 0 || path == "" {
		return notFound // none that could be set
	}
	if _, there := c.properties[path]; len(path)+len(value) > maxPropertySize || !there && len(c.properties) >= maxProperties {
		return internalFailure
	}
	if c.properties == nil {
		c.properties = map[string][]byte{}
	}
	c.properties[path] = append([]byte(nil), value...)
	return ok
}

// property is what the host says of the plugin and its request, by the names of Envoy's attributes. Numbers are of 64
// bits, in little-endian order; times count nanoseconds.
func (s *server) property(path string) ([]byte, bool) {
	text := func(v string) ([]byte, bool) { return []byte(v), true }
	number := func(v int64) ([]byte, bool) { return binary.LittleEndian.AppendUint64(nil, uint64(v)), true }
	field := func(h loam.Header, name string) ([]byte, bool) {
		if !h.Has(name) {
			return nil, false
		}
		return text(strings.Join(h.Values(name), ","))
	}
	switch path {
	case "plugin_root_id": // by which a guest of several plugins knows the one it is to be
		for _, v := range s.guest.Env {
			if id, ok := strings.CutPrefix(v, "PLUGIN_ROOT_ID="); ok {
				return text(id)
			}
		}
		return nil, true
	case "plugin_vm_id":
		return nil, true
	case "plugin_name":
		return text(s.guest.Function)
	}
	if s.context == 0 {
		return nil, false
	}
	req := s.guest.Request
	object, name, _ := strings.Cut(path, "\x00")
	switch object {
	case "request":
		h := *s.header(mapRequestHeaders)
		path := h.Get(":path")
		bare, query, _ := strings.Cut(path, "?")
		switch name {
		case "path":
			return text(path)
		case "url_path":
			return text(bare)
		case "query":
			return text(query)
		case "host":
			return text(h.Get(":authority"))
		case "scheme":
			return text(h.Get(":scheme"))
		case "method":
			return text(h.Get(":method"))
		case "referer", "user-agent":
			return field(h, name)
		case "useragent":
			return field(h, "user-agent")
		case "id":
			return text(req.ID)
		case "protocol":
			return text("HTTP/1.1") // what a target sees of every protocol
		case "size":
			return number(int64(len(s.guest.Body)))
		case "time":
			return number(s.began.UnixNano())
		case "duration":
			return number(int64(time.Since(s.began)))
		}
		if name, ok := strings.CutPrefix(name, "headers\x00"); ok {
			return field(h, name)
		}
	case "response":
		h := s.header(mapResponseHeaders)
		if h == nil {
			return nil, false
		}
		if name, ok := strings.CutPrefix(name, "headers\x00"); ok {
			return field(*h, name)
		}
		if name == "code" {
			code, _ := strconv.ParseInt(h.Get(":status"), 10, 32)
			return number(code)
		}
	case "source":
		host, port, err := net.SplitHostPort(req.Remote)
		switch {
		case req.Remote == "":
		case name == "address":
			return text(req.Remote)
		case name == "port" && err == nil && host != "":
			n, _ := strconv.ParseInt(port, 10, 32)
			return number(n)
		}
	}
	return nil, false
}
