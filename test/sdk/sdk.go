// Package sdk holds the guest SDKs to each other: the function of examples/languages, written in each of them and built by
// the real compilers, must do the same to the letter, in what it answers and in what it asks of its host.
//
// Its tests need compilers that building Loam does not, so they stand behind a tag: make sdk installs what they need on
// Debian and runs them; or test/sdk/install.sh, then go test -tags sdk ./test/sdk. A compiler that is missing then is a
// failure.
package sdk
