package receiver

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"reflect"
	"testing"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// FuzzDecode holds the whole way from a body to events against encoding/json.
func FuzzDecode(f *testing.F) {
	for _, c := range poison {
		if len(c.body) < 1000 {
			f.Add([]byte(c.body), false)
			f.Add([]byte("["+one+","+c.body+"]"), false)
			f.Add([]byte(one+"\n"+c.body+"\r\n"+one), true)
		}
	}
	f.Add([]byte("{\"name\":\"a\",\n\"x\":[\r1],\"properties\":{\"y\"\n:\"\\n\"}, \"event_id\":\"\\u00e9\",\"timestamp\":1795319112.5}\n"+one), false)
	f.Add([]byte("[{\"name\":1,\"event_id\":2,\"properties\":[\n]} , {\"name\":\"b\",\"properties\":\nnull}]"), false)
	f.Add([]byte("{\"a\":[\n{\"a\":[\n{\"name\":\"b\"}\n"+one), false)
	r, _ := newTest(func(o *Options) { o.MaxEvents, o.MaxEvent, o.MaxDepth = 50, 2000, 20 })
	q := newRequest(r) // used again, as the pool does
	f.Fuzz(func(t *testing.T, body []byte, lines bool) {
		q.reset(1795319112345)
		q.in.Lines = lines
		q.project = append(q.project, "game"...)
		q.body = append(q.body, body...)
		refused := q.decode(q.body)
		q.lease.Resize(0)
		if !bytes.Equal(q.body, body) {
			t.Fatal("the body was changed")
		}
		if refused != nil {
			return
		}
		if len(q.events)+q.rejected != q.index || len(q.rejects) != q.rejected {
			t.Fatalf("%d accepted, %d and %d rejected, index %d", len(q.events), q.rejected, len(q.rejects), q.index)
		}
		last := -1
		for _, e := range q.rejects {
			if e.Index <= last || e.Index >= q.index || e.Code == errcode.None || e.Message == "" || !bytes.Contains(body, e.Raw) {
				t.Fatalf("reject %+v behind %d", e, last)
			}
			last = e.Index
		}
		sources := sourcesOf(t, q, body)
		for i := range q.events {
			var want map[string]any
			if sources != nil {
				want = sources[i]
			}
			check(t, &q.events[i], want)
		}
	})
}

// sourcesOf returns the accepted objects as encoding/json reads them, if it can read the whole body and nothing was
// rejected for its structure.
func sourcesOf(t *testing.T, q *request, body []byte) []map[string]any {
	refused := map[int]bool{}
	for _, e := range q.rejects {
		if e.Code == errcode.InvalidJSON {
			return nil
		}
		refused[e.Index] = true
	}
	for i := range body {
		if bytes.HasPrefix(body[i:], []byte{0xED}) && i+1 < len(body) && body[i+1] >= 0xA0 {
			return nil // an encoded surrogate, which is three U+FFFD to encoding/json
		}
	}
	const space = " \t\r\n"
	body = bytes.Trim(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")), space)
	var all []any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	for {
		var v any
		err := d.Decode(&v)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil // rejected content that encoding/json cannot read
		}
		switch elements, array := v.([]any); {
		case array:
			all = append(all, elements...)
		case q.in.Lines && !isObject(v):
			return nil // the rest of its line was rejected with it
		default:
			all = append(all, v)
		}
	}
	var good []map[string]any
	for i, v := range all {
		if !refused[i] {
			good = append(good, v.(map[string]any))
		}
	}
	if len(good) != len(q.events) {
		t.Fatalf("accepted %d, encoding/json finds %d", len(q.events), len(good))
	}
	return good
}

func parse(t *testing.T, text []byte) any {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return v
}

// check holds an accepted event against the object that it was; nil: not known.
func check(t *testing.T, e *pipeline.Event, source map[string]any) {
	if bytes.ContainsAny(e.Properties, "\n\r") || !json.Valid(e.Properties) {
		t.Fatalf("properties %q", e.Properties)
	}
	if len(e.Name) == 0 || len(e.Name) > protocol.MaxName || e.ID == (pipeline.UUID{}) && source == nil {
		t.Fatalf("event %+v", e)
	}
	if source == nil {
		return
	}
	want := maps.Clone(source)
	if id, ok := want["event_id"].(string); want["event_id"] == nil || ok && (id == "" || isUUID(id)) {
		delete(want, "event_id")
	}
	for _, name := range []string{"name", "timestamp", "session_id", "user_id"} {
		delete(want, name)
	}
	switch props := source["properties"].(type) {
	case map[string]any:
		delete(want, "properties")
		for k, v := range props {
			if _, twice := want[k]; twice {
				t.Fatalf("%q is in properties and beside them", k)
			}
			want[k] = v
		}
	case nil:
		delete(want, "properties")
	}
	if got := parse(t, e.Properties); !reflect.DeepEqual(got, any(want)) {
		t.Fatalf("got %q\nwant %v\nof %v", e.Properties, want, source)
	}
	if name, ok := source["name"].(string); ok && name != string(e.Name) {
		t.Fatalf("name %q, want %q", e.Name, name)
	}
}

func isObject(v any) bool {
	_, ok := v.(map[string]any)
	return ok
}

func isUUID(s string) bool {
	_, err := pipeline.ParseUUID([]byte(s))
	return err == nil
}
