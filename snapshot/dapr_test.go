package snapshot_test

import (
	"testing"

	"github.com/loam-run/loam/resource"
	"github.com/loam-run/loam/snapshot"
)

// TestOneApp: with one program that all is for, what is scoped to others is left out, and what names nobody is for it.
func TestOneApp(t *testing.T) {
	objects, problems := resource.Decode("a.yaml", []byte(`
apiVersion: loam.dev/v1alpha1
kind: App
metadata: {name: orders}
spec: {address: "localhost:80"}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: mine}
spec: {type: state.memory, metadata: [{name: keyPrefix, value: "{namespace}-{appID}"}]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: theirs}
spec: {type: state.memory, metadata: [{name: broken, value: x}]}
scopes: [stock]
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: mine}
spec: {topic: t, routes: {default: /t}}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: theirs}
spec: {topic: t, routes: {default: /t}}
scopes: [stock]
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: theirs}
spec: {policies: {timeouts: {t: 1s}}, targets: {components: {mine: {outbound: {timeout: t}}}}}
scopes: [stock]
`))
	e := env()
	e.App = "orders"
	plan := snapshot.Build(objects, problems, nil, e)
	for _, s := range plan.Statuses {
		if !s.Ready {
			t.Error(s.Key, s.Problems)
		}
	}
	if len(plan.Components) != 6 || plan.Components[0].Settings["keyPrefix"] != "default.orders-orders" {
		t.Errorf("components %+v", plan.Components)
	}
	if len(plan.Subscriptions) != 1 || plan.Subscriptions[0].Target.Name != "orders" {
		t.Errorf("subscriptions %+v", plan.Subscriptions)
	}
	if len(plan.Resiliency.Components) != 0 {
		t.Errorf("resiliency %+v", plan.Resiliency)
	}
}
