package document_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/document"
	"github.com/penstock/penstock/receiver/receivertest"
	"github.com/penstock/penstock/receiver/tenant"
)

func TestRedact(t *testing.T) {
	h := func(text string) string { return `"` + receivertest.Hashed(text) + `"` }
	for _, c := range []struct{ drop, hash, props, want string }{
		{"email", "", `{"email":"x","a":1}`, `{"a":1}`},
		{"email", "", `{"a":1, "email" : {"b":[1]} }`, `{"a":1}`},
		{"email", "", `{"email":1}`, `{}`},
		{"email", "", `{"e":{"email":1},"emails":2}`, `{"e":{"email":1},"emails":2}`},
		{"email", "", `{"\u0065mail":"x","a":1}`, `{"a":1}`},
		{"a.b", "", `{"a":{"b":1,"c":2}}`, `{"a":{"c":2}}`},
		{"a.b", "", `{"a.b":1,"a":{"b":{"c":1}},"a.c":3}`, `{"a":{},"a.c":3}`},
		{"a", "", `{"a.b":1,"ab":2,"a":{"x":1}}`, `{"ab":2}`},
		{"a.b.c", "", `{"a.b":{"c":1,"d":2},"a":{"b.c":1,"b.e":2}}`, `{"a.b":{"d":2},"a":{"b.e":2}}`},
		{"list.email", "", `{"list":[{"email":1,"n":1},[{"email":2}],3,"email",{"n":2}]}`, `{"list":[{"n":1},[{}],3,"email",{"n":2}]}`},
		{"é.\"", "", `{"\u00e9":{"\"":1,"x":2}}`, `{"\u00e9":{"x":2}}`},
		{"", "email", `{"email":"x@y","a":"x@y"}`, `{"email":` + h("x@y") + `,"a":"x@y"}`},
		{"", "v", `{"v":"\u0078@y"}`, `{"v":` + h("x@y") + `}`},
		{"", "v", `{"v":17}`, `{"v":` + h("17") + `}`},
		{"", "v", `{"v":true}`, `{"v":` + h("true") + `}`},
		{"", "v", `{"v":null}`, `{"v":null}`},
		{"", "v", `{"v":["a",["b",null],1]}`, `{"v":[` + h("a") + `,[` + h("b") + `,null],` + h("1") + `]}`},
		{"", "v", `{"v":{"a": 1}}`, `{"v":` + h(`{"a": 1}`) + `}`},
		{"", "u.phone", `{"u":[{"phone":"1"},{"phone":"2"}],"u.phone":"1"}`, `{"u":[{"phone":` + h("1") + `},{"phone":` + h("2") + `}],"u.phone":` + h("1") + `}`},
		{"a.b", "a.c", `{"a":{"b":1,"c":2,"d":3}}`, `{"a":{"c":` + h("2") + `,"d":3}}`},
		{"a,b", "c", `{"x":{},"y":[]}`, `{"x":{},"y":[]}`},
		{"a", "", `{"x":1.50,"a":1,"y":-0.50,"z":1e300,"s":"é\n"}`, `{"x":1.50,"y":-0.50,"z":1e300,"s":"é\n"}`},
	} {
		p := tenant.Project{Salt: receivertest.Salt}
		for _, path := range strings.Split(c.drop, ",") {
			if path != "" {
				p.Drop = append(p.Drop, "properties."+path)
			}
		}
		if c.hash != "" {
			p.Hash = []string{"properties." + c.hash}
		}
		for _, threshold := range []int{0, 8, 1 << 20} {
			r, s := receivertest.StartProject(func(o *receiver.Options) { o.BlobThreshold = threshold }, p)
			for _, body := range []string{`{"name":"a","properties":` + c.props + `}`, `{"name":"a",` + strings.TrimSpace(c.props)[1:]} {
				if a := receivertest.Events(t, r, body); a.Accepted != 1 {
					t.Fatalf("%s: %+v", body, a)
				}
			}
			// The same for another protocol and for a redrive.
			if code, a := receivertest.Send(r, "/v1/track", `{"event":"a","properties":`+c.props+`}`, "X-API-Key", receivertest.Key); code != 200 {
				t.Fatalf("%v", a)
			}
			d := receiver.Redrive{ID: pipeline.NewUUIDv7(1), Time: 1, Project: "game", Body: []byte(`{"name":"a","properties":` + c.props + `}`)}
			if out, err := r.Redrive(t.Context(), d); err != nil || out.Accepted != 1 {
				t.Fatalf("%+v %v", out, err)
			}
			for i := range s.Events {
				if got := s.Whole(t, i); !reflect.DeepEqual(intake.Parsed(t, got), intake.Parsed(t, []byte(c.want))) {
					t.Errorf("drop %q hash %q of %s, threshold %d: event %d is %s, want %s", c.drop, c.hash, c.props, threshold, i, got, c.want)
				}
			}
		}
	}
}

