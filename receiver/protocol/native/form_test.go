package native_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"mime/multipart"
	"os"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/receivertest"
	"github.com/penstock/penstock/receiver/tenant"
)

// formOf returns a form of parts: name, file name, content.
func formOf(t *testing.T, parts ...[3]string) (body, contentType string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, p := range parts {
		create := func() (io.Writer, error) { return w.CreateFormField(p[0]) }
		if p[1] != "" {
			create = func() (io.Writer, error) { return w.CreateFormFile(p[0], p[1]) }
		}
		to, err := create()
		if err != nil {
			t.Fatal(err)
		}
		to.Write([]byte(p[2]))
	}
	w.Close()
	return b.String(), w.FormDataContentType()
}

func TestFiles(t *testing.T) {
	recording := strings.Repeat("\x00\xff\r\n--not-the-boundary", 100_000)
	body, kind := formOf(t, [3]string{"replay", "run.bin", recording},
		[3]string{"event", "", ` {"name":"run","session_id":"s","properties":{"level":7}} `}, [3]string{"note", "", "short"},
		[3]string{"none", "x", ""})
	dir := t.TempDir()
	for _, spool := range []string{"", dir} {
		r, s := receivertest.Start(func(o *receiver.Options) {
			o.SpoolDir, o.MaxSpool, o.BlobThreshold, o.MaxEvent = spool, 64<<20, 64<<10,
				3<<20
		})
		a := receivertest.Events(t, r, body, "Content-Type", kind)
		if a.Status != 202 || a.Accepted != 1 || len(s.Blobs) != 2 {
			t.Fatalf("%+v, %d blobs", a, len(s.Blobs))
		}
		if got := string(s.Events[0].Properties); got != `{"replay":null,"note":null,"none":"","level":7}` {
			t.Errorf("properties %s", got)
		}
		b := s.Blobs[0]
		if string(b.Data) != recording || b.Kind != pipeline.BlobFile || b.ContentType != "application/octet-stream" ||
			b.Name != "run.bin" || string(s.Blobs[1].Data) != "short" {
			t.Errorf("blobs %+v", b.Blob)
		}
		if e := s.Events[0]; string(e.Name) != "run" || string(e.SessionID) != "s" {
			t.Errorf("%s %s", e.Name, e.SessionID)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("files are left: %v, %v", left, err)
		}
	}
}

func TestRejectedForms(t *testing.T) {
	event := [3]string{"event", "", `{"name":"a","x":1}`}
	for _, c := range []struct {
		parts [][3]string
		code  string
	}{
		{[][3]string{{"file", "f", "x"}}, "missing_event"},
		{[][3]string{event, event}, "invalid_form"},
		{[][3]string{event, {"x", "f", "y"}}, "duplicate_key"},
		{[][3]string{event, {"f", "f", "y"}, {"f", "f", "y"}}, "duplicate_key"},
		{[][3]string{{"event", "", `{"name":"a"} {`}}, "invalid_json"},
		{[][3]string{{"event", "", `{"x":1}`}, {"f", "f", "y"}}, "missing_name"},
		{[][3]string{event, {"f", "f", strings.Repeat("y", 1<<20)}, {"g", "g", strings.Repeat("y", 1<<20)}},
			"event_too_large"},
		{[][3]string{{"event", "", ``}}, "invalid_json"},
		{[][3]string{event, {"", "f", "y"}}, "invalid_form"},
	} {
		body, kind := formOf(t, c.parts...)
		r, s := receivertest.Start(nil)
		a := receivertest.Events(t, r, body, "Content-Type", kind)
		if a.Status != 400 || a.Error.Code != c.code || len(s.Events) != 0 || len(s.Failures) != 1 ||
			string(s.Failures[0].Raw) != body || s.Failures[0].ContentType != kind {
			t.Errorf("%v: %+v, %d events, failures %+v", c.parts, a, len(s.Events), s.Failures)
		}
	}
	good, kind := formOf(t, event, [3]string{"f", "f", "y"})
	for name, body := range map[string]string{"no boundary": "x", "cut": good[:len(good)-8], "cut in a head": good[:60],
		"nothing": "", "a strange line": strings.Replace(good, "\r\n", "x\r\n", 1)} {
		r, s := receivertest.Start(nil)
		if a := receivertest.Events(t, r, body, "Content-Type", kind); a.Status != 400 || len(s.Events) != 0 {
			t.Errorf("%s: %+v", name, a)
		}
	}
	r, _ := receivertest.Start(nil)
	if a := receivertest.Events(t, r, good, "Content-Type", "multipart/form-data"); a.Status != 400 ||
		a.Error.Code != "invalid_form" {
		t.Errorf("without a boundary: %+v", a)
	}
}

