package keys

import (
	"testing"

	"github.com/loam-run/loam"
)

func TestPrefix(t *testing.T) {
	for _, c := range []struct{ setting, value, app, namespace, want string }{
		{"", "", "orders", "prod", "orders||"},
		{"", "", "", "prod", ""},
		{"keyPrefix", "appid", "orders", "", "orders||"},
		{"KEYPREFIX", "AppID", "orders", "", "orders||"},
		{"keyPrefix", "name", "orders", "", "store||"},
		{"keyPrefix", "namespace", "orders", "prod", "prod.orders||"},
		{"keyPrefix", "namespace", "orders", "", "orders||"},
		{"keyPrefix", "namespace", "", "prod", ""},
		{"keyPrefix", "none", "orders", "prod", ""},
		{"keyPrefix", "Shared", "orders", "prod", "shared||"},
	} {
		got, err := Prefix(map[string]string{c.setting: c.value}, "store", c.app, c.namespace)
		if err != nil || got != c.want {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
	if _, err := Prefix(map[string]string{"keyPrefix": "a||b"}, "store", "orders", ""); loam.CodeOf(err) != loam.InvalidArgument {
		t.Errorf("a separator in a prefix: %v", err)
	}
	if loam.CodeOf(Check("a||b")) != loam.InvalidArgument || Check("a|b") != nil || Check("") != nil {
		t.Error("Check tells keys wrongly apart")
	}
}

func TestTrue(t *testing.T) {
	for value, want := range map[string]bool{"true": true, "TRUE": true, "1": true, "on": true, "y": true, "t": true, "": false, "0": false, "no": false, "2": false} {
		if True(value) != want || True(" "+value) != want {
			t.Errorf("%q is %t", value, !want)
		}
	}
}
