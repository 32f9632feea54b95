//go:build !sdk

package rewrite_test

import "testing"

// cPrograms are none: this needs no C compiler.
func cPrograms(testing.TB) map[string][]byte { return map[string][]byte{} }
