package dapr

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/internal/protowire"
	"github.com/loam-run/loam/protocol/grpc"
)

const (
	pathInvokeService = "/dapr.proto.runtime.v1.Dapr/InvokeService"
	pathOnInvoke      = "/dapr.proto.runtime.v1.AppCallback/OnInvoke"
)

// invokeService serves dapr.proto.runtime.v1.Dapr/InvokeService.
func (a *API) invokeService(c *grpc.Call, raw *grpc.Raw) (*grpc.Raw, error) {
	id, h, err := parseInvokeService(*raw)
	if err != nil {
		return nil, grpc.NewStatus(loam.InvalidArgument, err.Error())
	}
	if id == "" {
		return nil, statusOf(errInvoke.failure("failed to invoke, id: %s, err: app id is empty", id))
	}
	method, err := normalize(h.method)
	if err == nil && !isQuery(h.query) {
		err = errQuery
	}
	if err != nil {
		return nil, statusOf(errInvoke.failure("failed to invoke, id: %s, err: %s", id, grpcWords(loam.InvalidArgument, err)))
	}
	from := c.Request()
	var r loam.Request
	r.Begin(from.Task())
	defer r.End()
	r.SetDeadline(from.Deadline())
	r.Method, r.Scheme, r.Authority, r.Path, r.RawQuery, r.ID = verbs[h.verb], "http", id, escape(method), h.query, from.ID
	for _, f := range from.Header {
		if n := strings.ToLower(f.Name); !ofConnection(n) && n != "content-type" && n != metaAppID && !strings.HasPrefix(n, "grpc-") || n == "grpc-trace-bin" {
			r.Header = append(r.Header, f)
		}
	}
	r.Header = append(r.Header, loam.Field{Name: fieldGRPC, Value: "1"})
	if h.typeURL != "" {
		r.Header = append(r.Header, loam.Field{Name: fieldTypeURL, Value: h.typeURL})
	}
	if h.contentType != "" && isValue(h.contentType) {
		r.Header = append(r.Header, loam.Field{Name: "Content-Type", Value: h.contentType})
	}
	if r.Length = int64(len(h.data)); r.Length > 0 {
		r.Body = io.NopCloser(bytes.NewReader(h.data))
	}
	res, err := a.invoke(&r, id)
	if err != nil {
		return nil, statusOf(invokeFailed(id, err))
	}
	return a.grpcAnswer(c, id, res)
}

// statusOf is a failure as gRPC answers it.
func statusOf(f *failure) *grpc.Status { return grpc.NewStatus(f.code, f.message) }

// parseInvokeService reads an InvokeServiceRequest. It keeps b.
func parseInvokeService(b []byte) (id string, h requestHead, err error) {
	for len(b) > 0 {
		f, rest, err := protowire.Next(b)
		if err != nil {
			return "", h, err
		}
		b = rest
		switch f.Number() {
		case 1:
			id = view(f.Data)
		case 3:
			if err := h.parseMessage(f.Data); err != nil {
				return "", h, err
			}
		}
	}
	return id, h, nil
}

// grpcAnswer makes an InvokeResponse of an answer, with its fields as metadata.
func (a *API) grpcAnswer(c *grpc.Call, id string, res *loam.Response) (*grpc.Raw, error) {
	var body []byte
	var err error
	if res.Tunnel != nil {
		err = loam.Errorf(loam.Unimplemented, "invoke", "the app left HTTP with status %d", res.Status)
	} else if res.Body != nil {
		body, err = readAll(res.Body, res.Length, a.limit())
	}
	h := responseHeadOf(res)
	h.data = body
	for _, f := range h.header {
		name := metadataName(f.Name)
		if strings.HasSuffix(name, "-bin") && h.code >= 100 || strings.HasPrefix(name, "grpc-") && name != "grpc-trace-bin" {
			continue
		}
		c.AddHeader(strings.Clone(name), strings.Clone(f.Value))
	}
	out := grpc.Raw(h.appendAnswer(nil))
	var status *grpc.Status
	if h.code >= 100 {
		c.AddHeader("dapr-http-status", strconv.Itoa(h.code))
		status = statusOfHTTP(h.code, body)
	} else {
		for _, f := range h.trailer {
			c.AddTrailer(strings.Clone(f.Name), strings.Clone(f.Value))
		}
		status = h.failed()
	}
	if e := res.Close(); err == nil {
		err = e
	}
	if err != nil {
		return nil, statusOf(invokeFailed(id, err))
	}
	if status != nil {
		return nil, status
	}
	return &out, nil
}

