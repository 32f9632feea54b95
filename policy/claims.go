package policy

import (
	"crypto/sha256"
	"encoding/json"
	"strconv"
	"strings"
)

// claim is a claim's value as a header or a key has it: a string as it is, a list of strings with commas, anything else as
// JSON. A name with dots reaches into objects: realm_access.roles. "" where there is none.
func claim(claims map[string]any, name string) string {
	value, ok := claims[name]
	for !ok {
		first, rest, nested := strings.Cut(name, ".")
		if !nested {
			return ""
		}
		if claims, ok = claims[first].(map[string]any); !ok {
			return ""
		}
		name = rest
		value, ok = claims[name]
	}
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case []any:
		words := make([]string, 0, len(v))
		for _, w := range v {
			s, ok := w.(string)
			if !ok {
				words = nil
				break
			}
			words = append(words, s)
		}
		if words != nil {
			return strings.Join(words, ",")
		}
	}
	b, err := json.Marshal(value)
	if err != nil {
		return ""
	}
	return string(b)
}

// digest appends a value that a stranger chose to a key, as it is where it is short, else as its hash.
func digest(b []byte, value string) []byte {
	if len(value) < 32 {
		return append(b, value...)
	}
	sum := sha256.Sum256([]byte(value))
	return append(b, sum[:]...)
}
