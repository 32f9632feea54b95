package layotto

import (
	"context"
	"io"
	"strconv"
	"strings"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/layotto"
	"github.com/loam-run/loam/capability/file"
	"github.com/loam-run/loam/protocol/grpc"
)

// Objects that come in parts.

// uploadError puts S3's word for it before an error of an upload.
func uploadError(err error, what string) error {
	switch loam.CodeOf(err) {
	case loam.NotFound:
		return because(err, "NoSuchUpload: %s fail,err: ", what)
	case loam.FailedPrecondition:
		return because(err, "InvalidPart: %s fail,err: ", what)
	}
	return because(err, "%s fail,err: ", what)
}

func (a *API) createMultipartUpload(c *grpc.Call, in *pb.CreateMultipartUploadInput) (*pb.CreateMultipartUploadOutput, error) {
	s, name, err := a.object(in.StoreName, in.Bucket, in.Key)
	if err != nil {
		return nil, err
	}
	err = refuse(wants("acl", in.Acl), want{"bucket_key_enabled", in.BucketKeyEnabled}, wants("expected_bucket_owner", in.ExpectedBucketOwner),
		wants("grant_full_control", in.GrantFullControl), wants("grant_read", in.GrantRead), wants("grant_read_acp", in.GrantReadAcp),
		wants("grant_write_acp", in.GrantWriteAcp), wants("object_lock_legal_hold_status", in.ObjectLockLegalHoldStatus),
		wants("object_lock_mode", in.ObjectLockMode), want{"object_lock_retain_until_date", in.ObjectLockRetainUntilDate != 0},
		wants("sse_customer_algorithm", in.SseCustomerAlgorithm), wants("sse_customer_key", in.SseCustomerKey),
		wants("sse_kms_key_id", in.SseKmsKeyId), wants("server_side_encryption", in.ServerSideEncryption),
		wants("website_redirect_location", in.WebsiteRedirectLocation))
	if err != nil {
		return nil, err
	}
	attributes := file.Attributes{
		ContentType: in.ContentType, ContentEncoding: in.ContentEncoding, ContentLanguage: in.ContentLanguage,
		ContentDisposition: in.ContentDisposition, CacheControl: in.CacheControl,
		Expires: fromUnix(in.Expires), Metadata: in.MetaData, Tags: in.Tagging,
	}
	var id string
	await(c, func(ctx context.Context) { id, err = s.CreateUpload(ctx, a.caller, name, attributes) })
	if err != nil {
		return nil, uploadError(err, "create multipart upload")
	}
	return &pb.CreateMultipartUploadOutput{Bucket: in.Bucket, Key: in.Key, UploadId: id}, nil
}

func (a *API) uploadPart(st *grpc.Stream) (*pb.UploadPartOutput, error) {
	var in pb.UploadPartInput
	if err := first(st, &in); err != nil {
		return nil, err
	}
	s, name, err := a.object(in.StoreName, in.Bucket, in.Key)
	if err != nil {
		return nil, err
	}
	err = refuse(wants("expected_bucket_owner", in.ExpectedBucketOwner), wants("sse_customer_algorithm", in.SseCustomerAlgorithm),
		wants("sse_customer_key", in.SseCustomerKey))
	if err != nil {
		return nil, err
	}
	p, err := receive(&st.Call, chunks(in.Body, func() ([]byte, error) {
		var m pb.UploadPartInput
		err := st.Recv(&m)
		return m.Body, err
	}), func(ctx context.Context, body io.Reader) (file.Part, error) {
		body, err := checked(body, in.ContentMd5)
		if err != nil {
			return file.Part{}, err
		}
		return s.UploadPart(ctx, a.caller, name, in.UploadId, int(in.PartNumber), body)
	})
	if err != nil {
		return nil, uploadError(err, "upload part")
	}
	return &pb.UploadPartOutput{Etag: p.ETag}, nil
}

func (a *API) uploadPartCopy(c *grpc.Call, in *pb.UploadPartCopyInput) (*pb.UploadPartCopyOutput, error) {
	s, name, err := a.object(in.StoreName, in.Bucket, in.Key)
	if err != nil {
		return nil, err
	}
	from, err := source(in.CopySource)
	if err != nil {
		return nil, err
	}
	if in.StartPosition < 0 || in.PartSize < 0 {
		return nil, invalid("start_position %d, part_size %d", in.StartPosition, in.PartSize)
	}
	length := in.PartSize
	if length == 0 {
		length = -1
	}
	var p file.Part
	await(c, func(ctx context.Context) {
		p, err = s.CopyPart(ctx, a.caller, name, in.UploadId, int(in.PartNumber), from, in.StartPosition, length)
	})
	if err != nil {
		return nil, uploadError(err, "upload part copy")
	}
	return &pb.UploadPartCopyOutput{CopyPartResult: &pb.CopyPartResult{Etag: p.ETag, LastModified: unix(p.Modified)}}, nil
}

