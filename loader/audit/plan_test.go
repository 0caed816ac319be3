package audit

import (
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// What a re-ingest does with an object follows from ledger, table and how it was chosen.
func TestDecide(t *testing.T) {
	loaded := pipeline.Load{State: pipeline.Loaded, Rows: 3, Job: "old"}
	for _, c := range []struct {
		job     string
		entry   *pipeline.Load
		present bool
		want    Action
	}{
		{"", nil, false, ActionLoad},
		{"", nil, true, ActionLoad}, // the ledger was lost: loading finds the rows
		{"", &loaded, true, ActionSkip},
		{"", &loaded, false, ActionAgain},
		{"", &pipeline.Load{State: pipeline.Loaded}, false, ActionSkip}, // it has no row
		{"", &pipeline.Load{State: pipeline.Dead}, false, ActionLoad},
		{"", &pipeline.Load{State: pipeline.Dropped}, false, ActionDropped},
		{"j", &pipeline.Load{State: pipeline.Dropped}, false, ActionDropped},
		{"", &pipeline.Load{State: pipeline.Loading}, true, ActionLoad},
		{"j", nil, false, ActionLoad},
		{"j", nil, true, ActionReplace},
		{"j", &loaded, true, ActionReplace},
		{"old", &loaded, true, ActionDone},
		{"j", &pipeline.Load{State: pipeline.Failed, Job: "j"}, true, ActionReplace},
	} {
		plan := Plan{Job: c.job}
		entries := map[string]pipeline.Load{}
		if c.entry != nil {
			entries["k"] = *c.entry
		}
		if got := plan.Decide([]pipeline.Object{{Key: "k"}}, entries,
			map[string]bool{"k": c.present})[0].Action; got != c.want {
			t.Errorf("job %q, entry %+v, present %v: got %s, want %s", c.job, c.entry, c.present, got, c.want)
		}
	}
}

// A re-ingest leaves objects whose rows have expired as they are.
func TestReingestLeavesExpired(t *testing.T) {
	loaded := pipeline.Load{Key: "k", State: pipeline.Loaded, Rows: 2, Received: noon}
	for _, c := range []struct {
		job     string
		expired time.Time
		present bool
		want    Action
	}{
		{"", noon.Add(time.Millisecond), false, ActionExpired},
		{"job", noon.Add(time.Millisecond), false, ActionExpired},
		{"", noon, false, ActionAgain},
		{"", time.Time{}, false, ActionAgain},
		{"job", time.Time{}, false, ActionReplace},
		{"", noon.Add(time.Millisecond), true, ActionSkip},
		{"job", noon.Add(time.Millisecond), true, ActionReplace},
	} {
		plan := Plan{Job: c.job, Expired: c.expired}
		got := plan.Decide([]pipeline.Object{{Key: "k"}}, map[string]pipeline.Load{"k": loaded},
			map[string]bool{"k": c.present})[0]
		if got.Action != c.want {
			t.Errorf("%+v: %s", c, got.Action)
		}
	}
}
