package pubsub

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/capability/keys"
)

// scopes say which topics an app may publish and subscribe to: a component's settings publishingScopes and
// subscriptionScopes ("app1=topic1,topic2;app2="), allowedTopics and protectedTopics ("topic1,topic2"). They narrow what
// grants allow.
type scopes struct {
	publish, subscribe map[string][]string // by app; one that is listed is held to its topics, none of them included
	allowed, protected []string
}

func parseScopes(settings map[string]string) (*scopes, error) {
	s := &scopes{allowed: topics(keys.Setting(settings, "allowedTopics")), protected: topics(keys.Setting(settings, "protectedTopics"))}
	var err error
	if s.publish, err = appTopics("publishingScopes", settings); err != nil {
		return nil, err
	}
	if s.subscribe, err = appTopics("subscriptionScopes", settings); err != nil {
		return nil, err
	}
	if s.publish == nil && s.subscribe == nil && s.allowed == nil && s.protected == nil {
		return nil, nil
	}
	return s, nil
}

func topics(text string) (list []string) {
	for topic := range strings.SplitSeq(strings.ReplaceAll(text, " ", ""), ",") {
		if topic != "" {
			list = append(list, topic)
		}
	}
	return list
}

func appTopics(setting string, settings map[string]string) (map[string][]string, error) {
	text := strings.ReplaceAll(keys.Setting(settings, setting), " ", "")
	if text == "" {
		return nil, nil
	}
	m := map[string][]string{}
	for part := range strings.SplitSeq(text, ";") {
		if part == "" {
			continue
		}
		app, list, ok := strings.Cut(part, "=")
		if !ok {
			return nil, fmt.Errorf("%s: %q is not written app=topic1,topic2", setting, part)
		}
		m[app] = append(m[app], topics(list)...)
	}
	return m, nil
}

// check tells whether app may use topic.
func (s *scopes) check(component, app, topic string, publish bool) error {
	if s == nil {
		return nil
	}
	scoped, what := s.subscribe, "subscriptionScopes"
	if publish {
		scoped, what = s.publish, "publishingScopes"
	}
	own, listed := scoped[app]
	switch {
	case len(s.allowed) > 0 && !slices.Contains(s.allowed, topic):
		what = "allowedTopics"
	case slices.Contains(own, topic):
		return nil
	case listed:
	case slices.Contains(s.protected, topic):
		what = "protectedTopics"
	default:
		return nil
	}
	return &loam.Error{
		Code: loam.PermissionDenied, Op: "pubsub " + strconv.Quote(topic),
		Err:  fmt.Errorf("topic %s is not allowed for app id %s in component %q", topic, app, component),
		Hint: "see " + what + " of the component",
	}
}
