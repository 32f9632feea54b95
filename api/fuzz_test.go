package api

import (
	"bytes"
	"testing"
)

type message interface {
	AppendProto([]byte) []byte
	ParseProto([]byte) error
}

// messages are the ones that strangers send.
func messages() []func() message {
	return []func() message{
		func() message { return new(Error) },
		func() message { return new(RequestHead) },
		func() message { return new(ResponseHead) },
		func() message { return new(StateGetRequest) },
		func() message { return new(StateApplyRequest) },
		func() message { return new(StateListRequest) },
		func() message { return new(PubsubPublishRequest) },
		func() message { return new(LockTryLockRequest) },
		func() message { return new(ConfigSetRequest) },
		func() message { return new(SequenceNextRequest) },
		func() message { return new(SecretGetRequest) },
		func() message { return new(InvokeCallRequest) },
		func() message { return new(HttpSendRequest) },
		func() message { return new(BindingInvokeRequest) },
		func() message { return new(CryptoSealRequest) },
		func() message { return new(CryptoOpenRequest) },
		func() message { return new(CryptoEncryptRequest) },
		func() message { return new(CryptoDecryptRequest) },
		func() message { return new(CryptoWrapRequest) },
		func() message { return new(CryptoUnwrapRequest) },
		func() message { return new(CryptoSignRequest) },
		func() message { return new(CryptoVerifyRequest) },
		func() message { return new(CryptoPublicKeyRequest) },
		func() message { return new(FilePutRequest) },
		func() message { return new(FileAppendRequest) },
		func() message { return new(FileGetRequest) },
		func() message { return new(FileStatRequest) },
		func() message { return new(FileListRequest) },
		func() message { return new(FileDeleteRequest) },
		func() message { return new(JobsScheduleRequest) },
		func() message { return new(JobsGetRequest) },
		func() message { return new(JobsDeleteRequest) },
	}
}

// What parses is written in a form that parses to the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add((&ResponseHead{Status: 201, Headers: []Header{{Name: "a", Value: "b"}}}).AppendProto(nil))
	f.Add((&StateApplyRequest{Ops: []StateOp{{Key: "k", Value: make([]byte, 200), TtlMs: -1}}}).AppendProto(nil))
	f.Add((&JobsScheduleRequest{Jobs: []Job{{Name: "j", Schedule: "@daily", Repeats: 3, Data: []byte("d"), DropFailed: true, Retries: -1}}, Overwrite: true}).AppendProto(nil))
	f.Add((&FilePutRequest{Name: "a/b", Metadata: []Attribute{{Name: "by", Value: "me"}}, Data: make([]byte, 300)}).AppendProto(nil))
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, empty := range messages() {
			m, again := empty(), empty()
			if m.ParseProto(b) != nil {
				continue
			}
			wire := m.AppendProto(nil)
			if err := again.ParseProto(wire); err != nil {
				t.Fatalf("%T refuses its own form: %v", m, err)
			}
			if !bytes.Equal(again.AppendProto(nil), wire) {
				t.Fatalf("%T changes: %+v, then %+v", m, m, again)
			}
		}
	})
}

func TestParseRefuses(t *testing.T) {
	for name, b := range map[string][]byte{
		"tag cut":          {0x80},
		"length cut":       {0x0a, 0x80},
		"data cut":         {0x0a, 5, 'a'},
		"length of 2^64-1": {0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
		"65-bit number":    {0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02},
		"field number 0":   {0x02, 0},
		"group":            {0x7b},
		"wrong wire type":  {0x0a, 1, 'a'},        // status as bytes
		"nested cut":       {0x12, 2, 0x0a, 0x7f}, // in a header
	} {
		if new(ResponseHead).ParseProto(b) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// Fields that a later version adds are skipped, of whatever wire type.
	var h ResponseHead
	if err := h.ParseProto([]byte{0x78, 1, 0x7a, 1, 'a', 0x7d, 1, 2, 3, 4, 0x79, 1, 2, 3, 4, 5, 6, 7, 8, 0x08, 204, 1}); err != nil || h.Status != 204 {
		t.Errorf("%+v %v", h, err)
	}
}
