package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A schema rejects or reports events that do not fit. It applies as soon as its file exists. Fixed events are accepted.
func TestSchemas(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("level.json",
		`{"required":["level"],"properties":{"level":{"type":"integer"},"body":{"type":"string","maxLength":200000}}}`)
	config := func(mode string) []string {
		return []string{"PENSTOCK_SCHEMAS_DIR=" + dir, "PENSTOCK_SCHEMAS_MODE=" + mode}
	}
	strict := s.start("strict", "receive", config("enforce")...)
	lax := s.start("lax", "receive", config("report")...)
	s.start("l1", "load")
	const bad = `[{"name":"level","event_id":"1","timestamp":1795320000000,"level":"x"},{"name":"level","level":3},{"name":"other","level":"x"}]`
	status, a := post(t, strict.URL+"/v1/events", bad)
	if status != 202 || a.Accepted != 2 || len(a.Errors) != 1 || a.Errors[0].Code != "schema_violation" ||
		!strings.Contains(a.Errors[0].Message, "by level.json: /level: got string, want integer") {
		t.Errorf("%d, %+v", status, a)
	}
	large := fmt.Sprintf(`{"name":"level","level":1,"body":%q}`, strings.Repeat("large", 30_000))
	if status, a := post(t, strict.URL+"/v1/events", large); status != 202 {
		t.Errorf("a large value that fits: %d, %+v", status, a)
	}
	if status, a := post(t, lax.URL+"/v1/events", strings.Replace(bad, `"1"`, `"2"`, 1)); status != 202 ||
		a.Accepted != 3 || a.Rejected != 0 {
		t.Errorf("%d, %+v", status, a)
	}
	s.rows("events", 6)
	s.rows("errors", 2)
	if got := one[string](s,
		"SELECT toString(arraySort(groupArray((code, raw, class, endsWith(message, 'the event was taken'))))) FROM errors"); got !=
		`[('schema_violation','{"name":"level","event_id":"1","timestamp":1795320000000,"level":"x"}','',0),('schema_violation','{"name":"level","event_id":"2","timestamp":1795320000000,"level":"x"}','taken',1)]` {
		t.Errorf("errors are %s", got)
	}
	for _, r := range []*role{strict, lax} {
		if n := r.metric(`penstock_receiver_schema_violations_total{event="level"}`); n != 1 {
			t.Errorf("%v violations are counted", n)
		}
	}
	// A failure that is rejected again stays. Once fixed, it is accepted. Accepted ones are left alone.
	s.config(fmt.Sprintf("schemas: {dir: %s, mode: enforce}\n", dir))
	if out := s.must("errors", "redrive", "--code", "schema_violation"); !strings.Contains(out,
		"0 accepted, 0 partly, 1 rejected again, 1 skipped") {
		t.Errorf("redrive: %s", out)
	}
	if out := s.must("errors", "redrive", "--code", "schema_violation", "--through",
		`sed 's/"level":"x"/"level":7/'`); !strings.Contains(out, "2 accepted") {
		t.Errorf("redrive, mended: %s", out)
	}
	s.rows("events FINAL", 7)
	// A new version holds within seconds; a broken one does not.
	write("level.v2.json", `{"required":["difficulty"]}`)
	eventually(t, 10*time.Second, "the new version", func() error {
		if status, _ := post(t, strict.URL+"/v1/events", `{"name":"level","level":1}`); status != 400 {
			return fmt.Errorf("status %d", status)
		}
		return nil
	})
	write("level.v2.json", `{"required":`)
	time.Sleep(2 * time.Second) // the folder is looked at every second; that nothing changes has no sign
	if status, a := post(t, strict.URL+"/v1/events", `{"name":"level","level":1}`); status != 400 ||
		!strings.Contains(a.Errors[0].Message, ": the event's properties: missing property 'difficulty'") {
		t.Errorf("with a broken file: %d, %+v", status, a)
	}
	if status, _ := post(t, strict.URL+"/v1/events", `{"name":"level","level":1,"schema_version":1}`); status != 202 {
		t.Errorf("an event of version 1: %d", status)
	}
	if text, err := os.ReadFile(strict.log); err != nil || !strings.Contains(string(text), "level.v2.json: not JSON") {
		t.Errorf("the log says nothing of the broken file: %v", err)
	}
	if out, err := s.run("receive"); err == nil || !strings.Contains(out, "level.v2.json: not JSON") {
		t.Errorf("a receiver starts with a broken file: %v, %s", err, out)
	}
}
