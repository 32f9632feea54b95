package resource

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/loam-run/loam/internal/size"
	"github.com/loam-run/loam/internal/suggest"
)

const (
	maxFile  = 4 << 20 // bytes
	maxNodes = 250_000 // of a document with its aliases followed: no hand writes as many
)

func decode(file string, data []byte) (objects []*Object, problems []Problem) {
	whole := func(what, hint string) []Problem { return []Problem{{File: file, What: what, Hint: hint}} }
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	switch {
	case len(data) > maxFile:
		return nil, whole("has more than the "+size.Format(maxFile)+" a file may have", "split it into several files")
	case bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")):
		return nil, whole("is UTF-16", "save it as UTF-8")
	}
	for _, doc := range split(string(data)) {
		d := decoder{file: file, line: doc.line}
		objects = append(objects, d.document(doc.text)...)
		problems = append(problems, d.problems...)
	}
	return objects, problems
}

// A part is one document of a file and the number of lines before it.
type part struct {
	text string
	line int
}

// split cuts a file at the lines that YAML reserves for it, so that a syntax error ends one document, not the file.
func split(text string) []part {
	var parts []part
	start, startLine, line := 0, 0, 0
	add := func(end int) {
		if p := text[start:end]; !blank(p) {
			parts = append(parts, part{p, startLine})
		}
	}
	for at := 0; at < len(text); line++ {
		end := len(text)
		if i := strings.IndexByte(text[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		switch word := strings.TrimRight(text[at:end], "\r\n"); {
		case word == "---" || strings.HasPrefix(word, "--- ") || strings.HasPrefix(word, "---\t"):
			add(at)
			start, startLine = at, line
		case word == "..." || strings.HasPrefix(word, "... "):
			add(at)
			start, startLine = end, line+1
		}
		at = end
	}
	add(len(text))
	return parts
}

// blank tells whether a document has nothing but comments, directives and its own marker.
func blank(text string) bool {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line != "" && line != "---" && line[0] != '#' && line[0] != '%' {
			return false
		}
	}
	return true
}

// A decoder reads one document.
type decoder struct {
	file     string
	line     int // lines before the document
	problems []Problem
	object   *Object // the one being read: its places take positions
	nodes    int
}

// problem adds a problem of the field at path, which stands at n.
func (d *decoder) problem(n *yaml.Node, path, what, hint string) {
	d.problems = append(d.problems, Problem{File: d.file, Line: n.Line + d.line, Column: n.Column, Path: path, What: what, Hint: hint})
}

// document decodes a document, or each item of a List.
func (d *decoder) document(text string) []*Object {
	if !utf8.ValidString(text) {
		line, column := 1, 1
		for _, r := range text {
			if r == utf8.RuneError {
				break
			}
			column++
			if r == '\n' {
				line, column = line+1, 1
			}
		}
		d.problem(&yaml.Node{Line: line, Column: column}, "", "is not UTF-8 from here on", "save the file as UTF-8")
		return nil
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(asYAML(text)), &doc); err != nil {
		d.problems = append(d.problems, syntaxProblem(d.file, d.line, text, err))
		return nil
	}
	if len(doc.Content) == 0 || isNull(doc.Content[0]) {
		return nil
	}
	return d.resource(doc.Content[0])
}

func (d *decoder) resource(n *yaml.Node) []*Object {
	before := len(d.problems)
	n = follow(n)
	if n.Kind != yaml.MappingNode {
		d.problem(n, "", "a resource is a mapping, but this is "+describe(n), "begin with apiVersion:, kind:, metadata: and spec:")
		return nil
	}
	var version, name *yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch n.Content[i].Value {
		case "apiVersion":
			version = follow(n.Content[i+1])
		case "kind":
			name = follow(n.Content[i+1])
		}
	}
	if version != nil && name != nil && version.Value == "v1" && name.Value == "List" {
		return d.list(n)
	}

	o := &Object{File: d.file, Line: n.Line + d.line, places: map[string]place{}}
	d.object = o
	k := d.kind(n, version, name)
	o.APIVersion, o.Kind = k.apiVersion, k.name
	head := reflect.New(headType(k))
	fillIn(head.Elem())
	d.mapping(n, head.Elem(), "")
	meta := head.Elem().FieldByName("Metadata").Interface().(metadata)
	o.Name, o.Labels, o.Annotations = meta.Name, meta.Labels, meta.Annotations
	switch {
	case k.spec == nil:
	case k.inline:
		o.Spec = k.spec()
		for i, spec := 0, reflect.ValueOf(o.Spec).Elem(); i < spec.NumField(); i++ {
			if f := spec.Type().Field(i); f.IsExported() {
				spec.Field(i).Set(head.Elem().FieldByName(f.Name))
			}
		}
		complete(o)
	default:
		o.Spec = head.Elem().FieldByName("Spec").Addr().Interface()
		if k.scopes {
			o.Scopes = head.Elem().FieldByName("Scopes").Interface().([]string)
		}
		if k.auth {
			reflect.ValueOf(o.Spec).Elem().FieldByName("SecretStore").SetString(head.Elem().FieldByName("Auth").Interface().(auth).SecretStore)
		}
		complete(o)
	}
	if d.nodes <= maxNodes {
		d.merge(before, validate(o))
	}
	if broken := d.problems[before:]; len(broken) > 0 {
		slices.SortStableFunc(broken, func(a, b Problem) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
		})
		if o.Kind != "" && o.Name != "" {
			for i := range broken {
				broken[i].Key = o.Key()
				if p, ok := o.Spec.(*Policy); ok && p.Protects() {
					broken[i].Protects = p.TargetRefs
				}
			}
		}
		return nil
	}
	return []*Object{o}
}

