package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/component/all"
)

type convertCmd struct {
	Config string `arg:"" name:"config" type:"path" help:"Layotto's configuration, MOSN's JSON."`
	Out    string `short:"o" type:"path" placeholder:"DIR" help:"Where to write the resources: components.yaml and app.yaml (the terminal)."`
}

func (convertCmd) Help() string {
	return `Writes a configuration of Layotto as resources of Loam: a Component for each component, an App with an API that speaks
Layotto's. Every line that means something there and has no counterpart here is named with what to do about it, and the
exit status is 1 if there is any; the resources are written all the same.

Examples:
  loam convert config.json
  loam convert config.json -o deploy/ && loam run deploy/`
}

func (c convertCmd) Run(o out) error {
	text, err := os.ReadFile(c.Config)
	if err != nil {
		return err
	}
	conv, err := convertLayotto(text, all.Factories())
	if err != nil {
		return fmt.Errorf("%s: %w", relative(c.Config), err)
	}
	if err := conv.write(o, c.Out); err != nil {
		return err
	}
	missing := 0
	for _, n := range conv.notes {
		word := paint(o, yellow, "note:")
		if n.missing {
			missing++
			word = paint(o, yellow, "missing:")
		}
		fmt.Fprintf(o.err, "%s:%d: %s: %s %s\n", relative(c.Config), n.line, n.path, word, n.text)
	}
	if missing > 0 {
		fmt.Fprintf(o.err, "%s without a counterpart\n", count(missing, "setting"))
		return silent{}
	}
	return nil
}

