package dapr

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/internal/protowire"
	"github.com/loam-run/loam/protocol/grpc"
)

// A kind is one of Dapr's errors: how it looks over HTTP and over gRPC.
type kind struct {
	tag    string    // errorCode of HTTP's bodies
	status int       // of HTTP
	code   loam.Code // of gRPC
	reason string    // of the ErrorInfo among the details of both; "": HTTP has no details, and gRPC those of grpcReason
	basic  bool      // gRPC has an ErrorInfo all the same, with the tag as its reason
}

// The errors that this package answers. Their words are beside the code that makes them; tags, statuses and codes are
// what clients decide by, and are Dapr's.
var (
	// Of every API.
	errBadRequest    = kind{tag: "ERR_BAD_REQUEST", status: http.StatusBadRequest, code: loam.InvalidArgument}
	errBodyRead      = kind{tag: "ERR_BODY_READ", status: http.StatusBadRequest, code: loam.InvalidArgument}
	errMalformed     = kind{tag: "ERR_MALFORMED_REQUEST", status: http.StatusBadRequest, code: loam.InvalidArgument}
	errUnimplemented = kind{tag: "ERR_API_UNIMPLEMENTED", status: http.StatusNotImplemented, code: loam.Unimplemented}
	errGeneric       = kind{tag: "ERROR", status: http.StatusInternalServerError, code: loam.Internal}

	// Health.
	errNotReady = kind{tag: "ERR_HEALTH_NOT_READY", status: http.StatusInternalServerError, code: loam.Internal}
	errAppID    = kind{tag: "ERR_HEALTH_APPID_NOT_MATCH", status: http.StatusInternalServerError, code: loam.Internal}

	// State.
	errStateNotConfigured = kind{tag: "ERR_STATE_STORE_NOT_CONFIGURED", reason: "DAPR_STATE_NOT_CONFIGURED", status: http.StatusInternalServerError, code: loam.FailedPrecondition}
	errStateNotFound      = kind{tag: "ERR_STATE_STORE_NOT_FOUND", reason: "DAPR_STATE_NOT_FOUND", status: http.StatusBadRequest, code: loam.InvalidArgument}
	errStateKey           = kind{tag: "ERR_MALFORMED_REQUEST", reason: "DAPR_STATE_ILLEGAL_KEY", status: http.StatusBadRequest, code: loam.InvalidArgument}
	errStateGet           = kind{tag: "ERR_STATE_GET", status: http.StatusInternalServerError, code: loam.Internal, basic: true}
	errStateSave          = kind{tag: "ERR_STATE_SAVE", status: http.StatusInternalServerError, code: loam.Internal, basic: true}
	errStateDelete        = kind{tag: "ERR_STATE_DELETE", status: http.StatusInternalServerError, code: loam.Internal, basic: true}
	errStateBulkDelete    = kind{tag: "ERR_STATE_BULK_DELETE", status: http.StatusInternalServerError, code: loam.Internal, basic: true}
	errStateBulkGet       = kind{tag: "ERR_STATE_BULK_GET", status: http.StatusInternalServerError, code: loam.Internal, basic: true}
	errStateTransaction   = kind{tag: "ERR_STATE_TRANSACTION", status: http.StatusInternalServerError, code: loam.Internal, basic: true}
	errStateOperation     = kind{tag: "ERR_NOT_SUPPORTED_STATE_OPERATION", status: http.StatusBadRequest, code: loam.Unimplemented, basic: true}
	errStateNoTransaction = kind{tag: "ERR_STATE_STORE_NOT_SUPPORTED", reason: "DAPR_STATE_TRANSACTIONS_NOT_SUPPORTED", status: http.StatusInternalServerError, code: loam.Unimplemented}
	errStateTooMany       = kind{tag: "ERR_STATE_STORE_TOO_MANY_TRANSACTIONS", reason: "DAPR_STATE_TOO_MANY_TRANSACTIONS", status: http.StatusBadRequest, code: loam.InvalidArgument}
	errStateNoQuery       = kind{tag: "ERR_STATE_STORE_NOT_SUPPORTED", reason: "DAPR_STATE_QUERYING_NOT_SUPPORTED", status: http.StatusInternalServerError, code: loam.Internal}
	errStateQuery         = kind{tag: "ERR_STATE_QUERY", reason: "DAPR_STATE_QUERY_FAILED", status: http.StatusInternalServerError, code: loam.Internal}

	// Publish and subscribe.
	errPubsubEmpty         = kind{tag: "ERR_PUBSUB_EMPTY", reason: "DAPR_PUBSUB_NAME_EMPTY", status: http.StatusNotFound, code: loam.InvalidArgument}
	errPubsubNotConfigured = kind{tag: "ERR_PUBSUB_NOT_CONFIGURED", reason: "DAPR_PUBSUB_NOT_CONFIGURED", status: http.StatusBadRequest, code: loam.FailedPrecondition}
	errPubsubNotFound      = kind{tag: "ERR_PUBSUB_NOT_FOUND", reason: "DAPR_PUBSUB_NOT_FOUND", status: http.StatusNotFound, code: loam.InvalidArgument}
	errTopicEmpty          = kind{tag: "ERR_TOPIC_NAME_EMPTY", reason: "DAPR_PUBSUB_TOPIC_NAME_EMPTY", status: http.StatusNotFound, code: loam.InvalidArgument}
	errPubsubForbidden     = kind{tag: "ERR_PUBSUB_FORBIDDEN", reason: "DAPR_PUBSUB_FORBIDDEN", status: http.StatusForbidden, code: loam.PermissionDenied}
	errPublish             = kind{tag: "ERR_PUBSUB_PUBLISH_MESSAGE", reason: "DAPR_PUBSUB_PUBLISH_MESSAGE", status: http.StatusInternalServerError, code: loam.Internal}
	errPubsubMetadata      = kind{tag: "ERR_PUBSUB_REQUEST_METADATA", reason: "DAPR_PUBSUB_METADATA_DESERIALIZATION", status: http.StatusBadRequest, code: loam.InvalidArgument}
	errCloudEvent          = kind{tag: "ERR_PUBSUB_CLOUD_EVENTS_SER", reason: "DAPR_PUBSUB_CLOUD_EVENT_CREATION", status: http.StatusInternalServerError, code: loam.InvalidArgument}
	errEnvelope            = kind{tag: "ERR_PUBSUB_EVENTS_SER", reason: "DAPR_PUBSUB_MARSHAL_ENVELOPE", status: http.StatusBadRequest, code: loam.InvalidArgument}
	errEventsOut           = kind{tag: "ERR_PUBSUB_EVENTS_SER", reason: "DAPR_PUBSUB_MARSHAL_EVENTS", status: http.StatusBadRequest, code: loam.InvalidArgument}
	errEventsIn            = kind{tag: "ERR_PUBSUB_EVENTS_SER", reason: "DAPR_PUBSUB_UNMARSHAL_EVENTS", status: http.StatusBadRequest, code: loam.InvalidArgument}

	// Bindings, secrets, configuration, locks.
	errBinding             = kind{tag: "ERR_INVOKE_OUTPUT_BINDING", status: http.StatusInternalServerError, code: loam.Internal, basic: true}
	errSecretNotConfigured = kind{tag: "ERR_SECRET_STORES_NOT_CONFIGURED", status: http.StatusInternalServerError, code: loam.FailedPrecondition}
	errSecretNotFound      = kind{tag: "ERR_SECRET_STORE_NOT_FOUND", status: http.StatusUnauthorized, code: loam.InvalidArgument}
	errSecretDenied        = kind{tag: "ERR_PERMISSION_DENIED", status: http.StatusForbidden, code: loam.PermissionDenied}
	errSecretGet           = kind{tag: "ERR_SECRET_GET", status: http.StatusInternalServerError, code: loam.Internal}
	errConfigNotConfigured = kind{tag: "ERR_CONFIGURATION_STORE_NOT_CONFIGURED", status: http.StatusInternalServerError, code: loam.FailedPrecondition, basic: true}
	errConfigNotFound      = kind{tag: "ERR_CONFIGURATION_STORE_NOT_FOUND", status: http.StatusBadRequest, code: loam.InvalidArgument, basic: true}
	errConfigGet           = kind{tag: "ERR_CONFIGURATION_GET", status: http.StatusInternalServerError, code: loam.Internal, basic: true}
	errConfigSubscribe     = kind{tag: "ERR_CONFIGURATION_SUBSCRIBE", status: http.StatusInternalServerError, code: loam.InvalidArgument, basic: true}
	errAppChannel          = kind{tag: "ERR_APP_CHANNEL_NIL", status: http.StatusInternalServerError, code: loam.Internal}
	errLockNotConfigured   = kind{tag: "ERR_LOCK_STORE_NOT_CONFIGURED", status: http.StatusInternalServerError, code: loam.FailedPrecondition}
	errLockNotFound        = kind{tag: "ERR_LOCK_STORE_NOT_FOUND", status: http.StatusBadRequest, code: loam.InvalidArgument}
	errTryLock             = kind{tag: "ERR_TRY_LOCK", status: http.StatusInternalServerError, code: loam.Internal}
	errUnlock              = kind{tag: "ERR_UNLOCK", status: http.StatusInternalServerError, code: loam.Internal}

	// Cryptography.
	errCryptoNotConfigured = kind{tag: "ERR_CRYPTO_PROVIDERS_NOT_CONFIGURED", status: http.StatusInternalServerError, code: loam.Internal}
	errCryptoNotFound      = kind{tag: "ERR_CRYPTO_PROVIDER_NOT_FOUND", status: http.StatusBadRequest, code: loam.InvalidArgument}
	errCryptoKey           = kind{tag: "ERR_CRYPTO_KEY", status: http.StatusInternalServerError, code: loam.Internal}
	errCrypto              = kind{tag: "ERR_CRYPTO", status: http.StatusInternalServerError, code: loam.Internal}

	// Jobs, whose tag over HTTP is the reason.
	errJobEmpty    = kind{tag: "DAPR_SCHEDULER_EMPTY", reason: "DAPR_SCHEDULER_EMPTY", status: http.StatusBadRequest, code: loam.InvalidArgument}
	errJobName     = kind{tag: "DAPR_SCHEDULER_JOB_NAME", reason: "DAPR_SCHEDULER_JOB_NAME", status: http.StatusBadRequest, code: loam.InvalidArgument}
	errJobNoName   = kind{tag: "DAPR_SCHEDULER_JOB_NAME_EMPTY", reason: "DAPR_SCHEDULER_JOB_NAME_EMPTY", status: http.StatusBadRequest, code: loam.InvalidArgument}
	errJobNoTime   = kind{tag: "DAPR_SCHEDULER_SCHEDULE_EMPTY", reason: "DAPR_SCHEDULER_SCHEDULE_EMPTY", status: http.StatusBadRequest, code: loam.InvalidArgument}
	errJobSchedule = kind{tag: "DAPR_SCHEDULER_SCHEDULE_JOB", reason: "DAPR_SCHEDULER_SCHEDULE_JOB", status: http.StatusInternalServerError, code: loam.Internal}
	errJobGet      = kind{tag: "DAPR_SCHEDULER_GET_JOB", reason: "DAPR_SCHEDULER_GET_JOB", status: http.StatusInternalServerError, code: loam.Internal}
	errJobList     = kind{tag: "DAPR_SCHEDULER_LIST_JOBS", reason: "DAPR_SCHEDULER_LIST_JOBS", status: http.StatusInternalServerError, code: loam.Internal}
	errJobDelete   = kind{tag: "DAPR_SCHEDULER_DELETE_JOB", reason: "DAPR_SCHEDULER_DELETE_JOB", status: http.StatusInternalServerError, code: loam.Internal}

	// What is not built yet keeps the tag by which its clients know it.
	errActor        = kind{tag: "ERR_ACTOR_RUNTIME_NOT_FOUND", status: http.StatusNotImplemented, code: loam.Unimplemented}
	errWorkflow     = kind{tag: "ERR_WORKFLOW_COMPONENT_NOT_FOUND", status: http.StatusNotImplemented, code: loam.Unimplemented}
	errConversation = kind{tag: "ERR_CONVERSATION_NOT_FOUND", status: http.StatusNotImplemented, code: loam.Unimplemented}
)

