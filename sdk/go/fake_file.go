//go:build !wasip1

package loam

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam/sdk/go/internal/api"
)

// file keeps objects in Files, as the file capability does.
func (f *Fake) file(method string, in []byte) (message, error) {
	missing := func(name string) error { return Errorf(NotFound, "file %q is not there", name) }
	switch method {
	case "file.Put":
		return handled(in, new(api.FilePutRequest), func(r *api.FilePutRequest) (message, error) {
			i := f.keep(r.Name, r.Data, FileInfo{ContentType: r.ContentType, Metadata: attributeMap(r.Metadata)})
			return &api.FilePutResponse{Size: i.Size, Etag: i.ETag}, nil
		})
	case "file.Append":
		return handled(in, new(api.FileAppendRequest), func(r *api.FileAppendRequest) (message, error) {
			said := f.files[r.Name]
			if r.Offset == 0 && len(f.Files[r.Name]) == 0 {
				said = FileInfo{ContentType: r.ContentType, Metadata: attributeMap(r.Metadata)}
			}
			if r.Offset != int64(len(f.Files[r.Name])) {
				return nil, Errorf(FailedPrecondition, "file %q ends at %d", r.Name, len(f.Files[r.Name]))
			}
			i := f.keep(r.Name, append(f.Files[r.Name], r.Data...), said)
			return &api.FileAppendResponse{Size: i.Size, Etag: i.ETag}, nil
		})
	case "file.Get":
		return handled(in, new(api.FileGetRequest), func(r *api.FileGetRequest) (message, error) {
			data, ok := f.Files[r.Name]
			switch {
			case !ok:
				return nil, missing(r.Name)
			case r.Offset < 0 || r.Length < 0:
				return nil, Errorf(InvalidArgument, "%d bytes from %d", r.Length, r.Offset)
			case r.Offset > int64(len(data)):
				return nil, Errorf(OutOfRange, "file %q ends at %d", r.Name, len(data))
			}
			i := f.files[r.Name]
			part := data[r.Offset:]
			if r.Length > 0 {
				part = part[:min(r.Length, int64(len(part)))]
			}
			return &api.FileGetResponse{
				Data: slices.Clone(part), Size: int64(len(data)), Etag: i.ETag, ModifiedUnixMs: unixMilli(i.Modified), ContentType: i.ContentType, Metadata: attributes(i.Metadata),
			}, nil
		})
	case "file.Stat":
		return handled(in, new(api.FileStatRequest), func(r *api.FileStatRequest) (message, error) {
			data, ok := f.Files[r.Name]
			if !ok {
				return nil, missing(r.Name)
			}
			i := f.files[r.Name]
			return &api.FileStatResponse{Size: int64(len(data)), Etag: i.ETag, ModifiedUnixMs: unixMilli(i.Modified), ContentType: i.ContentType, Metadata: attributes(i.Metadata)}, nil
		})
	case "file.List":
		return handled(in, new(api.FileListRequest), func(r *api.FileListRequest) (message, error) { return f.fileList(r), nil })
	case "file.Delete":
		return handled(in, new(api.FileDeleteRequest), func(r *api.FileDeleteRequest) (message, error) {
			if _, ok := f.Files[r.Name]; !ok {
				return nil, missing(r.Name)
			}
			delete(f.Files, r.Name)
			delete(f.files, r.Name)
			return &api.Empty{}, nil
		})
	}
	return nil, Errorf(Unimplemented, "no method %s", method)
}

func (f *Fake) keep(name string, data []byte, i FileInfo) FileInfo {
	f.etag++
	i.Name, i.Size, i.ETag, i.Modified = name, int64(len(data)), strconv.FormatInt(f.etag, 10), time.Now()
	f.Files[name], f.files[name] = slices.Clone(data), i
	return i
}

func (f *Fake) fileList(r *api.FileListRequest) *api.FileListResponse {
	limit := int(r.Limit)
	if limit == 0 || limit > 1000 {
		limit = 1000
	}
	var resp api.FileListResponse
	last := ""
	for _, name := range slices.Sorted(maps.Keys(f.Files)) {
		entry := name
		rest, ok := strings.CutPrefix(name, r.Prefix)
		if !ok {
			continue
		}
		if i := strings.Index(rest, r.Delimiter); r.Delimiter != "" && i >= 0 {
			entry = r.Prefix + rest[:i+len(r.Delimiter)]
		}
		if entry <= r.After || entry == last {
			continue
		}
		if len(resp.Items)+len(resp.Prefixes) == limit {
			resp.Next = last
			break
		}
		if last = entry; entry != name {
			resp.Prefixes = append(resp.Prefixes, entry)
			continue
		}
		i := f.files[name]
		resp.Items = append(resp.Items, api.FileItem{Name: name, Size: int64(len(f.Files[name])), Etag: i.ETag, ModifiedUnixMs: unixMilli(i.Modified)})
	}
	return &resp
}

func unixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// job keeps jobs in Jobs; nothing is due by itself.
func (f *Fake) job(method string, in []byte) (message, error) {
	switch method {
	case "jobs.Schedule":
		return handled(in, new(api.JobsScheduleRequest), func(r *api.JobsScheduleRequest) (message, error) {
			for _, m := range r.Jobs {
				if _, there := f.Jobs[m.Name]; there && !r.Overwrite {
					return nil, Errorf(AlreadyExists, "job %q is there", m.Name)
				}
				if m.Schedule == "" && m.Due == "" {
					return nil, Errorf(InvalidArgument, "job %q has neither a schedule nor a time when it is due", m.Name)
				}
				f.Jobs[m.Name] = jobOf(m)
			}
			return &api.Empty{}, nil
		})
	case "jobs.Get":
		return handled(in, new(api.JobsGetRequest), func(r *api.JobsGetRequest) (message, error) {
			var resp api.JobsGetResponse
			for _, name := range r.Names {
				if job, ok := f.Jobs[name]; ok {
					resp.Jobs = append(resp.Jobs, job.toAPI())
				}
			}
			return &resp, nil
		})
	case "jobs.Delete":
		return handled(in, new(api.JobsDeleteRequest), func(r *api.JobsDeleteRequest) (message, error) {
			if _, ok := f.Jobs[r.Name]; !ok {
				return nil, Errorf(NotFound, "job %q is not there", r.Name)
			}
			delete(f.Jobs, r.Name)
			return &api.Empty{}, nil
		})
	}
	return nil, Errorf(Unimplemented, "no method %s", method)
}
