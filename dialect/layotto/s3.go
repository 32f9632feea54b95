package layotto

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/layotto"
	"github.com/loam-run/loam/capability/file"
	"github.com/loam-run/loam/protocol/grpc"
)

// The objects of S3 are files here: a bucket is the first part of a name. What a request asks for that a store here cannot
// do (encryption, versions, lists of who may read) is Unimplemented: it would not be what was asked for.

func (a *API) objectMethods() map[string]grpc.Method {
	return map[string]grpc.Method{
		pb.MethodObjectStorageServicePutObject:             uploads(a.putObject),
		pb.MethodObjectStorageServiceGetObject:             answers(a.getObject),
		pb.MethodObjectStorageServiceDeleteObject:          grpc.Unary(a.deleteObject),
		pb.MethodObjectStorageServiceCopyObject:            grpc.Unary(a.copyObject),
		pb.MethodObjectStorageServiceDeleteObjects:         grpc.Unary(a.deleteObjects),
		pb.MethodObjectStorageServiceListObjects:           grpc.Unary(a.listObjects),
		pb.MethodObjectStorageServiceHeadObject:            grpc.Unary(a.headObject),
		pb.MethodObjectStorageServiceIsObjectExist:         grpc.Unary(a.isObjectExist),
		pb.MethodObjectStorageServicePutObjectTagging:      grpc.Unary(a.putObjectTagging),
		pb.MethodObjectStorageServiceDeleteObjectTagging:   grpc.Unary(a.deleteObjectTagging),
		pb.MethodObjectStorageServiceGetObjectTagging:      grpc.Unary(a.getObjectTagging),
		pb.MethodObjectStorageServiceGetObjectCannedAcl:    not("objects have no access control lists here: grants say who may read"),
		pb.MethodObjectStorageServicePutObjectCannedAcl:    not("objects have no access control lists here: grants say who may read"),
		pb.MethodObjectStorageServiceCreateMultipartUpload: grpc.Unary(a.createMultipartUpload),
		pb.MethodObjectStorageServiceUploadPart:            uploads(a.uploadPart),
		pb.MethodObjectStorageServiceUploadPartCopy:        grpc.Unary(a.uploadPartCopy),

		pb.MethodObjectStorageServiceCompleteMultipartUpload:          grpc.Unary(a.completeMultipartUpload),
		pb.MethodObjectStorageServiceAbortMultipartUpload:             grpc.Unary(a.abortMultipartUpload),
		pb.MethodObjectStorageServiceListMultipartUploads:             grpc.Unary(a.listMultipartUploads),
		pb.MethodObjectStorageServiceListParts:                        grpc.Unary(a.listParts),
		pb.MethodObjectStorageServiceListObjectVersions:               not("objects have no versions here"),
		pb.MethodObjectStorageServiceSignURL:                          grpc.Unary(a.signURL),
		pb.MethodObjectStorageServiceUpdateDownloadBandwidthRateLimit: not("the bandwidth of objects is not limited here"),
		pb.MethodObjectStorageServiceUpdateUploadBandwidthRateLimit:   not("the bandwidth of objects is not limited here"),
		pb.MethodObjectStorageServiceAppendObject:                     uploads(a.appendObject),
		pb.MethodObjectStorageServiceRestoreObject:                    not("objects are not archived here, so none comes back"),
	}
}

// object finds the store and the name of an object.
func (a *API) object(store, bucket, key string) (*file.Store, string, error) {
	s, err := a.file(filesToo, store)
	if err != nil {
		return nil, "", err
	}
	name, err := objectName(bucket, key)
	return s, name, err
}

func objectName(bucket, key string) (string, error) {
	if err := checkBucket(bucket); err != nil {
		return "", err
	}
	if key == "" {
		return "", invalid("the object has no key")
	}
	return bucket + "/" + key, nil
}

func checkBucket(bucket string) error {
	if bucket == "" || strings.Contains(bucket, "/") {
		return invalid("bucket %q: it has a name, without a slash", bucket)
	}
	return nil
}

