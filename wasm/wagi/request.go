package wagi

import (
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/loam-run/loam"
)

// maxArgs is how many parts of a query become arguments. The query whole is in QUERY_STRING.
const maxArgs = 1000

// environment appends a request's meta-variables (RFC 3875, section 4.1) and those that WAGI adds.
func environment(env []string, req *loam.Request, body []byte) []string {
	set := func(name, value string) {
		if strings.IndexByte(value, 0) < 0 { // a string of the environment ends there
			env = append(env, name+"="+value)
		}
	}
	host, port := hostPort(req.Authority)
	if port == "" {
		port = "80"
		if req.Scheme == "https" {
			port = "443"
		}
	}
	info, err := url.PathUnescape(req.Path)
	if err != nil || strings.IndexByte(info, 0) >= 0 {
		info = req.Path
	}
	target := req.Path
	if req.RawQuery != "" {
		target += "?" + req.RawQuery
	}
	remote, remotePort := hostPort(req.Remote)

	set("GATEWAY_INTERFACE", "CGI/1.1")
	set("SERVER_SOFTWARE", "loam")
	set("SERVER_PROTOCOL", "HTTP/1.1") // what a target sees of every protocol
	set("SERVER_NAME", host)
	set("SERVER_PORT", port)
	set("REQUEST_METHOD", req.Method)
	set("REQUEST_URI", target)
	set("SCRIPT_NAME", "")
	set("PATH_INFO", info)
	set("PATH_TRANSLATED", info)
	set("QUERY_STRING", req.RawQuery)
	set("REMOTE_ADDR", remote)
	set("REMOTE_HOST", remote)
	set("REMOTE_PORT", remotePort)
	set("REMOTE_USER", "")
	set("AUTH_TYPE", "")
	if req.Scheme == "https" {
		set("HTTPS", "on")
	}
	if len(body) > 0 {
		set("CONTENT_LENGTH", strconv.Itoa(len(body)))
	} else {
		set("CONTENT_LENGTH", "")
	}
	set("CONTENT_TYPE", req.Header.Get("Content-Type"))
	set("X_FULL_URL", req.Scheme+"://"+req.Authority+target)
	set("X_RAW_PATH_INFO", req.Path)
	set("X_MATCHED_ROUTE", req.Route)
	set("X_REQUEST_ID", req.ID)
	set("HTTP_HOST", req.Authority)

	fields := len(env)
next:
	for _, f := range req.Header {
		name, ok := variable(f.Name)
		if !ok || strings.IndexByte(f.Value, 0) >= 0 {
			continue
		}
		for i := fields; i < len(env); i++ { // a dozen of them
			if v := env[i]; len(v) > len(name) && v[len(name)] == '=' && v[:len(name)] == name {
				separator := ", "
				if name == "HTTP_COOKIE" { // RFC 9113, section 8.2.3
					separator = "; "
				}
				env[i] += separator + f.Value
				continue next
			}
		}
		env = append(env, name+"="+f.Value)
	}
	return env
}

// variable is the name of a header field's meta-variable. The field Proxy has none, as programs take HTTP_PROXY for their
// operator's; nor has a name with an underscore, which would be taken for that with a dash.
func variable(field string) (name string, ok bool) {
	b := make([]byte, 0, 64)
	b = append(b, "HTTP_"...)
	for i := range len(field) {
		switch c := field[i]; {
		case c == '-':
			b = append(b, '_')
		case 'a' <= c && c <= 'z':
			b = append(b, c-'a'+'A')
		case 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			b = append(b, c)
		default:
			return "", false
		}
	}
	switch name = string(b); name {
	case "HTTP_", "HTTP_PROXY", "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE", "HTTP_HOST", "HTTP_CONNECTION", "HTTP_TRANSFER_ENCODING":
		return "", false
	}
	return name, true
}

// hostPort takes an address apart, which may have no port and may be no address at all.
func hostPort(address string) (host, port string) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return strings.Trim(address, "[]"), ""
	}
	return host, port
}

// arguments appends the query's parts, as they were sent.
func arguments(args []string, query string) []string {
	if query == "" {
		return args
	}
	for part := range strings.SplitSeq(query, "&") {
		if len(args) > maxArgs {
			break
		}
		args = append(args, part)
	}
	return args
}
