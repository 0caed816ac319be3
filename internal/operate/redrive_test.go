package operate

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver"
)

// redrive runs errors redrive on failures of the year.
func redrive(t *testing.T, ex Executor, change func(*errorRedrive)) ([]errorResult, error) {
	t.Helper()
	return do[errorResult](t, ex, "errors redrive", func(params any) {
		p := params.(*errorRedrive)
		p.Since = "2026-01-01"
		change(p)
	})
}

// A failure is sent as its client sent it. The result says what happened to it.
func TestRedriveOne(t *testing.T) {
	props := func(text string) func(*clickhouse.Kept) {
		return func(k *clickhouse.Kept) { k.Properties = text }
	}
	answers := func(r receiver.Redriven) func(receiver.Redrive) (receiver.Redriven, error) {
		return func(receiver.Redrive) (receiver.Redriven, error) { return r, nil }
	}
	mended := func(p *errorRedrive, id string) { p.Bodies = map[string][]byte{id: []byte(`{"mended":1}`)} }
	for _, tt := range []struct {
		name   string
		kept   func(*clickhouse.Kept)
		params func(p *errorRedrive, id string)
		answer func(receiver.Redrive) (receiver.Redriven, error)
		want   errorResult
		sent   string // body; empty: none
	}{
		{"an event", props(`{"index":2,"path":"/v1/events"}`), nil, nil,
			errorResult{Result: "accepted", Accepted: 1, Object: "events/new"}, `{"a":1}`},
		{"mended", props(`{"index":2,"content_type":"text/csv","content_encoding":"gzip"}`), mended, nil,
			errorResult{Result: "accepted", Accepted: 1, Object: "events/new"}, `{"mended":1}`},
		{"partly", props(`{}`), nil, answers(receiver.Redriven{Accepted: 1, Rejected: 2, Code: "c", Message: "m"}),
			errorResult{Result: "partly", Accepted: 1, Rejected: 2, Code: "c", Message: "m"}, `{"a":1}`},
		{"rejected again", props(`{}`), nil, answers(receiver.Redriven{Rejected: 1, Code: "c"}),
			errorResult{Result: "rejected", Rejected: 1, Code: "c"}, `{"a":1}`},
		{"sampled", props(`{}`), nil, answers(receiver.Redriven{Sampled: 1}), errorResult{Result: "sampled", Sampled: 1},
			`{"a":1}`},
		{"accepted and sampled", props(`{}`), nil, answers(receiver.Redriven{Accepted: 1, Sampled: 1}),
			errorResult{Result: "accepted", Accepted: 1, Sampled: 1}, `{"a":1}`},
		{"a load as a whole", func(k *clickhouse.Kept) { k.Stage, k.Properties = "loader", `{}` }, nil, nil,
			errorResult{Result: "skipped", Message: "it is the failure of a load"}, ""},
		{"no bytes", func(k *clickhouse.Kept) { k.Raw, k.Properties = "", `{}` }, nil, nil,
			errorResult{Result: "skipped", Message: "there are no bytes to send"}, ""},
		{"many of a request", props(`{"count":7}`), nil, nil,
			errorResult{Result: "skipped", Message: "its bytes are the whole body"}, ""},
		{"many of a request, mended", props(`{"count":7}`), mended, nil,
			errorResult{Result: "accepted", Accepted: 1, Object: "events/new"}, `{"mended":1}`},
		{"taken in spite of it", props(`{"index":0,"class":"taken"}`), nil, nil,
			errorResult{Result: "skipped", Message: "its event was taken"}, ""},
		{"an unknown project", func(k *clickhouse.Kept) { k.Project = "" }, nil, nil,
			errorResult{Result: "skipped", Message: "its project is not known: say --as PROJECT"}, ""},
		{"an unknown project, named", func(k *clickhouse.Kept) { k.Project = "" },
			func(p *errorRedrive, _ string) { p.As = "other" }, nil,
			errorResult{Result: "accepted", Accepted: 1, Object: "events/new"}, `{"a":1}`},
		{"a row of the table", func(k *clickhouse.Kept) {
			k.Stage, k.Code, k.Properties = "loader", "refused_row", `{"source_object":"events/x","source_row":3}`
		}, nil, nil, errorResult{Result: "accepted", Accepted: 1, Object: "events/new"}, `{"a":1}`},
		{"a row of a file that is none", func(k *clickhouse.Kept) {
			k.Stage, k.Code, k.Properties, k.Raw = "loader", "invalid_row",
				`{"source_object":"events/imports/x","source_row":3}`, "[1"
		}, nil, nil, errorResult{Result: "rejected", Code: "invalid_row"}, ""},
	} {
		w := newWorld()
		w.answer = tt.answer
		id := w.keep(1, tt.kept)
		got, err := redrive(t, Local(w.operator()), func(p *errorRedrive) {
			p.All = true
			if tt.params != nil {
				tt.params(p, id)
			}
		})
		if err != nil || len(got) != 1 {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
			continue
		}
		tt.want.ID = id
		if !strings.Contains(got[0].Message, tt.want.Message) {
			t.Errorf("%s: message %q, want %q", tt.name, got[0].Message, tt.want.Message)
		}
		if got[0].Message = tt.want.Message; got[0] != tt.want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got[0], tt.want)
		}
		if tt.sent == "" != (len(w.redriven) == 0) || tt.sent != "" && string(w.redriven[0].Body) != tt.sent {
			t.Errorf("%s: sent %+v, want %q", tt.name, w.redriven, tt.sent)
		}
		// Accepted failures, and those left out by sampling, are marked and not sent again.
		if marked := len(w.marked) == 1; marked != (got[0].Accepted+got[0].Sampled > 0) {
			t.Errorf("%s: %d are marked", tt.name, len(w.marked))
		}
		if w.stopped != 1 {
			t.Errorf("%s: the receiver was stopped %d times", tt.name, w.stopped)
		}
	}
}

