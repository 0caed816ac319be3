package receiver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/document"
	"github.com/penstock/penstock/receiver/protocol/native"
)

// wantsText is a schema of events named strict: each needs a text t.
type wantsText struct{ seen []string }

func (s *wantsText) Find(name []byte) func([]byte) error {
	if string(name) != "strict" {
		return nil
	}
	return func(properties []byte) error {
		s.seen = append(s.seen, string(properties))
		var v struct{ T *string }
		if err := json.Unmarshal(properties, &v); err != nil || v.T == nil || *v.T == "" {
			return errors.New("/t: got something else, want a text")
		}
		return nil
	}
}

// An event that does not fit is rejected, or accepted and reported, on every route. After it is fixed, it is accepted.
func TestSchemas(t *testing.T) {
	span := func(value string) string {
		return fmt.Sprintf(`{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":%q,"spanId":%q,"name":"strict",`+
			`"attributes":[{"key":"t","value":%s}]},{"traceId":%q,"spanId":%q,"name":"other"}]}]}]}`,
			traceHex, spanHex, value, traceHex, spanHex)
	}
	bad, good := span(`{"intValue":"5"}`), span(`{"stringValue":"x"}`)
	id, five := []byte{15: 1}, &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: 5}}
	spans := []*tracepb.Span{{TraceId: id, SpanId: id[8:], Name: "strict",
		Attributes: []*commonpb.KeyValue{{Key: "t", Value: five}}}, {TraceId: id, SpanId: id[8:], Name: "other"}}
	wire := must(proto.Marshal(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{
		{ScopeSpans: []*tracepb.ScopeSpans{{Spans: spans}}}}}))
	form := func(t string) string {
		return "--b\r\nContent-Disposition: form-data; name=\"event\"\r\n\r\n{\"name\":\"strict\",\"t\":" + t +
			"}\r\n--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\nfile\r\n--b--\r\n"
	}
	const (
		ndjson = "application/x-ndjson"
		cloud  = "application/cloudevents+json"
	)
	for _, c := range []struct {
		what, target, kind string
		body, mended       string
		events             int // of body, all but one of which are good
		header             []string
	}{
		{"one", "/v1/events", "", `{"name":"strict","t":5}`, `{"name":"strict","t":"x"}`, 1, nil},
		{"array", "/v1/events", "",
			`[{"name":"strict","properties":{"t":"x"}},{"name":"strict","properties":{}},{"name":"other"}]`, "", 3, nil},
		{"lines", "/v1/events", ndjson, `{"name":"other"}` + "\n" + `{"name":"strict"}` + "\n" + `{"name":"strict","t":"x"}`,
			"", 3, nil},
		{"segment", "/v1/track", "", `{"event":"strict","userId":"u","properties":{"t":5}}`,
			`{"event":"strict","userId":"u","properties":{"t":"x"}}`, 1, nil},
		{"langfuse", "/api/public/ingestion", "",
			`{"batch":[{"type":"strict","id":"1","body":{"t":[]}},{"type":"strict","id":"2","body":{"t":"x"}}]}`,
			`{"type":"strict","id":"1","body":{"t":"x"}}`, 2, nil},
		{"otlp json", "/v1/traces", "application/json", bad, good, 2,
			nil},
		{"otlp protobuf", "/v1/traces", protobuf, string(wire), good, 2, nil},
		{"cloudevents", "/v1/events", cloud, `{"specversion":"1.0","type":"strict","source":"s","id":"1","data":{"t":1}}`, "",
			1, nil},
		{"cloudevents, binary", "/v1/events", "application/json", `{"t":1}`, `{"t":"x"}`, 1,
			[]string{"ce-specversion", "1.0", "ce-type", "strict", "ce-source", "s", "ce-id", "1"}},
		{"pixel", "/v1/pixel.gif?name=strict&t=", "", "", "name=strict&t=x", 1, nil},
		{"form", "/v1/events", "multipart/form-data; boundary=b", form("5"), form(`"x"`), 1, nil},
		{"large", "/v1/events", "", `{"name":"strict","t":["` + strings.Repeat("large", 4000) + `"]}`,
			`{"name":"strict","t":"` + strings.Repeat("large", 4000) + `"}`, 1, nil},
	} {
		for _, enforce := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, enforced %t", c.what, enforce), func(t *testing.T) {
				schemas := &wantsText{}
				r, s := newTest(func(o *Options) { o.Schemas, o.EnforceSchemas, o.BlobThreshold = schemas, enforce, 4<<10 })
				req := withKey(post(c.target, c.body, append(c.header, "Content-Type", c.kind)...))
				if strings.Contains(c.target, "pixel") {
					req.Method = "GET"
				}
				r.ServeHTTP(httptest.NewRecorder(), req)
				taken := c.events
				if enforce {
					taken--
				}
				if len(s.Events) != taken {
					t.Errorf("%d events were taken, want %d", len(s.Events), taken)
				}
				if len(s.Failures) != 1 {
					t.Fatalf("%d failures: %+v", len(s.Failures), s.Failures)
				}
				f := s.Failures[0]
				if f.Code != "schema_violation" ||
					!strings.Contains(f.Message, `the properties of "strict" do not fit their schema: /t: got something else`) ||
					strings.HasSuffix(f.Message, "; the event was taken") == enforce || (f.Class == "taken") == enforce ||
					len(f.Raw) == 0 {
					t.Errorf("%+v", f)
				}
				reg := prometheus.NewRegistry()
				reg.MustRegister(r.metrics.violations)
				if m, err := reg.Gather(); err != nil || len(m) != 1 || m[0].Metric[0].Counter.GetValue() != 1 ||
					m[0].Metric[0].Label[0].GetValue() != "strict" {
					t.Errorf("what is counted: %v, %v", m, err)
				}
				again := Redrive{ID: pipeline.NewUUIDv7(1), Project: "game", Path: f.Path, ContentType: f.ContentType,
					ContentEncoding: f.ContentEncoding, Headers: f.Headers, Body: f.Raw, Event: f.Index >= 0}
				out, err := r.Redrive(context.Background(), again)
				if err != nil || enforce && (out.Accepted != 0 || out.Code != "schema_violation") || !enforce && out.Accepted == 0 {
					t.Errorf("redriven as it was: %+v, %v", out, err)
				}
				if c.mended == "" {
					return
				}
				if again.Body = []byte(c.mended); strings.HasPrefix(c.what, "otlp") {
					again.ContentType = "application/json"
				}
				failures := len(s.Failures)
				if out, err = r.Redrive(context.Background(), again); err != nil || out.Accepted == 0 || out.Rejected != 0 ||
					len(s.Failures) != failures {
					t.Errorf("mended: %+v, %v", out, err)
				}
			})
		}
	}
}

