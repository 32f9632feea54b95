package dapr

import (
	"maps"
	"strings"
	"time"

	"github.com/loam-run/loam"
	pb "github.com/loam-run/loam/api/dapr"
	"github.com/loam-run/loam/capability/binding"
	"github.com/loam-run/loam/capability/jobs"
	"github.com/loam-run/loam/protocol/grpc"
)

func (a *API) grpcInvokeBinding(c *grpc.Call, in *pb.InvokeBindingRequest) (*pb.InvokeBindingResponse, error) {
	r := binding.Request{Operation: in.Operation, Data: in.Data, Metadata: in.Metadata}
	carryMetadata(&r, c.Request().Header)
	out, err := a.invokeBinding(c.Request(), in.Name, r)
	for k, v := range out.Metadata {
		if name := strings.ToLower(metadataPrefix + k); grpcSafe(name) && headerSafe(v) {
			c.AddHeader(name, v)
		}
	}
	if err != nil {
		return nil, asStatus(err)
	}
	return &pb.InvokeBindingResponse{Data: out.Data, Metadata: out.Metadata}, nil
}

// grpcSafe tells whether a name may be one of gRPC's metadata, and one whose value is text.
func grpcSafe(name string) bool {
	return name != "" && !strings.HasSuffix(name, "-bin") && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
}

// carryMetadata takes a call's metadata along to the system outside, but for what is gRPC's own or this API's. What the
// message says itself stands, except that the call's trace context does.
func carryMetadata(r *binding.Request, h loam.Header) {
	for _, f := range h {
		name := strings.ToLower(f.Name)
		switch {
		case name == "te", name == "content-type", name == "user-agent", name == tokenHeader, strings.HasPrefix(name, "grpc-"), strings.HasPrefix(name, ":"):
			continue
		}
		if _, there := r.Metadata[name]; there && name != "traceparent" && name != "tracestate" {
			continue
		}
		if r.Metadata == nil {
			r.Metadata = map[string]string{}
		}
		r.Metadata[name] = strings.Clone(f.Value)
	}
}

func (a *API) grpcGetSecret(c *grpc.Call, in *pb.GetSecretRequest) (*pb.GetSecretResponse, error) {
	m, err := a.secrets(c.Request(), in.StoreName, in.Key, in.Metadata)
	if err != nil {
		return nil, err
	}
	return &pb.GetSecretResponse{Data: m}, nil
}

func (a *API) grpcGetBulkSecret(c *grpc.Call, in *pb.GetBulkSecretRequest) (*pb.GetBulkSecretResponse, error) {
	all, err := a.allSecrets(c.Request(), in.StoreName, in.Metadata)
	if err != nil {
		return nil, err
	}
	out := &pb.GetBulkSecretResponse{Data: make(map[string]pb.SecretResponse, len(all))}
	for name, fields := range all {
		out.Data[name] = pb.SecretResponse{Secrets: fields}
	}
	return out, nil
}

func (a *API) grpcTryLock(c *grpc.Call, in *pb.TryLockRequest) (*pb.TryLockResponse, error) {
	ok, err := a.tryLock(c.Request(), in.StoreName, in.ResourceId, in.LockOwner, in.ExpiryInSeconds)
	if err != nil {
		return nil, asStatus(err)
	}
	return &pb.TryLockResponse{Success: ok}, nil
}

func (a *API) grpcUnlock(c *grpc.Call, in *pb.UnlockRequest) (*pb.UnlockResponse, error) {
	status, err := a.unlock(c.Request(), in.StoreName, in.ResourceId, in.LockOwner)
	if err != nil {
		return nil, asStatus(err)
	}
	return &pb.UnlockResponse{Status: pb.UnlockResponse_Status(status)}, nil
}

// value is an optional field's, "" where it is not there.
func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// optional is a field that is there unless it is empty.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (a *API) grpcScheduleJob(c *grpc.Call, in *pb.ScheduleJobRequest) (*pb.ScheduleJobResponse, error) {
	j := in.Job
	if j == nil {
		return nil, a.jobInvalid(errJobEmpty, "Job")
	}
	job := jobs.Job{Name: j.Name, Schedule: value(j.Schedule), Due: value(j.DueTime), TTL: value(j.Ttl), Repeats: j.Repeats}
	if j.Data != nil {
		job.Type, job.Data = j.Data.TypeUrl, j.Data.Value
	}
	if p := j.FailurePolicy; p != nil {
		switch {
		case p.Drop != nil:
			job.Failure = &jobs.FailurePolicy{Drop: true}
		case p.Constant != nil:
			job.Failure = &jobs.FailurePolicy{MaxRetries: p.Constant.MaxRetries}
			if d := p.Constant.Interval; d != nil {
				if d.Seconds > int64((1<<63-1)/time.Second)-1 || d.Seconds < 0 || d.Nanos < 0 || d.Nanos > 999_999_999 {
					return nil, a.jobFailure(errJobSchedule, loam.Errorf(loam.InvalidArgument, "", "failurePolicy: the interval is out of range"), "schedule job")
				}
				job.Failure.Interval = time.Duration(d.Seconds)*time.Second + time.Duration(d.Nanos)
			}
		}
	}
	if err := a.schedule(c.Request(), job, in.Overwrite); err != nil {
		return nil, err
	}
	return &pb.ScheduleJobResponse{}, nil
}