// write prints the resources, or writes them to files of dir that are not there yet.
func (c *conversion) write(o out, dir string) error {
	if dir == "" {
		for i, r := range append(slices.Clone(c.components), c.app) {
			text, err := asDocument(r)
			if err != nil {
				return err
			}
			if i > 0 {
				fmt.Fprintln(o, "---")
			}
			fmt.Fprintf(o, "%s", text)
		}
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, resources := range map[string][]layottoResource{"components.yaml": c.components, "app.yaml": {c.app}} {
		if len(resources) == 0 {
			continue
		}
		var all []string
		for _, r := range resources {
			text, err := asDocument(r)
			if err != nil {
				return err
			}
			all = append(all, string(text))
		}
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, os.ErrExist) {
			return &loam.Error{Code: loam.AlreadyExists, Op: "write " + relative(filepath.Join(dir, name)), Hint: "choose another folder, or take it away"}
		}
		if err != nil {
			return err
		}
		_, err = io.WriteString(f, strings.Join(all, "---\n"))
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func asDocument(r layottoResource) ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	err := errors.Join(e.Encode(r), e.Close())
	return b.Bytes(), err
}

// A layottoResource is one resource that is written.
type layottoResource struct {
	APIVersion string            `yaml:"apiVersion"`
	Kind       string            `yaml:"kind"`
	Metadata   map[string]string `yaml:"metadata,flow"`
	Auth       map[string]string `yaml:"auth,omitempty,flow"`
	Spec       any               `yaml:"spec"`
}

type layottoComponent struct {
	Type     string           `yaml:"type"`
	Version  string           `yaml:"version"`
	Metadata []layottoSetting `yaml:"metadata,omitempty"`
}

type layottoSetting struct {
	Name         string            `yaml:"name"`
	Value        *string           `yaml:"value,omitempty"`
	SecretKeyRef map[string]string `yaml:"secretKeyRef,omitempty,flow"`
}

type layottoApp struct {
	Address  string              `yaml:"address,omitempty"`
	Protocol string              `yaml:"protocol,omitempty"`
	API      layottoAPI          `yaml:"api"`
	Grants   []map[string]string `yaml:"grants"`
}

type layottoAPI struct {
	Layotto struct {
		GRPC []string `yaml:"grpc,flow"`
		HTTP []string `yaml:"http,omitempty,flow"`
	} `yaml:"layotto"`
}

// A conversion is what came of a configuration.
type conversion struct {
	components []layottoResource
	app        layottoResource
	notes      []conversionNote // in the order of the lines they are of

	spec  layottoApp
	id    string // the app's
	types map[string]bool
	names map[string]string // of the components written, with their capability
}

// A conversionNote says of one line what does not come along, or comes otherwise.
type conversionNote struct {
	line    int
	path    string
	text    string
	missing bool // it has no counterpart; else it needs none, or is said elsewhere
}

func (c *conversion) missing(v *value, format string, args ...any) { c.note(v, true, format, args...) }
func (c *conversion) other(v *value, format string, args ...any)   { c.note(v, false, format, args...) }

func (c *conversion) note(v *value, missing bool, format string, args ...any) {
	path := v.path
	if _, below, ok := strings.Cut(path, ".config.grpc_config."); ok {
		path = below // there is one such place, and it is deep
	}
	c.notes = append(c.notes, conversionNote{v.line, path, fmt.Sprintf(format, args...), missing})
}

// convertLayotto reads a configuration. factories are the components that there are.
func convertLayotto(text []byte, factories []loam.Factory) (*conversion, error) {
	root, err := parseJSON(text)
	if err != nil {
		return nil, err
	}
	c := &conversion{types: map[string]bool{}, names: map[string]string{}, id: "app"}
	for _, f := range factories {
		c.types[f.Type] = true
		for _, alias := range f.Aliases {
			c.types[alias] = true
		}
	}
	found := false
	for _, m := range root.members {
		switch m.name {
		case "servers":
			for _, s := range m.items {
				found = c.server(s) || found
			}
		case "tracing":
			c.missing(m.value, "spans are not sent anywhere yet; delete it")
		case "metrics":
			c.other(m.value, "start with loam run --metrics HOST:PORT for Prometheus")
		case "pprof":
			c.other(m.value, "loam profile writes profiles of what runs")
		case "dynamic_resources", "static_resources", "node":
			c.missing(m.value, "a control plane of Istio or Envoy is not asked; declare Services and HTTPRoutes")
		case "cluster_manager":
			c.missing(m.value, "declare a Service for each cluster")
		case "close_graceful", "pid", "inherit_old_mosnconfig":
			c.other(m.value, "of MOSN's process; loam run --grace says how long requests may take when it ends")
		default:
			c.unknown(m.value)
		}
	}
	if !found {
		return nil, errors.New("no listener of it has a filter of type grpc with a grpc_config: is it a configuration of Layotto?")
	}
	// Layotto asked for no grant of anybody; who wants less, takes this away.
	c.spec.Grants = []map[string]string{{"capability": "*", "component": "*"}}
	c.app = layottoResource{APIVersion: "loam.dev/v1alpha1", Kind: "App", Metadata: map[string]string{"name": c.id}, Spec: c.spec}
	slices.SortStableFunc(c.notes, func(a, b conversionNote) int { return cmp.Compare(a.line, b.line) })
	return c, nil
}

func (c *conversion) unknown(v *value) { c.missing(v, "nothing here corresponds to it; delete it") }

// server reads one of servers and tells whether it has the runtime.
func (c *conversion) server(s *value) (found bool) {
	for _, m := range s.members {
		switch m.name {
		case "default_log_path", "default_log_level", "global_log_roller":
			c.other(m.value, "where to log, and how much, is said to loam run; see loam run --help")
		case "routers":
			for _, r := range m.items {
				if len(r.members) > 1 || !r.has("router_config_name") {
					c.missing(r, "declare an HTTPRoute")
				}
			}
		case "listeners":
			for _, l := range m.items {
				found = c.listener(l) || found
			}
		case "mosn_server_name", "use_netpoll_mode", "graceful_timeout", "processor":
			c.other(m.value, "of MOSN's process")
		default:
			c.unknown(m.value)
		}
	}
	return found
}

// listener reads a listener: the one of the runtime, the one of the actuator, or another.
func (c *conversion) listener(l *value) (found bool) {
	address, network := l.text("address"), l.text("network")
	if network == "unix" {
		address = "unix:" + address
	}
	actuator := false
	for _, f := range l.get("stream_filters").items {
		actuator = actuator || f.text("type") == "actuator_filter"
	}
	for _, chain := range l.get("filter_chains").items {
		for _, f := range chain.get("filters").items {
			switch kind := f.text("type"); kind {
			case "grpc":
				config := f.get("config").get("grpc_config")
				if config.line == 0 {
					c.missing(f, "it has no grpc_config")
					continue
				}
				found = true
				c.spec.API.Layotto.GRPC = append(c.spec.API.Layotto.GRPC, address)
				c.runtime(config)
			case "proxy":
				if !actuator {
					c.missing(f, "a proxy: declare a Gateway that listens on %s, and an HTTPRoute", address)
				}
			case "tcpcopy":
				c.missing(f, "traffic is not recorded; an HTTPRoute can mirror requests")
			default:
				c.missing(f, "there is no network filter %s", kind)
			}
		}
		for _, m := range chain.members {
			if m.name == "tls_context" || m.name == "tls_context_set" {
				c.missing(m.value, "the API is served without TLS, to the program beside it")
			}
		}
	}
	for _, f := range l.get("stream_filters").items {
		switch kind := f.text("type"); kind {
		case "actuator_filter":
			c.spec.API.Layotto.HTTP = append(c.spec.API.Layotto.HTTP, address)
		case "flowControlFilter":
			c.missing(f, "limits are not kept on calls of the API; a Policy with a rateLimit keeps them on routes")
		case "Layotto", "layotto":
			c.missing(f, "declare a Function for each of its Wasm files")
		default:
			c.missing(f, "there is no filter %s of requests", kind)
		}
	}
	for _, m := range l.members {
		switch m.name {
		case "name", "address", "bind_port", "network", "filter_chains", "stream_filters":
		case "type", "log_path", "log_level", "access_logs":
			c.other(m.value, "of MOSN's listener")
		default:
			c.unknown(m.value)
		}
	}
	return found
}

// layottoKinds are the sections of a grpc_config with components, under the names that versions of Layotto gave them:
// the capability they are of, and what a component's type begins with in Dapr's words and in ours.
var layottoKinds = map[string]struct {
	capability string
	prefixes   []string
}{
	"state":         {"state", []string{"state."}},
	"pub_subs":      {"pubsub", []string{"pubsub."}},
	"pubsub":        {"pubsub", []string{"pubsub."}},
	"delay_queue":   {"pubsub", []string{"pubsub."}},
	"config_store":  {"config", []string{"configuration.", "config."}},
	"config_stores": {"config", []string{"configuration.", "config."}},
	"lock":          {"lock", []string{"lock."}},
	"sequencer":     {"sequence", []string{"sequence."}},
	"secret_store":  {"secret", []string{"secretstores.", "secret."}},
	"bindings":      {"binding", []string{"bindings.", "binding."}},
	"file":          {"file", []string{"file."}},
	"oss":           {"file", []string{"file."}},
	"cryption":      {"crypto", []string{"crypto."}},
}

// runtime reads a grpc_config.
func (c *conversion) runtime(config *value) {
	for _, m := range config.members {
		if kind, ok := layottoKinds[m.name]; ok {
			for _, component := range m.members {
				c.component(m.name, kind.capability, kind.prefixes, component.name, component.value)
			}
			continue
		}
		switch m.name {
		case "app":
			c.application(m.value)
		case "hellos":
			for _, h := range m.members {
				if greeting := h.text("hello"); greeting != "" && greeting != "greeting" {
					c.missing(h.value, "SayHello says greeting, never %q", greeting)
				}
				c.references(h.value)
			}
		case "rpcs":
			c.missing(m.value, "InvokeService calls the App, Function or Service whose name is the request's id: declare it")
		case "email", "sms", "phone":
			c.missing(m.value, "there is no such capability; its calls are answered Unimplemented")
		case "custom_component":
			c.missing(m.value, "components of your own are reached by pluggable components")
		default:
			c.unknown(m.value)
		}
	}
}

func (c *conversion) application(v *value) {
	port, host := "", "127.0.0.1"
	for _, m := range v.members {
		switch m.name {
		case "app_id":
			if m.scalar != "" {
				c.id = c.name(m.value, m.scalar)
			}
		case "grpc_callback_port":
			port = m.scalar
		case "grpc_callback_host":
			host = cmp.Or(m.scalar, host)
		default:
			c.unknown(m.value)
		}
	}
	if port != "" && port != "0" {
		c.spec.Address, c.spec.Protocol = net.JoinHostPort(host, port), "grpc"
	}
}

// component reads one component of a section.
func (c *conversion) component(section, capability string, prefixes []string, name string, v *value) {
	kind := v.text("type")
	if kind == "" {
		kind = name // as in Layotto's first versions
	}
	typ := c.typeOf(prefixes, kind)
	if typ == "" {
		c.missing(v, "there is no component %s%s; a pluggable component can bring it", prefixes[0], kind)
		return
	}
	r := layottoResource{APIVersion: "dapr.io/v1alpha1", Kind: "Component"}
	spec := layottoComponent{Type: typ, Version: "v1"}
	for _, m := range v.members {
		switch m.name {
		case "type", "metadata", "secret_ref", "component_ref":
		case "biggerthan":
			c.missing(m.value, "a sequence begins at 1; set it in the store")
		case "address", "timeout", "store_name":
			c.missing(m.value, "say it in the component's metadata")
		default:
			c.unknown(m.value)
		}
	}
	spec.Metadata = c.settings(section, typ, v.get("metadata"))
	spec.Metadata, r.Auth = c.secrets(spec.Metadata, v.get("secret_ref"))
	c.references(v)
	if section == "state" && !slices.ContainsFunc(spec.Metadata, func(s layottoSetting) bool { return s.Name == "keyPrefix" }) {
		// Layotto's default, which is not Dapr's: the same keys for everyone.
		spec.Metadata = append(spec.Metadata, layottoSetting{Name: "keyPrefix", Value: new("none")})
	}
	name = c.name(v, name)
	if other, taken := c.names[name]; taken {
		// Names are a capability's own in Layotto; its dialect here finds the second one by this name too.
		c.other(v, "%s has the name %q already: this one is called %s.%s, and programs go on saying %q", other, name, capability, name, name)
		name = capability + "." + name
	}
	c.names[name] = capability
	r.Metadata, r.Spec = map[string]string{"name": name}, spec
	c.components = append(c.components, r)
}

// name is what may be the name of a component or an app that programs know by it.
func (c *conversion) name(v *value, name string) string {
	clean := strings.Trim(strings.Map(func(r rune) rune {
		if r < 0x80 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r)) {
			return r
		}
		return '-'
	}, name), "-_.")
	if clean = cmp.Or(clean, "unnamed"); clean != name {
		c.missing(v, "%q is no name here: it is called %s, and programs must say that", name, clean)
	}
	return clean
}

