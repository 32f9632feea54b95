package dapr

import (
	"crypto/subtle"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/dapr"
	"github.com/loam-run/loam/protocol/grpc"
)

// service begins the path of each method.
const service = "/dapr.proto.runtime.v1.Dapr/"

// A method is one of the service's.
type method struct {
	name  string
	group string // that spec.api of Configuration allows or denies: state.v1
	serve grpc.Method
}

// grpcMethods are all methods of Dapr 1.18's service but InvokeService, which is an invocation.
func (a *API) grpcMethods() []method {
	return []method{
		{"GetState", "state.v1", grpc.Unary(a.grpcGetState)},
		{"GetBulkState", "state.v1", grpc.Unary(a.grpcGetBulkState)},
		{"SaveState", "state.v1", grpc.Unary(a.grpcSaveState)},
		{"DeleteState", "state.v1", grpc.Unary(a.grpcDeleteState)},
		{"DeleteBulkState", "state.v1", grpc.Unary(a.grpcDeleteBulkState)},
		{"ExecuteStateTransaction", "state.v1", grpc.Unary(a.grpcExecuteStateTransaction)},
		{"QueryStateAlpha1", "state.v1alpha1", grpc.Unary(a.grpcQueryState)},

		{"PublishEvent", "publish.v1", grpc.Unary(a.grpcPublishEvent)},
		{"BulkPublishEvent", "publish.v1", grpc.Unary(a.grpcBulkPublishEvent)},
		{"BulkPublishEventAlpha1", "publish.v1alpha1", grpc.Unary(a.grpcBulkPublishEvent)},
		{"SubscribeTopicEventsAlpha1", "subscribe.v1alpha1", grpc.Streaming(a.grpcSubscribeTopicEvents)},

		{"InvokeBinding", "bindings.v1", grpc.Unary(a.grpcInvokeBinding)},

		{"GetSecret", "secrets.v1", grpc.Unary(a.grpcGetSecret)},
		{"GetBulkSecret", "secrets.v1", grpc.Unary(a.grpcGetBulkSecret)},

		{"GetConfiguration", "configuration.v1", grpc.Unary(a.grpcGetConfiguration)},
		{"GetConfigurationAlpha1", "configuration.v1alpha1", grpc.Unary(a.grpcGetConfiguration)},
		{"SubscribeConfiguration", "configuration.v1", grpc.Streaming(a.grpcSubscribeConfiguration)},
		{"SubscribeConfigurationAlpha1", "configuration.v1alpha1", grpc.Streaming(a.grpcSubscribeConfiguration)},
		{"UnsubscribeConfiguration", "configuration.v1", grpc.Unary(a.grpcUnsubscribeConfiguration)},
		{"UnsubscribeConfigurationAlpha1", "configuration.v1alpha1", grpc.Unary(a.grpcUnsubscribeConfiguration)},

		{"TryLockAlpha1", "lock.v1alpha1", grpc.Unary(a.grpcTryLock)},
		{"UnlockAlpha1", "unlock.v1alpha1", grpc.Unary(a.grpcUnlock)},

		{"EncryptAlpha1", "crypto.v1alpha1", grpc.Streaming(a.grpcEncrypt)},
		{"DecryptAlpha1", "crypto.v1alpha1", grpc.Streaming(a.grpcDecrypt)},
		{"SubtleGetKeyAlpha1", "subtlecrypto.v1alpha1", grpc.Unary(a.grpcSubtleGetKey)},
		{"SubtleEncryptAlpha1", "subtlecrypto.v1alpha1", grpc.Unary(a.grpcSubtleEncrypt)},
		{"SubtleDecryptAlpha1", "subtlecrypto.v1alpha1", grpc.Unary(a.grpcSubtleDecrypt)},
		{"SubtleWrapKeyAlpha1", "subtlecrypto.v1alpha1", grpc.Unary(a.grpcSubtleWrapKey)},
		{"SubtleUnwrapKeyAlpha1", "subtlecrypto.v1alpha1", grpc.Unary(a.grpcSubtleUnwrapKey)},
		{"SubtleSignAlpha1", "subtlecrypto.v1alpha1", grpc.Unary(a.grpcSubtleSign)},
		{"SubtleVerifyAlpha1", "subtlecrypto.v1alpha1", grpc.Unary(a.grpcSubtleVerify)},

		{"ScheduleJob", "jobs.v1", grpc.Unary(a.grpcScheduleJob)},
		{"ScheduleJobAlpha1", "jobs.v1alpha1", grpc.Unary(a.grpcScheduleJob)},
		{"GetJob", "jobs.v1", grpc.Unary(a.grpcGetJob)},
		{"GetJobAlpha1", "jobs.v1alpha1", grpc.Unary(a.grpcGetJob)},
		{"DeleteJob", "jobs.v1", grpc.Unary(a.grpcDeleteJob)},
		{"DeleteJobAlpha1", "jobs.v1alpha1", grpc.Unary(a.grpcDeleteJob)},
		{"DeleteJobsByPrefix", "jobs.v1", grpc.Unary(a.grpcDeleteJobs)},
		{"DeleteJobsByPrefixAlpha1", "jobs.v1alpha1", grpc.Unary(a.grpcDeleteJobs)}, // of the same fields
		{"ListJobs", "jobs.v1", grpc.Unary(a.grpcListJobs)},
		{"ListJobsAlpha1", "jobs.v1alpha1", grpc.Unary(a.grpcListJobs)}, // likewise

		{"GetMetadata", "metadata.v1", grpc.Unary(a.grpcGetMetadata)},
		{"SetMetadata", "metadata.v1", grpc.Unary(a.grpcSetMetadata)},
		{"Shutdown", "shutdown.v1", grpc.Unary(a.grpcShutdown)},

		{"RegisterActorTimer", "actors.v1", absent(errActor, "actors")},
		{"UnregisterActorTimer", "actors.v1", absent(errActor, "actors")},
		{"RegisterActorReminder", "actors.v1", absent(errActor, "actors")},
		{"UnregisterActorReminder", "actors.v1", absent(errActor, "actors")},
		{"UnregisterActorRemindersByType", "actors.v1", absent(errActor, "actors")},
		{"ListActorReminders", "actors.v1", absent(errActor, "actors")},
		{"GetActorReminder", "actors.v1", absent(errActor, "actors")},
		{"GetActorState", "actors.v1", absent(errActor, "actors")},
		{"ExecuteActorStateTransaction", "actors.v1", absent(errActor, "actors")},
		{"InvokeActor", "actors.v1", absent(errActor, "actors")},
		{"SubscribeActorEventsAlpha1", "actors.v1alpha1", absent(errActor, "actors")},

		{"StartWorkflowAlpha1", "workflows.v1alpha1", absent(errWorkflow, "workflows")},
		{"GetWorkflowAlpha1", "workflows.v1alpha1", absent(errWorkflow, "workflows")},
		{"PurgeWorkflowAlpha1", "workflows.v1alpha1", absent(errWorkflow, "workflows")},
		{"TerminateWorkflowAlpha1", "workflows.v1alpha1", absent(errWorkflow, "workflows")},
		{"PauseWorkflowAlpha1", "workflows.v1alpha1", absent(errWorkflow, "workflows")},
		{"ResumeWorkflowAlpha1", "workflows.v1alpha1", absent(errWorkflow, "workflows")},
		{"RaiseEventWorkflowAlpha1", "workflows.v1alpha1", absent(errWorkflow, "workflows")},
		{"StartWorkflowBeta1", "workflows.v1beta1", absent(errWorkflow, "workflows")},
		{"GetWorkflowBeta1", "workflows.v1beta1", absent(errWorkflow, "workflows")},
		{"PurgeWorkflowBeta1", "workflows.v1beta1", absent(errWorkflow, "workflows")},
		{"TerminateWorkflowBeta1", "workflows.v1beta1", absent(errWorkflow, "workflows")},
		{"PauseWorkflowBeta1", "workflows.v1beta1", absent(errWorkflow, "workflows")},
		{"ResumeWorkflowBeta1", "workflows.v1beta1", absent(errWorkflow, "workflows")},
		{"RaiseEventWorkflowBeta1", "workflows.v1beta1", absent(errWorkflow, "workflows")},

		{"ConverseAlpha1", "conversation.v1alpha1", absent(errConversation, "conversation")},
		{"ConverseAlpha2", "conversation.v1alpha2", absent(errConversation, "conversation")},
	}
}

