package dapr

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/loam-run/loam/capability/jobs"
	"github.com/loam-run/loam/internal/protowire"
)

// valueType is the type of a job's data that was scheduled by HTTP: any JSON, as google.protobuf.Value has it.
const valueType = "type.googleapis.com/google.protobuf.Value"

const maxValueDepth = 200 // of JSON inside JSON

var (
	errDepth = fmt.Errorf("values inside each other more than %d deep", maxValueDepth)
	errValue = errors.New("not a google.protobuf.Value")
)

// jobData is what a program that is called by HTTP gets of a job: JSON as it was scheduled, or the bytes that a client of
// gRPC scheduled. A program that is called by gRPC gets an Any of the job's Type and Data.
func jobData(job jobs.Job) ([]byte, error) {
	if job.Type != valueType {
		return bytes.TrimSpace(job.Data), nil
	}
	return appendValueJSON(nil, job.Data, 0)
}

// anyJSON is an Any as protobuf's JSON has it. Of a type that is not known here it is the bytes in base64.
func anyJSON(typ string, data []byte) json.RawMessage {
	if typ == "" && len(data) == 0 {
		return nil
	}
	b, err := json.Marshal(typ)
	if err != nil {
		panic("dapr: " + err.Error()) // a string
	}
	b = append(append([]byte(`{"@type":`), b...), `,"value":`...)
	if typ == valueType {
		if out, err := appendValueJSON(b, data, 0); err == nil {
			return append(out, '}')
		}
	}
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, data)
	return append(b, `"}`...)
}

// valueOf is JSON as a google.protobuf.Value, encoded.
func valueOf(text []byte) ([]byte, error) {
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return nil, err
	}
	return appendValue(nil, v, 0)
}

func appendValue(b []byte, v any, depth int) ([]byte, error) {
	if depth > maxValueDepth {
		return nil, errDepth
	}
	switch v := v.(type) {
	case nil:
		return append(b, 1<<3, 0), nil
	case float64:
		return binary.LittleEndian.AppendUint64(append(b, 2<<3|1), math.Float64bits(v)), nil
	case string:
		return protowire.AppendField(b, 3, []byte(v)), nil
	case bool:
		if v {
			return append(b, 4<<3, 1), nil
		}
		return append(b, 4<<3, 0), nil
	case map[string]any:
		var fields []byte
		for _, k := range slices.Sorted(maps.Keys(v)) {
			value, err := appendValue(nil, v[k], depth+1)
			if err != nil {
				return nil, err
			}
			fields = protowire.AppendField(fields, 1, protowire.AppendField(protowire.AppendField(nil, 1, []byte(k)), 2, value))
		}
		return protowire.AppendField(b, 5, fields), nil
	case []any:
		var values []byte
		for _, one := range v {
			value, err := appendValue(nil, one, depth+1)
			if err != nil {
				return nil, err
			}
			values = protowire.AppendField(values, 1, value)
		}
		return protowire.AppendField(b, 6, values), nil
	}
	return nil, errValue
}

// appendValueJSON adds an encoded google.protobuf.Value as JSON.
func appendValueJSON(b, value []byte, depth int) ([]byte, error) {
	if depth > maxValueDepth {
		return nil, errDepth
	}
	var last protowire.Field
	for len(value) > 0 {
		f, rest, err := protowire.Next(value)
		if err != nil {
			return nil, err
		}
		last, value = f, rest
	}
	switch last.Number() {
	case 2:
		var f float64
		if last.Tag == 2<<3|1 {
			f = math.Float64frombits(binary.LittleEndian.Uint64(last.Data))
		}
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, errValue
		}
		text, err := json.Marshal(f)
		return append(b, text...), err
	case 3:
		text, err := json.Marshal(string(last.Data))
		return append(b, text...), err
	case 4:
		return strconv.AppendBool(b, last.Num != 0), nil
	case 5:
		return appendStructJSON(append(b, '{'), last.Data, depth)
	case 6:
		b = append(b, '[')
		for i, rest := 0, last.Data; len(rest) > 0; i++ {
			f, more, err := protowire.Next(rest)
			if err != nil {
				return nil, err
			}
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendValueJSON(b, f.Data, depth+1); err != nil {
				return nil, err
			}
			rest = more
		}
		return append(b, ']'), nil
	}
	return append(b, "null"...), nil
}

func appendStructJSON(b, fields []byte, depth int) ([]byte, error) {
	for i := 0; len(fields) > 0; i++ {
		entry, more, err := protowire.Next(fields)
		if err != nil {
			return nil, err
		}
		fields = more
		var key, value []byte
		for rest := entry.Data; len(rest) > 0; {
			var f protowire.Field
			if f, rest, err = protowire.Next(rest); err != nil {
				return nil, err
			}
			switch f.Number() {
			case 1:
				key = f.Data
			case 2:
				value = f.Data
			}
		}
		name, err := json.Marshal(string(key))
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, name...), ':')
		if b, err = appendValueJSON(b, value, depth+1); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// parseDuration reads a google.protobuf.Duration as JSON has it: 1.5s.
func parseDuration(text string) (time.Duration, error) {
	if !strings.HasSuffix(text, "s") || strings.HasSuffix(text, "ms") || strings.HasSuffix(text, "us") || strings.HasSuffix(text, "ns") {
		return 0, fmt.Errorf("invalid google.protobuf.Duration value %q", text)
	}
	d, err := time.ParseDuration(text)
	if err != nil || strings.ContainsAny(text, "hm") {
		return 0, fmt.Errorf("invalid google.protobuf.Duration value %q", text)
	}
	return d, nil
}

func formatDuration(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s"
}
