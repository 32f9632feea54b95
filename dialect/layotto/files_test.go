package layotto_test

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/layotto"
	"github.com/loam-run/loam/protocol/grpc"
)

// send streams messages to a method of one answer.
func (w *world) send(t testing.TB, method string, out grpc.Message, messages ...grpc.Message) (err error) {
	t.Helper()
	w.do(t, func(req *loam.Request) {
		st := w.client.Open(req, method)
		defer st.Close()
		for _, m := range messages {
			if err = st.Send(m); err != nil {
				break
			}
		}
		st.CloseSend()
		if err = st.Recv(out); err == nil {
			if end := st.Recv(out); !errors.Is(end, io.EOF) {
				err = end
			}
		}
	})
	return err
}

// receive calls a method of many answers, each of which take gets.
func receive[T any, P interface {
	*T
	grpc.Message
}](w *world, t testing.TB, method string, in grpc.Message, take func(P)) (err error) {
	t.Helper()
	w.do(t, func(req *loam.Request) {
		st := w.client.Open(req, method)
		defer st.Close()
		if err = st.Send(in); err != nil {
			return
		}
		st.CloseSend()
		for {
			m := P(new(T))
			if err = st.Recv(m); err != nil {
				break
			}
			take(m)
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
	})
	return err
}

func (w *world) getFile(t testing.TB, name string) (string, error) {
	var b strings.Builder
	err := receive(w, t, pb.MethodRuntimeGetFile, &pb.GetFileRequest{StoreName: "file_demo", Name: name}, func(m *pb.GetFileResponse) { b.Write(m.Data) })
	return b.String(), err
}

func (w *world) putFile(t testing.TB, name string, chunks ...string) error {
	var messages []grpc.Message
	for _, c := range chunks {
		messages = append(messages, &pb.PutFileRequest{StoreName: "file_demo", Name: name, Data: []byte(c), Metadata: map[string]string{"FileMode": "521", "FileFlag": "0", "Author": "Ann"}})
	}
	return w.send(t, pb.MethodRuntimePutFile, &pb.Empty{}, messages...)
}

func TestFiles(t *testing.T) {
	w := newWorld(t, nil)
	large := strings.Repeat("0123456789abcdef", 20_000) // five chunks
	works(t, w.putFile(t, "a/b.txt", "hello, ", "", "world"))
	works(t, w.putFile(t, "a/large", large[:100_000], large[100_000:]))
	works(t, w.putFile(t, "a/empty", ""))
	works(t, w.putFile(t, "a/c/d", "deep"))
	for name, want := range map[string]string{"a/b.txt": "hello, world", "a/large": large, "a/empty": ""} {
		if got, err := w.getFile(t, name); err != nil || got != want {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(want))
		}
	}
	list := func(size int32, marker string) pb.ListFileResp {
		var out pb.ListFileResp
		works(t, w.call(t, pb.MethodRuntimeListFile, &pb.ListFileRequest{Request: &pb.FileRequest{StoreName: "file_demo", Name: "a"}, PageSize: size, Marker: marker}, &out))
		return out
	}
	var got []string
	pages := 0
	for marker := ""; ; pages++ {
		page := list(3, marker)
		for _, f := range page.Files {
			got = append(got, fmt.Sprint(f.FileName, " ", f.Size, " ", f.Metadata["IsDir"]))
		}
		if marker = page.Marker; !page.IsTruncated {
			break
		}
	}
	if got, want := strings.Join(got, "; "), "b.txt 12 ; c 0 true; empty 0 ; large 320000 "; got != want || pages != 1 {
		t.Errorf("%s in %d pages, want %s", got, pages+1, want)
	}
	var meta pb.GetFileMetaResponse
	works(t, w.call(t, pb.MethodRuntimeGetFileMeta, &pb.GetFileMetaRequest{Request: &pb.FileRequest{StoreName: "file_demo", Name: "a/b.txt"}}, &meta))
	if meta.Size != 12 || meta.LastModified == "" || fmt.Sprint(meta.Response.Metadata["author"].Value) != "[Ann]" {
		t.Errorf("%+v", meta)
	}
	del := func(name string) error {
		return w.call(t, pb.MethodRuntimeDelFile, &pb.DelFileRequest{Request: &pb.FileRequest{StoreName: "file_demo", Name: name}}, &pb.Empty{})
	}
	works(t, del("a/b.txt"))
	fails(t, del("a/b.txt"), loam.NotFound, "")
	_, err := w.getFile(t, "a/b.txt")
	fails(t, err, loam.NotFound, "get file fail,err: ")
	fails(t, w.call(t, pb.MethodRuntimeGetFileMeta, &pb.GetFileMetaRequest{Request: &pb.FileRequest{StoreName: "file_demo", Name: "a/b.txt"}}, &meta), loam.NotFound, "")
	for _, err := range []error{
		w.call(t, pb.MethodRuntimeGetFileMeta, &pb.GetFileMetaRequest{}, &meta), w.call(t, pb.MethodRuntimeDelFile, &pb.DelFileRequest{}, &pb.Empty{}),
		w.call(t, pb.MethodRuntimeListFile, &pb.ListFileRequest{}, &pb.ListFileResp{}),
	} {
		fails(t, err, loam.InvalidArgument, "request can't be nil")
	}
	err = receive(w, t, pb.MethodRuntimeGetFile, &pb.GetFileRequest{StoreName: "notexists"}, func(*pb.GetFileResponse) {})
	fails(t, err, loam.InvalidArgument, "not supported store type: notexists")
	fails(t, w.send(t, pb.MethodRuntimePutFile, &pb.Empty{}, &pb.PutFileRequest{StoreName: "notexists"}), loam.InvalidArgument, "not support store type: notexists")
	fails(t, w.send(t, pb.MethodRuntimePutFile, &pb.Empty{}), loam.InvalidArgument, "a message that says which")
}

