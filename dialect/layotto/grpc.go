package layotto

import (
	"path"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/layotto"
	"github.com/loam-run/loam/protocol/grpc"
)

// GRPC serves what Layotto serves on its gRPC port.
func (a *API) GRPC() loam.Target { return a.server }

// Then is GRPC with calls of other services handed on to next: Layotto served some of Dapr's on the same port.
func (a *API) Then(next loam.Target) loam.Target {
	s := *a.server
	s.Unknown = next
	return &s
}

// oldObjects is what the service of objects was called before the extensions had packages of their own.
const oldObjects = "/spec.proto.extension.v1.ObjectStorageService/"

func (a *API) newServer() *grpc.Server {
	m := map[string]grpc.Method{
		pb.MethodRuntimeSayHello:                grpc.Unary(a.sayHello),
		pb.MethodRuntimeInvokeService:           grpc.Unary(a.invokeService),
		pb.MethodRuntimeGetConfiguration:        grpc.Unary(a.getConfiguration),
		pb.MethodRuntimeSaveConfiguration:       grpc.Unary(a.saveConfiguration),
		pb.MethodRuntimeDeleteConfiguration:     grpc.Unary(a.deleteConfiguration),
		pb.MethodRuntimeSubscribeConfiguration:  grpc.Streaming(a.subscribeConfiguration),
		pb.MethodRuntimeTryLock:                 grpc.Unary(a.tryLock),
		pb.MethodRuntimeUnlock:                  grpc.Unary(a.unlock),
		pb.MethodRuntimeLockKeepAlive:           grpc.Unary(a.lockKeepAlive),
		pb.MethodRuntimeGetNextId:               grpc.Unary(a.getNextID),
		pb.MethodRuntimeGetState:                grpc.Unary(a.getState),
		pb.MethodRuntimeGetBulkState:            grpc.Unary(a.getBulkState),
		pb.MethodRuntimeSaveState:               grpc.Unary(a.saveState),
		pb.MethodRuntimeDeleteState:             grpc.Unary(a.deleteState),
		pb.MethodRuntimeDeleteBulkState:         grpc.Unary(a.deleteBulkState),
		pb.MethodRuntimeExecuteStateTransaction: grpc.Unary(a.executeStateTransaction),
		pb.MethodRuntimePublishEvent:            grpc.Unary(a.publishEvent),
		pb.MethodRuntimeSubscribeTopicEvents:    grpc.Streaming(a.subscribeTopicEvents),
		pb.MethodRuntimeGetFile:                 answers(a.getFile),
		pb.MethodRuntimePutFile:                 uploads(a.putFile),
		pb.MethodRuntimeListFile:                grpc.Unary(a.listFile),
		pb.MethodRuntimeDelFile:                 grpc.Unary(a.delFile),
		pb.MethodRuntimeGetFileMeta:             grpc.Unary(a.getFileMeta),
		pb.MethodRuntimeInvokeBinding:           grpc.Unary(a.invokeBinding),
		pb.MethodRuntimeGetSecret:               grpc.Unary(a.getSecret),
		pb.MethodRuntimeGetBulkSecret:           grpc.Unary(a.getBulkSecret),

		pb.MethodLifecycleApplyConfiguration: grpc.Unary(a.applyConfiguration),

		pb.MethodCryptionServiceEncrypt:        grpc.Unary(a.encrypt),
		pb.MethodCryptionServiceDecrypt:        grpc.Unary(a.decrypt),
		pb.MethodDelayQueuePublishDelayMessage: grpc.Unary(a.publishDelayMessage),
	}
	for name, method := range a.objectMethods() {
		m[name], m[oldObjects+path.Base(name)] = method, method
	}
	for name, what := range map[string]string{
		"/spec.proto.extension.v1.email.EmailService/SendEmail":                     "mail",
		"/spec.proto.extension.v1.email.EmailService/SendEmailWithTemplate":         "mail",
		"/spec.proto.extension.v1.email.EmailTemplateService/SendEmailWithTemplate": "mail", // an older name of it
		"/spec.proto.extension.v1.sms.SmsService/SendSmsWithTemplate":               "short messages",
		"/spec.proto.extension.v1.phone.PhoneCallService/SendVoiceWithTemplate":     "phone calls",
	} {
		m[name] = not("Loam sends no " + what + ": use a binding or the provider's own API")
	}
	return &grpc.Server{Methods: m, MaxMessage: int(a.opts.App.MaxBody), Budget: a.opts.App.Budget()}
}

// not is a method that is not done, and says so.
func not(why string) grpc.Method {
	return notDone{grpc.Unary(func(*grpc.Call, *grpc.Raw) (*grpc.Raw, error) { return nil, fail(loam.Unimplemented, "%s", why) })}
}

// notDone is told from other methods by its type.
type notDone struct{ grpc.Method }

// answers makes a method of one request and a stream of answers.
func answers[In any, PIn interface {
	*In
	grpc.Message
}](f func(st *grpc.Stream, in PIn) error) grpc.Method {
	return grpc.Streaming(func(st *grpc.Stream) error {
		in := PIn(new(In))
		if err := st.Recv(in); err != nil {
			return err
		}
		return f(st, in)
	})
}

// uploads makes a method of a stream of requests and one answer.
func uploads[Out any, POut interface {
	*Out
	grpc.Message
}](f func(st *grpc.Stream) (POut, error)) grpc.Method {
	return grpc.Streaming(func(st *grpc.Stream) error {
		out, err := f(st)
		if err != nil {
			return err
		}
		return st.Send(out)
	})
}