// A want is something that a request may ask for.
type want struct {
	name string
	is   bool
}

func wants(name, value string) want { return want{name, value != ""} }

// refuse tells of the first thing wanted that is not done here.
func refuse(list ...want) error {
	for _, w := range list {
		if w.is {
			return fail(loam.Unimplemented, "%s is not done here: leave it out", w.name)
		}
	}
	return nil
}

// objectError puts S3's word for it before an error: clients look for that.
func objectError(err error, what string) error {
	switch loam.CodeOf(err) {
	case loam.NotFound:
		return because(err, "NoSuchKey: %s fail,err: ", what)
	case loam.AlreadyExists:
		return fail(loam.AlreadyExists, "%s fail,err: %s", what, words(err))
	}
	return because(err, "%s fail,err: ", what)
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func fromUnix(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0)
}

// condition tells whether an object is as a request wants it.
func condition(i *file.Info, ifMatch, ifNoneMatch string, since, unmodifiedSince int64) error {
	quoted := func(s string) string { return strings.Trim(s, `"`) }
	second := i.Modified.Truncate(time.Second)
	switch {
	case ifMatch != "" && ifMatch != "*" && quoted(ifMatch) != i.ETag:
		return fail(loam.FailedPrecondition, "PreconditionFailed: its ETag is %s", i.ETag)
	case ifMatch == "" && unmodifiedSince != 0 && second.After(fromUnix(unmodifiedSince)):
		return fail(loam.FailedPrecondition, "PreconditionFailed: it was modified at %s", modified(i))
	case ifNoneMatch != "" && (ifNoneMatch == "*" || quoted(ifNoneMatch) == i.ETag):
		return fail(loam.FailedPrecondition, "NotModified: its ETag is %s", i.ETag)
	case ifNoneMatch == "" && since != 0 && !second.After(fromUnix(since)):
		return fail(loam.FailedPrecondition, "NotModified: it was modified at %s", modified(i))
	}
	return nil
}

func (a *API) getObject(st *grpc.Stream, in *pb.GetObjectInput) error {
	c := &st.Call
	s, name, err := a.object(in.StoreName, in.Bucket, in.Key)
	if err != nil {
		return err
	}
	err = refuse(wants("expected_bucket_owner", in.ExpectedBucketOwner), want{"part_number", in.PartNumber != 0}, wants("sse_customer_key", in.SseCustomerKey),
		wants("sse_customer_algorithm", in.SseCustomerAlgorithm), wants("version_id", in.VersionId), wants("signed_url", in.SignedUrl))
	if err != nil {
		return err
	}
	length := int64(-1)
	if in.End != 0 {
		length = in.End - in.Start + 1
	}
	if in.Start < 0 || in.End < 0 || in.End != 0 && length <= 0 {
		return invalid("start %d, end %d: the first and the last byte", in.Start, in.End)
	}
	var body io.ReadCloser
	var i file.Info
	await(c, func(ctx context.Context) {
		if body, i, err = s.Get(ctx, a.caller, name, in.Start, length); err != nil {
			err = objectError(err, "get object")
			return
		}
		if err = condition(&i, in.IfMatch, in.IfNoneMatch, in.IfModifiedSince, in.IfUnmodifiedSince); err != nil {
			_ = body.Close() // it was only opened
		}
	})
	if err != nil {
		return err
	}
	or := func(asked, has string) string {
		if asked != "" {
			return asked
		}
		return has
	}
	head := pb.GetObjectOutput{
		CacheControl: or(in.ResponseCacheControl, i.CacheControl), ContentDisposition: or(in.ResponseContentDisposition, i.ContentDisposition),
		ContentEncoding: or(in.ResponseContentEncoding, i.ContentEncoding), ContentLanguage: or(in.ResponseContentLanguage, i.ContentLanguage),
		ContentType: or(in.ResponseContentType, i.ContentType), Expires: in.ResponseExpires, ContentLength: i.Size,
		Etag: i.ETag, LastModified: unix(i.Modified), TagCount: int64(len(i.Tags)), Metadata: i.Metadata,
	}
	if head.Expires == "" && !i.Expires.IsZero() {
		head.Expires = i.Expires.UTC().Format(time.RFC1123)
	}
	if in.Start != 0 || length >= 0 {
		last := i.Size - 1
		if length >= 0 {
			last = min(last, in.Start+length-1)
		}
		head.ContentLength = max(0, last-in.Start+1)
		head.ContentRange = fmt.Sprintf("bytes %d-%d/%d", in.Start, last, i.Size)
	}
	sent := false
	err = download(c, body, func(chunk []byte) error {
		if sent {
			return st.Send(&pb.GetObjectOutput{Body: chunk})
		}
		head.Body, sent = chunk, true
		return st.Send(&head)
	})
	if err == nil && !sent { // there is not a byte, but what is said of it
		err = st.Send(&head)
	}
	return err
}

