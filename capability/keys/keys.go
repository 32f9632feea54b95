// Package keys is how the keys of several apps stay apart in one component: each app's begin with a prefix, which the
// component's setting keyPrefix chooses. It is what Dapr and Layotto do, so that either's data is found again.
package keys

import (
	"strconv"
	"strings"

	"github.com/loam-run/loam"
)

// Separator stands between a prefix and a key, and in neither of them.
const Separator = "||"

// The strategies by name. Any other word is the prefix itself.
const (
	AppID     = "appid"     // the default
	Name      = "name"      // the component's name
	Namespace = "namespace" // the namespace, a dot and the app's name; without a namespace as AppID
	None      = "none"
)

// Prefix is what the keys of an app begin with in a component with such settings, the separator included; "": nothing. The
// setting keyPrefix is found whatever the case it is written in, and its value counts in lower case, as Dapr has it.
func Prefix(settings map[string]string, component, app, namespace string) (string, error) {
	strategy := strings.ToLower(Setting(settings, "keyPrefix"))
	word := strategy
	switch strategy {
	case None:
		return "", nil
	case Name:
		word = component
	case Namespace:
		if word = app; app != "" && namespace != "" {
			word = namespace + "." + app
		}
	case AppID, "":
		word = app
	}
	if strings.Contains(word, Separator) {
		return "", loam.Errorf(loam.InvalidArgument, "component "+strconv.Quote(component), "keyPrefix %q must not hold %s", word, Separator)
	}
	if word == "" {
		return "", nil
	}
	return word + Separator, nil
}

// Check tells whether a key may follow a prefix.
func Check(key string) error {
	if strings.Contains(key, Separator) {
		return loam.Errorf(loam.InvalidArgument, "key "+strconv.Quote(key), "it must not hold %s", Separator)
	}
	return nil
}

// Setting finds a setting whatever the case its name is written in; "": it is not there.
func Setting(settings map[string]string, name string) string {
	if v, ok := settings[name]; ok {
		return v
	}
	for n, v := range settings {
		if strings.EqualFold(n, name) {
			return v
		}
	}
	return ""
}

// True tells whether a setting is on, as Dapr reads it: y, yes, true, t, on and 1 are, in any case.
func True(value string) bool {
	switch strings.ToLower(strings.TrimSpace(value)) {
	case "y", "yes", "true", "t", "on", "1":
		return true
	}
	return false
}
