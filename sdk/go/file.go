package loam

import (
	"time"

	"github.com/loam-run/loam/sdk/go/internal/api"
)

// A FileStore is a component of the file capability: objects under names such as reports/2026/11.pdf.
type FileStore struct{ component string }

// File is the component of that name, the default one for "".
func File(component string) FileStore { return FileStore{component} }

// A FileInfo is what is known of an object.
type FileInfo struct {
	Name        string
	Size        int64 // bytes
	ETag        string
	Modified    time.Time
	ContentType string            // not in a list, as is Metadata
	Metadata    map[string]string // names are in lower case
}

// A FileOption says more of an object that is stored.
type FileOption struct{ name, value string }

// WithFileType says what the object is.
func WithFileType(contentType string) FileOption { return FileOption{"", contentType} }

// WithMetadata keeps a word beside the object.
func WithMetadata(name, value string) FileOption { return FileOption{name, value} }

func fileOptions(opts []FileOption) (contentType string, metadata []api.Attribute) {
	for _, o := range opts {
		if o.name == "" {
			contentType = o.value
		} else {
			metadata = append(metadata, api.Attribute{Name: o.name, Value: o.value})
		}
	}
	return contentType, metadata
}

// Put stores data under name, whole or not at all, and returns its ETag. A call takes up to 16 MiB: what is larger is appended
// piece by piece.
func (f FileStore) Put(name string, data []byte, opts ...FileOption) (etag string, err error) {
	req := api.FilePutRequest{Component: f.component, Name: name, Data: data}
	req.ContentType, req.Metadata = fileOptions(opts)
	var resp api.FilePutResponse
	err = call("file.Put", &req, &resp)
	return resp.Etag, err
}

// Append adds to the end of an object, which must be at offset, and returns where the end is then; offset 0 makes a new one,
// which options are for. FailedPrecondition: the end is elsewhere.
func (f FileStore) Append(name string, offset int64, data []byte, opts ...FileOption) (end int64, err error) {
	req := api.FileAppendRequest{Component: f.component, Name: name, Offset: offset, Data: data}
	req.ContentType, req.Metadata = fileOptions(opts)
	var resp api.FileAppendResponse
	err = call("file.Append", &req, &resp)
	return resp.Size, err
}

// Get returns an object of up to 16 MiB. NotFound: there is none.
func (f FileStore) Get(name string) ([]byte, FileInfo, error) { return f.GetRange(name, 0, 0) }

// GetRange returns length bytes from offset on, or fewer where it ends before; a length of 0 means to its end. OutOfRange:
// offset is past it.
func (f FileStore) GetRange(name string, offset, length int64) ([]byte, FileInfo, error) {
	var r api.FileGetResponse
	err := call("file.Get", &api.FileGetRequest{Component: f.component, Name: name, Offset: offset, Length: length}, &r)
	if err != nil {
		return nil, FileInfo{}, err
	}
	return r.Data, FileInfo{name, r.Size, r.Etag, time.UnixMilli(r.ModifiedUnixMs), r.ContentType, attributeMap(r.Metadata)}, nil
}

// Stat tells what an object is. NotFound: there is none.
func (f FileStore) Stat(name string) (FileInfo, error) {
	var r api.FileStatResponse
	if err := call("file.Stat", &api.FileStatRequest{Component: f.component, Name: name}, &r); err != nil {
		return FileInfo{}, err
	}
	return FileInfo{name, r.Size, r.Etag, time.UnixMilli(r.ModifiedUnixMs), r.ContentType, attributeMap(r.Metadata)}, nil
}

// A FileQuery says what to list.
type FileQuery struct {
	Prefix    string
	Delimiter string // "/": names that go on after it are one entry of FileList.Prefixes
	After     string // only what comes after that name
	Limit     int    // of files and prefixes together; 0: 1000, the most
}

// A FileList is one page of names, in byte order.
type FileList struct {
	Files    []FileInfo
	Prefixes []string
	Next     string // After of the next page; "": this is the last
}

// List returns what there is under names. It needs a grant for all that begins with the prefix.
func (f FileStore) List(q FileQuery) (FileList, error) {
	var r api.FileListResponse
	err := call("file.List", &api.FileListRequest{
		Component: f.component, Prefix: q.Prefix, Delimiter: q.Delimiter, After: q.After, Limit: uint32(max(q.Limit, 0)),
	}, &r)
	list := FileList{Prefixes: r.Prefixes, Next: r.Next}
	for _, i := range r.Items {
		list.Files = append(list.Files, FileInfo{Name: i.Name, Size: i.Size, ETag: i.Etag, Modified: time.UnixMilli(i.ModifiedUnixMs)})
	}
	return list, err
}

// Delete removes an object. NotFound: there is none.
func (f FileStore) Delete(name string) error {
	return call("file.Delete", &api.FileDeleteRequest{Component: f.component, Name: name}, nil)
}
