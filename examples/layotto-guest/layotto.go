// Package layotto is an example: two functions written for Layotto, which Loam runs unchanged.
package layotto
