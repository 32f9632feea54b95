// Package sdklayotto runs npm's layotto, unmodified, against loam: every call of its client, of the generated clients that
// it brings, and its server, which takes callbacks. Loam's resources are what loam convert makes of config.json, a
// configuration of Layotto. The test needs Node, and npm's registry once; it runs with -tags sdk.
package sdklayotto