// absent is a method that is not built. It answers before the client has sent all it has.
func absent(k kind, what string) grpc.Method {
	return grpc.Streaming(func(*grpc.Stream) error { return notBuilt(k, what) })
}

// newGRPC makes the server of the service, of those methods that the rules leave.
func (a *API) newGRPC() *grpc.Server {
	s := &grpc.Server{Methods: map[string]grpc.Method{}, Unknown: loam.TargetFunc(a.serveProxy), MaxMessage: int(a.maxBody), Budget: a.budget}
	for _, m := range a.grpcMethods() {
		if !a.allowsMethod(m.group) {
			m.serve = grpc.Streaming(func(*grpc.Stream) error { return errNotAvailable() })
		}
		s.Methods[service+m.name] = a.counted(service+m.name, m.serve)
	}
	a.invokes = &grpc.Server{MaxMessage: int(a.limit()), Methods: map[string]grpc.Method{pathInvokeService: a.counted(pathInvokeService, grpc.Unary(a.invokeService))}}
	s.Reflect(pb.Descriptors())
	return s
}

// counted is a method that is counted, where its calls have one answer: daprd counts no others.
func (a *API) counted(name string, m grpc.Method) grpc.Method {
	if a.settings.Metrics == nil {
		return m
	}
	of := a.settings.Metrics.known(grpcServer, name, "")
	return grpc.Watched(m, func(req *loam.Request, code loam.Code, took time.Duration) {
		of.add(req.Task().Shard(), int(code), 1, took)
	})
}