// Whatever a name says, nothing outside the store is reached.
func TestFileNames(t *testing.T) {
	w := newWorld(t, nil)
	for _, name := range []string{
		"/etc/passwd", "../../etc/passwd", "a/../../etc/passwd", "..", ".", "", "a//b", "a/./b", `..\..\x`, "a\x00b", "a\nb", "./x", "a/..", strings.Repeat("x", 5000),
		".loam/meta/x",
	} {
		if _, err := w.getFile(t, name); err == nil {
			t.Errorf("%q was read", name)
		}
		if err := w.putFile(t, name, "x"); err == nil {
			t.Errorf("%q was written", name)
		}
		in := &pb.FileRequest{StoreName: "file_demo", Name: name}
		if err := w.call(t, pb.MethodRuntimeGetFileMeta, &pb.GetFileMetaRequest{Request: in}, &pb.GetFileMetaResponse{}); err == nil {
			t.Errorf("%q was looked at", name)
		}
		if err := w.call(t, pb.MethodRuntimeDelFile, &pb.DelFileRequest{Request: in}, &pb.Empty{}); err == nil {
			t.Errorf("%q was deleted", name)
		}
		var out pb.ListFileResp
		if err := w.call(t, pb.MethodRuntimeListFile, &pb.ListFileRequest{Request: in}, &out); err == nil && len(out.Files) > 0 {
			t.Errorf("%q was listed: %+v", name, out.Files)
		}
		for _, bucket := range []string{"b", "..", "/", ""} {
			if err := receive(w, t, pb.MethodObjectStorageServiceGetObject, &pb.GetObjectInput{StoreName: "file_demo", Bucket: bucket, Key: name}, func(*pb.GetObjectOutput) {}); err == nil {
				t.Errorf("%q of bucket %q was read", name, bucket)
			}
		}
	}
}