func (a *API) putObject(st *grpc.Stream) (*pb.PutObjectOutput, error) {
	var in pb.PutObjectInput
	if err := first(st, &in); err != nil {
		return nil, err
	}
	s, name, err := a.object(in.StoreName, in.Bucket, in.Key)
	if err != nil {
		return nil, err
	}
	err = refuse(wants("acl", in.Acl), want{"bucket_key_enabled", in.BucketKeyEnabled}, wants("server_side_encryption", in.ServerSideEncryption),
		wants("signed_url", in.SignedUrl))
	if err != nil {
		return nil, err
	}
	attributes := file.Attributes{
		ContentEncoding: in.ContentEncoding, ContentDisposition: in.ContentDisposition, CacheControl: in.CacheControl,
		Expires: fromUnix(in.Expires), Metadata: in.Meta, Tags: in.Tagging,
	}
	i, err := receive(&st.Call, chunks(in.Body, func() ([]byte, error) {
		var m pb.PutObjectInput
		err := st.Recv(&m)
		return m.Body, err
	}), func(ctx context.Context, body io.Reader) (file.Info, error) {
		return s.Put(ctx, a.caller, name, body, attributes)
	})
	if err != nil {
		return nil, objectError(err, "put object")
	}
	return &pb.PutObjectOutput{Etag: i.ETag}, nil
}

// first receives the message that says what a stream is about.
func first(st *grpc.Stream, m grpc.Message) error {
	err := st.Recv(m)
	if errors.Is(err, io.EOF) {
		return invalid("the stream came without a message that says what it is about")
	}
	return err
}

// chunks are what came with the first message, then what next gives.
func chunks(chunk []byte, next func() ([]byte, error)) func() ([]byte, error) {
	begun := false
	return func() ([]byte, error) {
		if !begun {
			begun = true
			return chunk, nil
		}
		return next()
	}
}

func (a *API) appendObject(st *grpc.Stream) (*pb.AppendObjectOutput, error) {
	var in pb.AppendObjectInput
	if err := first(st, &in); err != nil {
		return nil, err
	}
	s, name, err := a.object(in.StoreName, in.Bucket, in.Key)
	if err != nil {
		return nil, err
	}
	if err := refuse(wants("acl", in.Acl), wants("server_side_encryption", in.ServerSideEncryption), wants("meta", in.Meta)); err != nil {
		return nil, err
	}
	attributes := file.Attributes{
		ContentEncoding: in.ContentEncoding, ContentDisposition: in.ContentDisposition, CacheControl: in.CacheControl,
		Expires: fromUnix(in.Expires), Tags: in.Tags,
	}
	i, err := receive(&st.Call, chunks(in.Body, func() ([]byte, error) {
		var m pb.AppendObjectInput
		err := st.Recv(&m)
		return m.Body, err
	}), func(ctx context.Context, body io.Reader) (file.Info, error) {
		if body, err = checked(body, in.ContentMd5); err != nil {
			return file.Info{}, err
		}
		return s.Append(ctx, a.caller, name, in.Position, body, attributes)
	})
	if err != nil {
		return nil, objectError(err, "append object")
	}
	return &pb.AppendObjectOutput{AppendPosition: i.Size}, nil
}

