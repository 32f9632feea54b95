// Package peers holds Loam beside other programs of its kind. Its tests are behind the tag peers, for what they need is
// not everywhere: make test-peers installs it and runs them.
package peers
