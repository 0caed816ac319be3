package receiver

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/protocol"
)

func manyEvents(o *Options) { o.MaxEvents = 50_000 }

// Many failures of one code are a hundred records and one, which has the bytes of all others once.
func TestManyRejectsShareARecord(t *testing.T) {
	r, s := newTest(manyEvents)
	const n = 50_000
	a := serve(t, r, withKey(post("/v1/events", strings.Repeat("{}\n", n))))
	if a.Status != 400 || a.Rejected != n || len(a.Errors) != protocol.MaxListed ||
		a.ErrorsOmitted != n-protocol.MaxListed || *a.Errors[99].Index != 99 {
		t.Errorf("answered %d, %d rejected, %d listed, %d omitted", a.Status, a.Rejected, len(a.Errors), a.ErrorsOmitted)
	}
	if len(s.Failures) != maxAlike+1 {
		t.Fatalf("%d failures", len(s.Failures))
	}
	for i, f := range s.Failures[:maxAlike] {
		if f.Index != i || string(f.Raw) != "{}" || f.Count != 0 {
			t.Errorf("failure %d: %+v", i, f)
		}
	}
	f := s.Failures[maxAlike]
	if f.Code != "missing_name" || f.Index != maxAlike || f.Count != n-maxAlike ||
		string(f.Raw) != strings.Repeat("{}\n", n-maxAlike) ||
		!strings.Contains(f.Message, "49900 events of one request, at indexes 100 to 49999") || f.Project != "game" {
		t.Errorf("%s %d %d, %d bytes: %s", f.Code, f.Index, f.Count, len(f.Raw), f.Message)
	}
	if r.admission.Memory() != 0 {
		t.Errorf("%d bytes are charged", r.admission.Memory())
	}
}

// Each code has its own record, and none of them has an event that was accepted, nor one of another code.
func TestSharedRecordsHaveOnlyTheirRejects(t *testing.T) {
	r, s := newTest(manyEvents)
	var body strings.Builder
	for i := range 300 {
		fmt.Fprintf(&body, `{"name":"ok%d"},{"nr":%d},%d,`, i, i, i)
	}
	for range 50 {
		body.WriteString(`{"name":"a","timestamp":"x"},`)
	}
	serve(t, r, withKey(post("/v1/events", "["+strings.TrimSuffix(body.String(), ",")+"]")))
	if len(s.Events) != 300 {
		t.Fatalf("%d events", len(s.Events))
	}
	var got []string
	for _, f := range s.Failures {
		if f.Count > 0 {
			got = append(got, fmt.Sprintf("%s %d", f.Code, f.Count))
			if strings.Contains(string(f.Raw), "ok") || f.Code == "missing_name" &&
				!strings.HasPrefix(string(f.Raw), "{\"nr\":100}\n{\"nr\":101}\n") {
				t.Errorf("%s: %.100s", f.Code, f.Raw)
			}
		}
	}
	if want := []string{"missing_name 200", "not_an_object 200"}; !slices.Equal(got, want) ||
		len(s.Failures) != 2*maxAlike+2+50 {
		t.Errorf("got %v, %d failures, want %v", got, len(s.Failures), want)
	}
}

// A redrive of a shared record sends each of its events once, and a second redrive makes the same rows.
func TestRedriveOfASharedRecord(t *testing.T) {
	for _, c := range []struct{ name, path, contentType, body, accepted, fix, to string }{
		{"native", "/v1/events", ndjson, strings.Repeat(`{"nome":"a"}`+"\n", 250), `{"name":"before"}` + "\n", "nome",
			"name"},
		{"cloudevents", "/v1/events", "application/cloudevents-batch+json",
			"[" + strings.TrimSuffix(strings.Repeat(`{"specversion":"1.0","id":"i","source":"s","tipe":"a"},`, 250), ",") + "]",
			"", "tipe", "type"},
		{"segment", "/v1/batch", "application/json",
			`{"batch":[` + strings.TrimSuffix(strings.Repeat(`{"type":"track","evant":"a","userId":"u"},`, 250), ",") + `]}`, "",
			"evant", "event"},
	} {
		r, s := newTest(manyEvents)
		ask(r, withKey(post(c.path, c.accepted+c.body, "Content-Type", c.contentType)))
		if len(s.Failures) != maxAlike+1 || len(s.Events) != strings.Count(c.accepted, "before") {
			t.Fatalf("%s: %d failures, %d events", c.name, len(s.Failures), len(s.Events))
		}
		f := s.Failures[maxAlike]
		d := Redrive{ID: pipeline.NewUUIDv7(1), Time: 1795319112345, Project: "game", Path: f.Path, Event: f.Index >= 0,
			ContentType: f.ContentType,
			Body:        []byte(strings.ReplaceAll(string(f.Raw), c.fix, c.to)), Durability: pipeline.Disk}
		var rows [2][]string
		for i := range rows {
			s.Events, s.Failures = nil, nil
			got, err := r.Redrive(t.Context(), d)
			if err != nil || got.Accepted != 150 || got.Rejected != 0 || len(s.Failures) != 0 {
				t.Fatalf("%s: %+v, %v", c.name, got, err)
			}
			for _, e := range s.Events {
				rows[i] = append(rows[i], string(e.Name)+string(e.ID.Append(nil)))
			}
		}
		if !slices.Equal(rows[0], rows[1]) {
			t.Errorf("%s: the second redrive made other rows", c.name)
		}
		slices.Sort(rows[0])
		if c.name != "cloudevents" && len(slices.Compact(rows[0])) != 150 { // there they have one id
			t.Errorf("%s: some events have the same id", c.name)
		}
	}
}