// quoting is a schema of events named strict that quotes all of them.
type quoting struct{}

func (quoting) Find(name []byte) func([]byte) error {
	if string(name) != "strict" {
		return nil
	}
	return func(properties []byte) error { return quoted(properties) }
}

type quoted string

func (q quoted) Error() string { return string(q) }

func (q quoted) Plain(at func([]string) []string) string {
	return strings.Join(at([]string{"user", "0", "email", "secret"}), "/") + " " +
		strings.Join(at([]string{"other", "place"}), "/")
}

// Failure records of accepted events do not contain what a project drops or hashes.
func TestSchemaOfRedactedEvents(t *testing.T) {
	p := Project{Drop: []string{"properties.user.email", "properties.big", "context.ip"},
		Hash: []string{document.UserPath, "properties.$envelope.subject", "properties.$envelope.id"}, Salt: salt}
	const large = "secret, and so long that it leaves the row"
	for _, c := range []struct {
		what, target, body string
		index              int
		raw                string // its raw payload
		header             []string
	}{
		{"native", "/v1/events",
			`[{"name":"other"},{"name":"strict","event_id":"11111111-2222-4333-8444-555555555555","timestamp":1795320000000,"session_id":"s","user_id":"secret","user":[{"email":"secret@y","n":1}],"big":"` + large + `"}]`, 1,
			`{"name":"strict","event_id":"11111111-2222-4333-8444-555555555555","timestamp":1795320000000,"session_id":"s","user_id":"` + hashed("secret") + `","properties":{"user":[{"n":1}]}}`, nil},
		{"segment", "/v1/track", `{"event":"strict","userId":"secret","properties":{"user":{"email":"secret","n":2}}}`, 0,
			`"n":2`, nil},
		{"cloudevents, binary", "/v1/events", `{"user":{"email":"secret","n":3}}`, 0, `"n":3`,
			[]string{"ce-specversion", "1.0", "ce-type", "strict", "ce-source", "s", "ce-id", "secret", "ce-subject", "secret"}},
		{"otlp", "/v1/traces",
			`{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8aa5a2d2c872e8321cf37308d69df2","spanId":"5fb397be34d26b51","name":"strict","attributes":[{"key":"user.email","value":{"stringValue":"secret"}},{"key":"n","value":{"intValue":"4"}}]}]}]}]}`, 0, `"n":4`, nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			r, s := withProjects(t, func(o *Options) { o.Schemas, o.BlobThreshold = quoting{}, 16 }, p)
			header := append(c.header, "X-API-Key", keyFile, "Content-Type", "application/json", "User-Agent", "secret",
				"Referer", "https://secret")
			if code, a := send(r, c.target, c.body, header...); code/100 != 2 || len(s.Failures) != 1 {
				t.Fatalf("%d %v, %d failures", code, a, len(s.Failures))
			}
			f := s.Failures[0]
			if all := fmt.Sprintf("%+v %s", f, f.Raw); strings.Contains(all, "secret") || strings.Contains(all, "192.0.2.1") {
				t.Errorf("%s", all)
			}
			if f.Class != takenClass || f.Index != c.index || f.Path != native.Path || f.ContentType != "application/json" ||
				!json.Valid(f.Raw) || !strings.Contains(string(f.Raw), c.raw) ||
				f.Message != `the properties of "strict" do not fit their schema: user/0/email other/place; the event was taken` {
				t.Errorf("%+v %s", f, f.Raw)
			}
		})
	}
	// Without a message that quotes nothing, the report contains nothing of the event.
	r, s := withProjects(t, func(o *Options) { o.Schemas = &wantsText{} }, p)
	sendFile(t, r, `{"name":"strict"}`)
	if len(s.Failures) != 1 || strings.Contains(s.Failures[0].Message, "/t") {
		t.Errorf("%+v", s.Failures)
	}
	// A rejected event is kept as it was sent.
	r, s = withProjects(t, func(o *Options) { o.Schemas, o.EnforceSchemas = quoting{}, true }, p)
	sendFile(t, r, `{"name":"strict","user_id":"secret"}`)
	if len(s.Failures) != 1 || string(s.Failures[0].Raw) != `{"name":"strict","user_id":"secret"}` ||
		s.Failures[0].ClientIP == "" {
		t.Errorf("%+v", s.Failures)
	}
}