// A failure is an error in Dapr's words.
type failure struct {
	kind
	message  string
	info     map[string]string // metadata of the ErrorInfo
	resource *resourceInfo
	field    string // of a BadRequest detail; "": there is none
	help     bool   // a Help detail with a link to Dapr's list of state stores
}

// resourceInfo is google.rpc.ResourceInfo.
type resourceInfo struct{ typ, name, description string }

func (k kind) failure(format string, args ...any) *failure {
	return &failure{kind: k, message: fmt.Sprintf(format, args...)}
}

// caused makes the failure of a capability's error: what the error is decides status and code where a client can do
// something about it, in spite of the kind.
func (k kind) caused(err error, format string, args ...any) *failure {
	f := k.failure(format, args...)
	switch c := loam.CodeOf(err); c {
	case loam.Aborted, loam.AlreadyExists:
		f.status, f.code = http.StatusConflict, loam.Aborted
	case loam.InvalidArgument, loam.OutOfRange:
		f.status, f.code = http.StatusBadRequest, loam.InvalidArgument
	case loam.PermissionDenied:
		f.status, f.code = http.StatusForbidden, c
	case loam.Unimplemented:
		f.status, f.code = http.StatusNotImplemented, c
	case loam.ResourceExhausted, loam.Unavailable, loam.DeadlineExceeded, loam.Canceled:
		f.code = c
	}
	return f
}