func TestRedrive(t *testing.T) {
	body, kind := formOf(t, [3]string{"event", "", `{"name":"a"}`}, [3]string{"f", "f", "y"})
	r, s := receivertest.Start(nil)
	out, err := r.Redrive(context.Background(),
		receiver.Redrive{ID: pipeline.NewUUIDv7(1), Time: 1, Project: "game", Path: "/v1/events", ContentType: kind,
			Body: []byte(body)})
	if err != nil || out.Accepted != 1 || len(s.Blobs) != 1 {
		t.Errorf("%+v %v", out, err)
	}
}

func FuzzForm(f *testing.F) {
	f.Add("--b\r\nContent-Disposition: form-data; name=\"event\"\r\n\r\n{\"name\":\"a\"}\r\n--b--")
	f.Add("x\r\n--b\r\nContent-Disposition: form-data; " +
		"name=\"event\"\r\n\r\n{\"name\":\"a\",\"f\":1}\r\n--b\r\nContent-Disposition: form-data; name=f\r\n\r\n\r\n--b--\r\n")
	f.Fuzz(func(t *testing.T, body string) {
		r, s := receivertest.Start(nil)
		a := receivertest.Events(t, r, body, "Content-Type", "multipart/form-data; boundary=b")
		if a.Accepted != len(s.Events) || a.Accepted > 1 || a.Accepted == 0 &&
			(a.Status != 400 && a.Status != 413 || len(s.Failures) != 1 || string(s.Failures[0].Raw) != body) {
			t.Errorf("%+v, %d events, %d failures", a, len(s.Events), len(s.Failures))
		}
		if a.Accepted == 1 {
			if !json.Valid(s.Whole(t, 0)) {
				t.Errorf("%q became %q", body, s.Whole(t, 0))
			}
		}
	})
}

// A file that the project drops conflicts with nothing. Otherwise the error names the conflict.
func TestNamesTwice(t *testing.T) {
	email := [3]string{"email", "a.txt", "x"}
	for _, c := range []struct {
		event string
		files [][3]string
		want  string // message; empty: accepted
	}{
		{`{"name":"a","z":1}`, [][3]string{email, email}, ""},
		{`{"name":"a","email":1}`, [][3]string{email}, ""},
		{`{"name":"a","z":1}`, [][3]string{{"z", "a.txt", "x"}}, "a file and a property, or two files, have the same name"},
		{`{"name":"a","x":1,"properties":{"x":2}}`, [][3]string{{"replay", "a.txt", "x"}},
			`duplicate key "x": in "properties" and beside it`},
	} {
		r, s := receivertest.StartProject(func(o *receiver.Options) { o.BlobThreshold = 4 << 10 }, tenant.Project{Drop: []string{"properties.email"}})
		body, kind := formOf(t, append([][3]string{{"event", "", c.event}}, c.files...)...)
		a := receivertest.Events(t, r, body, "Content-Type", kind)
		switch {
		case c.want == "" && (a.Status != 202 || len(s.Blobs) > 0 || strings.Contains(string(s.Events[0].Properties), "email")):
			t.Errorf("%s: %+v, %d blobs", c.event, a, len(s.Blobs))
		case c.want != "" && (a.Status != 400 || len(a.Errors) == 0 && a.Error.Message != c.want ||
			len(a.Errors) > 0 && a.Errors[0].Message != c.want):
			t.Errorf("%s: %+v, want %s", c.event, a, c.want)
		}
	}
}
