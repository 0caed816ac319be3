package receiver

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/receiver/protocol"
)

// Drops and hashes are counted only for accepted events.
func TestRedactCounts(t *testing.T) {
	r, s := withProjects(t, nil, Project{Drop: []string{"properties.a"}, Hash: []string{"properties.b"}, Salt: salt, Names: []string{"a"}})
	reg := prometheus.NewRegistry()
	reg.MustRegister(r.metrics.redacted)
	count := func(path, done string) (n float64) {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range families[0].Metric {
			if l := m.Label; l[0].GetValue() == done && l[1].GetValue() == path && l[2].GetValue() == "file" {
				n += m.Counter.GetValue()
			}
		}
		return n
	}
	good := `{"name":"a","a":1,"b":[1,2],"c":{"a":1}}`
	large := `{"name":"a","a":1,"b":[1,2],"c":"` + strings.Repeat("x", 3<<19) + `"}`
	if a := sendFile(t, r, large); a.Accepted != 1 { // its buffers are let go before it is counted
		t.Fatalf("a large event: %+v", a)
	}
	if a, b := count("properties.a", "drop"), count("properties.b", "hash"); a != 1 || b != 2 {
		t.Errorf("of a large event: %v dropped, %v hashed", a, b)
	}
	sendFile(t, r, good+"\n"+good+"\n"+`{"name":"a","a":1,"b":[1,2],"timestamp":"x"}`+"\n"+`{"name":"not allowed","a":1,"b":1}`, "Content-Type", ndjson)
	s.Err = errMemory
	sendFile(t, r, good)
	if a, b := count("properties.a", "drop"), count("properties.b", "hash"); a != 3 || b != 6 {
		t.Errorf("%v dropped, %v hashed", a, b)
	}
}

// Copies are charged to the shared memory, or the event is rejected.
func TestRedactMemory(t *testing.T) {
	r, s := withProjects(t, func(o *Options) { o.BlobThreshold, o.MaxMemory = 1000, 200<<10 }, Project{Drop: []string{"properties.gone"}})
	body := func(n int) string { return `{"name":"a","x":"` + strings.Repeat("x", n) + `"}` }
	if a := sendFile(t, r, body(90<<10)); a.Accepted != 1 || len(s.Blobs) != 1 {
		t.Errorf("%+v", a)
	}
	if a := sendFile(t, r, body(120<<10)); a.Status != 413 || a.Error.Code != "body_too_large" {
		t.Errorf("%+v", a)
	}
	others := hold(t, r, 40<<10)
	if a := sendFile(t, r, body(60<<10)); a.Status != 503 || a.Error.Code != "busy" {
		t.Errorf("%+v", a)
	}
	others.Close()
	if n := r.admission.Memory(); n != 0 {
		t.Errorf("%d bytes are still counted", n)
	}
}

// Files of an event move with the text around them, go with
// it, or are hashed.
func TestRedactFiles(t *testing.T) {
	r, s := withProjects(t, nil, Project{Drop: []string{"properties.a", "properties.gone"}, Hash: []string{"properties.h"}, Salt: salt})
	q := newRequest(r)
	q.reset(1)
	g, err := r.tenants.Find(keyFile, 0)
	if err != nil {
		t.Fatal(err)
	}
	q.key, q.tenant = g.Key, g.Tenant
	m := protocol.MapperFunc(func(d *protocol.Draft, members []jsonscan.Member) {
		q.route.Protocol.Map(d, members)
		for i, key := range []string{"gone", "h", "kept", "last"} {
			d.Parts = append(d.Parts, protocol.Part{As: protocol.Blob, File: &protocol.File{},
				Of: &jsonscan.Member{Key: []byte(key), Value: fmt.Appendf(nil, `"file %d"`, i)}})
		}
	})
	body := []byte(`{"name":"a","properties":{"a":"xxxxx","n":null}}`)
	for range 2 {
		if _, err := q.event(m, body); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Append(t.Context(), q.events, q.rows.Blobs, 0); err != nil {
		t.Fatal(err)
	}
	want := `{"h":"` + hashed(`"file 1"`) + `","kept":"a file","n":null,"last":"a file"}`
	var files []string
	for _, b := range s.Blobs {
		files = append(files, string(b.Data))
	}
	if got, want := strings.Join(files, " "), `"file 2" "file 3" "file 2" "file 3"`; got != want {
		t.Errorf("got files %s, want %s", got, want)
	}
	for i := range 2 {
		if got := s.Whole(t, i); !reflect.DeepEqual(parsed(t, got), parsed(t, []byte(want))) {
			t.Errorf("event %d: %s, want %s", i, got, want)
		}
	}
}
