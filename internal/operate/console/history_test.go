package console

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/clickhouse"
)

// A task whose process has ended is shown as interrupted, with what to do next, until the same is done.
func TestInterrupted(t *testing.T) {
	b := newBrowser(t).login("secret")
	host, _ := os.Hostname()
	began := time.Now().Add(-time.Hour)
	reingest := clickhouse.Action{Began: began, Who: "ann", Via: "console", Process: "test", Operation: "reingest", Result: "begun",
		Params: `{"since":"2026-11-22T00:00:00Z","until":"now","pipeline":"events","replace":true,"parallel":2}`}
	edited := clickhouse.Action{Began: began, Who: "ann", Via: "api", Process: "test", Operation: "errors redrive", Result: "begun",
		Params: `{"ids":["x"],"bodies_base64":{"x":null}}`}
	for _, tt := range []struct {
		name   string
		action func(clickhouse.Action) []clickhouse.Action
		want   []string // empty: not interrupted
	}{
		{"re-ingest", func(a clickhouse.Action) []clickhouse.Action { return []clickhouse.Action{a} },
			[]string{"it continues where it stopped", "penstock reingest --since 2026-11-22T00:00:00Z --replace", "Start again…",
				`name="since" value="2026-11-22T00:00:00Z"`, `name="replace" value="true"`}},
		{"edited payloads", func(clickhouse.Action) []clickhouse.Action { return []clickhouse.Action{edited} },
			[]string{"Edit and resend the failure record again"}},
		{"a dead process of this machine", func(a clickhouse.Action) []clickhouse.Action {
			a.Process = host + "-2147483646"
			return []clickhouse.Action{a}
		}, []string{"it continues where it stopped"}},
		{"a living process of this machine", func(a clickhouse.Action) []clickhouse.Action {
			a.Process = fmt.Sprint(host, "-", os.Getpid())
			return []clickhouse.Action{a}
		}, nil},
		{"another machine", func(a clickhouse.Action) []clickhouse.Action {
			a.Process = "other-1"
			return []clickhouse.Action{a}
		}, nil},
		{"it is running", func(a clickhouse.Action) []clickhouse.Action {
			a.Began = time.Now().Add(time.Minute)
			return []clickhouse.Action{a}
		}, nil},
		{"it is done", func(a clickhouse.Action) []clickhouse.Action {
			a.Result, a.Ended = "done", began.Add(time.Minute)
			return []clickhouse.Action{a}
		}, nil},
		{"it was done again", func(a clickhouse.Action) []clickhouse.Action {
			again := a
			again.Result, again.Began = "done", began.Add(time.Minute)
			return []clickhouse.Action{again, a}
		}, nil},
		{"a command", func(a clickhouse.Action) []clickhouse.Action {
			a.Via = viaCommand
			return []clickhouse.Action{a}
		}, nil},
	} {
		b.past = tt.action(reingest)
		text := b.get("/console/part/tasks").Body.String()
		for _, want := range tt.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", tt.name, want, text)
			}
		}
		again := strings.Contains(text, "Its process ended before the task did")
		if again != (tt.want != nil) {
			t.Errorf("%s: interrupted %v:\n%s", tt.name, again, text)
		}
		b.console.broken.at = when // not from the cache
		if now := b.get("/console/part/now").Body.String(); strings.Contains(now, "A task was interrupted.") != again {
			t.Errorf("%s: now:\n%s", tt.name, now)
		}
	}
	b.past = []clickhouse.Action{reingest}
	if text := b.login("look").get("/console/part/tasks").Body.String(); !strings.Contains(text, "interrupted") ||
		strings.Contains(text, "<form") {
		t.Errorf("a viewer sees\n%s", text)
	}
}