// list decodes the items of a List, as `kubectl get -o yaml` writes them.
func (d *decoder) list(n *yaml.Node) (objects []*Object) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, items := n.Content[i], follow(n.Content[i+1])
		switch key.Value {
		case "apiVersion", "kind", "metadata":
		case "items":
			if items.Kind != yaml.SequenceNode {
				d.problem(items, "items", "must be a list, but is "+describe(items), "write one resource after each -")
				continue
			}
			for _, item := range items.Content {
				objects = append(objects, d.resource(item)...)
			}
		default:
			d.unknown(key, key.Value, "a List", []string{"apiVersion", "kind", "metadata", "items"}, nil)
		}
	}
	return objects
}

// kind finds the row of the table, a row without a spec where there is none.
func (d *decoder) kind(n, version, name *yaml.Node) kind {
	var found []kind
	var names []string
	for _, k := range kinds {
		if !slices.Contains(names, k.name) {
			names = append(names, k.name)
		}
		if name != nil && k.name == name.Value {
			if version != nil && k.apiVersion == version.Value {
				return k
			}
			found = append(found, k)
		}
	}
	switch {
	case name == nil || name.Value == "":
		d.problem(n, "kind", "is missing", "write kind: with one of "+strings.Join(names, ", "))
	case name.Kind != yaml.ScalarNode:
		d.problem(name, "kind", "must be text, but is "+describe(name), "write one of "+strings.Join(names, ", "))
	case found == nil && laterKinds[name.Value] != "":
		d.problem(name, "kind", name.Value+" is not supported yet", laterKinds[name.Value])
	case found == nil:
		d.problem(name, "kind", "there is no kind "+strconv.Quote(name.Value), meant(name.Value, names, "the kinds are "))
	}
	switch {
	case version == nil || version.Value == "":
		hint := "write apiVersion: " + loamV1alpha1
		if found != nil {
			hint = "write apiVersion: " + found[0].apiVersion
		}
		d.problem(n, "apiVersion", "is missing", hint)
	case version.Kind != yaml.ScalarNode:
		d.problem(version, "apiVersion", "must be text, but is "+describe(version), "write apiVersion: "+loamV1alpha1)
	case found != nil:
		versions := make([]string, len(found))
		for i, k := range found {
			versions[i] = k.apiVersion
		}
		d.problem(version, "apiVersion", fmt.Sprintf("%s has no version %q here", name.Value, version.Value), "write "+strings.Join(versions, " or "))
	case slices.IndexFunc(kinds, func(k kind) bool { return k.apiVersion == version.Value }) < 0:
		d.problem(version, "apiVersion", fmt.Sprintf("there is no apiVersion %q", version.Value),
			meant(version.Value, []string{loamV1alpha1, daprV1alpha1, daprV2alpha1, gatewayV1, coreV1}, "it is one of "))
	}
	if found != nil { // the fields of another version are still worth a look
		return found[0]
	}
	return kind{}
}

