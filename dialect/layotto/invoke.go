package layotto

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/layotto"
	"github.com/loam-run/loam/protocol/grpc"
)

// invokeTimeout is how long a call of another app lasts whose caller says nothing, as in Layotto.
const invokeTimeout = 3 * time.Second

// invokeService asks the function, app or service that the id names, by HTTP.
func (a *API) invokeService(c *grpc.Call, in *pb.InvokeServiceRequest) (*pb.InvokeResponse, error) {
	if in.Id == "" || in.Message == nil {
		return nil, invalid("InvokeServiceRequest has no id, or no message")
	}
	from := c.Request()
	req := loam.NewRequest(c.Context())
	defer req.Release()
	req.SetTask(c.Task())
	if req.Deadline().IsZero() {
		req.SetDeadline(c.Task().Now().Add(invokeTimeout))
	}
	if err := fillRequest(req, in); err != nil {
		return nil, err
	}
	req.ID, req.Remote = from.ID, from.Remote
	addMetadata(req, from.Header)
	target := loam.Target(loam.TargetFunc(func(r *loam.Request) (*loam.Response, error) {
		return a.opts.Capabilities.Invoker().Serve(a.caller, in.Id, r)
	}))
	if a.opts.Policies != nil {
		if p := a.opts.Policies(in.Id); p != nil {
			target = p(target)
		}
	}
	res, err := target.Serve(req)
	if err != nil {
		if loam.CodeOf(err) == loam.NotFound {
			return nil, fail(loam.Unavailable, "app %s is not known: %s", in.Id, words(err)) // as Layotto says of whom it cannot reach
		}
		return nil, because(err, "")
	}
	defer func() { _ = res.Close() }() // read to its end, or of no use any more
	body, err := a.readBody(res)
	if err != nil {
		return nil, because(err, "read the answer of app %s: ", in.Id)
	}
	status := res.Status
	if status == 0 {
		status = http.StatusOK
	}
	if status != http.StatusOK {
		return nil, fail(loam.Unavailable, "http response code %d, body: %s", status, body)
	}
	for _, f := range res.Header {
		if name := strings.ToLower(f.Name); carried(name) && name != "content-type" {
			c.AddHeader(name, f.Value)
		}
	}
	return &pb.InvokeResponse{ContentType: res.Header.Get("content-type"), Data: &pb.Any{Value: body}}, nil
}

// maxAnswer bounds what another app answers, where MaxBody says nothing.
const maxAnswer = 4 << 20

func (a *API) readBody(res *loam.Response) ([]byte, error) {
	if res.Tunnel != nil {
		return nil, loam.Errorf(loam.Unimplemented, "invoke", "it left HTTP with status %d, which a call cannot carry", res.Status)
	}
	if res.Body == nil {
		return nil, nil
	}
	most := a.opts.App.MaxBody
	if most <= 0 {
		most = maxAnswer
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, most+1))
	if err == nil && int64(len(body)) > most {
		err = loam.Errorf(loam.ResourceExhausted, "invoke", "it is larger than %d bytes", most)
	}
	return body, err
}

// fillRequest makes the request that a program asks for. It goes to others: nothing in it may end a line there.
func fillRequest(req *loam.Request, in *pb.InvokeServiceRequest) error {
	m := in.Message
	req.Scheme, req.Authority, req.Method = "http", "localhost", http.MethodGet
	query := ""
	if x := m.HttpExtension; x != nil {
		query = x.Querystring
		if req.Method = verb(x.Verb); req.Method == "" {
			return invalid("verb %d cannot be called", x.Verb)
		}
	}
	path, inPath, _ := strings.Cut(m.Method, "?")
	if query == "" {
		query = inPath
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	const most = 16 << 10
	if len(path)+len(query) > most || strings.ContainsFunc(path+query, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '#' }) {
		return invalid("method %.100q, query %.100q: a path and a query, where what they cannot hold stands by percent signs", m.Method, query)
	}
	req.Path, req.RawQuery = path, query
	if m.ContentType != "" {
		if strings.ContainsFunc(m.ContentType, control) {
			return invalid("a control character in content_type")
		}
		req.Header.Add("content-type", m.ContentType)
	}
	if m.Data != nil && len(m.Data.Value) > 0 {
		req.Length, req.Body = int64(len(m.Data.Value)), io.NopCloser(bytes.NewReader(m.Data.Value))
	}
	return nil
}

// verb is a method of HTTP; "": there is none such, or it makes a tunnel, which a call cannot carry.
func verb(v pb.HTTPExtension_Verb) string {
	switch v {
	case pb.HTTPExtension_NONE, pb.HTTPExtension_GET:
		return http.MethodGet
	case pb.HTTPExtension_HEAD:
		return http.MethodHead
	case pb.HTTPExtension_POST:
		return http.MethodPost
	case pb.HTTPExtension_PUT:
		return http.MethodPut
	case pb.HTTPExtension_DELETE:
		return http.MethodDelete
	case pb.HTTPExtension_OPTIONS:
		return http.MethodOptions
	case pb.HTTPExtension_TRACE:
		return http.MethodTrace
	case pb.HTTPExtension_PATCH:
		return http.MethodPatch
	}
	return ""
}

// addMetadata makes fields of HTTP of a call's metadata. Layotto copies all of it, :authority and te among them, which a
// strict server answers with 400.
func addMetadata(req *loam.Request, h loam.Header) {
	for _, f := range h {
		name := strings.ToLower(f.Name)
		if !carried(name) || name == "content-type" || name == "user-agent" || strings.HasSuffix(name, "-bin") || strings.ContainsFunc(f.Value, control) {
			continue
		}
		req.Header.Add(name, f.Value)
	}
	req.Header.Set("x-request-id", req.ID)
}

func control(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// carried tells whether a field is one of the message, not of the connection it came by or of the protocol it was in.
func carried(name string) bool {
	if name == "" || name[0] == ':' || strings.HasPrefix(name, "grpc-") {
		return false
	}
	switch name {
	case "connection", "content-length", "content-encoding", "host", "keep-alive", "proxy-connection", "te", "trailer",
		"transfer-encoding", "upgrade", "expect":
		return false
	}
	return true
}
