package policy

import (
	"net/netip"
	"net/url"
	"strings"

	"github.com/loam-run/loam"
)

// headerMap is a header by lower-case names.
func headerMap(h loam.Header) map[string]string {
	m := make(map[string]string, len(h))
	for _, f := range h {
		name := strings.ToLower(f.Name)
		if before, ok := m[name]; ok {
			m[name] = before + "," + f.Value
		} else {
			m[name] = f.Value
		}
	}
	return m
}

// queryMap is a query's parameters, the first of each name, decoded. What cannot be decoded is left out.
func queryMap(raw string) map[string]string {
	m := map[string]string{}
	for pair := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err != nil || name == "" {
			continue
		}
		value, err = url.QueryUnescape(value)
		if _, there := m[name]; err == nil && !there {
			m[name] = value
		}
	}
	return m
}

// addressOf is a peer's address without its port.
func addressOf(remote string) string {
	if at, err := netip.ParseAddrPort(remote); err == nil {
		return at.Addr().Unmap().String()
	}
	if addr, err := netip.ParseAddr(remote); err == nil {
		return addr.Unmap().String()
	}
	return remote
}