// metadata is what every kind has beside its spec. Loam has one namespace; the field is taken so that one file can be
// given to a cluster too.
type metadata struct {
	Name        string            `yaml:"name" need:"name: orders"`
	Namespace   string            `yaml:"namespace"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

// auth says where the secrets are that a spec refers to.
type auth struct {
	SecretStore string `yaml:"secretStore" need:"secretStore: vault"`
}

// headType is the struct of a whole document of that kind.
func headType(k kind) reflect.Type {
	field := func(name string, typ reflect.Type, tag reflect.StructTag) reflect.StructField {
		return reflect.StructField{Name: name, Type: typ, Tag: tag}
	}
	fields := []reflect.StructField{
		field("APIVersion", reflect.TypeFor[any](), `yaml:"apiVersion"`), // kind has looked at these two
		field("Kind", reflect.TypeFor[any](), `yaml:"kind"`),
		field("Metadata", reflect.TypeFor[metadata](), `yaml:"metadata" need:"metadata: {name: orders}"`),
	}
	if k.spec == nil {
		return reflect.StructOf(append(fields, field("Spec", reflect.TypeFor[any](), `yaml:"spec"`), field("Scopes", reflect.TypeFor[any](), `yaml:"scopes"`)))
	}
	if k.inline {
		for i, spec := 0, reflect.TypeOf(k.spec()).Elem(); i < spec.NumField(); i++ {
			f := spec.Field(i)
			if !f.IsExported() { // StructOf makes no unexported fields, and this one only carries a tag
				f = field("Later", f.Type, f.Tag)
			}
			fields = append(fields, field(f.Name, f.Type, f.Tag))
		}
		return reflect.StructOf(fields)
	}
	fields = append(fields, field("Spec", reflect.TypeOf(k.spec()).Elem(), `yaml:"spec" need:"spec:"`))
	if k.scopes {
		fields = append(fields, field("Scopes", reflect.TypeFor[[]string](), `yaml:"scopes"`))
	}
	if k.auth {
		fields = append(fields, field("Auth", reflect.TypeFor[auth](), `yaml:"auth"`))
	}
	return reflect.StructOf(fields)
}

// value decodes n into v, whose field has tag. It tells whether a value is there and well.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string, tag reflect.StructTag) (there, ok bool) {
	if d.nodes++; d.nodes > maxNodes {
		if d.nodes == maxNodes+1 {
			d.problem(n, path, fmt.Sprintf("the document has more than %d values once its aliases are followed", maxNodes), "write less with * aliases")
		}
		return true, false
	}
	n = follow(n)
	if isNull(n) {
		return false, true
	}
	if n.Tag != "" && !strings.HasPrefix(n.ShortTag(), "!!") {
		d.problem(n, path, "the tag "+n.Tag+" means nothing here", "delete it")
		return true, false
	}
	switch v.Interface().(type) {
	case time.Duration:
		return true, d.duration(n, v, path)
	case Bytes:
		return true, d.bytes(n, v, path)
	case Percent:
		return true, d.percent(n, v, path)
	case Sensitive:
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" { // said without the value
			d.problem(n, path, "must be text", "put it in quotes")
			return true, false
		}
	case Text:
		if n.Kind != yaml.ScalarNode {
			return true, d.wrong(n, path, "text")
		}
		v.SetString(n.Value)
		return true, true
	}
	switch v.Kind() {
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		if p.Elem().Kind() == reflect.Struct {
			fillIn(p.Elem())
		}
		v.Set(p)
		d.nodes-- // it is counted as what it points to
		return d.value(n, p.Elem(), path, tag)
	case reflect.Struct:
		if n.Kind != yaml.MappingNode {
			return true, d.wrong(n, path, "a mapping")
		}
		return true, d.mapping(n, v, path)
	case reflect.Slice:
		if n.Kind == yaml.ScalarNode && tag.Get("one") != "" {
			n = &yaml.Node{Kind: yaml.SequenceNode, Line: n.Line, Column: n.Column, Content: []*yaml.Node{n}}
		}
		if n.Kind != yaml.SequenceNode {
			return true, d.wrong(n, path, "a list")
		}
		return true, d.sequence(n, v, path, tag)
	case reflect.Map:
		if n.Kind != yaml.MappingNode {
			return true, d.wrong(n, path, "a mapping")
		}
		return true, d.strings(n, v, path)
	case reflect.Int:
		return true, d.int(n, v, path, tag)
	case reflect.Float64:
		return true, d.float(n, v, path)
	case reflect.Bool:
		return true, d.bool(n, v, path, tag)
	case reflect.String:
		return true, d.text(n, v, path, tag)
	}
	return true, true // an any: somebody else looks at it
}

// wrong reports a value of another type and returns false.
func (d *decoder) wrong(n *yaml.Node, path, want string) bool {
	hint := "write one value"
	switch {
	case want == "text" && n.Kind == yaml.ScalarNode:
		hint = "put it in quotes: " + strconv.Quote(n.Value)
	case want == "a list" && n.Kind == yaml.ScalarNode:
		hint = "write [" + n.Value + "]"
	case want == "a list":
		hint = "put a - before each item"
	case want == "a mapping" && n.Kind == yaml.SequenceNode:
		hint = "delete the -, and write its fields below"
	case want == "a mapping":
		hint = "write its fields below, one name: value a line"
	}
	d.problem(n, path, "must be "+want+", but is "+describe(n), hint)
	return false
}

func (d *decoder) text(n *yaml.Node, v reflect.Value, path string, tag reflect.StructTag) bool {
	if t := n.ShortTag(); n.Kind != yaml.ScalarNode || t != "!!str" && t != "!!timestamp" {
		return d.wrong(n, path, "text")
	}
	v.SetString(n.Value)
	enum := tag.Get("enum")
	if enum == "" {
		return true
	}
	known := strings.Split(enum, ",")
	switch {
	case slices.Contains(known, n.Value):
		return true
	case slices.Contains(strings.Split(tag.Get("later"), ","), n.Value):
		d.problem(n, path, n.Value+" is not supported yet", "write "+strings.Join(known, " or "))
	default:
		d.problem(n, path, strconv.Quote(n.Value)+" is none of its values", meant(n.Value, known, "write one of "))
	}
	return false
}

func (d *decoder) int(n *yaml.Node, v reflect.Value, path string, tag reflect.StructTag) bool {
	quoted := tag.Get("quoted") != "" && n.ShortTag() == "!!str"
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" && !quoted {
		hint := "write its digits"
		if _, err := strconv.Atoi(n.Value); err == nil {
			hint = "write " + n.Value + " without quotes"
		}
		d.problem(n, path, "must be a whole number, but is "+describe(n), hint)
		return false
	}
	i, err := strconv.ParseInt(n.Value, 0, 32)
	if err != nil {
		d.problem(n, path, n.Value+" is not a whole number that fits", "write a smaller one")
		return false
	}
	v.SetInt(i)
	return true
}

// float reads a number that is finite.
func (d *decoder) float(n *yaml.Node, v reflect.Value, path string) bool {
	f, err := strconv.ParseFloat(strings.ReplaceAll(n.Value, "_", ""), 64)
	if t := n.ShortTag(); n.Kind != yaml.ScalarNode || t != "!!int" && t != "!!float" || err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		d.problem(n, path, "must be a number, but is "+describe(n), "write one such as 0.5")
		return false
	}
	v.SetFloat(f)
	return true
}

func (d *decoder) percent(n *yaml.Node, v reflect.Value, path string) bool {
	if number, ok := strings.CutSuffix(n.Value, "%"); ok {
		d.problem(n, path, "must be a number, but is "+describe(n), "write "+strings.TrimSpace(number))
		return false
	}
	if !d.float(n, v, path) {
		return false
	}
	if f := v.Float(); f < 0 || f > 100 {
		d.problem(n, path, n.Value+" is not between 0 and 100", "write a share in percent, such as 5")
		return false
	}
	return true
}

func (d *decoder) bool(n *yaml.Node, v reflect.Value, path string, tag reflect.StructTag) bool {
	quoted := tag.Get("quoted") != "" && (n.Value == "true" || n.Value == "false")
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" && !quoted {
		d.problem(n, path, "must be true or false, but is "+describe(n), "write true or false")
		return false
	}
	v.SetBool(strings.EqualFold(n.Value, "true"))
	return true
}

func (d *decoder) duration(n *yaml.Node, v reflect.Value, path string) bool {
	t, err := time.ParseDuration(n.Value)
	if err == nil && n.Kind == yaml.ScalarNode && (n.ShortTag() == "!!str" || t == 0) {
		v.SetInt(int64(t))
		return true
	}
	hint := "write one such as 500ms, 30s or 5m"
	if _, err := strconv.ParseFloat(n.Value, 64); err == nil {
		hint = "write its unit: " + n.Value + "s"
	}
	d.problem(n, path, "must be a duration, but is "+describe(n), hint)
	return false
}

func (d *decoder) bytes(n *yaml.Node, v reflect.Value, path string) bool {
	b, err := size.Parse(n.Value)
	if err == nil && n.Kind == yaml.ScalarNode {
		v.SetInt(b)
		return true
	}
	hint := "write one such as 64Mi or 1Gi"
	if number := strings.TrimRight(n.Value, " BbIiMmGgKk"); number != n.Value {
		unit := strings.TrimLeft(n.Value, "0123456789. ")
		if _, err := size.Parse(number + strings.ToUpper(unit[:1]) + "i"); err == nil && strings.ContainsAny(unit[:1], "MmGgKk") {
			hint = "write " + number + strings.ToUpper(unit[:1]) + "i"
		}
	}
	d.problem(n, path, "must be an amount of memory, but is "+describe(n), hint)
	return false
}

func (d *decoder) sequence(n *yaml.Node, v reflect.Value, path string, tag reflect.StructTag) bool {
	well := true
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		at := path + "[" + strconv.Itoa(i) + "]"
		d.object.places[at] = place{item.Line + d.line, item.Column}
		if list.Index(i).Kind() == reflect.Struct {
			fillIn(list.Index(i))
		}
		there, ok := d.value(item, list.Index(i), at, tag)
		if !there {
			d.problem(item, at, "is empty", "write a value after the -, or delete it")
		}
		well = well && ok && there
		if d.nodes > maxNodes {
			break
		}
	}
	v.Set(list)
	return well
}

func (d *decoder) strings(n *yaml.Node, v reflect.Value, path string) bool {
	well := true
	m := reflect.MakeMap(v.Type())
	for key, item := range d.pairs(n, path) {
		at := join(path, key.Value)
		d.object.places[at] = place{item.Line + d.line, item.Column}
		one := reflect.New(v.Type().Elem()).Elem()
		if one.Kind() == reflect.Struct {
			fillIn(one)
		}
		_, ok := d.value(item, one, at, "")
		m.SetMapIndex(reflect.ValueOf(key.Value), one)
		well = well && ok
	}
	v.Set(m)
	return well
}

// mapping decodes n into the struct v, which holds its defaults already.
func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) bool {
	before := len(d.problems)
	typ := v.Type()
	fields := map[string]int{}
	var known, later []string
	var rest reflect.Value // a map, of what is not named
	for i := range typ.NumField() {
		if name := typ.Field(i).Tag.Get("yaml"); name == "*" {
			rest = v.Field(i)
		} else if name != "" {
			fields[name] = i
			known = append(known, name)
		} else if names := typ.Field(i).Tag.Get("later"); names != "" {
			later = append(later, strings.Split(names, ",")...)
		}
	}
	type state struct{ there, ok bool }
	seen := map[int]state{}
	for key, item := range d.pairs(n, path) {
		at := join(path, key.Value)
		i, ok := fields[key.Value]
		if !ok && rest.IsValid() && suggest.Nearest(key.Value, known) == "" {
			text := reflect.New(rest.Type().Elem()).Elem()
			if _, ok := d.value(item, text, at, ""); ok {
				if rest.IsNil() {
					rest.Set(reflect.MakeMap(rest.Type()))
				}
				rest.SetMapIndex(reflect.ValueOf(key.Value), text)
			}
			continue
		}
		if !ok {
			if near, ok := fields[d.unknown(key, at, "", known, later)]; ok {
				seen[near] = state{there: true} // what was meant is not missing too
			}
			continue
		}
		where := item
		if item.Kind != yaml.ScalarNode && item.Style&yaml.FlowStyle == 0 {
			where = key
		}
		d.object.places[at] = place{where.Line + d.line, where.Column}
		var s state
		s.there, s.ok = d.value(item, v.Field(i), at, typ.Field(i).Tag)
		seen[i] = s
	}
	for i := range typ.NumField() {
		need := typ.Field(i).Tag.Get("need")
		if need == "" {
			continue
		}
		s, written := seen[i]
		f := v.Field(i)
		switch empty := f.IsZero() || f.Kind() == reflect.Slice && f.Len() == 0; {
		case !s.there:
			p := d.object.Problem(join(path, typ.Field(i).Tag.Get("yaml")), "is missing", "write "+need)
			if written {
				p.What = "is empty"
			}
			p.Key = ""
			d.problems = append(d.problems, p)
		case s.ok && empty && (f.Kind() == reflect.String || f.Kind() == reflect.Slice):
			p := d.object.Problem(join(path, typ.Field(i).Tag.Get("yaml")), "is empty", "write "+need)
			p.Key = ""
			d.problems = append(d.problems, p)
		}
	}
	return len(d.problems) == before
}

// pairs yields the keys and values of a mapping: what << merges in comes last and only where it is not there itself.
func (d *decoder) pairs(n *yaml.Node, path string) func(yield func(key, value *yaml.Node) bool) {
	return func(yield func(key, value *yaml.Node) bool) {
		seen := map[string]int{}
		var merged []*yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			if key.ShortTag() == "!!merge" {
				if value = follow(value); value.Kind == yaml.SequenceNode {
					merged = append(merged, value.Content...)
				} else {
					merged = append(merged, value)
				}
				continue
			}
			if key.Kind != yaml.ScalarNode {
				d.problem(key, path, "a field's name must be text, but this is "+describe(follow(key)), "write name: value")
				continue
			}
			if line, ok := seen[key.Value]; ok {
				d.problem(key, join(path, key.Value), fmt.Sprintf("is there twice, on line %d already", line), "keep one of them")
				continue
			}
			seen[key.Value] = key.Line + d.line
			if !yield(key, value) {
				return
			}
		}
		for _, m := range merged {
			if m = follow(m); m.Kind != yaml.MappingNode {
				d.problem(m, path, "<< takes a mapping, but this is "+describe(m), "write <<: *name of a mapping's & anchor")
				continue
			}
			for i := 0; i+1 < len(m.Content) && d.nodes <= maxNodes; i += 2 {
				key := m.Content[i]
				if _, ok := seen[key.Value]; ok || key.Kind != yaml.ScalarNode {
					continue
				}
				seen[key.Value] = key.Line + d.line
				if !yield(key, m.Content[i+1]) {
					return
				}
			}
		}
	}
}

// unknown reports a field that is not there and returns the one that was meant, where that can be guessed.
func (d *decoder) unknown(key *yaml.Node, path, of string, known, later []string) string {
	what := "there is no such field"
	if of != "" {
		what += " in " + of
	}
	if slices.Contains(later, key.Value) {
		d.problem(key, path, "is not supported yet", "delete it")
		return ""
	}
	d.problem(key, path, what, meant(key.Value, known, "the fields here are "))
	return suggest.Nearest(key.Value, known)
}

// merge adds problems of validation, but for those of fields that have a problem already.
func (d *decoder) merge(before int, more []Problem) {
	have := d.problems[before:]
	for _, p := range more {
		if !slices.ContainsFunc(have, func(h Problem) bool { return within(p.Path, h.Path) || within(h.Path, p.Path) }) {
			d.problems = append(d.problems, p)
		}
	}
}

// within tells whether the field at path is the one at outer or inside it.
func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && outer != "" && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

func follow(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// describe says what a value is, in words.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	text := n.Value
	if len(text) > 40 {
		text = text[:40] + "…"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "the number " + text
	case "!!bool":
		return text
	case "!!null":
		return "empty"
	}
	return "the text " + strconv.Quote(text)
}

// meant is the hint for a word that is none of known.
func meant(word string, known []string, list string) string {
	if near := suggest.Nearest(word, known); near != "" {
		return "did you mean " + near + "?"
	}
	return list + strings.Join(known, ", ")
}