// Error is the message with its code, as Dapr logs it.
func (f *failure) Error() string {
	return "api error: code = " + f.code.String() + " desc = " + f.message
}

// Unwrap is the error as gRPC sends it, from which loam.CodeOf reads the code too.
func (f *failure) Unwrap() error {
	s := grpc.NewStatus(f.code, f.message)
	reason := f.reason
	if reason == "" && f.basic {
		reason = f.tag
	}
	if reason == "" {
		return s
	}
	if f.field != "" {
		s.Details = append(s.Details, grpc.BadRequest(grpc.Violation{Field: f.field, Description: f.message}))
	}
	if f.help {
		s.Details = append(s.Details, grpc.Detail{Type: "google.rpc.Help", Value: protowire.AppendField(nil, 1, protowire.AppendText(protowire.AppendText(nil, 1, helpText), 2, helpURL))})
	}
	if r := f.resource; r != nil {
		s.Details = append(s.Details, grpc.ResourceInfo(r.typ, r.name, "", r.description))
	}
	s.Details = append(s.Details, grpc.ErrorInfo(reason, domain, f.info))
	return s
}

// failureOf is any error as a failure.
func failureOf(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	var known *loam.Error
	if errors.As(err, &known) {
		return errGeneric.caused(err, "%s", words(err))
	}
	return errGeneric.failure("%s", loam.CodeOf(err)) // an error that nobody classified keeps its words to the log
}

