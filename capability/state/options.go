package state

import (
	"math"
	"strconv"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/keys"
)

// SetOptions gives an op what dialects say of a write in words: the ETag it was read with ("" for none), the concurrency
// (first-write, last-write or ""), the consistency (strong, eventual or "") and metadata, of which ttlInSeconds (-1 and 0:
// never) and outbox.projection are known here, the rest is for the driver. An ETag counts whatever the concurrency; without
// one, first-write means that the key must not be there.
func (op *Op) SetOptions(etag, concurrency, consistency string, metadata map[string]string) error {
	if _, err := Eventual(consistency); err != nil {
		return err
	}
	switch concurrency {
	case "", "last-write", "first-write":
	default:
		return loam.Errorf(loam.InvalidArgument, "state "+strconv.Quote(op.Key), "unrecognized concurrency model '%s'", concurrency)
	}
	ttl, err := TTL(metadata)
	if err != nil {
		return err
	}
	op.IfMatch, op.IfAbsent = etag, etag == "" && concurrency == "first-write"
	op.TTL, op.Metadata = ttl, metadata
	op.Projection = len(metadata) > 0 && keys.True(metadata["outbox.projection"])
	return nil
}

// Eventual tells whether the word for a consistency is eventual; anything but that, strong and "" is an error.
func Eventual(consistency string) (bool, error) {
	switch consistency {
	case "", "strong":
		return false, nil
	case "eventual":
		return true, nil
	}
	return false, loam.Errorf(loam.InvalidArgument, "state", "unrecognized consistency model '%s'", consistency)
}

// TTL reads ttlInSeconds from a write's metadata: 0 where it is not there, or is -1 or 0.
func TTL(metadata map[string]string) (time.Duration, error) {
	text := keys.Setting(metadata, "ttlInSeconds")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < -1 || n > math.MaxInt32 {
		return 0, loam.Errorf(loam.InvalidArgument, "state", "incorrect value for metadata 'ttlInSeconds': %q is not a whole number of at least -1", text)
	}
	return time.Duration(max(n, 0)) * time.Second, nil
}