// typeOf is what the type of a component is called here; "": there is none such.
func (c *conversion) typeOf(prefixes []string, kind string) string {
	words := []string{kind}
	switch kind {
	case "in-memory":
		words = append(words, "memory")
	case "local": // of files
		words = append(words, "localstorage")
	}
	for _, p := range prefixes {
		for _, w := range words {
			if c.types[p+w] {
				return p + w
			}
		}
	}
	return ""
}

// settings are a component's metadata: an object, or a list of one.
func (c *conversion) settings(section, typ string, v *value) []layottoSetting {
	var list []layottoSetting
	if len(v.items) == 1 {
		v = v.items[0]
	}
	if len(v.items) > 1 {
		c.missing(v, "several accounts in one component: declare one for each")
	}
	for _, m := range v.members {
		switch {
		case m.members != nil || m.items != nil:
			c.missing(m.value, "a setting is a text here")
		case section == "sequencer" && (m.key == "segmentCacheEnable" || m.key == "segmentStep"):
			c.other(m.value, "numbers are not reserved ahead")
		case strings.HasSuffix(typ, "memory") && m.name != "keyprefix":
			// A store in memory has nothing to choose. What Layotto's ignored too is not worth a word.
		default:
			list = append(list, layottoSetting{Name: m.key, Value: new(m.scalar)})
		}
	}
	if strings.HasPrefix(typ, "file.local") && !slices.ContainsFunc(list, func(s layottoSetting) bool { return s.Name == "rootPath" }) {
		c.other(v, "files stay in the folder that rootPath names: files; Layotto's reads and writes any path")
		list = append(list, layottoSetting{Name: "rootPath", Value: new("files")})
	}
	return list
}

