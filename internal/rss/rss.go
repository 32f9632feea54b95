// Package rss gives memory back that a process holds and does not use.
package rss

import "runtime/debug"

// Trim collects garbage and gives all free memory to the system; on Linux also the pages of the program that were needed
// to start it and may never be again: those that are come back from the page cache when they are touched. It takes some
// milliseconds, and is for a process that has nothing to do.
func Trim() {
	debug.FreeOSMemory()
	dropProgram()
}
