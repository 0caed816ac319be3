package receiver

import (
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

const (
	keyFile    = "key-of-the-file"
	keyPast    = "key-that-expired"
	keyNothing = "key-that-may-nothing"
)

// withProjects is a receiver with settings for a project "file" and a key of it.
func withProjects(t testing.TB, with func(*Options), p Project, keys ...Key) (*Receiver, *sink) {
	t.Helper()
	r, s := newTest(with)
	p.Name = "file"
	keys = append(keys, Key{Project: "file", Name: "usual", Hash: HashKey(keyFile)})
	if err := r.SetProjects([]Project{p}, keys); err != nil {
		t.Fatal(err)
	}
	return r, s
}

// sendFile sends with the usual key of the project "file".
func sendFile(t testing.TB, r *Receiver, body string, header ...string) answer {
	t.Helper()
	return serve(t, r, post("/v1/events", body, append(header, "X-API-Key", keyFile)...))
}

func TestKeysOfTheFile(t *testing.T) {
	r, s := withProjects(t, func(o *Options) { o.SmallBody = 100 }, Project{},
		Key{Project: "file", Name: "old", Hash: HashKey(keyPast), Expires: time.Now().Add(-time.Second)},
		Key{Project: "file", Name: "new", Hash: HashKey("new"), Expires: time.Now().Add(time.Hour), MinDurability: pipeline.Disk},
		Key{Project: "file", Name: "stopped", Hash: HashKey(keyNothing), ReadOnly: true},
		Key{Project: "file", Name: "small", Hash: HashKey("small"), Small: true},
	)
	big := `{"name":"a","x":"` + strings.Repeat("x", 200) + `"}`
	for _, c := range []struct {
		key, query, body string
		status           int
		code             string
	}{
		{key, "", one, 202, ""},
		{keyFile, "", big, 202, ""},
		{keyPast, "", one, 401, "expired_key"},
		{"new", "", one, 202, ""},
		{"new", "?durability=memory", one, 403, "durability_too_low"},
		{keyNothing, "", one, 403, "write_not_allowed"},
		{"small", "", one, 202, ""},
		{"small", "", big, 413, "body_too_large"},
		{"nobody", "", one, 401, "unknown_key"},
	} {
		if a := serve(t, r, post("/v1/events"+c.query, c.body, "X-API-Key", c.key)); a.Status != c.status || a.Error.Code != c.code {
			t.Errorf("%s %s: %d %+v", c.key, c.query, a.Status, a.Error)
		}
	}
	packed := post("/v1/events", string(gzipped([]byte(big))), "X-API-Key", "small", "Content-Encoding", "gzip")
	if a := serve(t, r, packed); a.Status != 413 {
		t.Errorf("large when decompressed: %+v", a)
	}
	if n := len(s.Events); n != 4 || string(s.Events[1].Project) != "file" {
		t.Errorf("%d events", n)
	}
}

// Other keys and projects are in force with the next request.
func TestSetProjects(t *testing.T) {
	r, _ := withProjects(t, nil, Project{})
	if a := sendFile(t, r, one); a.Status != 202 {
		t.Fatalf("%+v", a)
	}
	twice := []Key{{Project: "a", Name: "x", Hash: HashKey("k")}, {Project: "b", Name: "y", Hash: HashKey("k")}}
	if err := r.SetProjects(nil, twice); err == nil || !strings.Contains(err.Error(), `"x" of a`) {
		t.Errorf("the same key twice: %v", err)
	}
	if err := r.SetProjects(nil, []Key{{Project: "a", Name: "x", Hash: HashKey(key)}}); err == nil {
		t.Error("a key of the options once more")
	}
	if a := sendFile(t, r, one); a.Status != 202 {
		t.Errorf("what is refused has changed something: %+v", a)
	}
	if err := r.SetProjects(nil, nil); err != nil {
		t.Fatal(err)
	}
	if a := sendFile(t, r, one); a.Error.Code != "unknown_key" {
		t.Errorf("removed: %+v", a)
	}
	if a := serve(t, r, withKey(post("/v1/events", one))); a.Status != 202 {
		t.Errorf("the options' key: %+v", a)
	}
}
