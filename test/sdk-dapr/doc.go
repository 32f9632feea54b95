// Package sdkdapr runs Dapr's own Go SDK, unmodified, against `loam sidecar`: as a client of every capability, and as the
// program that is called back, over gRPC and over HTTP. It is a module of its own, so that what the SDK needs is in no
// binary of Loam's.
package sdkdapr