// The request has the client's key, address and encoding, as far as they were kept.
func TestRedriveSendsWhatWasKept(t *testing.T) {
	w := newWorld()
	id := w.keep(1, func(k *clickhouse.Kept) {
		k.Properties = `{"index":4,"path":"/v1/logs","content_type":"text/plain","content_encoding":"gzip","headers":{"X-A":"b"}}`
	})
	if _, err := redrive(t, Local(w.operator()), func(p *errorRedrive) { p.IDs = []string{id} }); err != nil {
		t.Fatal(err)
	}
	r := w.redriven[0]
	if r.ID.String() != id || r.Time != w.kept[0].Time.UnixMilli() || r.Project != "p" || r.Path != "/v1/logs" ||
		!r.Event ||
		r.ContentType != "text/plain" || r.ContentEncoding != "gzip" || r.ClientIP != "10.0.0.1" || r.UserAgent != "ua" ||
		r.Durability != pipeline.Bucket || !slices.Equal(r.Headers, []pipeline.Header{{Name: "X-A", Value: "b"}}) {
		t.Errorf("sent %+v", r)
	}
}

func TestRedriveOnce(t *testing.T) {
	w, ids := failures()
	for run, want := range []int{2, 0} { // the third one was redriven before
		got, err := redrive(t, Local(w.operator()), func(p *errorRedrive) { p.All, p.As = true, "p" })
		if err != nil || len(got) != want {
			t.Errorf("run %d: %d were sent, %v; want %d of %q", run, len(got), err, want, ids)
		}
	}
}

func TestRedriveMany(t *testing.T) {
	w := newWorld()
	const n = 2*redrivePage + 3
	for i := range n {
		w.keep(i, func(k *clickhouse.Kept) { k.Time = time.Date(2026, 11, 22, 0, 0, i, 0, time.UTC) })
	}
	got, err := redrive(t, Local(w.operator()), func(p *errorRedrive) { p.All = true })
	if err != nil || len(got) != n || len(w.marked) != n || len(w.redriven) != n {
		t.Errorf("%d results, %d marked, %d sent, %v; want %d", len(got), len(w.marked), len(w.redriven), err, n)
	}
}

func TestRedriveIsRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		world  func(*world)
		params func(*errorRedrive)
		want   string
	}{
		{"nothing chosen", nil, func(*errorRedrive) {},
			"no failure record is chosen: name ids, or set --code, --project, --stage, --release, --text or --all"},
		{"another runs", func(w *world) { w.claimed["redrive"] = true }, func(p *errorRedrive) { p.All = true },
			"another redrive is running, by loader-1, since noon; run this one when it has ended"},
		{"no bucket", func(w *world) { w.away["bucket"] = errAway }, func(p *errorRedrive) { p.All = true },
			"connection refused"},
		{"no receiver", func(w *world) { w.away["receiver"] = errAway }, func(p *errorRedrive) { p.All = true },
			"connection refused"},
		{"a stage that is none", nil, func(p *errorRedrive) { p.Stage = "x" }, `--stage "x": set receiver, batcher or loader`},
	} {
		w, _ := failures()
		if tt.world != nil {
			tt.world(w)
		}
		_, err := redrive(t, Local(w.operator()), tt.params)
		wantError(t, err, tt.want, "%s", tt.name)
		if len(w.redriven) > 0 {
			t.Errorf("%s: %d were sent", tt.name, len(w.redriven))
		}
	}
}

func TestRedriveDryRun(t *testing.T) {
	w, ids := failures()
	w.claimed["redrive"] = true // has no effect
	got, err := redrive(t, Local(w.operator()), func(p *errorRedrive) { p.All, p.DryRun = true, true })
	if err != nil || len(got) != 2 || got[0].ID != ids[0] || got[0].Result != "pending" ||
		len(w.redriven)+len(w.marked) > 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// An error of one failure stops no other, after enough retries.
func TestRedriveBusy(t *testing.T) {
	w, ids := failures()
	tries := map[string]int{}
	w.answer = func(r receiver.Redrive) (receiver.Redriven, error) {
		if tries[r.ID.String()]++; r.ID.String() == ids[0] && tries[ids[0]] < 3 {
			return receiver.Redriven{}, errors.New("busy")
		}
		return receiver.Redriven{Accepted: 1}, nil
	}
	got, err := redrive(t, Local(w.operator()), func(p *errorRedrive) { p.All, p.As = true, "p" })
	if err != nil || len(got) != 2 || got[0].Result != "accepted" || got[1].Result != "accepted" || tries[ids[0]] != 3 {
		t.Errorf("got %+v, %v after %v", got, err, tries)
	}
}

// A filter gets each payload, and its output is sent. If it fails, nothing is sent.
func TestRedriveThrough(t *testing.T) {
	for _, way := range []string{"local", "remote"} {
		w, ids := failures()
		run := w.ways(t)[way]
		results, err := redrive(t, Through(run, `sed 's/1/2/'`), func(p *errorRedrive) { p.IDs = ids[:1] })
		if err != nil || len(results) != 1 || results[0].Result != "accepted" || string(w.redriven[0].Body) != `{"a":2}` {
			t.Errorf("%s: %+v, %v, sent %+v", way, results, err, w.redriven)
		}
		for command, want := range map[string]string{
			"echo no >&2; exit 3": "the filter failed: exit status 3 no",
			"true":                "the filter printed nothing",
		} {
			results, err := redrive(t, Through(run, command), func(p *errorRedrive) { p.IDs = ids[1:2] })
			if err != nil || len(results) != 1 || results[0].Result != "skipped" || results[0].Message != want {
				t.Errorf("%s %s: %+v, %v; want %q", way, command, results, err, want)
			}
		}
		if len(w.redriven) != 1 {
			t.Errorf("%s: %d were sent, want 1", way, len(w.redriven))
		}
		_, err = redrive(t, Through(run, "cat"), func(*errorRedrive) {})
		wantError(t, err, "no failure record is chosen", "%s: nothing chosen", way)
	}
}
