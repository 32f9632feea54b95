package grpc_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/api/dapr"
	"github.com/loam-run/loam/api/reflection"
	"github.com/loam-run/loam/protocol/grpc"
)

// described is a server of two methods of Dapr's service, which tells of it.
func described() *grpc.Server {
	none := grpc.Unary(func(*grpc.Call, *grpc.Raw) (*grpc.Raw, error) { return nil, grpc.NewStatus(loam.Unimplemented, "no") })
	s := &grpc.Server{Methods: map[string]grpc.Method{
		"/dapr.proto.runtime.v1.Dapr/GetState": none, "/dapr.proto.runtime.v1.Dapr/SaveState": none, "/not.described.Service/Call": none,
	}}
	s.Reflect(dapr.Descriptors())
	return s
}

// told is what a response says, in words: names of services, of files, or an error.
func told(out *reflection.ServerReflectionResponse) (all []string) {
	switch {
	case out.ErrorResponse != nil:
		return []string{out.ErrorResponse.ErrorMessage}
	case out.ListServicesResponse != nil:
		for _, s := range out.ListServicesResponse.Service {
			all = append(all, s.Name)
		}
	case out.FileDescriptorResponse != nil:
		for _, f := range out.FileDescriptorResponse.FileDescriptorProto {
			all = append(all, string(f[2:2+int(f[1])])) // name = 1 comes first
		}
	}
	return all
}

func TestReflection(t *testing.T) {
	symbol := func(s string) reflection.ServerReflectionRequest {
		return reflection.ServerReflectionRequest{FileContainingSymbol: &s}
	}
	file := func(s string) reflection.ServerReflectionRequest {
		return reflection.ServerReflectionRequest{FileByFilename: &s}
	}
	runtime := []string{"dapr/runtime.proto", "dapr/appcallback.proto", "dapr/common.proto", "google/protobuf/any.proto", "google/protobuf/duration.proto", "google/protobuf/empty.proto", "google/protobuf/struct.proto"}
	tests := []struct {
		in   reflection.ServerReflectionRequest
		want []string
	}{
		{reflection.ServerReflectionRequest{ListServices: new(string)}, []string{
			"dapr.proto.runtime.v1.Dapr", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
		}},
		{symbol("dapr.proto.runtime.v1.Dapr"), nil}, // runtime.proto, with all that it imports: below
		{symbol("dapr.proto.runtime.v1.Dapr.GetState"), []string{"dapr/runtime.proto"}},
		{symbol("dapr.proto.runtime.v1.GetStateRequest"), []string{"dapr/runtime.proto"}},
		{symbol("dapr.proto.runtime.v1.GetStateRequest.store_name"), []string{"dapr/runtime.proto"}},
		{symbol("dapr.proto.runtime.v1.SubscribeTopicEventsRequestAlpha1.subscribe_topic_events_request_type"), []string{"dapr/runtime.proto"}},
		{symbol("dapr.proto.common.v1.HTTPExtension.Verb"), []string{"dapr/common.proto"}},
		{symbol("dapr.proto.common.v1.HTTPExtension.GET"), []string{"dapr/common.proto"}}, // a value stands beside its enum
		{symbol("dapr.proto.common.v1.HTTPExtension.Verb.GET"), []string{"the symbol is not known: dapr.proto.common.v1.HTTPExtension.Verb.GET"}},
		{symbol("google.protobuf.Any"), []string{"google/protobuf/any.proto"}},
		{symbol("grpc.reflection.v1alpha.ServerReflection"), []string{"reflection/v1alpha.proto"}},
		{symbol("dapr.proto.runtime.v1.Dapr.Nothing"), []string{"the symbol is not known: dapr.proto.runtime.v1.Dapr.Nothing"}},
		{symbol("dapr.proto.runtime.v1.GetState"), []string{"the symbol is not known: dapr.proto.runtime.v1.GetState"}},
		{symbol("dapr.proto.runtime.v1"), []string{"the symbol is not known: dapr.proto.runtime.v1"}},
		{symbol(""), []string{"the symbol is not known: "}},
		{file("dapr/common.proto"), []string{"dapr/common.proto"}},
		{file("../runtime.proto"), []string{"the file is not known: ../runtime.proto"}},
		{reflection.ServerReflectionRequest{FileContainingExtension: &reflection.ExtensionRequest{ContainingType: "a.B"}}, []string{"an extension is not known: a.B"}},
		{reflection.ServerReflectionRequest{AllExtensionNumbersOfType: new("a.B")}, []string{"an extension is not known: a.B"}},
	}
	for _, goroutines := range []bool{true, false} {
		w := newWorldOf(t, goroutines, described())
		for _, method := range []string{reflection.MethodServerReflectionServerReflectionInfo, reflection.MethodV1Alpha} {
			w.do(t, func(req *loam.Request) {
				cs := w.client.Open(req, method)
				defer cs.Close()
				for _, test := range tests {
					var out reflection.ServerReflectionResponse
					test.in.Host = "h"
					if err := errors.Join(cs.Send(&test.in), cs.Recv(&out)); err != nil {
						t.Error(err)
						return
					}
					got := told(&out)
					if test.want == nil {
						slices.Sort(got[1:])
						if !slices.Equal(got, runtime) {
							t.Errorf("the service is told by %q, want %q", got, runtime)
						}
					} else if !slices.Equal(got, test.want) {
						t.Errorf("%+v: %q, want %q", test.in, got, test.want)
					}
					if out.ValidHost != "h" || out.OriginalRequest == nil || out.ErrorResponse != nil && out.ErrorResponse.ErrorCode != 5 {
						t.Errorf("%+v", out)
					}
				}
				cs.CloseSend()
				if err := cs.Recv(&reflection.ServerReflectionResponse{}); !errors.Is(err, io.EOF) {
					t.Error(err)
				}
			})
			w.do(t, func(req *loam.Request) {
				cs := w.client.Open(req, method)
				defer cs.Close()
				err := errors.Join(cs.Send(&reflection.ServerReflectionRequest{}), cs.Recv(&reflection.ServerReflectionResponse{}))
				if loam.CodeOf(err) != loam.InvalidArgument {
					t.Errorf("a request for nothing: %v", err)
				}
			})
		}
	}
}

