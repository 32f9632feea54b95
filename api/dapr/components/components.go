// Package components is the messages of Dapr's contract for components that are programs of their own.
package components

//go:generate go run -C ../../../tools ./apigen -proto ../api/dapr/components/components.proto -go ../api/dapr/components/components.pb.go -package components -utf8
