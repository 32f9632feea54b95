// Package avro stands in for a module that daprd's Pulsar component sets limits of, and that this build does without.
package avro

// Config is limits that nobody heeds here.
type Config struct{ MaxSliceAllocSize, MaxMapAllocSize int }

// Freeze does nothing.
func (c Config) Freeze() Config { return c }

// DefaultConfig is what Pulsar's client replaces.
var DefaultConfig = Config{}