// jobMessage is a job as gRPC has it.
func jobMessage(j *jobs.Job) pb.Job {
	out := pb.Job{Name: j.Name, Schedule: optional(j.Schedule), DueTime: optional(j.Due), Ttl: optional(j.TTL), Repeats: j.Repeats}
	if j.Type != "" || len(j.Data) > 0 {
		out.Data = &pb.Any{TypeUrl: j.Type, Value: j.Data}
	}
	if f := j.Failure; f != nil {
		if f.Drop {
			out.FailurePolicy = &pb.JobFailurePolicy{Drop: &pb.JobFailurePolicyDrop{}}
		} else {
			out.FailurePolicy = &pb.JobFailurePolicy{Constant: &pb.JobFailurePolicyConstant{
				Interval: &pb.Duration{Seconds: int64(f.Interval / time.Second), Nanos: int32(f.Interval % time.Second)}, MaxRetries: f.MaxRetries,
			}}
		}
	}
	return out
}

func (a *API) grpcGetJob(c *grpc.Call, in *pb.GetJobRequest) (*pb.GetJobResponse, error) {
	j, err := a.job(c.Request(), in.Name)
	if err != nil {
		return nil, err
	}
	m := jobMessage(&j)
	return &pb.GetJobResponse{Job: &m}, nil
}

func (a *API) grpcDeleteJob(c *grpc.Call, in *pb.DeleteJobRequest) (*pb.DeleteJobResponse, error) {
	if err := a.forgetJob(c.Request(), in.Name); err != nil {
		return nil, err
	}
	return &pb.DeleteJobResponse{}, nil
}

func (a *API) grpcDeleteJobs(c *grpc.Call, in *pb.DeleteJobsByPrefixRequest) (*pb.DeleteJobsByPrefixResponse, error) {
	if err := a.forgetJobs(c.Request(), value(in.NamePrefix)); err != nil {
		return nil, err
	}
	return &pb.DeleteJobsByPrefixResponse{}, nil
}

func (a *API) grpcListJobs(c *grpc.Call, _ *pb.ListJobsRequest) (*pb.ListJobsResponse, error) {
	all, err := a.listJobs(c.Request())
	if err != nil {
		return nil, err
	}
	out := &pb.ListJobsResponse{Jobs: make([]pb.Job, len(all))}
	for i := range all {
		out.Jobs[i] = jobMessage(&all[i])
	}
	return out, nil
}

func (a *API) grpcGetMetadata(*grpc.Call, *pb.GetMetadataRequest) (*pb.GetMetadataResponse, error) {
	s := a.settings
	out := &pb.GetMetadataResponse{
		Id: a.opts.App.ID, RuntimeVersion: RuntimeVersion, EnabledFeatures: s.Features, ExtendedMetadata: a.extendedMetadata(),
		AppConnectionProperties: &pb.AppConnectionProperties{Port: int32(s.AppPort), Protocol: s.AppProtocol, ChannelAddress: s.AppAddress, MaxConcurrency: int32(s.MaxConcurrency)},
		ActorRuntime:            &pb.ActorRuntime{RuntimeStatus: pb.ActorRuntime_DISABLED},
	}
	if h := s.Health; h != nil {
		out.AppConnectionProperties.Health = &pb.AppConnectionHealthProperties{
			HealthCheckPath: h.Path, HealthProbeInterval: h.Interval.String(), HealthProbeTimeout: h.Timeout.String(), HealthThreshold: int32(h.Threshold),
		}
	}
	for _, k := range a.opts.Capabilities.Components(a.opts.App.Caller) {
		out.RegisteredComponents = append(out.RegisteredComponents, pb.RegisteredComponents{Name: k.Name, Type: k.Type, Version: k.Version, Capabilities: k.Features})
	}
	types := map[string]pb.PubsubSubscriptionType{
		"DECLARATIVE": pb.PubsubSubscriptionType_DECLARATIVE, "PROGRAMMATIC": pb.PubsubSubscriptionType_PROGRAMMATIC, "STREAMING": pb.PubsubSubscriptionType_STREAMING,
	}
	for _, sub := range a.subscriptions() {
		m := pb.PubsubSubscription{PubsubName: sub.Component, Topic: sub.Topic, Metadata: maps.Clone(sub.Metadata), DeadLetterTopic: sub.DeadLetter, Type: types[sub.Type]}
		m.Rules = &pb.PubsubSubscriptionRules{}
		for _, r := range sub.Rules {
			m.Rules.Rules = append(m.Rules.Rules, pb.PubsubSubscriptionRule{Match: r.Match, Path: r.Path})
		}
		if sub.Default != "" {
			m.Rules.Rules = append(m.Rules.Rules, pb.PubsubSubscriptionRule{Path: sub.Default})
		}
		out.Subscriptions = append(out.Subscriptions, m)
	}
	return out, nil
}

func (a *API) grpcSetMetadata(_ *grpc.Call, in *pb.SetMetadataRequest) (*pb.Empty, error) {
	if err := a.self.set(in.Key, in.Value); err != nil {
		return nil, err
	}
	return &pb.Empty{}, nil
}

func (a *API) grpcShutdown(*grpc.Call, *pb.Empty) (*pb.Empty, error) {
	if err := a.shutdown(); err != nil {
		return nil, err
	}
	return &pb.Empty{}, nil
}