func (a *API) deleteObject(c *grpc.Call, in *pb.DeleteObjectInput) (*pb.DeleteObjectOutput, error) {
	s, name, err := a.object(in.StoreName, in.Bucket, in.Key)
	if err == nil {
		err = refuse(wants("version_id", in.VersionId))
	}
	if err != nil {
		return nil, err
	}
	await(c, func(ctx context.Context) { err = s.Delete(ctx, a.caller, name) })
	if err != nil && loam.CodeOf(err) != loam.NotFound { // S3 is content with one that is not there
		return nil, objectError(err, "delete object")
	}
	return &pb.DeleteObjectOutput{}, nil
}

func (a *API) deleteObjects(c *grpc.Call, in *pb.DeleteObjectsInput) (*pb.DeleteObjectsOutput, error) {
	s, err := a.file(filesToo, in.StoreName)
	if err != nil {
		return nil, err
	}
	if in.Delete == nil || len(in.Delete.Objects) == 0 {
		return nil, invalid("there is nothing to delete")
	}
	names := make([]string, len(in.Delete.Objects))
	for i, o := range in.Delete.Objects {
		if err := refuse(wants("version_id", o.VersionId)); err != nil {
			return nil, err
		}
		if names[i], err = objectName(in.Bucket, o.Key); err != nil {
			return nil, err
		}
	}
	var errs []error
	await(c, func(ctx context.Context) { errs, err = s.DeleteAll(ctx, a.caller, names...) })
	if err != nil {
		return nil, objectError(err, "delete objects")
	}
	out := &pb.DeleteObjectsOutput{}
	for i, o := range in.Delete.Objects {
		if errs[i] != nil { // the contract has no place for what became of one
			return nil, objectError(errs[i], "delete object "+strconv.Quote(o.Key))
		}
		if !in.Delete.Quiet {
			out.Deleted = append(out.Deleted, pb.DeletedObject{Key: o.Key})
		}
	}
	return out, nil
}

func (a *API) copyObject(c *grpc.Call, in *pb.CopyObjectInput) (*pb.CopyObjectOutput, error) {
	s, to, err := a.object(in.StoreName, in.Bucket, in.Key)
	if err != nil {
		return nil, err
	}
	from, err := source(in.CopySource)
	if err != nil {
		return nil, err
	}
	var replace bool
	switch in.MetadataDirective {
	case "", "COPY":
	case "REPLACE":
		replace = true
	default:
		return nil, invalid("metadata_directive %q: COPY or REPLACE", in.MetadataDirective)
	}
	var i file.Info
	await(c, func(ctx context.Context) {
		var attributes *file.Attributes // nil: those of the source
		if replace || in.Expires != 0 || len(in.Tagging) > 0 {
			if i, err = s.Stat(ctx, a.caller, from); err != nil {
				return
			}
			attributes = &i.Attributes
			if replace {
				attributes.Metadata = in.Metadata
			}
			if in.Expires != 0 {
				attributes.Expires = fromUnix(in.Expires)
			}
			if len(in.Tagging) > 0 {
				attributes.Tags = in.Tagging
			}
		}
		i, err = s.Copy(ctx, a.caller, from, to, attributes)
	})
	if err != nil {
		return nil, objectError(err, "copy object")
	}
	return &pb.CopyObjectOutput{CopyObjectResult: &pb.CopyObjectResult{Etag: i.ETag, LastModified: unix(i.Modified)}}, nil
}

// source is the name of an object that is copied.
func source(from *pb.CopySource) (string, error) {
	if from == nil {
		return "", invalid("there is no copy_source")
	}
	if err := refuse(wants("copy_source_version_id", from.CopySourceVersionId)); err != nil {
		return "", err
	}
	return objectName(from.CopySourceBucket, from.CopySourceKey)
}

