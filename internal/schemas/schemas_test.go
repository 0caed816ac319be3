package schemas

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/penstock/penstock/internal/testing/bubble"
)

func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		write(t, dir, name, text)
	}
	return dir
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const level = `{"type":"object","required":["level"],"properties":{"level":{"type":"integer","minimum":1},"at":{"$ref":"common/place.json"},"mail":{"format":"email"}},"additionalProperties":false}`

func TestCheck(t *testing.T) {
	s, err := Open(folder(t, map[string]string{
		"level.json":           level,
		"buy.json":             `{"required":["a"]}`,
		"buy.v2.json":          `{"required":["b"]}`,
		"buy.v10.json":         `{"$schema":"http://json-schema.org/draft-07/schema#","required":["c"],"properties":{"c":{"oneOf":[{"type":"string","maxLength":3},{"type":"boolean"}]},"d":{"$ref":"https://example.com/place"}}}`,
		"chat%2Freply.v1.json": `{"properties":{"a/b":{"properties":{"c~":{"items":{"const":1}}}}}}`,
		"root.json":            `{"properties":{"":{"type":"string"}}}`,
		"common/place.json":    `{"$id":"https://example.com/place","type":"array","items":{"type":"number"}}`,
		"common/broken.json":   `{"type":"object"}`,
		".hidden/x.json":       `{`,
		"notes.txt":            `{`,
	}), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if s.Find([]byte("place")) != nil || s.Find([]byte("other")) != nil || s.Find([]byte("common/place")) != nil {
		t.Error("a name without a schema has one")
	}
	long := `{"c":"` + strings.Repeat("long ", 50_000) + `"}`
	for _, tt := range []struct{ name, properties, want string }{
		{"level", `{"level":3}`, ""},
		{"level", ` { "level" : 3 , "at" : [ 1 , 2.5 ] } `, ""},
		{"level", `{"level":3.0,"event_id":"x","$envelope":{"a":1}}`, ""},
		{"level", `{}`, "by level.json: the event's properties: missing property 'level'"},
		{"level", `{"level":"3"}`, "by level.json: /level: got string, want integer"},
		{"level", `{"level":0,"at":[1,"x",{}],"more":1}`,
			"by level.json: the event's properties: additional properties 'more' not allowed; /at/1: got string, want " +
				"number; /at/2: got object, want number; and 1 more"},
		{"level", `{"level":1,"mail":"nobody"}`, "/mail: 'nobody' is not valid email"},
		{"level", `{"level":9007199254740993,"mail":"a\u0040b.example"}`, ""},
		{"buy", `{"a":1}`, "by buy.v10.json: the event's properties: missing property 'c'"},
		{"buy", `{"a":1,"schema_version":1}`, ""},
		{"buy", `{"a":1,"schema_version":"v2"}`, "by buy.v2.json: the event's properties: missing property 'b'"},
		{"buy", `{"b":1,"schema_version":"2"}`, ""},
		{"buy", `{"b":1,"schema_version":3}`, "/schema_version: there is no schema of version 3: there are 1, 2, 10"},
		{"buy", `{"b":1,"schema_version":{"a":[]}}`, "/schema_version: there is no schema of version"},
		{"buy", `{"c":true,"d":["x"]}`, "/d/0: got string, want number"},
		{"buy", `{"c":null}`, "/c: got null, want string; /c: got null, want boolean"},
		{"buy", long, "/c: maxLength: got 250,000, want 3; /c: got string, want boolean"},
		{"root", `{"":1}`, "by root.json: /: got number, want string"},
		{"chat/reply", `{"a/b":{"c~":[1,2]}}`, "/a~1b/c~0/1: value must be 1"},
		{"buy", `{"c":[` + strings.Repeat("0,", maxValues+1) + `0]}`, "more than 262144 values"},
	} {
		err := s.Find([]byte(tt.name))([]byte(tt.properties))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s %.200s: %v, want %q", tt.name, tt.properties, err, tt.want)
		}
	}
}

// Without values, a violation reports keywords, and places as far as they may be known.
func TestPlain(t *testing.T) {
	s, err := Open(folder(t, map[string]string{
		"a.json":    `{"required":["b"],"not":{"required":["n"]},"additionalProperties":{"format":"email","maximum":1,"additionalProperties":false}}`,
		"a.v2.json": `{"properties":{"n":{"oneOf":[{"const":1},{"maximum":0}]}},"propertyNames":{"maxLength":9}}`,
	}), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ properties, want string }{
		{`{"schema_version":1}`, "by a.json: the event's properties: required"},
		{`{"b":"secret","c":5,"d":7,"e":9,"schema_version":1}`,
			"by a.json: /b: format; /c: maximum; /d: maximum; and 1 more"},
		{`{"b":{"secret":1},"n":"a@b.example","schema_version":1}`,
			"by a.json: the event's properties: not allowed; /b: additionalProperties"},
		{`{"n":5,"known":{"secret":1}}`, "by a.v2.json: /n: const; /n: maximum"},
		{`{"secret and long":1}`, "by a.v2.json: the event's properties: maxLength"},
		{`{"schema_version":"secret"}`, "/schema_version: there is no schema of that version: there are 1, 2"},
	} {
		err := s.Find([]byte("a"))([]byte(tt.properties))
		v, ok := errors.AsType[*Violation](err)
		if !ok {
			t.Fatalf("%s: %v", tt.properties, err)
		}
		if got := v.Plain(func(place []string) []string { return place }); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.properties, got, tt.want)
		}
	}
	v, _ := errors.AsType[*Violation](s.Find([]byte("a"))([]byte(`{"b":{"x":1},"schema_version":1}`)))
	if got := v.Plain(func([]string) []string { return []string{"short"} }); !strings.HasPrefix(got,
		"by a.json: /short: ") || strings.Contains(got, "/b") {
		t.Error(got)
	}
}

