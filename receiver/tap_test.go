package receiver

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/tap"
)

// numbered is a sink that sets seqs as the batcher does.
type numbered struct {
	*sink
	last uint64
}

func (n *numbered) Append(ctx context.Context, events []pipeline.Event, blobs []pipeline.Blob,
	d pipeline.Durability) (pipeline.Ticket, error) {
	for i := range events {
		n.last++
		events[i].Seq = n.last
	}
	return n.sink.Append(ctx, events, blobs, d)
}

// A watcher sees accepted events, and rejected ones with code and bytes. The counts cover all of them.
func TestTap(t *testing.T) {
	opts, s := options(), &sink{}
	opts.Name = "rx"
	r := must(New(opts, &numbered{sink: s}, s, slog.New(slog.DiscardHandler), prometheus.NewRegistry()))
	w, err := r.Tap().Watch(tap.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	serve(t, r, withKey(post("/v1/events", `{"name":"start","user_id":"u1","session_id":"s1","level":3}`)))
	serve(t, r, withKey(post("/v1/events", `[{"name":"end"},{"level":4}]`)))
	serve(t, r, withKey(post("/v1/events", "{")))
	serve(t, r, post("/v1/events", `{"name":"start"}`)) // without a key
	want := []tap.Event{
		{Accepted: true, Project: "game", Name: "start", User: "u1", Session: "s1", Text: `{"level":3}`, Receiver: "rx", Seq: 1},
		{Accepted: true, Project: "game", Name: "end", Text: "{}", Receiver: "rx", Seq: 2},
		{Project: "game", Code: "missing_name", Text: `{"level":4}`},
		{Project: "game", Code: "invalid_json", Text: "{"},
		{Code: "missing_key", Whole: true},
	}
	got := w.Take(nil)
	for _, e := range got {
		if e.Time.IsZero() || e.RequestID == "" || e.Accepted != (len(e.ID) == 36) || e.Accepted != (e.Message == "") {
			t.Errorf("got %+v", e)
		}
	}
	own := cmpopts.IgnoreFields(tap.Event{}, "Time", "RequestID", "ID", "Message", "Object")
	if diff := cmp.Diff(want, got, own); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Counts{Accepted: 2, Rejected: 2, Refused: 1}, r.Counts()); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

// Events of a redrive are shown with those of the receiver whose tap it uses, also if they are rejected again.
func TestTapOfRedrives(t *testing.T) {
	front, _ := newTest(nil)
	r, _ := newTest(func(o *Options) { o.Tap, o.Name = front.Tap(), "rx-redrive0" })
	w, err := front.Tap().Watch(tap.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, body := range []string{`{"name":"start"}`, `{"level":4}`} {
		d := Redrive{ID: pipeline.UUID{1}, Project: "game", Event: true, Body: []byte(body)}
		if _, err := r.Redrive(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	got := w.Take(nil)
	if len(got) != 2 {
		t.Fatalf("got %+v", got)
	}
	if e := got[0]; e.Name != "start" || !e.Accepted || !e.Redriven || e.Receiver != "rx-redrive0" {
		t.Errorf("got %+v", e)
	}
	if e := got[1]; e.Code != "missing_name" || e.Accepted || !e.Redriven || e.Text != `{"level":4}` {
		t.Errorf("got %+v", e)
	}
}

// An event that could not be stored is not shown.
func TestTapOfWhatIsNotStored(t *testing.T) {
	r, s := newTest(nil)
	w, err := r.Tap().Watch(tap.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	s.Err = io.ErrShortWrite
	serve(t, r, withKey(post("/v1/events", `{"name":"start"}`)))
	got := w.Take(nil)
	if len(got) != 1 || got[0].Accepted || !got[0].Whole || got[0].Code != "unavailable" ||
		strings.Contains(got[0].Text, "secret") {
		t.Errorf("got %+v, want one rejected request", got)
	}
}