// secrets puts references in place of what Layotto would have put there when it read them.
func (c *conversion) secrets(list []layottoSetting, refs *value) ([]layottoSetting, map[string]string) {
	var auth map[string]string
	for _, r := range refs.items {
		store, key := cmp.Or(r.text("name"), r.text("store_name")), r.text("key")
		if store == "" || key == "" {
			c.missing(r, "it says no store, or no key")
			continue
		}
		if auth != nil && auth["secretStore"] != store {
			c.missing(r, "secrets of a component come from one store: %s", auth["secretStore"])
			continue
		}
		auth = map[string]string{"secretStore": store}
		sub := cmp.Or(r.text("sub_key"), key)
		setting := layottoSetting{Name: cmp.Or(r.text("inject_as"), sub), SecretKeyRef: map[string]string{"name": key, "key": sub}}
		if i := slices.IndexFunc(list, func(s layottoSetting) bool { return s.Name == setting.Name }); i >= 0 {
			list[i] = setting
		} else {
			list = append(list, setting)
		}
	}
	return list, auth
}

// references tells of components that Layotto would hand to a component.
func (c *conversion) references(v *value) {
	if ref := v.get("component_ref"); ref.line > 0 {
		c.missing(ref, "a component is given no other components; secretKeyRef and envRef give it settings")
	}
}

