module github.com/loam-run/loam/test/pluggable

go 1.26.0

require (
	github.com/dapr-sandbox/components-go-sdk v0.3.0
	github.com/dapr/components-contrib v1.11.3-0.20230626160848-de01000c9bf3
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261019180522-ce908d29299b
	google.golang.org/grpc v1.54.0
)

require (
	github.com/cloudevents/sdk-go/binding/format/protobuf/v2 v2.13.0 // indirect
	github.com/cloudevents/sdk-go/v2 v2.13.0 // indirect
	github.com/dapr/dapr v1.11.0-rc.10.0.20230627234936-6a8ff83285b8 // indirect
	github.com/dapr/kit v0.11.3-0.20230615225244-804821bb8f2d // indirect
	github.com/golang/protobuf v1.5.3 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/json-iterator/go v1.1.12 // indirect
	github.com/loam-run/loam v0.0.0
	github.com/mitchellh/mapstructure v1.5.1-0.20220423185008-bf980b35cac4 // indirect
	github.com/modern-go/concurrent v0.0.0-20180306012644-bacd9c7ef1dd // indirect
	github.com/modern-go/reflect2 v1.0.2 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/sirupsen/logrus v1.9.3 // indirect
	github.com/spf13/cast v1.5.1 // indirect
	golang.org/x/exp v0.0.0-20240823005443-9b4947da3948 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace github.com/loam-run/loam => ../..
