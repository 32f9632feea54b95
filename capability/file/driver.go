package file

import (
	"context"
	"io"
	"time"
)

// A Driver is what a component implements to offer files: objects under names, whole or not there at all. It does the
// bare work: names were checked, grants too. A name is a path with slashes whose first part may be a bucket's name, where
// the store has buckets and the component is not bound to one. Every method may be called from many goroutines at once.
type Driver interface {
	// Put stores what body holds under name, replacing what was there, once it was read to its end; an error of body leaves
	// what was there. It returns once it is durable.
	Put(ctx context.Context, name string, body io.Reader, a Attributes) (Info, error)
	// Get opens length bytes from offset on; a length below 0 means to the end. NotFound: there is none; OutOfRange: offset
	// is past its end.
	Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, Info, error)
	// Stat tells what it is without its bytes. NotFound: there is none.
	Stat(ctx context.Context, name string) (Info, error)
	// List returns names in byte order.
	List(ctx context.Context, q Query) (Page, error)
	// Copy stores what is under from under to as well; with attributes replaced where a is not nil. NotFound: there is no from.
	Copy(ctx context.Context, from, to string, a *Attributes) (Info, error)
	// Delete removes it. NotFound: there is none.
	Delete(ctx context.Context, name string) error
	Close() error
}

// An Uploader is a Driver that takes an object in parts, which may come in any order, at once and again. Every method fails
// with NotFound where there is no such upload.
type Uploader interface {
	CreateUpload(ctx context.Context, name string, a Attributes) (id string, err error)
	// UploadPart stores a part of the number, replacing one that was there.
	UploadPart(ctx context.Context, name, id string, number int, body io.Reader) (Part, error)
	// CompleteUpload makes the object of those parts, which are in ascending order, and forgets the upload. FailedPrecondition:
	// one is not there, or has another ETag than is given.
	CompleteUpload(ctx context.Context, name, id string, parts []Part) (Info, error)
	AbortUpload(ctx context.Context, name, id string) error
	// Uploads lists those under way in the order of name and id, after the one given.
	Uploads(ctx context.Context, prefix, afterName, afterID string, limit int) ([]Upload, error)
	// Parts lists parts of an upload with numbers above after.
	Parts(ctx context.Context, name, id string, after, limit int) ([]Part, error)
}

// An Appender is a Driver that can add to the end of an object.
type Appender interface {
	// Append adds body at offset, which must be the object's size: 0 makes a new one. FailedPrecondition: it is not.
	Append(ctx context.Context, name string, offset int64, body io.Reader, a Attributes) (Info, error)
}

// A Signer is a Driver that can let somebody else in for a while.
type Signer interface {
	// Sign makes a URL with which anybody may do method (GET or PUT) on name until expires has passed.
	Sign(ctx context.Context, method, name string, expires time.Duration) (url string, header map[string]string, err error)
}

// Attributes are what is stored beside an object's bytes.
type Attributes struct {
	ContentType, ContentEncoding, ContentLanguage, ContentDisposition, CacheControl string

	Expires  time.Time         // when caches must ask again; zero: not said
	Metadata map[string]string // names are in lower case
	Tags     map[string]string
}

// Info is what is known of an object.
type Info struct {
	Name     string
	Size     int64
	Modified time.Time
	ETag     string // changes with the bytes; without quotes
	Attributes
}

// A Query says what to list.
type Query struct {
	Prefix    string
	Delimiter string // "/" gathers names that go on after it into one entry of Page.Prefixes; "": none
	After     string // only what comes after that name
	Limit     int    // of names and prefixes together
}

// A Page is a part of a list.
type Page struct {
	Objects  []Info   // without attributes
	Prefixes []string // names up to the delimiter, in byte order
	Next     string   // After of the next page; "": this is the last
}

// A Part of an upload.
type Part struct {
	Number   int
	Size     int64
	ETag     string
	Modified time.Time
}

// An Upload is under way.
type Upload struct {
	Name    string
	ID      string
	Started time.Time
}
