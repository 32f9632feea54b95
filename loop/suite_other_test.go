//go:build !linux

package loop

import "testing"

// fullListener is an address that answers nobody (RFC 5737).
func fullListener(*testing.T) string { return "192.0.2.1:9" }