// appendAnswer writes an InvokeResponse.
func (r *responseHead) appendAnswer(b []byte) []byte {
	if r.typeURL != "" || len(r.data) > 0 {
		b2, data := protowire.Open(b, 1)
		b = protowire.Shut(protowire.AppendData(protowire.AppendText(b2, 1, r.typeURL), 2, r.data), data)
	}
	return protowire.AppendText(b, 2, r.contentType)
}

// failed is gRPC's status, nil where it is OK.
func (r *responseHead) failed() *grpc.Status {
	if r.code == 0 {
		return nil
	}
	s := grpc.NewStatus(loam.Code(r.code), strings.Clone(r.words))
	for _, d := range r.details {
		if typeURL, value, err := parseAny(d); err == nil {
			s.Details = append(s.Details, grpc.Detail{Type: typeURL[strings.LastIndexByte(typeURL, '/')+1:], Value: value})
		}
	}
	return s
}

// statusOfHTTP is the gRPC status of an HTTP answer, nil where that was a success.
func statusOfHTTP(status int, body []byte) *grpc.Status {
	code := codeOfStatus(status)
	if code == loam.OK {
		return nil
	}
	const most = 63 // bytes of a value in ErrorInfo
	if len(body) > most {
		body = body[:most]
	}
	text := http.StatusText(status)
	return grpc.NewStatus(code, text, grpc.ErrorInfo(text, domain, map[string]string{
		"http.code": strconv.Itoa(status), "http.error_message": strings.ToValidUTF8(string(body), ""),
	}))
}

// statusJSON is an internal status as protobuf's JSON has it.
func statusJSON(code int, words string, h loam.Header) []byte {
	out := struct {
		Code    int               `json:"code,omitempty"`
		Message string            `json:"message,omitempty"`
		Details []json.RawMessage `json:"details,omitempty"`
	}{Code: code, Message: words}
	for _, f := range h {
		if f.Name == fieldDetail {
			if typeURL, value, err := parseAny([]byte(f.Value)); err == nil {
				out.Details = append(out.Details, anyJSON(typeURL, value))
			}
		}
	}
	b, err := json.Marshal(out)
	if err != nil {
		panic("dapr: " + err.Error()) // strings, and JSON that was made here
	}
	return b
}

// metadataName is the name of a field of HTTP among gRPC's metadata: what means something to a connection, or to HTTP,
// stands behind dapr-.
func metadataName(name string) string {
	lower := strings.ToLower(name)
	switch textproto.CanonicalMIMEHeaderKey(name) {
	case "Accept", "Accept-Charset", "Accept-Language", "Accept-Ranges", "Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade",
		"Cache-Control", "Content-Type", "Content-Length", "Cookie", "Date", "Expect", "From", "Host", "If-Match", "If-Modified-Since", "If-None-Match",
		"If-Schedule-Tag-Match", "If-Unmodified-Since", "Max-Forwards", "Origin", "Pragma", "Referer", "Via", "Warning":
		return "dapr-" + lower
	}
	return lower
}