func TestOpenRefuses(t *testing.T) {
	for want, files := range map[string]map[string]string{
		"a.json: not JSON":                     {"a.json": `{`},
		"a.json: ":                             {"a.json": `{"type":"nothing"}`},
		"https://example.com/x.json is not in": {"a.json": `{"$ref":"https://example.com/x.json"}`},
		"/etc/passwd is not in the folder":     {"a.json": `{"$ref":"file:///etc/passwd"}`},
		`it is version 1 of "a", as a.json is`: {"a.json": `{}`, "a.v1.json": `{}`},
		"a.v0.json: versions begin with 1":     {"a.v0.json": `{}`},
		"want NAME.json":                       {"a%.json": `{}`},
		"common/x.json: not JSON":              {"common/x.json": ``},
	} {
		if _, err := Open(folder(t, files), slog.New(slog.DiscardHandler)); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", files, err, want)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none"), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a folder that is not there")
	}
}

type logged struct {
	sync.Mutex
	bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.Lock()
	defer l.Unlock()
	return l.Buffer.Write(b)
}

// A changed file applies. If it is invalid, the earlier schema stays.
func TestWatch(t *testing.T) {
	dir := folder(t, map[string]string{"a.json": `{"required":["x"]}`, "b.json": `{"$ref":"c/d.json"}`,
		"c/d.json": `{"required":["x"]}`})
	var log logged
	s, err := Open(dir, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	go s.Watch(t.Context(), 5*time.Millisecond)
	says := func(name, properties string) string {
		check := s.Find([]byte(name))
		if check == nil {
			return "no schema"
		}
		if err := check([]byte(properties)); err != nil {
			return err.Error()
		}
		return ""
	}
	until := func(name, properties, want string) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); says(name, properties) != want; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s %s: %q, want %q", name, properties, says(name, properties), want)
			}
		}
	}
	until("a", `{}`, "by a.json: the event's properties: missing property 'x'")
	write(t, dir, "a.json", `{"required":["yy"]}`)
	until("a", `{}`, "by a.json: the event's properties: missing property 'yy'")
	write(t, dir, "a.json", `{"required":["broken"`)
	write(t, dir, "b.v2.json", `{"required":["new"]}`)
	until("b", `{}`, "by b.v2.json: the event's properties: missing property 'new'")
	until("a", `{}`, "by a.json: the event's properties: missing property 'yy'")
	write(t, dir, "c/d.json", `broken as well`)
	write(t, dir, "e.json", `{"required":["e"]}`)
	until("e", `{}`, "by e.json: the event's properties: missing property 'e'")
	until("b", `{"schema_version":1}`, "by b.json: the event's properties: missing property 'x'")
	if err := os.Remove(filepath.Join(dir, "a.json")); err != nil {
		t.Fatal(err)
	}
	until("a", `{}`, "no schema")
	log.Lock()
	defer log.Unlock()
	for _, want := range []string{"a.json: not JSON", "c/d.json: not JSON", "b.json: ", "schemas read"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %q:\n%s", want, log.String())
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{`{}`, `[]`, `{"a":[1,{"b":null}],"c\n":"\ud83d\ude00","d":-1e5}`,
		` [ true , false , { "a" : [ ] } ] `, `"x"`, `5`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d := json.NewDecoder(bytes.NewReader(b))
		d.UseNumber()
		var want any
		// Invalid UTF-8 and lone surrogates are rejected earlier.
		if !json.Valid(b) || !utf8.Valid(b) || bytes.Contains(b, []byte(`\u`)) || d.Decode(&want) != nil {
			t.Skip()
		}
		want2, _ := json.Marshal(want)
		got, err := json.Marshal(parse(b))
		if err != nil || !bytes.Equal(got, want2) && !reflect.DeepEqual(parse(b), want) {
			t.Errorf("%q: %s, want %s", b, got, want2)
		}
	})
}

// A folder that is unreachable for a while is one line in the log, and the schemas stay.
func TestFolderIsAway(t *testing.T) {
	dir := folder(t, map[string]string{"a.json": `{"required":["x"]}`})
	var log logged
	s, err := Open(dir, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	bubble.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.Watch(ctx, time.Second) }()
		if err := os.Rename(dir, dir+"-away"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if check := s.Find([]byte("a")); check == nil || check([]byte(`{}`)) == nil {
			t.Error("the schemas are gone")
		}
		if err := os.Rename(dir+"-away", dir); err != nil {
			t.Fatal(err)
		}
		write(t, dir, "b.json", `{}`)
		time.Sleep(2 * time.Second)
		if s.Find([]byte("b")) == nil {
			t.Error("a schema that came with the folder is not read")
		}
		cancel()
		<-done
	})
	if n := strings.Count(log.String(), "schemas cannot be read"); n != 1 {
		t.Errorf("%d lines say that the folder is away, want 1:\n%s", n, log.String())
	}
}

// A violation quotes a long value or place only partly, without splitting characters.
func TestViolationsAreShort(t *testing.T) {
	s, err := Open(folder(t, map[string]string{"a.json": `{"additionalProperties":{"enum":["` +
		strings.Repeat("ü", 400) + `"]}}`}), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	err = s.Find([]byte("a"))([]byte(`{"` + strings.Repeat("ö", 500) + `":1}`))
	if err == nil || len(err.Error()) > 2*maxText+50 || !strings.Contains(err.Error(), "ö…: ") ||
		!utf8.ValidString(err.Error()) {
		t.Errorf("got %v", err)
	}
}
