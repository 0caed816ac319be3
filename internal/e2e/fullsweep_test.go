package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/penstock/penstock/internal/pipeline"
)

// oldObjects puts what no periodic sweep lists and no notification names: imports into the folder of an earlier
// day, into a Hive layout and into the future, and an object of ours whose batch waited for weeks in a log. The
// files with them are no data. It returns how many events there are.
func oldObjects(t *testing.T, s *stack) (events uint64) {
	s.bucketWithoutRules()
	r := s.start("r1", "receive", "PENSTOCK_BATCHER_OBJECT_WAIT=1ms")
	_, a := post(t, r.URL+"/v1/events?durability=object", `[{"name":"late","i":1},{"name":"late","i":2}]`)
	object, meta := s.get(a.Object)
	k, err := pipeline.ParseKey(a.Object)
	if err != nil {
		s.t.Fatal(err)
	}
	r.term()
	if _, err := s.s3().DeleteObject(s.t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("penstock"),
		Key: &a.Object}); err != nil {
		s.t.Fatal(err)
	}
	k.Time = k.Time.Add(-30 * 24 * time.Hour)
	s.put(k.String(), object, meta)
	for i, key := range []string{"events/dt=2024-02-29/import.ndjson",
		"events/imports/year=2024/month=2/dt=2024-02-29/part-0.jsonl", "events/dt=2199-01-01/future.ndjson",
		"events/dt=2024/x.ndjson"} {
		s.put(key, fmt.Appendf(nil, "{\"name\":\"import\",\"i\":%d}\n{\"name\":\"import\",\"i\":%d}\n", 2*i, 2*i+1),
			nil)
	}
	for _, key := range []string{"events/dt=2024-02-29/_SUCCESS", "events/dt=" +
		time.Now().UTC().Format("2006-01-02") + "/_SUCCESS"} {
		s.put(key, []byte("no data"), nil)
	}
	return 10
}

// fullSweeps lets loaders sweep the whole bucket at once, as they do once a day.
var fullSweeps = []string{"PENSTOCK_SWEEP_EVERY=1s", "PENSTOCK_SWEEP_GRACE=1s", "PENSTOCK_SWEEP_FULL_EVERY=3s"}

func checkFullSweep(t *testing.T, s *stack, env ...string) {
	t.Helper()
	events := oldObjects(t, s)
	v, err := s.verify()
	if err == nil || len(v.Differences) != 5 {
		t.Errorf("verify before the full sweep: %v, %+v", err, v)
	}
	for _, d := range v.Differences {
		if d.Kind != "missing" || !strings.Contains(d.Message, "`penstock sweep --all`") {
			t.Errorf("%+v", d)
		}
	}
	if out := s.must("sweep", "--dry-run", "--json"); !strings.Contains(out, `"events","dry_run":true,"objects":0`) {
		t.Errorf("a sweep of the last 168h: %s", out)
	}
	if out := s.must("sweep", "--all", "--dry-run", "--json"); !strings.Contains(out,
		`"events","dry_run":true,"objects":5,"loaded":0,"enqueued":5`) {
		t.Errorf("sweep --all: %s", out)
	}
	var loaders []*role
	for _, name := range []string{"l1", "l2"} {
		loaders = append(loaders, s.start(name, "load", append(fullSweeps, env...)...))
	}
	s.rows("events", events)
	found := 0.0
	for _, l := range loaders {
		found += l.metric(`penstock_full_sweep_found_objects_total{pipeline="events"}`)
	}
	if found < 5 {
		t.Errorf("%v objects found by full sweeps, want 5 at least: a slow load is found by the next pass as well", found)
	}
	if v := s.mustVerify(); v.Others != 5 || v.Ignored != 2 {
		t.Errorf("verify after the full sweep: %+v", v)
	}
	// A loader that starts later knows when the last pass was, and does not begin one before its time.
	eventually(t, 20*time.Second, "the note of a pass", func() error {
		note, _ := s.get("claims/full-sweep-events")
		if !strings.Contains(string(note), `\"finished\":\"2`) {
			return fmt.Errorf("%s", note)
		}
		return nil
	})
	for _, l := range loaders {
		l.term()
	}
	s.put("events/dt=2024-03-01/import.ndjson", []byte(`{"name":"import"}`), nil)
	l := s.start("l3", "load", append([]string{"PENSTOCK_SWEEP_EVERY=1s", "PENSTOCK_SWEEP_GRACE=1s"}, env...)...)
	time.Sleep(5 * time.Second)
	if n := l.metric(`penstock_full_sweep_listed_objects_total{pipeline="events"}`); n != 0 {
		t.Errorf("%v objects were listed within a day of the last pass", n)
	}
	if n := l.metric(`penstock_full_sweep_last_success_timestamp_seconds{pipeline="events"}`); time.Since(time.Unix(int64(n),
		0)) > time.Hour {
		t.Errorf("the last pass was at %v, by the metric", n)
	}
}

// Objects outside sweep.span are found by when they were stored.
func TestFullSweep(t *testing.T) {
	t.Parallel()
	checkFullSweep(t, newStack(t))
}

// The same without a queue.
func TestFullSweepWithoutQueue(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.config("storage: {notify: none}\nsweep: {poll: 500ms}\n")
	checkFullSweep(t, s, "PENSTOCK_STORAGE_NOTIFY=none", "PENSTOCK_SWEEP_POLL=500ms")
}