// A schema sees the event as sent. The row is the same as without a schema.
func TestSchemaSeesLargeValues(t *testing.T) {
	large := strings.Repeat("large", 4000)
	body := `[{"name":"before","p":"` + large + `"},{"name":"strict","event_id":"e","properties":{"t":"` + large +
		`","list":[1,"` + large + `"]}},{"name":"after","p":"` + large + `"}]`
	kept := func(schemas Schemas) string {
		r, s := newTest(func(o *Options) { o.Schemas, o.EnforceSchemas, o.BlobThreshold = schemas, true, 4<<10 })
		if a := serve(t, r, withKey(post("/v1/events", body))); a.Accepted != 3 {
			t.Fatalf("%+v", a)
		}
		var b strings.Builder
		for _, e := range s.Events {
			fmt.Fprintf(&b, "%s %s\n", e.Name, e.Properties)
		}
		for _, blob := range s.Blobs {
			fmt.Fprintf(&b, "%d at %d: %d %.10s\n", blob.Event, blob.At, len(blob.Data), blob.Data)
		}
		return b.String()
	}
	schemas := &wantsText{}
	if with, without := kept(schemas), kept(nil); with != without {
		t.Errorf("with a schema:\n%s\nwithout:\n%s", with, without)
	}
	if want := `{"event_id":"e","t":"` + large + `","list":[1,"` + large + `"]}`; len(schemas.seen) != 1 ||
		schemas.seen[0] != want {
		t.Errorf("%d judged, of %d bytes", len(schemas.seen), len(schemas.seen[0]))
	}
}

// A form that is rejected for something after its event reports nothing else.
func TestSchemaOfDroppedEvent(t *testing.T) {
	r, s := newTest(func(o *Options) { o.Schemas = &wantsText{} })
	body := "--b\r\nContent-Disposition: form-data; name=event\r\n\r\n" + `{"name":"strict"} x` + "\r\n--b--\r\n"
	a := serve(t, r, withKey(post("/v1/events", body, "Content-Type", "multipart/form-data; boundary=b")))
	if a.Accepted != 0 || a.Codes() != "invalid_json" || len(s.Failures) != 1 {
		t.Errorf("%+v, %d failures", a, len(s.Failures))
	}
}
