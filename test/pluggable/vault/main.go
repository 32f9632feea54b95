// Command vault is a secret store as others write them, with grpc-go and Dapr's messages of today. Its secrets are those of
// its component's metadata.
package main

import (
	"context"
	"log"
	"net"
	"os"
	"path/filepath"
	"sync"

	proto "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
)

func main() {
	log.Fatal(serve(filepath.Join(os.Getenv("DAPR_COMPONENT_SOCKETS_FOLDER"), "Vault.v1.sock")))
}

// secrets are those of the component's metadata.
type secrets struct {
	proto.UnimplementedSecretStoreServer

	mu sync.Mutex
	of map[string]map[string]string // by instance
}

func serve(socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	proto.RegisterSecretStoreServer(s, &secrets{of: map[string]map[string]string{}})
	reflection.Register(s)
	return s.Serve(l)
}

func instance(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	return md.Get("x-component-instance")[0]
}

func (s *secrets) Init(ctx context.Context, r *proto.SecretStoreInitRequest) (*proto.SecretStoreInitResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of[instance(ctx)] = r.GetMetadata().GetProperties()
	return &proto.SecretStoreInitResponse{}, nil
}

func (s *secrets) Ping(context.Context, *proto.PingRequest) (*proto.PingResponse, error) {
	return &proto.PingResponse{}, nil
}

func (s *secrets) Get(ctx context.Context, r *proto.GetSecretRequest) (*proto.GetSecretResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch v, ok := s.of[instance(ctx)][r.Key]; {
	case r.Key == "denied":
		return nil, status.Error(codes.PermissionDenied, "not for you")
	case ok:
		return &proto.GetSecretResponse{Data: map[string]string{r.Key: v}}, nil
	}
	return &proto.GetSecretResponse{}, nil
}

func (s *secrets) BulkGet(ctx context.Context, _ *proto.BulkGetSecretRequest) (*proto.BulkGetSecretResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]*proto.SecretResponse{}
	for k, v := range s.of[instance(ctx)] {
		all[k] = &proto.SecretResponse{Secrets: map[string]string{k: v}}
	}
	return &proto.BulkGetSecretResponse{Data: all}, nil
}