// A value is one of JSON, with where it stands.
type value struct {
	line    int    // 0: it is not there
	path    string // servers[0].listeners[1].name
	scalar  string // of a string, number, boolean; null is ""
	members []member
	items   []*value
}

// A member of an object. Names are compared as Go's JSON decoder does, which is Layotto's: without regard to case.
type member struct {
	key  string // as it is written
	name string // in lower case
	*value
}

func (v *value) get(name string) *value {
	for _, m := range v.members {
		if m.name == name {
			return m.value
		}
	}
	return &value{path: v.path + "." + name}
}

func (v *value) has(name string) bool    { return v.get(name).line > 0 }
func (v *value) text(name string) string { return v.get(name).scalar }

// maxDepth bounds how deep values are in each other: reading them recurses.
const maxDepth = 100

// parseJSON reads an object with the lines of its values.
func parseJSON(text []byte) (*value, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	p := jsonParser{d: d, text: text, line: 1}
	v, err := p.value("", 0)
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", p.at(), err)
	}
	if v.members == nil {
		return nil, errors.New("it is no JSON object")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("line %d: more after the object's end", p.at())
	}
	return v, nil
}

type jsonParser struct {
	d    *json.Decoder
	text []byte
	seen int64 // bytes of text that line is the number after
	line int
}

// at is the line of what was read last.
func (p *jsonParser) at() int {
	if now := p.d.InputOffset(); now > p.seen {
		p.line += bytes.Count(p.text[p.seen:now], []byte("\n"))
		p.seen = now
	}
	return p.line
}

func (p *jsonParser) value(path string, depth int) (*value, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("values are more than %d deep in each other", maxDepth)
	}
	token, err := p.d.Token()
	if errors.Is(err, io.EOF) {
		return nil, io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	v := &value{line: p.at(), path: path}
	switch t := token.(type) {
	case json.Delim:
		if t == '{' {
			v.members = []member{}
		} else {
			v.items = []*value{}
		}
		for p.d.More() {
			at, key := path+"["+strconv.Itoa(len(v.items))+"]", ""
			if t == '{' {
				token, err := p.d.Token()
				if err != nil {
					return nil, err
				}
				key = token.(string) // the decoder takes no other
				at = strings.TrimPrefix(path+"."+key, ".")
			}
			item, err := p.value(at, depth+1)
			if err != nil {
				return nil, err
			}
			if t == '{' {
				v.members = append(v.members, member{key, strings.ToLower(key), item})
			} else {
				v.items = append(v.items, item)
			}
		}
		if _, err := p.d.Token(); err != nil { // the end of it
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	case string:
		v.scalar = t
	case json.Number:
		v.scalar = t.String()
	case bool:
		v.scalar = strconv.FormatBool(t)
	}
	return v, nil
}
