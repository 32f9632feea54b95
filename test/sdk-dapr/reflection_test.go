package sdkdapr

import (
	"context"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// A client that has no .proto file asks the sidecar for what it serves, as grpcurl does, and calls it by what it was told.
func TestReflection(t *testing.T) {
	s := start(t, "reflected", "", "")
	conn, err := grpc.NewClient(s.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(in *reflectionv1.ServerReflectionRequest) *reflectionv1.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(in); err != nil {
			t.Fatal(err)
		}
		out, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	var services []string
	for _, service := range ask(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{},
	}).GetListServicesResponse().GetService() {
		services = append(services, service.GetName())
	}
	if want := []string{"dapr.proto.runtime.v1.Dapr", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}; !slices.Equal(services, want) {
		t.Errorf("it serves %q, want %q", services, want)
	}
	set, have := &descriptorpb.FileDescriptorSet{}, map[string]bool{}
	for _, service := range services {
		out := ask(&reflectionv1.ServerReflectionRequest{
			MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: service},
		})
		if out.GetErrorResponse() != nil {
			t.Fatal(out)
		}
		for _, b := range out.GetFileDescriptorResponse().GetFileDescriptorProto() {
			f := &descriptorpb.FileDescriptorProto{}
			if err := proto.Unmarshal(b, f); err != nil {
				t.Fatal(err)
			}
			if !have[f.GetName()] {
				have[f.GetName()] = true
				set.File = append(set.File, f)
			}
		}
	}
	files, err := protodesc.NewFiles(set) // it fails where an import is missing
	if err != nil {
		t.Fatal(err)
	}
	call := func(method protoreflect.Name, fill func(protoreflect.Message)) protoreflect.Message {
		t.Helper()
		d, err := files.FindDescriptorByName("dapr.proto.runtime.v1.Dapr")
		if err != nil {
			t.Fatal(err)
		}
		m := d.(protoreflect.ServiceDescriptor).Methods().ByName(method)
		in, out := dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output())
		fill(in)
		if err := conn.Invoke(ctx, "/dapr.proto.runtime.v1.Dapr/"+string(method), in, out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	put := func(m protoreflect.Message, field protoreflect.Name, value any) {
		m.Set(m.Descriptor().Fields().ByName(field), protoreflect.ValueOf(value))
	}
	call("SaveState", func(in protoreflect.Message) {
		put(in, "store_name", "store")
		list := in.Mutable(in.Descriptor().Fields().ByName("states")).List()
		item := list.AppendMutable().Message()
		put(item, "key", "k")
		put(item, "value", []byte("told"))
	})
	out := call("GetState", func(in protoreflect.Message) {
		put(in, "store_name", "store")
		put(in, "key", "k")
	})
	if got := out.Get(out.Descriptor().Fields().ByName("data")).Bytes(); string(got) != "told" {
		t.Errorf("%q", got)
	}
}
