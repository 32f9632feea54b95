// Package api is the contract of the capability API and of the function ABI: the messages of loam.proto as plain Go
// structs, which every carrier reads and writes. It holds no logic; what a message means is its capability's.
package api

//go:generate go run -C ../tools ./apigen -proto ../api/loam.proto -package api -out ../api/loam.pb.go,../sdk/go/internal/api/loam.pb.go