// words are what an error of a capability says, with what to do about it.
func words(err error) string {
	if hint := loam.HintOf(err); hint != "" {
		return err.Error() + " (" + hint + ")"
	}
	return err.Error()
}

const typePrefix = "type.googleapis.com/google.rpc."

// appendJSON adds the body of the answer that HTTP gives.
func (f *failure) appendJSON(b []byte) []byte {
	type body struct {
		ErrorCode string           `json:"errorCode"`
		Message   string           `json:"message"`
		Details   []map[string]any `json:"details,omitempty"`
	}
	out := body{ErrorCode: f.tag, Message: f.message}
	if f.reason != "" {
		if f.field != "" {
			out.Details = append(out.Details, map[string]any{
				"@type":            typePrefix + "BadRequest",
				"field_violations": []map[string]string{{"field": f.field, "description": f.message}},
			})
		}
		if f.help {
			out.Details = append(out.Details, map[string]any{
				"@type": typePrefix + "Help",
				"links": []map[string]string{{"url": helpURL, "description": helpText}},
			})
		}
		if r := f.resource; r != nil {
			out.Details = append(out.Details, map[string]any{
				"@type": typePrefix + "ResourceInfo", "resource_type": r.typ, "resource_name": r.name, "owner": "", "description": r.description,
			})
		}
		out.Details = append(out.Details, map[string]any{"@type": typePrefix + "ErrorInfo", "reason": f.reason, "domain": domain, "metadata": f.info})
	}
	text, err := json.Marshal(out)
	if err != nil {
		panic("dapr: " + err.Error()) // strings only
	}
	return append(b, text...)
}

const (
	domain   = "dapr.io"
	helpURL  = "https://docs.dapr.io/reference/components-reference/supported-state-stores/"
	helpText = "Check the list of state stores and the features they support"
)
