package dapr

import (
	"reflect"
	"testing"
)

type message interface {
	AppendProto([]byte) []byte
	ParseProto([]byte) error
}

// received are the messages that programs, and other sidecars, send.
func received() []func() message {
	return []func() message{
		func() message { return new(SaveStateRequest) },
		func() message { return new(ExecuteStateTransactionRequest) },
		func() message { return new(BulkPublishRequest) },
		func() message { return new(SubscribeTopicEventsRequestAlpha1) },
		func() message { return new(InvokeServiceRequest) },
		func() message { return new(EncryptRequest) },
		func() message { return new(ScheduleJobRequest) },
		func() message { return new(BindingEventResponse) },
		func() message { return new(ListTopicSubscriptionsResponse) },
		func() message { return new(TopicEventBulkResponse) },
		func() message { return new(InternalInvokeRequestStream) },
		func() message { return new(TopicEventRequest) }, // it has google.protobuf.Struct, which lies in itself
	}
}

// What parses is written in a form that parses to the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add((&SaveStateRequest{StoreName: "s", States: []StateItem{{
		Key: "k", Value: make([]byte, 200), Etag: &Etag{}, Metadata: map[string]string{"a": "b"},
		Options: &StateOptions{Consistency: StateOptions_CONSISTENCY_STRONG},
	}}}).AppendProto(nil))
	f.Add((&TopicEventRequest{Extensions: &Struct{Fields: map[string]Value{"a": {ListValue: &ListValue{Values: make([]Value, 3)}}}}}).AppendProto(nil))
	f.Add((&InternalInvokeRequestStream{Request: &InternalInvokeRequest{Metadata: map[string]ListStringValue{"h": {Values: []string{"v"}}}}}).AppendProto(nil))
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, empty := range received() {
			m, again := empty(), empty()
			if m.ParseProto(b) != nil {
				continue
			}
			if err := again.ParseProto(m.AppendProto(nil)); err != nil {
				t.Fatalf("%T refuses its own form: %v", m, err)
			}
			third := empty()
			if err := third.ParseProto(again.AppendProto(nil)); err != nil || !reflect.DeepEqual(again, third) {
				t.Fatalf("%T changes: %+v, then %+v (%v)", m, again, third, err)
			}
		}
	})
}

func BenchmarkGetState(b *testing.B) {
	wire := (&GetStateRequest{StoreName: "statestore", Key: "orders/1", Metadata: map[string]string{"partitionKey": "1"}}).AppendProto(nil)
	out := make([]byte, 0, 1024)
	answer := GetStateResponse{Data: make([]byte, 128), Etag: "1"}
	b.ReportAllocs()
	for b.Loop() {
		var m GetStateRequest
		if err := m.ParseProto(wire); err != nil {
			b.Fatal(err)
		}
		out = answer.AppendProto(out[:0])
	}
}