// allowsMethod tells whether the rules leave a group of methods.
func (a *API) allowsMethod(group string) bool {
	name, version, _ := strings.Cut(group, ".")
	in := func(rules []AccessRule) bool {
		for _, r := range ofProtocol(rules, "grpc") {
			if r.Name == name && shortVersion(r.Version) == version {
				return true
			}
		}
		return false
	}
	return !in(a.settings.Denied) && (len(ofProtocol(a.settings.Allowed, "grpc")) == 0 || in(a.settings.Allowed))
}

// errNotAvailable is the answer of a method that the rules take away.
func errNotAvailable() error {
	return httpStatus(http.StatusNotImplemented, loam.Unimplemented, "requested endpoint is not available")
}

// httpStatus is an error that says which status it would have over HTTP.
func httpStatus(status int, code loam.Code, message string) error {
	text := http.StatusText(status)
	return grpc.NewStatus(code, text, grpc.ErrorInfo(text, domain, map[string]string{"http.code": strconv.Itoa(status), "http.error_message": message}))
}

// serveGRPC serves the API's port: the token, then the method, or the app that the call is for.
func (a *API) serveGRPC(req *loam.Request) (*loam.Response, error) {
	if a.opts.App.APIToken != "" {
		token := req.Header.Get(tokenHeader)
		switch {
		case token == "":
			return nil, httpStatus(http.StatusUnauthorized, loam.Unauthenticated, "missing api token in request metadata")
		case subtle.ConstantTimeCompare([]byte(token), []byte(a.opts.App.APIToken)) != 1:
			return nil, httpStatus(http.StatusUnauthorized, loam.Unauthenticated, "authentication error: api token mismatch")
		}
		req.Header.Del(tokenHeader)
	}
	if req.Path == service+"InvokeService" {
		if !a.allowsMethod("invoke.v1") {
			return nil, errNotAvailable()
		}
		return a.invokes.Serve(req)
	}
	return a.grpc.Serve(req)
}

// asStatus makes an error of a method one with Dapr's words.
func asStatus(err error) error {
	if err == nil {
		return nil
	}
	return failureOf(err)
}

// consistency and concurrency are words of HTTP's for gRPC's numbers; what is unknown stays unspecified.
func consistency(c pb.StateOptions_StateConsistency) string {
	switch c {
	case pb.StateOptions_CONSISTENCY_EVENTUAL:
		return "eventual"
	case pb.StateOptions_CONSISTENCY_STRONG:
		return "strong"
	}
	return ""
}

func concurrency(c pb.StateOptions_StateConcurrency) string {
	switch c {
	case pb.StateOptions_CONCURRENCY_FIRST_WRITE:
		return "first-write"
	case pb.StateOptions_CONCURRENCY_LAST_WRITE:
		return "last-write"
	}
	return ""
}

// grpcStore finds a state component. Over gRPC the error does not name the app.
func (a *API) grpcStore(name string) (stateStore, error) {
	s, err := a.state(name)
	if f, ok := errors.AsType[*failure](err); ok {
		f.info = nil
	}
	return s, err
}

func (a *API) grpcGetState(c *grpc.Call, in *pb.GetStateRequest) (*pb.GetStateResponse, error) {
	s, err := a.grpcStore(in.StoreName)
	if err != nil {
		return nil, err
	}
	it, err := a.getOne(c.Request(), &s, in.Key, consistency(in.Consistency), in.Metadata)
	if err != nil {
		return nil, err
	}
	out := &pb.GetStateResponse{Data: it.Value, Etag: it.ETag}
	if !it.Expires.IsZero() {
		out.Metadata = map[string]string{ttlExpireTime: expiry(it.Expires)}
	}
	return out, nil
}

// perItem is what an item of an answer has beside its key and value, or more.
const perItem = 128

