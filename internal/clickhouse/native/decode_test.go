package native

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
)

// decoder decodes columns as the server does.
type decoder struct {
	t *testing.T
	b []byte
}

func (d *decoder) bytes(n int) []byte {
	d.t.Helper()
	if n < 0 || n > len(d.b) {
		d.t.Fatalf("%d bytes are left, want %d", len(d.b), n)
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) uint64() uint64 { return binary.LittleEndian.Uint64(d.bytes(8)) }

func (d *decoder) text() string {
	n, k := binary.Uvarint(d.b)
	d.bytes(k)
	return string(d.bytes(int(n)))
}

func (d *decoder) names() []string {
	if version := d.uint64(); version != 3 {
		d.t.Fatalf("version %d, want 3", version)
	}
	n, k := binary.Uvarint(d.b)
	d.bytes(k)
	names := make([]string, n)
	for i := range names {
		names[i] = d.text()
	}
	return names
}

// shape is the content of a column's head: an object's paths, a dynamic's types, or an array's element.
type shape struct {
	names    []string
	inner    []*shape
	kind     string // of a type
	nullable bool   // an array's elements
}

func (d *decoder) object() *shape {
	s := &shape{names: d.names()}
	for range s.names {
		s.inner = append(s.inner, d.dynamic())
	}
	return s
}

func (d *decoder) dynamic() *shape {
	s := &shape{names: d.names()}
	for _, kind := range s.names {
		s.inner = append(s.inner, d.kind(kind))
	}
	return s
}

func (d *decoder) kind(name string) *shape {
	s := &shape{kind: name}
	switch {
	case strings.HasPrefix(name, "JSON"):
		s.inner = []*shape{d.object()}
	case name == "Dynamic":
		s.inner = []*shape{d.dynamic()}
	case strings.HasPrefix(name, "Array("):
		inner := name[6 : len(name)-1]
		if rest, ok := strings.CutPrefix(inner, "Nullable("); ok {
			s.nullable, inner = true, rest[:len(rest)-1]
		}
		s.inner = []*shape{d.kind(inner)}
	}
	return s
}

func (d *decoder) objects(s *shape, rows int) []any {
	all := make([]any, rows)
	for i := range all {
		all[i] = map[string]any{}
	}
	for i, path := range s.names {
		for row, v := range d.dynamics(s.inner[i], rows) {
			if v != nil {
				put(all[row].(map[string]any), strings.Split(path, "."), v)
			}
		}
	}
	return all
}

// put stores a value at a path of keys.
func put(into map[string]any, path []string, v any) {
	for _, key := range path[:len(path)-1] {
		if into[key] == nil {
			into[key] = map[string]any{}
		}
		into = into[key].(map[string]any)
	}
	into[path[len(path)-1]] = v
}

func (d *decoder) dynamics(s *shape, rows int) []any {
	index := d.bytes(rows)
	counts := make([]int, len(s.names)+1)
	for _, i := range index {
		counts[i]++
	}
	values := make([][]any, len(counts))
	for i, of := range s.inner {
		values[i] = d.values(of, counts[i])
	}
	all := make([]any, rows)
	for row, i := range index {
		if int(i) < len(s.inner) {
			all[row] = values[i][0]
			values[i] = values[i][1:]
		}
	}
	return all
}

func (d *decoder) values(s *shape, n int) []any {
	all := make([]any, n)
	switch {
	case strings.HasPrefix(s.kind, "JSON"):
		return d.objects(s.inner[0], n)
	case s.kind == "Dynamic":
		return d.dynamics(s.inner[0], n)
	case strings.HasPrefix(s.kind, "Array("):
		ends := make([]int, n+1)
		for i := range n {
			ends[i+1] = int(d.uint64())
		}
		nulls := make([]byte, ends[n])
		if s.nullable {
			copy(nulls, d.bytes(ends[n]))
		}
		elements := d.values(s.inner[0], ends[n])
		for i := range elements {
			if nulls[i] != 0 {
				elements[i] = nil
			}
		}
		for i := range all {
			all[i] = elements[ends[i]:ends[i+1]]
		}
		return all
	}
	for i := range all {
		switch s.kind {
		case "Bool":
			all[i] = d.bytes(1)[0] == 1
		case "String":
			all[i] = d.text()
		case "Int64":
			all[i] = int64(d.uint64())
		case "UInt64":
			all[i] = d.uint64()
		case "Float64":
			all[i] = math.Float64frombits(d.uint64())
		default:
			d.t.Fatalf("a value of type %s", s.kind)
		}
	}
	return all
}

// rows decodes a column into one text per row.
func rows(t *testing.T, c Column) []string {
	t.Helper()
	d := &decoder{t, encode(c)}
	var all []string
	add := func(v any) { all = append(all, fmt.Sprint(v)) }
	switch c.Type {
	case "JSON":
		for _, v := range d.objects(d.object(), c.Rows) {
			text, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			add(string(text))
		}
	case "LowCardinality(String)":
		version, head := d.uint64(), d.uint64()
		values := make([]string, d.uint64())
		for i := range values {
			values[i] = d.text()
		}
		if n := d.uint64(); version != 1 || head>>8 != 6 || int(n) != c.Rows {
			t.Fatalf("%s: version %d, head %x, %d rows", c.Name, version, head, n)
		}
		var key [8]byte
		for range c.Rows {
			copy(key[:], d.bytes(1<<(head&0xff)))
			add(values[binary.LittleEndian.Uint64(key[:])])
		}
	case "String":
		for range c.Rows {
			add(d.text())
		}
	case "UUID":
		for range c.Rows {
			add(fmt.Sprintf("%016x%016x", d.uint64(), d.uint64()))
		}
	case "UInt32":
		for range c.Rows {
			add(binary.LittleEndian.Uint32(d.bytes(4)))
		}
	default:
		for range c.Rows {
			add(int64(d.uint64()))
		}
	}
	if len(d.b) > 0 {
		t.Errorf("%s: %d bytes are left", c.Name, len(d.b))
	}
	return all
}