// Rejected events of a large body are joined on disk.
func TestSharedRecordOfALargeBody(t *testing.T) {
	dir := t.TempDir()
	r, s := newTest(func(o *Options) { spooling(t, dir)(o); o.MaxMemory = 2 << 20; o.BlobThreshold = 0 })
	event := `{"v":"` + strings.Repeat("v", 20<<10) + `"}` + "\n"
	a := serve(t, r, withKey(post("/v1/events", strings.Repeat(event, 400)+one)))
	if a.Accepted != 1 || a.Rejected != 400 || len(s.Failures) != maxAlike+1 {
		t.Fatalf("%d accepted, %d rejected, %d failures", a.Accepted, a.Rejected, len(s.Failures))
	}
	if f := s.Failures[maxAlike]; string(f.Raw) != strings.Repeat(event, 300) || f.Count != 300 {
		t.Errorf("%d bytes of %d events: %s", len(f.Raw), f.Count, f.Message)
	}
	idle(t, r, dir)

	dir = t.TempDir()
	r, s = newTest(func(o *Options) {
		spooling(t, dir)(o)
		o.MaxMemory, o.BlobThreshold, o.MaxSpool = 2<<20, 0, int64(len(event))*500
	})
	serve(t, r, withKey(post("/v1/events", strings.Repeat(event, 400))))
	if f := s.Failures[maxAlike]; len(f.Raw) != 0 || !strings.Contains(f.Message, "not kept") ||
		fmt.Sprint(s.Dropped) != "[raw]" {
		t.Errorf("without a place on disk: %d bytes: %s, dropped %v", len(f.Raw), f.Message, s.Dropped)
	}
	idle(t, r, dir)
}

// Records of OTLP are no events without the resource around them, so the shared record has the whole body once.
func TestSharedRecordOfOTLP(t *testing.T) {
	r, s := newTest(manyEvents)
	logs := strings.TrimSuffix(strings.Repeat(`{"timeUnixNano":"x"},`,
		250)+strings.Repeat(`{"timeUnixNano":"1795319112345000000","traceId":"x"},`, 250), ",")
	body := `{"resourceLogs":[{"scopeLogs":[{"logRecords":[` + logs + `]}]}]}`
	status, text := ask(r, withKey(post("/v1/logs", body, "Content-Type", "application/json")))
	whole, count := 0, 0
	for _, f := range s.Failures {
		if f.Count == 0 {
			continue
		}
		count += f.Count
		if f.Index != -1 {
			t.Errorf("%+v", f)
		}
		if string(f.Raw) == body {
			whole++
		} else if len(f.Raw) != 0 || !strings.Contains(f.Message, "another record") {
			t.Errorf("%d bytes, %s", len(f.Raw), f.Message)
		}
	}
	if whole != 1 || len(s.Failures) > 2*(maxAlike+1) || count+2*maxAlike != 500 && count+maxAlike != 500 {
		t.Errorf("%d %.200s: %d failures, %d with the body, %d in shared records", status, text, len(s.Failures), whole,
			count)
	}
}

// Events that were taken and do not fit their schema share a record, too. They are in the table, so it has no bytes.
func TestManyViolationsShareARecord(t *testing.T) {
	r, s := newTest(func(o *Options) { manyEvents(o); o.Schemas = &wantsText{} })
	const n = 1000
	a := serve(t, r, withKey(post("/v1/events", strings.Repeat(`{"name":"strict","t":5}`+"\n", n))))
	if a.Accepted != n || len(s.Failures) != maxAlike+1 {
		t.Fatalf("%d accepted, %d failures", a.Accepted, len(s.Failures))
	}
	if f := s.Failures[maxAlike]; f.Count != n-maxAlike || f.Class != takenClass || len(f.Raw) != 0 || f.Index != -1 {
		t.Errorf("got %+v", f)
	}
}
