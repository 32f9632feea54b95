// Package sdkdaprjs runs npm's @dapr/dapr, unmodified, against `loam sidecar`: two programs, one that speaks HTTP with its
// sidecar and one that speaks gRPC, each as a client of every capability that the SDK has and as the program that is called
// back, and each calling the other. The test needs Node, redis-server, and npm's registry once; it runs with -tags sdk.
package sdkdaprjs