// A client that breaks off leaves no file, and one that never ends takes no memory.
func TestFileBrokenOff(t *testing.T) {
	w := newWorld(t, nil)
	works(t, w.putFile(t, "kept", "as it was"))
	chunk := bytes.Repeat([]byte("x"), 64<<10)
	for range 3 {
		w.do(t, func(req *loam.Request) {
			st := w.client.Open(req, pb.MethodRuntimePutFile)
			for range 300 { // 19 MB
				if err := st.Send(&pb.PutFileRequest{StoreName: "file_demo", Name: "kept", Data: chunk}); err != nil {
					t.Error(err)
					break
				}
			}
			st.Close() // without an end
		})
	}
	if got, err := w.getFile(t, "kept"); err != nil || got != "as it was" {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	// One whose name is refused is told at once, not when it has sent all.
	w.do(t, func(req *loam.Request) {
		st := w.client.Open(req, pb.MethodRuntimePutFile)
		defer st.Close()
		sent := 0
		for ; sent < 100_000; sent++ {
			if st.Send(&pb.PutFileRequest{StoreName: "file_demo", Name: "../x", Data: chunk}) != nil {
				break
			}
		}
		if sent == 100_000 {
			t.Error("it took all of six gigabytes")
		}
		fails(t, st.Recv(&pb.Empty{}), loam.InvalidArgument, "put file fail,err: ")
	})
}

func TestObjects(t *testing.T) {
	w := newWorld(t, nil)
	const store, bucket = "file_demo", "shop"
	put := func(in pb.PutObjectInput, more ...string) (pb.PutObjectOutput, error) {
		var out pb.PutObjectOutput
		messages := []grpc.Message{&in}
		for _, m := range more {
			messages = append(messages, &pb.PutObjectInput{Body: []byte(m)})
		}
		err := w.send(t, pb.MethodObjectStorageServicePutObject, &out, messages...)
		return out, err
	}
	get := func(in pb.GetObjectInput) (string, *pb.GetObjectOutput, error) {
		var body strings.Builder
		var first *pb.GetObjectOutput
		in.StoreName, in.Bucket = store, bucket
		err := receive(w, t, pb.MethodObjectStorageServiceGetObject, &in, func(m *pb.GetObjectOutput) {
			body.Write(m.Body)
			if first == nil {
				first = m
			}
		})
		return body.String(), first, err
	}
	made, err := put(pb.PutObjectInput{StoreName: store, Bucket: bucket, Key: "a/b", Body: []byte("hello, "), CacheControl: "no-store", Meta: map[string]string{"Who": "Ann"}, Tagging: map[string]string{"t": "1"}, ContentLength: 3}, "world")
	if err != nil || made.Etag == "" {
		t.Fatalf("%+v, %v", made, err)
	}
	body, head, err := get(pb.GetObjectInput{Key: "a/b"})
	if err != nil || body != "hello, world" || head.ContentLength != 12 || head.Etag != made.Etag || head.CacheControl != "no-store" || head.Metadata["who"] != "Ann" || head.TagCount != 1 || head.LastModified == 0 {
		t.Errorf("%q, %+v, %v", body, head, err)
	}
	body, head, err = get(pb.GetObjectInput{Key: "a/b", Start: 7, End: 9, ResponseContentType: "text/x"})
	if err != nil || body != "wor" || head.ContentRange != "bytes 7-9/12" || head.ContentLength != 3 || head.ContentType != "text/x" {
		t.Errorf("%q, %+v, %v", body, head, err)
	}
	_, err = put(pb.PutObjectInput{StoreName: store, Bucket: bucket, Key: "empty"})
	works(t, err)
	if body, head, err = get(pb.GetObjectInput{Key: "empty"}); err != nil || body != "" || head == nil || head.Etag == "" {
		t.Errorf("%q, %+v, %v", body, head, err)
	}
	refuse := func(in pb.GetObjectInput, code loam.Code, words string) {
		t.Helper()
		_, _, err := get(in)
		fails(t, err, code, words)
	}
	refuse(pb.GetObjectInput{Key: "none"}, loam.NotFound, "NoSuchKey")
	refuse(pb.GetObjectInput{Key: "a/b", IfMatch: "other"}, loam.FailedPrecondition, "PreconditionFailed")
	refuse(pb.GetObjectInput{Key: "a/b", IfNoneMatch: made.Etag}, loam.FailedPrecondition, "NotModified")
	refuse(pb.GetObjectInput{Key: "a/b", IfModifiedSince: 1 << 33}, loam.FailedPrecondition, "NotModified")
	refuse(pb.GetObjectInput{Key: "a/b", IfUnmodifiedSince: 1}, loam.FailedPrecondition, "PreconditionFailed")
	refuse(pb.GetObjectInput{Key: "a/b", VersionId: "1"}, loam.Unimplemented, "version_id is not done here")
	refuse(pb.GetObjectInput{Key: "a/b", SseCustomerKey: "k"}, loam.Unimplemented, "sse_customer_key is not done here")
	refuse(pb.GetObjectInput{Key: "a/b", Start: 5, End: 3}, loam.InvalidArgument, "start 5, end 3")
	refuse(pb.GetObjectInput{Key: "a/b", Start: 50}, loam.OutOfRange, "get object fail")
	_, err = put(pb.PutObjectInput{StoreName: store, Bucket: bucket, Key: "x", ServerSideEncryption: "aws:kms"})
	fails(t, err, loam.Unimplemented, "server_side_encryption is not done here")
	_, err = put(pb.PutObjectInput{StoreName: store, Bucket: bucket, Key: "x", Acl: "public-read"})
	fails(t, err, loam.Unimplemented, "acl is not done here")

	var copied pb.CopyObjectOutput
	works(t, w.call(t, pb.MethodObjectStorageServiceCopyObject, &pb.CopyObjectInput{StoreName: store, Bucket: bucket, Key: "copy", CopySource: &pb.CopySource{CopySourceBucket: bucket, CopySourceKey: "a/b"}}, &copied))
	if body, head, err = get(pb.GetObjectInput{Key: "copy"}); err != nil || body != "hello, world" || head.Metadata["who"] != "Ann" || copied.CopyObjectResult.Etag == "" {
		t.Errorf("%q, %+v, %+v, %v", body, head, copied, err)
	}
	works(t, w.call(t, pb.MethodObjectStorageServiceCopyObject, &pb.CopyObjectInput{StoreName: store, Bucket: bucket, Key: "copy2", CopySource: &pb.CopySource{CopySourceBucket: bucket, CopySourceKey: "a/b"}, MetadataDirective: "REPLACE", Metadata: map[string]string{"who": "Bob"}}, &copied))
	var found pb.HeadObjectOutput
	works(t, w.call(t, pb.MethodObjectStorageServiceHeadObject, &pb.HeadObjectInput{StoreName: store, Bucket: bucket, Key: "copy2"}, &found))
	if found.ResultMetadata["Content-Length"] != "12" || found.ResultMetadata["x-amz-meta-who"] != "Bob" {
		t.Errorf("%+v", found)
	}
	exists := func(key string) bool {
		var out pb.IsObjectExistOutput
		works(t, w.call(t, pb.MethodObjectStorageServiceIsObjectExist, &pb.IsObjectExistInput{StoreName: store, Bucket: bucket, Key: key}, &out))
		return out.FileExist
	}
	if !exists("copy") || exists("none") {
		t.Error("what exists is told wrongly")
	}
	tags := func() string {
		var out pb.GetObjectTaggingOutput
		works(t, w.call(t, pb.MethodObjectStorageServiceGetObjectTagging, &pb.GetObjectTaggingInput{StoreName: store, Bucket: bucket, Key: "a/b"}, &out))
		return fmt.Sprint(out.Tags)
	}
	works(t, w.call(t, pb.MethodObjectStorageServicePutObjectTagging, &pb.PutObjectTaggingInput{StoreName: store, Bucket: bucket, Key: "a/b", Tags: map[string]string{"x": "y"}}, &pb.PutObjectTaggingOutput{}))
	if got := tags(); got != "map[x:y]" {
		t.Error(got)
	}
	works(t, w.call(t, pb.MethodObjectStorageServiceDeleteObjectTagging, &pb.DeleteObjectTaggingInput{StoreName: store, Bucket: bucket, Key: "a/b"}, &pb.DeleteObjectTaggingOutput{}))
	if got := tags(); got != "map[]" {
		t.Error(got)
	}

	list := func(in pb.ListObjectsInput) string {
		in.StoreName, in.Bucket = store, bucket
		var all []string
		for {
			var out pb.ListObjectsOutput
			works(t, w.call(t, pb.MethodObjectStorageServiceListObjects, &in, &out))
			for _, o := range out.Contents {
				all = append(all, fmt.Sprint(o.Key, ":", o.Size))
			}
			all = append(all, out.CommonPrefixes...)
			if !out.IsTruncated {
				return strings.Join(all, " ")
			}
			in.Marker = out.NextMarker
		}
	}
	if got, want := list(pb.ListObjectsInput{MaxKeys: 1}), "a/b:12 copy:12 copy2:12 empty:0"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := list(pb.ListObjectsInput{Delimiter: "/"}), "copy:12 copy2:12 empty:0 a/"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := list(pb.ListObjectsInput{Prefix: "cop"}), "copy:12 copy2:12"; got != want {
		t.Errorf("%s, want %s", got, want)
	}

	var deleted pb.DeleteObjectsOutput
	works(t, w.call(t, pb.MethodObjectStorageServiceDeleteObject, &pb.DeleteObjectInput{StoreName: store, Bucket: bucket, Key: "none"}, &pb.DeleteObjectOutput{}))
	works(t, w.call(t, pb.MethodObjectStorageServiceDeleteObjects, &pb.DeleteObjectsInput{StoreName: store, Bucket: bucket, Delete: &pb.Delete{Objects: []pb.ObjectIdentifier{{Key: "copy"}, {Key: "copy2"}, {Key: "none"}}}}, &deleted))
	if len(deleted.Deleted) != 3 || exists("copy") || exists("copy2") {
		t.Errorf("%+v", deleted)
	}
	var appended pb.AppendObjectOutput
	sum := md5.Sum([]byte("one"))
	works(t, w.send(t, pb.MethodObjectStorageServiceAppendObject, &appended, &pb.AppendObjectInput{StoreName: store, Bucket: bucket, Key: "log", Body: []byte("one"), ContentMd5: base64.StdEncoding.EncodeToString(sum[:])}))
	works(t, w.send(t, pb.MethodObjectStorageServiceAppendObject, &appended, &pb.AppendObjectInput{StoreName: store, Bucket: bucket, Key: "log", Body: []byte("two"), Position: appended.AppendPosition}))
	if body, _, err = get(pb.GetObjectInput{Key: "log"}); err != nil || body != "onetwo" {
		t.Errorf("%q, %v", body, err)
	}
	fails(t, w.send(t, pb.MethodObjectStorageServiceAppendObject, &appended, &pb.AppendObjectInput{StoreName: store, Bucket: bucket, Key: "log", Body: []byte("x"), Position: 1}), loam.FailedPrecondition, "append object fail")
	fails(t, w.send(t, pb.MethodObjectStorageServiceAppendObject, &appended, &pb.AppendObjectInput{StoreName: store, Bucket: bucket, Key: "log", Body: []byte("x"), Position: 6, ContentMd5: base64.StdEncoding.EncodeToString(sum[:])}), loam.InvalidArgument, "BadDigest")
	if body, _, _ = get(pb.GetObjectInput{Key: "log"}); body != "onetwo" {
		t.Errorf("what was refused is there: %q", body)
	}
	fails(t, w.call(t, pb.MethodObjectStorageServiceSignURL, &pb.SignURLInput{StoreName: store, Bucket: bucket, Key: "log", Method: "GET", ExpiredInSec: 10}, &pb.SignURLOutput{}), loam.Unimplemented, "cannot sign")
	fails(t, w.call(t, pb.MethodObjectStorageServiceSignURL, &pb.SignURLInput{StoreName: store, Bucket: bucket, Key: "log", Method: "GET", ExpiredInSec: 1 << 60}, &pb.SignURLOutput{}), loam.InvalidArgument, "expired_in_sec")
	for _, method := range []string{
		pb.MethodObjectStorageServiceGetObjectCannedAcl, pb.MethodObjectStorageServiceListObjectVersions, pb.MethodObjectStorageServiceRestoreObject,
		pb.MethodObjectStorageServiceUpdateUploadBandwidthRateLimit, "/spec.proto.extension.v1.email.EmailService/SendEmail",
		"/spec.proto.extension.v1.sms.SmsService/SendSmsWithTemplate", "/spec.proto.extension.v1.phone.PhoneCallService/SendVoiceWithTemplate",
	} {
		raw := grpc.Raw("anything")
		err := w.call(t, method, &raw, &raw)
		fails(t, err, loam.Unimplemented, "")
		if err == nil || strings.Contains(err.Error(), "unknown") {
			t.Errorf("%s does not say why: %v", method, err)
		}
	}
	// The service under its older name.
	var old pb.IsObjectExistOutput
	works(t, w.call(t, "/spec.proto.extension.v1.ObjectStorageService/IsObjectExist", &pb.IsObjectExistInput{StoreName: store, Bucket: bucket, Key: "log"}, &old))
	if !old.FileExist {
		t.Error("it does not exist under the older name")
	}
}

func TestMultipart(t *testing.T) {
	w := newWorld(t, nil)
	const store, bucket, key = "file_demo", "shop", "film"
	create := func() string {
		var made pb.CreateMultipartUploadOutput
		works(t, w.call(t, pb.MethodObjectStorageServiceCreateMultipartUpload, &pb.CreateMultipartUploadInput{StoreName: store, Bucket: bucket, Key: key, ContentType: "video/x"}, &made))
		return made.UploadId
	}
	id := create()
	part := func(n int32, body string) (string, error) {
		var out pb.UploadPartOutput
		err := w.send(t, pb.MethodObjectStorageServiceUploadPart, &out, &pb.UploadPartInput{StoreName: store, Bucket: bucket, Key: key, UploadId: id, PartNumber: n, Body: []byte(body[:1])},
			&pb.UploadPartInput{Body: []byte(body[1:])})
		return out.Etag, err
	}
	two, err := part(2, "second")
	works(t, err)
	one, err := part(1, "first ")
	works(t, err)
	var copied pb.UploadPartCopyOutput
	works(t, w.send(t, pb.MethodObjectStorageServicePutObject, &pb.PutObjectOutput{}, &pb.PutObjectInput{StoreName: store, Bucket: bucket, Key: "source", Body: []byte("xx third")}))
	works(t, w.call(t, pb.MethodObjectStorageServiceUploadPartCopy, &pb.UploadPartCopyInput{StoreName: store, Bucket: bucket, Key: key, UploadId: id, PartNumber: 3, StartPosition: 2,
		CopySource: &pb.CopySource{CopySourceBucket: bucket, CopySourceKey: "source"}}, &copied))
	var parts pb.ListPartsOutput
	works(t, w.call(t, pb.MethodObjectStorageServiceListParts, &pb.ListPartsInput{StoreName: store, Bucket: bucket, Key: key, UploadId: id, MaxParts: 2}, &parts))
	if len(parts.Parts) != 2 || parts.Parts[0].Size != 6 || !parts.IsTruncated || parts.NextPartNumberMarker != "2" {
		t.Errorf("%+v", parts)
	}
	other := create()
	var uploads pb.ListMultipartUploadsOutput
	works(t, w.call(t, pb.MethodObjectStorageServiceListMultipartUploads, &pb.ListMultipartUploadsInput{StoreName: store, Bucket: bucket}, &uploads))
	if len(uploads.Uploads) != 2 || uploads.Uploads[0].Key != key || uploads.Uploads[0].Initiated == 0 {
		t.Errorf("%+v", uploads)
	}
	works(t, w.call(t, pb.MethodObjectStorageServiceAbortMultipartUpload, &pb.AbortMultipartUploadInput{StoreName: store, Bucket: bucket, Key: key, UploadId: other}, &pb.AbortMultipartUploadOutput{}))
	complete := func(parts ...pb.CompletedPart) error {
		return w.call(t, pb.MethodObjectStorageServiceCompleteMultipartUpload, &pb.CompleteMultipartUploadInput{StoreName: store, Bucket: bucket, Key: key, UploadId: id,
			MultipartUpload: &pb.CompletedMultipartUpload{Parts: parts}}, &pb.CompleteMultipartUploadOutput{})
	}
	fails(t, complete(pb.CompletedPart{PartNumber: 1, Etag: "wrong"}), loam.FailedPrecondition, "InvalidPart")
	fails(t, complete(), loam.InvalidArgument, "parts")
	works(t, complete(pb.CompletedPart{PartNumber: 1, Etag: `"` + one + `"`}, pb.CompletedPart{PartNumber: 2, Etag: two}, pb.CompletedPart{PartNumber: 3, Etag: copied.CopyPartResult.Etag}))
	fails(t, complete(pb.CompletedPart{PartNumber: 1}), loam.NotFound, "NoSuchUpload")
	var body strings.Builder
	works(t, receive(w, t, pb.MethodObjectStorageServiceGetObject, &pb.GetObjectInput{StoreName: store, Bucket: bucket, Key: key}, func(m *pb.GetObjectOutput) { body.Write(m.Body) }))
	if body.String() != "first second third" {
		t.Errorf("%q", body.String())
	}
	_, err = part(4, "late")
	fails(t, err, loam.NotFound, "NoSuchUpload")
}

func TestCryption(t *testing.T) {
	w := newWorld(t, nil)
	var sealed pb.EncryptResponse
	works(t, w.call(t, pb.MethodCryptionServiceEncrypt, &pb.EncryptRequest{ComponentName: "cryption_demo", PlainText: []byte("attack at dawn"), KeyId: "main"}, &sealed))
	if bytes.Contains(sealed.CipherText, []byte("dawn")) || sealed.KeyId != "main" || sealed.RequestId == "" {
		t.Errorf("%+v", sealed)
	}
	var opened pb.DecryptResponse
	works(t, w.call(t, pb.MethodCryptionServiceDecrypt, &pb.DecryptRequest{ComponentName: "cryption_demo", CipherText: sealed.CipherText}, &opened))
	if string(opened.PlainText) != "attack at dawn" || opened.KeyId != "main" {
		t.Errorf("%+v", opened)
	}
	fails(t, w.call(t, pb.MethodCryptionServiceEncrypt, &pb.EncryptRequest{ComponentName: "cryption_demo", KeyId: "none"}, &sealed), loam.NotFound, "encrypt fail,err: ")
	fails(t, w.call(t, pb.MethodCryptionServiceEncrypt, &pb.EncryptRequest{ComponentName: "cryption_demo"}, &sealed), loam.InvalidArgument, "key_id is empty")
	fails(t, w.call(t, pb.MethodCryptionServiceEncrypt, &pb.EncryptRequest{ComponentName: "none", KeyId: "main"}, &sealed), loam.InvalidArgument, "component none is not found")
	fails(t, w.call(t, pb.MethodCryptionServiceEncrypt, &pb.EncryptRequest{ComponentName: "cryption_demo", KeyId: "../../etc/passwd"}, &sealed), loam.NotFound, "encrypt fail,err: ")
	sealed.CipherText[len(sealed.CipherText)-1] ^= 1
	fails(t, w.call(t, pb.MethodCryptionServiceDecrypt, &pb.DecryptRequest{ComponentName: "cryption_demo", CipherText: sealed.CipherText}, &opened), loam.InvalidArgument, "decrypt fail,err: ")
	fails(t, w.call(t, pb.MethodCryptionServiceDecrypt, &pb.DecryptRequest{ComponentName: "cryption_demo", CipherText: []byte("no")}, &opened), loam.InvalidArgument, "decrypt fail,err: ")
}
