package resource

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf16"
)

// asYAML writes the escapes of JSON that the YAML parser does not know, \/ and surrogate pairs, as what they stand for.
// Whatever is no JSON stays as it is.
func asYAML(text string) string {
	if !strings.Contains(text, `\`) || !strings.HasPrefix(strings.TrimSpace(text), "{") || !json.Valid([]byte(text)) {
		return text
	}
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		switch rest := text[i:]; {
		case rest[0] != '\\':
			out.WriteByte(rest[0])
		case rest[1] == '/': // valid JSON ends in no backslash
			out.WriteByte('/')
			i++
		case rest[1] == 'u' && utf16.IsSurrogate(unit(rest[2:6])):
			r := rune(0xfffd)
			if len(rest) >= 12 && rest[6] == '\\' && rest[7] == 'u' {
				if pair := utf16.DecodeRune(unit(rest[2:6]), unit(rest[8:12])); pair != r {
					r, i = pair, i+6
				}
			}
			out.WriteRune(r)
			i += 5
		default:
			out.WriteString(rest[:2])
			i++
		}
	}
	return out.String()
}

// unit reads four hexadecimal digits.
func unit(digits string) rune {
	n, err := strconv.ParseUint(digits, 16, 16)
	if err != nil {
		return 0
	}
	return rune(n)
}
