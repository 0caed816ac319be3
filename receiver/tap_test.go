package receiver

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/penstock/penstock/receiver/tap"
)

// A watcher sees accepted events, and rejected ones with code and bytes. The counts cover all of them.
func TestTap(t *testing.T) {
	r, _ := newTest(nil)
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
		{Accepted: true, Project: "game", Name: "start", User: "u1", Session: "s1", Text: `{"level":3}`},
		{Accepted: true, Project: "game", Name: "end", Text: "{}"},
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
