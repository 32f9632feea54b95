package file

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api"
)

// MaxMessage is how many bytes of an object one of the Methods reads or writes: messages cross whole, so that what is larger
// is appended, and read, piece by piece.
const MaxMessage = 16 << 20

// GetAll reads length bytes of an object from offset on, to its end where length is 0.
func (s *Store) GetAll(ctx context.Context, caller *loam.Caller, name string, offset, length int64) (data []byte, i Info, err error) {
	op := "file.Get " + strconv.Quote(name)
	if length < 0 || length > MaxMessage {
		return nil, Info{}, loam.Errorf(loam.InvalidArgument, op, "a length is 1 to %d bytes, or 0 for all there is", MaxMessage)
	}
	if length == 0 {
		length = -1
	}
	r, i, err := s.Get(ctx, caller, name, offset, length)
	if err != nil {
		return nil, Info{}, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	n := i.Size - offset
	if length >= 0 {
		n = min(n, length)
	}
	if n > MaxMessage {
		return nil, Info{}, &loam.Error{
			Code: loam.ResourceExhausted, Op: op, Err: errors.New("it has " + strconv.FormatInt(n, 10) + " bytes: a call reads at most " + strconv.Itoa(MaxMessage)),
			Hint: "read it in pieces, by offset and length",
		}
	}
	data = make([]byte, max(n, 0))
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, Info{}, loam.Errorf(loam.Unavailable, op, "it ended early: %w", err)
	}
	return data, i, nil
}

// Methods are the capability's calls; find returns the component of a name.
func Methods(find func(component string) (*Store, error)) loam.Methods {
	return loam.Methods{
		"file.Put": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.FilePutRequest
			s, err := api.Parse(&req, in, func() (*Store, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			i, err := s.Put(ctx, caller, req.Name, bytes.NewReader(req.Data), Attributes{ContentType: req.ContentType, Metadata: api.Map(req.Metadata)})
			if err != nil {
				return nil, err
			}
			return (&api.FilePutResponse{Size: i.Size, Etag: i.ETag}).AppendProto(nil), nil
		},
		"file.Append": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.FileAppendRequest
			s, err := api.Parse(&req, in, func() (*Store, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			a := Attributes{ContentType: req.ContentType, Metadata: api.Map(req.Metadata)}
			i, err := s.Append(ctx, caller, req.Name, req.Offset, bytes.NewReader(req.Data), a)
			if err != nil {
				return nil, err
			}
			return (&api.FileAppendResponse{Size: i.Size, Etag: i.ETag}).AppendProto(nil), nil
		},
		"file.Get": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.FileGetRequest
			s, err := api.Parse(&req, in, func() (*Store, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			data, i, err := s.GetAll(ctx, caller, req.Name, req.Offset, req.Length)
			if err != nil {
				return nil, err
			}
			return (&api.FileGetResponse{
				Data: data, Size: i.Size, Etag: i.ETag, ModifiedUnixMs: api.UnixMilli(i.Modified), ContentType: i.ContentType, Metadata: api.Attributes(i.Metadata),
			}).AppendProto(nil), nil
		},
		"file.Stat": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.FileStatRequest
			s, err := api.Parse(&req, in, func() (*Store, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			i, err := s.Stat(ctx, caller, req.Name)
			if err != nil {
				return nil, err
			}
			return (&api.FileStatResponse{
				Size: i.Size, Etag: i.ETag, ModifiedUnixMs: api.UnixMilli(i.Modified), ContentType: i.ContentType, Metadata: api.Attributes(i.Metadata),
			}).AppendProto(nil), nil
		},
		"file.List": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.FileListRequest
			s, err := api.Parse(&req, in, func() (*Store, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			p, err := s.List(ctx, caller, Query{Prefix: req.Prefix, Delimiter: req.Delimiter, After: req.After, Limit: int(min(req.Limit, MaxPage))})
			if err != nil {
				return nil, err
			}
			resp := api.FileListResponse{Items: make([]api.FileItem, len(p.Objects)), Prefixes: p.Prefixes, Next: p.Next}
			for n, i := range p.Objects {
				resp.Items[n] = api.FileItem{Name: i.Name, Size: i.Size, Etag: i.ETag, ModifiedUnixMs: api.UnixMilli(i.Modified)}
			}
			return resp.AppendProto(nil), nil
		},
		"file.Delete": func(ctx context.Context, caller *loam.Caller, in []byte) ([]byte, error) {
			var req api.FileDeleteRequest
			s, err := api.Parse(&req, in, func() (*Store, error) { return find(req.Component) })
			if err != nil {
				return nil, err
			}
			return nil, s.Delete(ctx, caller, req.Name)
		},
	}
}