func (a *API) listObjects(c *grpc.Call, in *pb.ListObjectsInput) (*pb.ListObjectsOutput, error) {
	s, err := a.file(filesToo, in.StoreName)
	if err != nil {
		return nil, err
	}
	err = checkBucket(in.Bucket)
	if err == nil {
		err = refuse(wants("expected_bucket_owner", in.ExpectedBucketOwner))
	}
	if err == nil && in.EncodingType != "" && in.EncodingType != "url" {
		err = invalid("encoding_type %q: url", in.EncodingType)
	}
	if err == nil && in.MaxKeys < 0 {
		err = invalid("maxKeys %d", in.MaxKeys)
	}
	if err != nil {
		return nil, err
	}
	root := in.Bucket + "/"
	q := file.Query{Prefix: root + in.Prefix, Delimiter: in.Delimiter, Limit: int(in.MaxKeys)}
	if in.Marker != "" {
		q.After = root + in.Marker
	}
	var page file.Page
	await(c, func(ctx context.Context) { page, err = s.List(ctx, a.caller, q) })
	if err != nil {
		return nil, objectError(err, "list objects")
	}

	out := &pb.ListObjectsOutput{
		Name: in.Bucket, Prefix: in.Prefix, Delimiter: in.Delimiter, Marker: in.Marker, MaxKeys: in.MaxKeys,
		IsTruncated: page.Next != "", NextMarker: strings.TrimPrefix(page.Next, root),
	}
	for i := range page.Objects {
		o := &page.Objects[i]
		out.Contents = append(out.Contents, pb.Object{Key: strings.TrimPrefix(o.Name, root), Etag: o.ETag, LastModified: unix(o.Modified), Size: o.Size})
	}
	for _, p := range page.Prefixes {
		out.CommonPrefixes = append(out.CommonPrefixes, strings.TrimPrefix(p, root))
	}
	return out, nil
}

func (a *API) stat(c *grpc.Call, s *file.Store, name string) (i file.Info, err error) {
	await(c, func(ctx context.Context) { i, err = s.Stat(ctx, a.caller, name) })
	return i, err
}