// FuzzReflection: whatever is asked is answered by what is there, by an error, or is no request.
func FuzzReflection(f *testing.F) {
	for _, in := range []reflection.ServerReflectionRequest{
		{ListServices: new("*")}, {FileByFilename: new("dapr/common.proto")}, {FileContainingSymbol: new("dapr.proto.runtime.v1.Dapr.GetState")},
		{FileContainingSymbol: new("..dapr.")}, {AllExtensionNumbersOfType: new("a")}, {},
	} {
		f.Add(in.AppendProto(nil))
	}
	w := newWorldOf(f, true, described())
	f.Fuzz(func(t *testing.T, b []byte) {
		w.do(t, func(req *loam.Request) {
			cs := w.client.Open(req, reflection.MethodServerReflectionServerReflectionInfo)
			defer cs.Close()
			in, out := grpc.Raw(b), reflection.ServerReflectionResponse{}
			err := errors.Join(cs.Send(&in), cs.Recv(&out))
			if err != nil {
				if code := loam.CodeOf(err); code != loam.InvalidArgument && code != loam.Internal {
					t.Error(err)
				}
				return
			}
			if asked := out.OriginalRequest; asked.FileContainingSymbol != nil && out.FileDescriptorResponse != nil {
				name := *asked.FileContainingSymbol
				if last := name[strings.LastIndexByte(name, '.')+1:]; !strings.Contains(string(out.FileDescriptorResponse.FileDescriptorProto[0]), last) {
					t.Errorf("%q is told by a file that does not have it", name)
				}
			}
		})
	})
}
