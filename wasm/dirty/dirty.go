// Package dirty finds the pages of a mapping that were written, without asking the kernel each time. The mapping is made
// read-only; the first write to a page of it is a fault, and the handler of its signal notes the page, makes it writable
// and lets the write go on. So what is not noted was not written: the processor itself has refused that. Pages stay
// writable and noted, as what was written once is likely to be written again; whoever makes a memory clean copies all of
// them back, and needs no system call for that.
//
// Only code of this process may write to such a mapping. A system call that is told to write there fails with EFAULT.
//
// The handler stands before the Go runtime's, and hands on every fault that is not of a mapping given to [Watch].
package dirty

// Max is how many pages of a mapping are noted. A write to one more makes all of them writable.
const Max = 56