func (a *API) headObject(c *grpc.Call, in *pb.HeadObjectInput) (*pb.HeadObjectOutput, error) {
	s, name, err := a.object(in.StoreName, in.Bucket, in.Key)
	if err == nil {
		err = refuse(wants("expected_bucket_owner", in.ExpectedBucketOwner), want{"part_number", in.PartNumber != 0}, wants("sse_customer_key", in.SseCustomerKey),
			wants("sse_customer_algorithm", in.SseCustomerAlgorithm), wants("version_id", in.VersionId), wants("checksum_mode", in.ChecksumMode))
	}
	if err != nil {
		return nil, err
	}
	i, err := a.stat(c, s, name)
	if err != nil {
		return nil, objectError(err, "head object")
	}
	if err := condition(&i, in.IfMatch, in.IfNoneMatch, in.IfModifiedSince, in.IfUnmodifiedSince); err != nil {
		return nil, err
	}
	meta := map[string]string{"Content-Length": strconv.FormatInt(i.Size, 10), "Last-Modified": i.Modified.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"), "ETag": i.ETag}
	for header, value := range map[string]string{
		"Content-Type": i.ContentType, "Content-Encoding": i.ContentEncoding, "Content-Language": i.ContentLanguage,
		"Content-Disposition": i.ContentDisposition, "Cache-Control": i.CacheControl,
	} {
		if value != "" {
			meta[header] = value
		}
	}
	for k, v := range i.Metadata {
		meta["x-amz-meta-"+k] = v
	}
	return &pb.HeadObjectOutput{ResultMetadata: meta}, nil
}

func (a *API) isObjectExist(c *grpc.Call, in *pb.IsObjectExistInput) (*pb.IsObjectExistOutput, error) {
	s, name, err := a.object(in.StoreName, in.Bucket, in.Key)
	if err == nil {
		err = refuse(wants("version_id", in.VersionId))
	}
	if err != nil {
		return nil, err
	}
	_, err = a.stat(c, s, name)
	if err != nil && loam.CodeOf(err) != loam.NotFound {
		return nil, objectError(err, "look for object")
	}
	return &pb.IsObjectExistOutput{FileExist: err == nil}, nil
}

func (a *API) setTags(c *grpc.Call, store, bucket, key, version string, tags map[string]string) error {
	s, name, err := a.object(store, bucket, key)
	if err == nil {
		err = refuse(wants("version_id", version))
	}
	if err != nil {
		return err
	}
	await(c, func(ctx context.Context) { err = s.SetTags(ctx, a.caller, name, tags) })
	if err != nil {
		return objectError(err, "put object tagging")
	}
	return nil
}

func (a *API) putObjectTagging(c *grpc.Call, in *pb.PutObjectTaggingInput) (*pb.PutObjectTaggingOutput, error) {
	return &pb.PutObjectTaggingOutput{}, a.setTags(c, in.StoreName, in.Bucket, in.Key, in.VersionId, in.Tags)
}

func (a *API) deleteObjectTagging(c *grpc.Call, in *pb.DeleteObjectTaggingInput) (*pb.DeleteObjectTaggingOutput, error) {
	if err := refuse(wants("expected_bucket_owner", in.ExpectedBucketOwner)); err != nil {
		return nil, err
	}
	return &pb.DeleteObjectTaggingOutput{}, a.setTags(c, in.StoreName, in.Bucket, in.Key, in.VersionId, nil)
}

func (a *API) getObjectTagging(c *grpc.Call, in *pb.GetObjectTaggingInput) (*pb.GetObjectTaggingOutput, error) {
	s, name, err := a.object(in.StoreName, in.Bucket, in.Key)
	if err == nil {
		err = refuse(wants("version_id", in.VersionId), wants("expected_bucket_owner", in.ExpectedBucketOwner))
	}
	if err != nil {
		return nil, err
	}
	i, err := a.stat(c, s, name)
	if err != nil {
		return nil, objectError(err, "get object tagging")
	}
	return &pb.GetObjectTaggingOutput{Tags: i.Tags}, nil
}

func (a *API) signURL(c *grpc.Call, in *pb.SignURLInput) (*pb.SignURLOutput, error) {
	s, name, err := a.object(in.StoreName, in.Bucket, in.Key)
	if err != nil {
		return nil, err
	}
	if in.ExpiredInSec <= 0 || in.ExpiredInSec > int64(file.MaxSigned/time.Second) {
		return nil, invalid("expired_in_sec %d: 1 to %d", in.ExpiredInSec, int64(file.MaxSigned/time.Second))
	}
	var url string
	await(c, func(ctx context.Context) {
		url, _, err = s.Sign(ctx, a.caller, strings.ToUpper(in.Method), name, time.Duration(in.ExpiredInSec)*time.Second)
	})
	if err != nil {
		return nil, objectError(err, "sign url")
	}
	return &pb.SignURLOutput{SignedUrl: url}, nil
}

// checked is a body whose MD5 is what was said, where it was: else it ends with an error, and is not stored.
func checked(body io.Reader, sum string) (io.Reader, error) {
	if sum == "" {
		return body, nil
	}
	want, err := base64.StdEncoding.DecodeString(sum)
	if err != nil || len(want) != md5.Size {
		return nil, loam.Errorf(loam.InvalidArgument, "", "content_md5 %.40q is no MD5 in base64", sum)
	}
	return &md5Reader{body, md5.New(), string(want)}, nil
}

type md5Reader struct {
	from io.Reader
	sum  hash.Hash
	want string
}

func (r *md5Reader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	r.sum.Write(p[:n])
	if err == io.EOF && string(r.sum.Sum(nil)) != r.want {
		return n, loam.Errorf(loam.InvalidArgument, "", "BadDigest: the data is not what content_md5 says")
	}
	return n, err
}
