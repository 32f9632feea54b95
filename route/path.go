package route

import "strings"

// Clean is a path's normal form, in which it is matched. It returns path itself, and allocates nothing, where that is normal already.
func Clean(path string) string {
	if isClean(path) {
		return path
	}
	out := make([]byte, 0, len(path)+1)
	for i := 0; i < len(path); {
		c := path[i]
		if c != '%' || i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2]) {
			out = append(out, c)
			i++
			continue
		}
		if d := unhex(path[i+1])<<4 | unhex(path[i+2]); unreserved(d) {
			out = append(out, d)
		} else {
			out = append(out, '%', upper(path[i+1]), upper(path[i+2]))
		}
		i += 3
	}
	return segments(string(out))
}

// segments removes dot segments and empty ones, but keeps a slash at the end (RFC 3986, section 5.2.4).
func segments(path string) string {
	out := make([]byte, 0, len(path)+1)
	folder := true // the path ends in a folder: a slash, or a dot segment
	for rest := path; rest != ""; {
		var segment string
		var slash bool
		segment, rest, slash = strings.Cut(rest, "/")
		switch segment {
		case "", ".":
			folder = true
		case "..":
			folder = true
			for len(out) > 0 {
				last := out[len(out)-1]
				if out = out[:len(out)-1]; last == '/' {
					break
				}
			}
		default:
			out = append(append(out, '/'), segment...)
			folder = slash
		}
	}
	if folder || len(out) == 0 {
		out = append(out, '/')
	}
	return string(out)
}

// isClean tells whether a path is normal: it begins with a slash, no segment is empty or dots, no escape could be
// written otherwise.
func isClean(path string) bool {
	if path == "" || path[0] != '/' {
		return false
	}
	for i := range len(path) {
		switch path[i] {
		case '/':
			rest := path[i+1:]
			if rest == "" {
				continue
			}
			if rest[0] == '/' || rest == "." || rest == ".." || strings.HasPrefix(rest, "./") || strings.HasPrefix(rest, "../") {
				return false
			}
		case '%':
			if i+2 < len(path) && isHex(path[i+1]) && isHex(path[i+2]) &&
				(unreserved(unhex(path[i+1])<<4|unhex(path[i+2])) || path[i+1] != upper(path[i+1]) || path[i+2] != upper(path[i+2])) {
				return false
			}
		}
	}
	return true
}

// reread is the other way to read a clean path, where there is one: with escaped slashes and backslashes as slashes.
func reread(path string) (string, bool) {
	if strings.IndexByte(path, '\\') < 0 && !strings.Contains(path, "%2F") && !strings.Contains(path, "%5C") {
		return path, false
	}
	return segments(strings.NewReplacer("%2F", "/", "%5C", "/", `\`, "/").Replace(path)), true
}

// unreserved are the characters that mean the same escaped or not (RFC 3986, section 2.3).
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}

func upper(c byte) byte {
	if 'a' <= c && c <= 'f' {
		return c - 0x20
	}
	return c
}