func TestRedactColumns(t *testing.T) {
	r, s := receivertest.StartProject(nil, tenant.Project{Drop: []string{"session_id", "context.user_agent"}, Hash: []string{"user_id", "context.ip", "context.sdk.name"}, Salt: receivertest.Salt})
	a := receivertest.Events(t, r, `{"name":"a","user_id":"u1","session_id":"s1"}`+"\n"+`{"name":"b","user_id":17}`+"\n"+`{"name":"a"}`, "User-Agent", "curl")
	if a.Accepted != 3 {
		t.Fatalf("%+v", a)
	}
	for i, user := range []string{receivertest.Hashed("u1"), receivertest.Hashed("17"), ""} {
		e := s.Events[i]
		if string(e.UserID) != user || len(e.SessionID) != 0 || string(e.Context) != `{"ip":"`+receivertest.Hashed("192.0.2.1")+`"}` {
			t.Errorf("%d: user %s, session %s, context %s", i, e.UserID, e.SessionID, e.Context)
		}
	}
	if code, a := receivertest.Send(r, "/v1/track", `{"event":"a","context":{"library":{"name":"lib","version":"1"}}}`, "X-API-Key", receivertest.Key); code != 200 {
		t.Fatalf("%v", a)
	}
	if got, want := string(s.Events[3].Context), `{"ip":"`+receivertest.Hashed("192.0.2.1")+`","sdk":{"name":"`+receivertest.Hashed("lib")+`","version":"1"}}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	// Another project's events stay as they are.
	intake.Serve(t, r, intake.Post("/v1/events", `{"name":"a","user_id":"u1","session_id":"s1"}`, "X-API-Key",
		receivertest.DiskKey))
	if e := s.Events[4]; string(e.UserID) != "u1" || string(e.SessionID) != "s1" || string(e.Context) != `{"ip":"192.0.2.1"}` {
		t.Errorf("%+v", e)
	}
}

// A large value is dropped, hashed, or stored as a blob without its redacted parts.
func TestRedactBlobs(t *testing.T) {
	big := strings.Repeat("x", 3000)
	r, s := receivertest.StartProject(func(o *receiver.Options) { o.BlobThreshold = 1000 },
		tenant.Project{Drop: []string{"properties.gone", "properties.many.email"}, Hash: []string{"properties.secret"}, Salt: receivertest.Salt})
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprintf(`{"email":"u%d@example.com","n":%d}`, i, i))
	}
	list := "[" + strings.Join(many, ",") + "]"
	a := receivertest.Events(t, r, `{"name":"a","gone":"`+big+`","secret":"`+big+`","stays":"`+big+`","many":`+list+`}`)
	if a.Accepted != 1 {
		t.Fatalf("%+v", a)
	}
	if len(s.Blobs) != 2 {
		t.Errorf("%d blobs, want those of stays and many", len(s.Blobs))
	}
	for _, b := range s.Blobs {
		if bytes.Contains(b.Data, []byte("example.com")) {
			t.Errorf("a blob has what was dropped: %.200s", b.Data)
		}
	}
	var got struct {
		Secret, Stays string
		Many          []map[string]int
		Gone          any
	}
	if err := json.Unmarshal(s.Whole(t, 0), &got); err != nil {
		t.Fatal(err)
	}
	if got.Secret != receivertest.Hashed(big) || got.Stays != big || len(got.Many) != 200 || got.Many[7]["n"] != 7 || got.Gone != nil {
		t.Errorf("%.300s", s.Whole(t, 0))
	}
}

// Files of a form beside values that leave their row as well.
func TestRedactForm(t *testing.T) {
	big := strings.Repeat("x", 3000)
	r, s := receivertest.StartProject(func(o *receiver.Options) { o.BlobThreshold = 1000 },
		tenant.Project{Drop: []string{"properties.gone", "properties.photo", "properties.o.email"}, Hash: []string{"properties.voice"}, Salt: receivertest.Salt})
	part := func(name, data string) string {
		return "--b\r\nContent-Disposition: form-data; name=\"" + name + "\"; filename=\"f\"\r\n\r\n" + data + "\r\n"
	}
	body := part("event", `{"name":"a","gone":1,"first":"`+big+`","properties":{"o":{"email":"x@example.com","text":"`+big+`"},"last":2}}`) +
		part("photo", "of somebody") + part("voice", "of somebody") + part("log", "a line") + "--b--\r\n"
	if a := receivertest.Events(t, r, body, "Content-Type", "multipart/form-data; boundary=b"); a.Accepted != 1 {
		t.Fatalf("%+v", a)
	}
	var at []string // each blob with the key before its hole
	props := string(s.Events[0].Properties)
	for _, b := range s.Blobs {
		before := props[:b.At]
		if !strings.HasPrefix(props[b.At:], pipeline.BlobHole) {
			t.Errorf("no hole at %d of %s", b.At, props)
		}
		at = append(at, before[strings.LastIndexByte(before, ',')+1:]+b.Kind+string(b.Data[:1]))
	}
	if got, want := strings.Join(at, " "), `{"first":textx "log":filea "o":{"text":textx`; got != want {
		t.Errorf("blobs %s, want %s, in %s", got, want, props)
	}
	want := `{"first":null,"voice":"` + receivertest.Hashed("of somebody") + `","log":null,"o":{"text":null},"last":2}`
	if props != want {
		t.Errorf("%s, want %s", props, want)
	}
}

// redactedRef does by maps what redact does by bytes.
func redactedRef(v any, path string, drop, hash map[string]bool) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
	members:
		for key, value := range v {
			at := path
			for _, part := range strings.Split(key, ".") {
				at += "." + part
				if drop[at] {
					continue members
				}
				if hash[at] {
					out[key] = hashedRef(value)
					continue members
				}
			}
			out[key] = redactedRef(value, at, drop, hash)
		}
		return out
	case []any:
		out := []any{}
		for _, e := range v {
			out = append(out, redactedRef(e, path, drop, hash))
		}
		return out
	}
	return v
}

func hashedRef(v any) any {
	switch v := v.(type) {
	case nil:
		return nil
	case string:
		return receivertest.Hashed(v)
	case []any:
		out := []any{}
		for _, e := range v {
			out = append(out, hashedRef(e))
		}
		return out
	case map[string]any:
		return "an object"
	default:
		return receivertest.Hashed(fmt.Sprint(v))
	}
}

func TestRedactAtRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	keys := []string{"a", "b", "c", "a.b", "b.c", "a.b.c", "ü", ""}
	var random func(depth int) string
	random = func(depth int) string {
		switch n := rnd.IntN(8); {
		case n < 3 && depth > 0:
			var parts []string
			for _, i := range rnd.Perm(len(keys))[:rnd.IntN(5)] {
				key, _ := json.Marshal(keys[i])
				parts = append(parts, fmt.Sprintf("%s%s%s:%s%s", document.RandomSpace(rnd), key, document.RandomSpace(rnd), document.RandomSpace(rnd), random(depth-1)))
			}
			return "{" + strings.Join(parts, ",") + document.RandomSpace(rnd) + "}"
		case n == 3 && depth > 0:
			var parts []string
			for range rnd.IntN(4) {
				parts = append(parts, document.RandomSpace(rnd)+random(depth-1))
			}
			return "[" + strings.Join(parts, ","+document.RandomSpace(rnd)) + document.RandomSpace(rnd) + "]"
		}
		return []string{"null", "true", "17", "-0.50", `"x"`, `"\u00e9\n"`, `"` + strings.Repeat("long", 40) + `"`}[rnd.IntN(7)]
	}
	accepted := 0
	for range 2000 {
		drop, hash := map[string]bool{}, map[string]bool{}
		p := tenant.Project{Salt: receivertest.Salt}
		for range 1 + rnd.IntN(3) {
			path := "properties." + keys[rnd.IntN(len(keys))]
			if rnd.IntN(2) == 0 {
				path += "." + keys[rnd.IntN(len(keys))]
			}
			if drop[path] || hash[path] {
				continue
			}
			if rnd.IntN(2) == 0 {
				drop[path], p.Drop = true, append(p.Drop, path)
			} else {
				hash[path], p.Hash = true, append(p.Hash, path)
			}
		}
		r, s := receivertest.StartProject(func(o *receiver.Options) { o.BlobThreshold = []int{0, 100}[rnd.IntN(2)] }, p)
		var parts []string
		for _, i := range rnd.Perm(len(keys))[:rnd.IntN(5)] {
			key, _ := json.Marshal(keys[i])
			parts = append(parts, string(key)+":"+random(4))
		}
		props := "{" + strings.Join(parts, ",") + "}"
		a := receivertest.Events(t, r, `{"name":"a","properties":`+props+`}`)
		want := redactedRef(intake.Parsed(t, []byte(props)), "properties", drop, hash)
		if text, _ := json.Marshal(want); a.Accepted == 0 && a.Codes() == "0:duplicate_key" && jsonscan.SharedPath(text) != nil {
			continue
		}
		if a.Accepted != 1 {
			t.Fatalf("%s: %+v", props, a)
		}
		accepted++
		got := intake.Parsed(t, s.Whole(t, 0))
		if !sameButObjects(got, want) {
			t.Fatalf("drop %q hash %q of %s\ngot  %s\nwant %v", p.Drop, p.Hash, props, s.Whole(t, 0), want)
		}
	}
	if accepted < 1500 {
		t.Errorf("%d of 2000 were accepted", accepted)
	}
}

// sameButObjects compares; where want is the hash of an object, any hash will do.
func sameButObjects(got, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		got, ok := got.(map[string]any)
		if !ok || len(got) != len(want) {
			return false
		}
		for k, v := range want {
			if g, there := got[k]; !there || !sameButObjects(g, v) {
				return false
			}
		}
		return true
	case []any:
		got, ok := got.([]any)
		if !ok || len(got) != len(want) {
			return false
		}
		for i, v := range want {
			if !sameButObjects(got[i], v) {
				return false
			}
		}
		return true
	case string:
		if want == "an object" {
			got, ok := got.(string)
			return ok && len(got) == 2*sha256.Size
		}
	}
	return reflect.DeepEqual(got, want)
}
