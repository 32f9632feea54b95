// Package dapr is the messages of Dapr's contracts as plain Go structs: what a program asks of its sidecar, what the
// sidecar asks of the program, and what sidecars say to one another. It holds no logic, registers nothing, and so may be
// linked into one program with Dapr's own packages.
package dapr

import _ "embed"

//go:generate go run -C ../../tools ./apigen -proto ../api/dapr/runtime.proto,../api/dapr/appcallback.proto,../api/dapr/common.proto,../api/dapr/internals.proto -go ../api/dapr/dapr.pb.go -package dapr -utf8 -descriptors ../api/dapr/dapr.binpb

//go:embed dapr.binpb
var descriptors []byte

// Descriptors is the contracts as a serialized google.protobuf.FileDescriptorSet, for gRPC's server reflection. It is not to
// be changed.
func Descriptors() []byte { return descriptors }
