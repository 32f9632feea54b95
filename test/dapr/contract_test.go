// Package dapr_test holds what Loam has of Dapr against Dapr's own modules.
package dapr_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/bufbuild/protocompile"
	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	componentsv1 "github.com/dapr/dapr/pkg/proto/components/v1"
	internalsv1 "github.com/dapr/dapr/pkg/proto/internals/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// later are the methods that Loam does not have yet. Nothing else of the contract may be missing.
var later = []string{
	"RegisterActorTimer", "UnregisterActorTimer", "RegisterActorReminder", "UnregisterActorReminder", "UnregisterActorRemindersByType",
	"ListActorReminders", "GetActorState", "GetActorReminder", "ExecuteActorStateTransaction", "InvokeActor", "SubscribeActorEventsAlpha1",
	"StartWorkflowAlpha1", "GetWorkflowAlpha1", "PurgeWorkflowAlpha1", "TerminateWorkflowAlpha1", "PauseWorkflowAlpha1", "ResumeWorkflowAlpha1", "RaiseEventWorkflowAlpha1",
	"StartWorkflowBeta1", "GetWorkflowBeta1", "PurgeWorkflowBeta1", "TerminateWorkflowBeta1", "PauseWorkflowBeta1", "ResumeWorkflowBeta1", "RaiseEventWorkflowBeta1",
	"ConverseAlpha1", "ConverseAlpha2",
	"CallActorReminder",
}

// Every service, method, message, field and value of the contracts under api/dapr is as Dapr has it: names, numbers, types.
func TestContract(t *testing.T) {
	ours := map[protoreflect.FullName]protoreflect.FileDescriptor{}
	for folder, names := range map[string][]string{
		"../../api/dapr":            {"runtime.proto", "appcallback.proto", "common.proto", "internals.proto"},
		"../../api/dapr/components": {"components.proto"},
	} {
		c := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{folder}})}
		files, err := c.Compile(context.Background(), names...)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			compareFile(t, f)
			ours[protoreflect.FullName(f.Path())] = f
		}
	}
	// And nothing is left out, but for what comes later.
	have := map[string]bool{}
	for _, f := range ours {
		for i := range f.Services().Len() {
			for j := range f.Services().Get(i).Methods().Len() {
				have[string(f.Services().Get(i).Methods().Get(j).FullName())] = true
			}
		}
	}
	missed := map[string]bool{}
	for _, file := range []protoreflect.FileDescriptor{
		runtimev1.File_dapr_proto_runtime_v1_dapr_proto, runtimev1.File_dapr_proto_runtime_v1_appcallback_proto,
		internalsv1.File_dapr_proto_internals_v1_service_invocation_proto, commonv1.File_dapr_proto_common_v1_common_proto,
		componentsv1.File_dapr_proto_components_v1_state_proto, componentsv1.File_dapr_proto_components_v1_pubsub_proto,
		componentsv1.File_dapr_proto_components_v1_bindings_proto, componentsv1.File_dapr_proto_components_v1_secretstore_proto,
	} {
		for i := range file.Services().Len() {
			for j := range file.Services().Get(i).Methods().Len() {
				m := file.Services().Get(i).Methods().Get(j)
				switch {
				case have[string(m.FullName())]:
				case slices.Contains(later, string(m.Name())):
					missed[string(m.Name())] = true
				default:
					t.Errorf("%s is not in api/dapr", m.FullName())
				}
			}
		}
	}
	if len(missed) != len(later) {
		t.Errorf("later lists methods that are there, or that nobody knows: %v, of %v", slices.Sorted(maps.Keys(missed)), later)
	}
}

// theirs finds a declaration of Dapr's.
func theirs[D protoreflect.Descriptor](t *testing.T, name protoreflect.FullName) (d D, ok bool) {
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		t.Errorf("%s is not Dapr's: %v", name, err)
		return d, false
	}
	if d, ok = found.(D); !ok {
		t.Errorf("%s is another thing there", name)
	}
	return d, ok
}

func compareFile(t *testing.T, f protoreflect.FileDescriptor) {
	for i := range f.Services().Len() {
		methods := f.Services().Get(i).Methods()
		for j := range methods.Len() {
			m := methods.Get(j)
			if d, ok := theirs[protoreflect.MethodDescriptor](t, m.FullName()); ok {
				is := func(m protoreflect.MethodDescriptor) string {
					return fmt.Sprint(m.Input().FullName(), m.IsStreamingClient(), m.Output().FullName(), m.IsStreamingServer())
				}
				if is(m) != is(d) {
					t.Errorf("%s is %s, there %s", m.FullName(), is(m), is(d))
				}
			}
		}
	}
	for i := range f.Enums().Len() {
		compareEnum(t, f.Enums().Get(i))
	}
	for i := range f.Messages().Len() {
		compareMessage(t, f.Messages().Get(i))
	}
}

func compareEnum(t *testing.T, e protoreflect.EnumDescriptor) {
	d, ok := theirs[protoreflect.EnumDescriptor](t, e.FullName())
	if !ok {
		return
	}
	is := func(e protoreflect.EnumDescriptor) (all []string) {
		for i := range e.Values().Len() {
			all = append(all, fmt.Sprint(e.Values().Get(i).Name(), e.Values().Get(i).Number()))
		}
		slices.Sort(all)
		return all
	}
	if !slices.Equal(is(e), is(d)) {
		t.Errorf("%s has %v, there %v", e.FullName(), is(e), is(d))
	}
}

func compareMessage(t *testing.T, m protoreflect.MessageDescriptor) {
	d, ok := theirs[protoreflect.MessageDescriptor](t, m.FullName())
	if !ok {
		return
	}
	is := func(m protoreflect.MessageDescriptor) map[string]string {
		all := map[string]string{}
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			text := fmt.Sprint(f.Number(), " ", f.Kind(), " ", f.Cardinality(), " map ", f.IsMap(), " packed ", f.IsPacked(), " present ", f.HasPresence())
			if f.Message() != nil {
				text += " " + string(f.Message().FullName())
			}
			if f.Enum() != nil {
				text += " " + string(f.Enum().FullName())
			}
			if f.IsMap() {
				text += fmt.Sprint(" of ", f.MapKey().Kind(), " to ", f.MapValue().Kind())
				if v := f.MapValue().Message(); v != nil {
					text += " " + string(v.FullName())
				}
			}
			if o := f.ContainingOneof(); o != nil && !o.IsSynthetic() {
				text += " one of " + string(o.Name())
			}
			all[string(f.Name())] = text
		}
		return all
	}
	ours, real := is(m), is(d)
	for name, text := range ours {
		if real[name] != text {
			t.Errorf("%s.%s is %q, there %q", m.FullName(), name, text, real[name])
		}
	}
	for name, text := range real {
		if _, ok := ours[name]; !ok {
			t.Errorf("%s.%s is missing: %s", m.FullName(), name, text)
		}
	}
	for i := range m.Enums().Len() {
		compareEnum(t, m.Enums().Get(i))
	}
	for i := range m.Messages().Len() {
		if inner := m.Messages().Get(i); !inner.IsMapEntry() {
			compareMessage(t, inner)
		}
	}
}
