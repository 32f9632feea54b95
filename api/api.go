// Package api is the contract of the capability API and of the function ABI: the messages of loam.proto as plain Go
// structs, which every carrier reads and writes. It holds no logic; what a message means is its capability's.
package api

//go:generate cp ../internal/protowire/protowire.go ../sdk/go/internal/protowire/
//go:generate go run -C ../tools ./apigen -proto ../api/loam.proto -go ../sdk/go/internal/api/loam.pb.go -wire github.com/loam-run/loam/sdk/go/internal/protowire -views
//go:generate go run -C ../tools ./apigen -proto ../api/loam.proto -go ../api/loam.pb.go -rust ../sdk/rust/api.rs -c ../sdk/c/loam.h -assemblyscript ../sdk/assemblyscript/api.ts