func (a *API) grpcGetBulkState(c *grpc.Call, in *pb.GetBulkStateRequest) (*pb.GetBulkStateResponse, error) {
	s, err := a.grpcStore(in.StoreName)
	if err != nil {
		return nil, err
	}
	out := &pb.GetBulkStateResponse{}
	if len(in.Keys) == 0 {
		return out, nil
	}
	results, err := a.getBulk(c.Request(), &s, in.Keys, int(in.Parallelism), in.Metadata)
	if err != nil {
		return nil, err
	}
	size := 0
	for i := range results {
		size += len(results[i].Item.Value) + len(results[i].Item.Key) + perItem
	}
	if err := c.Expect(size); err != nil {
		return nil, err
	}
	out.Items = make([]pb.BulkStateItem, 0, len(results))
	for i := range results {
		r := &results[i]
		item := pb.BulkStateItem{Key: r.Item.Key}
		if r.Err != nil {
			item.Error = stateWords(r.Err)
		} else {
			item.Data, item.Etag = r.Item.Value, r.Item.ETag
			if !r.Item.Expires.IsZero() {
				item.Metadata = map[string]string{ttlExpireTime: expiry(r.Item.Expires)}
			}
		}
		out.Items = append(out.Items, item)
	}
	return out, nil
}

// itemOf is a write as gRPC has it.
func itemOf(in *pb.StateItem) stateItem {
	it := stateItem{key: in.Key, value: in.Value, metadata: in.Metadata}
	if in.Etag != nil {
		it.etag = in.Etag.Value
	}
	if in.Options != nil {
		it.concurrency, it.consistency = concurrency(in.Options.Concurrency), consistency(in.Options.Consistency)
	}
	return it
}

func (a *API) grpcSaveState(c *grpc.Call, in *pb.SaveStateRequest) (*pb.Empty, error) {
	s, err := a.grpcStore(in.StoreName)
	if err != nil {
		return nil, err
	}
	items := make([]stateItem, len(in.States))
	for i := range in.States {
		if items[i] = itemOf(&in.States[i]); items[i].key == "" {
			f := errStateSave.failure("state key cannot be empty")
			f.code = loam.InvalidArgument
			return nil, f
		}
	}
	if err := a.save(c.Request(), &s, items); err != nil {
		return nil, err
	}
	return &pb.Empty{}, nil
}

func (a *API) grpcDeleteState(c *grpc.Call, in *pb.DeleteStateRequest) (*pb.Empty, error) {
	s, err := a.grpcStore(in.StoreName)
	if err != nil {
		return nil, err
	}
	it := itemOf(&pb.StateItem{Key: in.Key, Etag: in.Etag, Options: in.Options, Metadata: in.Metadata})
	if err := a.remove(c.Request(), &s, []stateItem{it}, false); err != nil {
		return nil, err
	}
	return &pb.Empty{}, nil
}

func (a *API) grpcDeleteBulkState(c *grpc.Call, in *pb.DeleteBulkStateRequest) (*pb.Empty, error) {
	s, err := a.grpcStore(in.StoreName)
	if err != nil {
		return nil, err
	}
	items := make([]stateItem, len(in.States))
	for i := range in.States {
		items[i] = itemOf(&in.States[i])
	}
	if err := a.remove(c.Request(), &s, items, true); err != nil {
		return nil, err
	}
	return &pb.Empty{}, nil
}

func (a *API) grpcExecuteStateTransaction(c *grpc.Call, in *pb.ExecuteStateTransactionRequest) (*pb.Empty, error) {
	s, err := a.grpcStore(in.StoreName)
	if err != nil {
		return nil, err
	}
	writes := make([]stateWrite, len(in.Operations))
	for i := range in.Operations {
		o := &in.Operations[i]
		switch o.OperationType {
		case "upsert":
		case "delete":
			writes[i].remove = true
		default:
			return nil, errStateOperation.failure("operation type %s not supported", o.OperationType)
		}
		if o.Request != nil {
			writes[i].stateItem = itemOf(o.Request)
		}
	}
	if len(writes) == 0 {
		return &pb.Empty{}, nil
	}
	if err := a.transact(c.Request(), &s, writes); err != nil {
		return nil, err
	}
	return &pb.Empty{}, nil
}

func (a *API) grpcQueryState(c *grpc.Call, in *pb.QueryStateRequest) (*pb.QueryStateResponse, error) {
	s, err := a.grpcStore(in.StoreName)
	if err != nil {
		return nil, err
	}
	page, err := a.query(c.Request(), &s, []byte(in.Query))
	if err != nil {
		return nil, err
	}
	out := &pb.QueryStateResponse{Token: page.Token}
	for _, it := range page.Items {
		out.Results = append(out.Results, pb.QueryStateItem{Key: it.Key, Data: it.Value, Etag: it.ETag})
	}
	return out, nil
}
