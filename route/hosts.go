package route

import "strings"

// maxHost is the longest a host name can be (RFC 1035): what is longer is under no wildcard, and not searched for one.
const maxHost = 253

// Hosts finds what belongs to a host name: routes by the authority of a request, certificates and streams by the server
// name of a TLS connection. The host itself comes first, then the longest wildcard above it, then any. The zero value
// is empty and ready; once it is not changed any more, many goroutines may use it at once.
type Hosts[T any] struct {
	of    map[string]T // by host; "" any; ".example.com" what ends so
	named bool         // there are others than any
	wild  bool         // there are some that begin with a dot
}

// Set enters what belongs to host: a name, one with *. at its start for all that end so, or "" for any.
func (h *Hosts[T]) Set(host string, v T) {
	if h.of == nil {
		h.of = map[string]T{}
	}
	host = strings.ToLower(host)
	if suffix, ok := strings.CutPrefix(host, "*"); ok {
		host, h.wild = suffix, true
	}
	h.named = h.named || host != ""
	h.of[host] = v
}

// Get returns what was entered for just that host.
func (h *Hosts[T]) Get(host string) (T, bool) {
	v, ok := h.of[strings.TrimPrefix(strings.ToLower(host), "*")]
	return v, ok
}

// Find returns what belongs to a host name, with or without a dot at its end.
func (h *Hosts[T]) Find(host string) (v T, ok bool) {
	for key := h.start(strings.ToLower(strings.TrimSuffix(host, "."))); ; key = h.above(key) {
		if v, ok = h.of[key]; ok || key == "" {
			return v, ok
		}
	}
}

// start is the first key to look a host up by: above leads from it to the others, "" the last.
func (h *Hosts[T]) start(host string) string {
	switch {
	case !h.named || len(host) > maxHost:
		return ""
	case host != "" && host[0] == '.': // it is no name, and must not be taken for the key of a wildcard
		return h.above(host)
	}
	return host
}

func (h *Hosts[T]) above(key string) string {
	if h.wild && key != "" {
		if i := strings.IndexByte(key[1:], '.'); i >= 0 && i+2 < len(key) {
			return key[1+i:]
		}
	}
	return ""
}

// hostname is an authority without its port, in lower case.
func hostname(authority string) string {
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && i > strings.LastIndexByte(authority, ']') {
		authority = authority[:i]
	}
	return strings.ToLower(strings.TrimSuffix(authority, "."))
}
