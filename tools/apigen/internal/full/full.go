// Package full is what apigen makes of a contract with everything that it knows, for its tests.
package full

//go:generate go run ../.. -proto full.proto -go full.pb.go -package full -utf8
