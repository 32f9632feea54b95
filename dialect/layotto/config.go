package layotto

import (
	"context"
	"maps"
	"strings"

	pb "github.com/loam-run/loam/api/layotto"
	"github.com/loam-run/loam/capability/config"
	"github.com/loam-run/loam/protocol/grpc"
)

// Layotto finds an item by application, group, label and key; the capability, by a key. The three before it are written
// into it where they say something, each behind its name, so that an item without them has the same key for every carrier.
const (
	groupMark = "||group:"
	labelMark = "||label:"
	tagMark   = "tag." // before the names of tags among an item's metadata
)

// A place is where items are looked for: what a request says beside their keys.
type place struct{ group, label string }

// placeOf makes one of what a program wrote. A word of spaces is none, as in Layotto; so is the word that stands for none in
// its stores.
func placeOf(group, label string) (place, error) {
	p := place{strings.TrimSpace(group), strings.TrimSpace(label)}
	if p.group == "default" {
		p.group = ""
	}
	if p.label == "default" {
		p.label = ""
	}
	if strings.Contains(p.group, separator) || strings.Contains(p.label, separator) {
		return p, invalid("group '%s' and label '%s' can't contain '%s'", group, label, separator)
	}
	return p, nil
}

// key is an item's in the store.
func (p place) key(key string) (string, error) {
	if err := checkKey(key); err != nil {
		return "", err
	}
	if p.group != "" {
		key += groupMark + p.group
	}
	if p.label != "" {
		key += labelMark + p.label
	}
	return key, nil
}

func (p place) keys(keys []string) ([]string, error) {
	out := make([]string, len(keys))
	for i, k := range keys {
		var err error
		if out[i], err = p.key(k); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// item is one of the store's as the program sees it.
func item(it config.Item) pb.ConfigurationItem {
	key, rest, _ := strings.Cut(it.Key, separator)
	rest = separator + rest
	group, label := "", ""
	if g, ok := strings.CutPrefix(rest, groupMark); ok {
		g, after, _ := strings.Cut(g, separator)
		group, rest = g, separator+after
	}
	if l, ok := strings.CutPrefix(rest, labelMark); ok {
		label = l
	}
	out := pb.ConfigurationItem{Key: key, Content: it.Value, Group: group, Label: label}
	for name, value := range it.Metadata {
		to := &out.Metadata
		if tag, ok := strings.CutPrefix(name, tagMark); ok {
			to, name = &out.Tags, tag
		}
		if *to == nil {
			*to = map[string]string{}
		}
		(*to)[name] = value
	}
	return out
}

// metadata is what an item's metadata and tags are in the store.
func metadata(it *pb.ConfigurationItem) map[string]string {
	if len(it.Tags) == 0 {
		return it.Metadata
	}
	m := make(map[string]string, len(it.Metadata)+len(it.Tags))
	maps.Copy(m, it.Metadata)
	for name, value := range it.Tags {
		m[tagMark+name] = value
	}
	return m
}

// in tells whether an item is at the place, where all items of it are asked for.
func (p place) in(it *pb.ConfigurationItem) bool { return it.Group == p.group && it.Label == p.label }

func (a *API) config(name string) (*config.Config, error) {
	return find(a, configs, name, a.opts.Capabilities.Config)
}

// configKeys is the store that a request names, and its keys as the store has them.
func (a *API) configKeys(store, group, label string, names []string) (s *config.Config, at place, keys []string, err error) {
	if s, err = a.config(store); err != nil {
		return nil, at, nil, err
	}
	if at, err = placeOf(group, label); err != nil {
		return nil, at, nil, err
	}
	keys, err = at.keys(names)
	return s, at, keys, err
}

func (a *API) getConfiguration(c *grpc.Call, in *pb.GetConfigurationRequest) (*pb.GetConfigurationResponse, error) {
	s, at, keys, err := a.configKeys(in.StoreName, in.Group, in.Label, in.Keys)
	if err != nil {
		return nil, err
	}
	var items []config.Item
	await(c, func(ctx context.Context) { items, err = s.Get(ctx, a.caller, keys) })
	if err != nil {
		return nil, because(err, "get configuration failed with error: ")
	}
	out := &pb.GetConfigurationResponse{}
	for _, it := range items {
		if o := item(it); at.in(&o) {
			out.Items = append(out.Items, o)
		}
	}
	return out, nil
}

func (a *API) saveConfiguration(c *grpc.Call, in *pb.SaveConfigurationRequest) (*pb.Empty, error) {
	s, err := a.config(in.StoreName)
	if err != nil {
		return nil, err
	}
	var set []config.Item
	var gone []string
	for i := range in.Items {
		it := &in.Items[i]
		at, err := placeOf(it.Group, it.Label)
		if err != nil {
			return nil, err
		}
		key, err := at.key(it.Key)
		if err != nil {
			return nil, err
		}
		if it.Content == "" { // which is how the contract says that it is taken away
			gone = append(gone, key)
			continue
		}
		set = append(set, config.Item{Key: key, Value: it.Content, Metadata: metadata(it)})
	}
	await(c, func(ctx context.Context) {
		if len(set) > 0 {
			err = s.Set(ctx, a.caller, set)
		}
		if len(gone) > 0 && err == nil {
			err = s.Delete(ctx, a.caller, gone)
		}
	})
	if err != nil {
		return nil, because(err, "save configuration failed with error: ")
	}
	return &pb.Empty{}, nil
}

func (a *API) deleteConfiguration(c *grpc.Call, in *pb.DeleteConfigurationRequest) (*pb.Empty, error) {
	s, _, keys, err := a.configKeys(in.StoreName, in.Group, in.Label, in.Keys)
	if err != nil {
		return nil, err
	}
	if len(keys) > 0 {
		await(c, func(ctx context.Context) { err = s.Delete(ctx, a.caller, keys) })
	}
	if err != nil {
		return nil, because(err, "delete configuration failed with error: ")
	}
	return &pb.Empty{}, nil
}
