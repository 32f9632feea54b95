// Package reflection is the messages of gRPC's server reflection as plain Go structs, and its contract as descriptors.
package reflection

import _ "embed"

//go:generate go run -C ../../tools ./apigen -proto ../api/reflection/v1.proto -go ../api/reflection/reflection.pb.go -package reflection -utf8 -descriptors ../api/reflection/v1.binpb
//go:generate go run -C ../../tools ./apigen -proto ../api/reflection/v1alpha.proto -package reflection -descriptors ../api/reflection/v1alpha.binpb

// MethodV1Alpha is MethodServerReflectionServerReflectionInfo before it became stable: the messages are the same.
const MethodV1Alpha = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

//go:embed v1.binpb
var v1 []byte

//go:embed v1alpha.binpb
var v1alpha []byte

// Descriptors is the contract, v1 and v1alpha, each a serialized google.protobuf.FileDescriptorSet. It is not to be changed.
func Descriptors() [][]byte { return [][]byte{v1, v1alpha} }