func (a *API) completeMultipartUpload(c *grpc.Call, in *pb.CompleteMultipartUploadInput) (*pb.CompleteMultipartUploadOutput, error) {
	s, name, err := a.object(in.StoreName, in.Bucket, in.Key)
	if err == nil {
		err = refuse(wants("expected_bucket_owner", in.ExpectedBucketOwner))
	}
	if err != nil {
		return nil, err
	}
	if in.MultipartUpload == nil {
		return nil, invalid("there is no multipart_upload, which says what the parts are")
	}
	parts := make([]file.Part, len(in.MultipartUpload.Parts))
	for i, p := range in.MultipartUpload.Parts {
		parts[i] = file.Part{Number: int(p.PartNumber), ETag: strings.Trim(p.Etag, `"`)}
	}
	var i file.Info
	await(c, func(ctx context.Context) { i, err = s.CompleteUpload(ctx, a.caller, name, in.UploadId, parts) })
	if err != nil {
		return nil, uploadError(err, "complete multipart upload")
	}
	return &pb.CompleteMultipartUploadOutput{Bucket: in.Bucket, Key: in.Key, Etag: i.ETag}, nil
}

func (a *API) abortMultipartUpload(c *grpc.Call, in *pb.AbortMultipartUploadInput) (*pb.AbortMultipartUploadOutput, error) {
	s, name, err := a.object(in.StoreName, in.Bucket, in.Key)
	if err == nil {
		err = refuse(wants("expected_bucket_owner", in.ExpectedBucketOwner))
	}
	if err != nil {
		return nil, err
	}
	await(c, func(ctx context.Context) { err = s.AbortUpload(ctx, a.caller, name, in.UploadId) })
	if err != nil {
		return nil, uploadError(err, "abort multipart upload")
	}
	return &pb.AbortMultipartUploadOutput{}, nil
}

func (a *API) listMultipartUploads(c *grpc.Call, in *pb.ListMultipartUploadsInput) (*pb.ListMultipartUploadsOutput, error) {
	s, err := a.file(filesToo, in.StoreName)
	if err != nil {
		return nil, err
	}
	err = checkBucket(in.Bucket)
	if err == nil {
		err = refuse(wants("expected_bucket_owner", in.ExpectedBucketOwner), wants("delimiter", in.Delimiter))
	}
	if err == nil && (in.MaxUploads < 0 || in.MaxUploads > file.MaxPage) {
		err = invalid("max_uploads %d: at most %d", in.MaxUploads, file.MaxPage)
	}
	if err != nil {
		return nil, err
	}
	root, limit := in.Bucket+"/", int(in.MaxUploads)
	if limit == 0 {
		limit = file.MaxPage
	}
	after := ""
	if in.KeyMarker != "" {
		after = root + in.KeyMarker
	}
	var list []file.Upload
	await(c, func(ctx context.Context) {
		list, err = s.Uploads(ctx, a.caller, root+in.Prefix, after, in.UploadIdMarker, limit)
	})
	if err != nil {
		return nil, uploadError(err, "list multipart uploads")
	}
	out := &pb.ListMultipartUploadsOutput{
		Bucket: in.Bucket, Prefix: in.Prefix, KeyMarker: in.KeyMarker, UploadIdMarker: in.UploadIdMarker, MaxUploads: int32(limit),
		IsTruncated: len(list) == limit,
	}
	for _, u := range list {
		key := strings.TrimPrefix(u.Name, root)
		out.Uploads = append(out.Uploads, pb.MultipartUpload{Key: key, UploadId: u.ID, Initiated: unix(u.Started)})
		if out.IsTruncated {
			out.NextKeyMarker, out.NextUploadIdMarker = key, u.ID
		}
	}
	return out, nil
}

func (a *API) listParts(c *grpc.Call, in *pb.ListPartsInput) (*pb.ListPartsOutput, error) {
	s, name, err := a.object(in.StoreName, in.Bucket, in.Key)
	if err == nil {
		err = refuse(wants("expected_bucket_owner", in.ExpectedBucketOwner))
	}
	if err == nil && (in.MaxParts < 0 || in.MaxParts > file.MaxPage || in.PartNumberMarker < 0 || in.PartNumberMarker > file.MaxParts) {
		err = invalid("max_parts %d: at most %d; part_number_marker %d: at most %d", in.MaxParts, file.MaxPage, in.PartNumberMarker, file.MaxParts)
	}
	if err != nil {
		return nil, err
	}
	limit := int(in.MaxParts)
	if limit == 0 {
		limit = file.MaxPage
	}
	var list []file.Part
	await(c, func(ctx context.Context) {
		list, err = s.Parts(ctx, a.caller, name, in.UploadId, int(in.PartNumberMarker), limit)
	})
	if err != nil {
		return nil, uploadError(err, "list parts")
	}
	out := &pb.ListPartsOutput{Bucket: in.Bucket, Key: in.Key, UploadId: in.UploadId, MaxParts: int64(limit), IsTruncated: len(list) == limit}
	for _, p := range list {
		out.Parts = append(out.Parts, pb.Part{Etag: p.ETag, LastModified: unix(p.Modified), PartNumber: int64(p.Number), Size: p.Size})
		if out.IsTruncated {
			out.NextPartNumberMarker = strconv.Itoa(p.Number)
		}
	}
	return out, nil
}
