// Package full is what apigen makes of a contract with everything that it knows, for its tests.
package full

//go:generate cp ../../../../internal/protowire/protowire.go ../protowire/
//go:generate go run ../.. -proto full.proto -go full.pb.go -package full -utf8 -wire github.com/loam-run/loam/tools/apigen/internal/protowire