// onInvoke calls a method of a program that speaks gRPC by AppCallback.OnInvoke.
func (c *channel) onInvoke(req *loam.Request) (*loam.Response, error) {
	h := requestHead{method: methodOf(req), query: req.RawQuery, contentType: req.Header.Get("content-type"), typeURL: req.Header.Get(fieldTypeURL)}
	if req.Method != "" {
		h.verb = verbNumber(req.Method)
	}
	if req.Body != nil {
		var err error
		if h.data, err = readAll(req.Body, req.Length, int64(c.grpc.MaxMessage)); err != nil {
			return nil, err
		}
	}
	in := grpc.Raw(h.appendMessage(nil, 0))
	var out grpc.Raw
	var reply grpc.Reply
	var r loam.Request
	r.Begin(req.Task())
	defer r.End()
	r.SetDeadline(req.Deadline())
	r.ID, r.Header = req.ID, c.metadata(req)
	timing := c.settings.Metrics.begin(req.Task())
	err := c.grpc.Call(&r, pathOnInvoke, &in, &out, &reply)
	timing.end(grpcClient, pathOnInvoke, "", codeOf(err))
	answer := responseHead{header: reply.Header, trailer: reply.Trailer}
	if err != nil {
		s := grpc.StatusOf(err)
		answer.code, answer.words = int(s.Code), s.Message
		for _, d := range s.Details {
			answer.details = append(answer.details, protowire.AppendData(protowire.AppendText(nil, 1, "type.googleapis.com/"+d.Type), 2, d.Value))
		}
	} else if err := answer.parseMessage(out); err != nil {
		return nil, loam.Errorf(loam.Internal, "invoke", "the app's answer: %w", err)
	}
	res := &loam.Response{Status: statusOfCode(loam.Code(answer.code)), Length: int64(len(answer.data))}
	add := func(name, value string) {
		if value != "" && isValue(value) || private(name) {
			res.Header = append(res.Header, loam.Field{Name: name, Value: value})
		}
	}
	add(fieldCode, strconv.Itoa(answer.code))
	if answer.words != "" {
		add(fieldMessage, answer.words)
	}
	contentType := answer.contentType
	if answer.typeURL != "" {
		add(fieldTypeURL, answer.typeURL)
		contentType = "application/x-protobuf"
	}
	add("Content-Type", contentType)
	for _, d := range answer.details {
		add(fieldDetail, string(d))
	}
	for _, f := range answer.header {
		if reserved := strings.HasPrefix(f.Name, "grpc-") || f.Name == "content-type" || ofConnection(f.Name); !reserved {
			add(f.Name, f.Value)
		}
	}
	for _, f := range answer.trailer {
		if !strings.HasPrefix(f.Name, "grpc-") {
			add(fieldTrailer+f.Name, f.Value)
		}
	}
	if len(answer.data) > 0 {
		res.Body = io.NopCloser(bytes.NewReader(answer.data))
	}
	return res, nil
}

// metadata are the fields of a request as a program that speaks gRPC gets them.
func (c *channel) metadata(req *loam.Request) loam.Header {
	grpcCaller := req.Header.Has(fieldGRPC)
	h := make(loam.Header, 0, len(req.Header)+2)
	for _, f := range req.Header {
		name := strings.ToLower(f.Name)
		switch {
		case private(name) || name == tokenHeader || ofConnection(name):
			continue
		case name == "content-type":
			if grpcCaller {
				continue
			}
			name = "dapr-content-type"
		case !grpcCaller:
			name = metadataName(name)
		case strings.HasPrefix(name, "grpc-") && name != traceBin:
			continue
		}
		if isToken(name) {
			h = append(h, loam.Field{Name: name, Value: f.Value})
		}
	}
	h = carryTrace(h)
	if token := c.opts.App.AppToken; token != "" {
		h = append(h, loam.Field{Name: tokenHeader, Value: token})
	}
	return h
}

// traceBin is the trace context as OpenCensus has it, which clients of gRPC still read.
const traceBin = "grpc-trace-bin"

// carryTrace gives metadata the trace context in both of its forms, where it has one.
func carryTrace(h loam.Header) loam.Header {
	parent, bin := h.Get("traceparent"), h.Get(traceBin)
	switch {
	case bin == "" && parent != "":
		// 00-<32 digits>-<16 digits>-<2 digits> becomes 0, 0 id, 1 span, 2 flags.
		p := strings.Split(parent, "-")
		if len(p) < 4 || len(p[1]) != 32 || len(p[2]) != 16 || len(p[3]) != 2 {
			return h
		}
		ids, err := hex.DecodeString(p[1] + p[2] + p[3])
		if err != nil {
			return h
		}
		b := append([]byte{0, 0}, ids[:16]...)
		b = append(append(b, 1), ids[16:24]...)
		return append(h, loam.Field{Name: traceBin, Value: grpc.EncodeBinary(append(b, 2, ids[24]))})
	case bin != "" && parent == "":
		b, err := grpc.DecodeBinary(bin)
		if err != nil || len(b) != 29 || b[0] != 0 || b[1] != 0 || b[18] != 1 || b[27] != 2 {
			return h
		}
		return append(h, loam.Field{Name: "traceparent", Value: "00-" + hex.EncodeToString(b[2:18]) + "-" + hex.EncodeToString(b[19:27]) + "-" + hex.EncodeToString(b[28:])})
	}
	return h
}

// standardBinary is a value of a field whose name ends in -bin as Dapr's internal protocol has it: with padding.
func standardBinary(v string) string {
	b, err := grpc.DecodeBinary(v)
	if err != nil {
		return v
	}
	return base64.StdEncoding.EncodeToString(b)
}
