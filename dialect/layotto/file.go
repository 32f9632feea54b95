package layotto

import (
	"context"
	"errors"
	"io"
	"strings"

	pb "github.com/loam-run/loam/api/layotto"
	"github.com/loam-run/loam/capability/file"
	"github.com/loam-run/loam/protocol/grpc"
)

// chunkSize is how much of a file a message brings to the program.
const chunkSize = 64 << 10

func (a *API) file(s section, name string) (*file.Store, error) {
	return find(a, s, name, a.opts.Capabilities.File)
}

// modified is a time as Layotto's local store writes it.
func modified(i *file.Info) string { return i.Modified.UTC().String() }

func (a *API) getFile(out *grpc.Stream, in *pb.GetFileRequest) error {
	c := &out.Call
	s, err := a.file(files, in.StoreName)
	if err != nil {
		return err
	}
	var body io.ReadCloser
	await(c, func(ctx context.Context) { body, _, err = s.Get(ctx, a.caller, in.Name, 0, -1) })
	if err != nil {
		return because(err, "get file fail,err: ")
	}
	return download(c, body, func(chunk []byte) error { return out.Send(&pb.GetFileResponse{Data: chunk}) })
}

// download sends what body holds, in chunks, and closes it.
func download(c *grpc.Call, body io.ReadCloser, send func(chunk []byte) error) (err error) {
	buf := make([]byte, chunkSize)
	for {
		n := 0
		await(c, func(context.Context) { n, err = io.ReadFull(body, buf) })
		if n > 0 {
			if err := send(buf[:n]); err != nil {
				await(c, func(context.Context) { _ = body.Close() }) // it was only read
				return err
			}
		}
		if err != nil {
			await(c, func(context.Context) { _ = body.Close() })
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			return because(err, "get file fail,err: ")
		}
	}
}

func (a *API) putFile(in *grpc.Stream) (*pb.Empty, error) {
	c := &in.Call
	var first pb.PutFileRequest
	if err := in.Recv(&first); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, invalid("a file came without a message that says which")
		}
		return nil, err
	}
	s, err := a.file(filesToo, first.StoreName)
	if err != nil {
		return nil, err
	}
	chunk, whole := first.Data, true
	next := func() ([]byte, error) {
		if whole {
			whole = false
			return chunk, nil
		}
		var m pb.PutFileRequest
		err := in.Recv(&m)
		return m.Data, err
	}
	_, err = receive(c, next, func(ctx context.Context, body io.Reader) (file.Info, error) {
		return s.Put(ctx, a.caller, first.Name, body, fileAttributes(first.Metadata))
	})
	if err != nil {
		return nil, because(err, "put file fail,err: ")
	}
	return &pb.Empty{}, nil
}

// fileAttributes are what Layotto's metadata says that a store here keeps. What its local store asks for, FileMode and
// FileFlag, says how a file is opened there, not what it is.
func fileAttributes(metadata map[string]string) file.Attributes {
	var a file.Attributes
	for name, value := range metadata {
		switch lower := strings.ToLower(name); lower {
		case "filemode", "fileflag", "storagetype", "endpoint", "bucket":
		case "contenttype", "content-type":
			a.ContentType = value
		default:
			if a.Metadata == nil {
				a.Metadata = map[string]string{}
			}
			a.Metadata[lower] = value
		}
	}
	return a
}

func (a *API) listFile(c *grpc.Call, in *pb.ListFileRequest) (*pb.ListFileResp, error) {
	if in.Request == nil {
		return nil, invalid("request can't be nil")
	}
	s, err := a.file(filesToo, in.Request.StoreName)
	if err != nil {
		return nil, err
	}
	if in.PageSize < 0 {
		return nil, invalid("page_size %d", in.PageSize)
	}
	folder := in.Request.Name
	if folder != "" && !strings.HasSuffix(folder, "/") {
		folder += "/"
	}
	q := file.Query{Prefix: folder, Delimiter: "/", Limit: int(in.PageSize)}
	for name, value := range in.Request.Metadata {
		if strings.EqualFold(name, "prefix") {
			q.Prefix += value
		}
	}
	if in.Marker != "" {
		q.After = folder + in.Marker
	}
	var page file.Page
	await(c, func(ctx context.Context) { page, err = s.List(ctx, a.caller, q) })
	if err != nil {
		return nil, because(err, "list file fail,err: ")
	}
	// Names are those in the folder, as Layotto's local store has them; a folder in it is one of them.
	out := &pb.ListFileResp{IsTruncated: page.Next != "", Marker: strings.TrimPrefix(page.Next, folder)}
	objects, folders := page.Objects, page.Prefixes
	for len(objects) > 0 || len(folders) > 0 {
		if len(folders) == 0 || len(objects) > 0 && objects[0].Name < folders[0] {
			out.Files = append(out.Files, pb.FileInfo{FileName: strings.TrimPrefix(objects[0].Name, folder), Size: objects[0].Size, LastModified: modified(&objects[0])})
			objects = objects[1:]
			continue
		}
		name := strings.TrimSuffix(strings.TrimPrefix(folders[0], folder), "/")
		out.Files = append(out.Files, pb.FileInfo{FileName: name, Metadata: map[string]string{"IsDir": "true"}})
		folders = folders[1:]
	}
	return out, nil
}

func (a *API) delFile(c *grpc.Call, in *pb.DelFileRequest) (*pb.Empty, error) {
	if in.Request == nil {
		return nil, invalid("request can't be nil")
	}
	s, err := a.file(filesToo, in.Request.StoreName)
	if err != nil {
		return nil, err
	}
	await(c, func(ctx context.Context) { err = s.Delete(ctx, a.caller, in.Request.Name) })
	if err != nil {
		return nil, because(err, "delete file fail,err: ")
	}
	return &pb.Empty{}, nil
}

func (a *API) getFileMeta(c *grpc.Call, in *pb.GetFileMetaRequest) (*pb.GetFileMetaResponse, error) {
	if in.Request == nil {
		return nil, invalid("request can't be nil")
	}
	s, err := a.file(filesToo, in.Request.StoreName)
	if err != nil {
		return nil, err
	}
	var i file.Info
	await(c, func(ctx context.Context) { i, err = s.Stat(ctx, a.caller, in.Request.Name) })
	if err != nil {
		return nil, because(err, "get file meta fail,err: ")
	}
	meta := map[string]pb.FileMetaValue{"IsDir": {Value: []string{"false"}}}
	for name, value := range i.Metadata {
		meta[name] = pb.FileMetaValue{Value: []string{value}}
	}
	for name, value := range map[string]string{"Content-Type": i.ContentType, "ETag": i.ETag} {
		if value != "" {
			meta[name] = pb.FileMetaValue{Value: []string{value}}
		}
	}
	return &pb.GetFileMetaResponse{Size: i.Size, LastModified: modified(&i), Response: &pb.FileMeta{Metadata: meta}}, nil
}
