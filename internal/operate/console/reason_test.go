package console

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/config"
)

// Each page that cannot be shown says in words what is away, and what to do.
func TestReasons(t *testing.T) {
	b := newBrowser(t).login("secret")
	for field, want := range map[string][]string{
		"clickhouse.addresses": {"ClickHouse cannot be used.", "Start it. Receivers go on.", "loaded when ClickHouse is back"},
		"storage.endpoint":     {"The bucket cannot be used.", "Start it. Receivers go on.", "stored when the bucket is back"},
		"queue.url":            {"The queue cannot be used.", "Start it. Receivers go on."},
	} {
		b.away = &config.FieldError{Field: field, Value: "x:1", Err: errors.New("connection <b>refused</b>"), Do: "start it"}
		for _, path := range []string{"errors", "record?id=" + id.String(), "objects", "object?key=events/x", "letters", "tasks",
			"verify", "audit", "find?what=" + id.String()} {
			text := b.get("/console/part/" + path).Body.String()
			for _, want := range append(want, `role="alert"`, "connection &lt;b&gt;refused") {
				if !strings.Contains(text, want) {
					t.Errorf("%s without %s has no %q:\n%s", path, field, want, text)
				}
			}
		}
		text := b.get("/console/part/now").Body.String()
		if !strings.Contains(text, want[0]) || !strings.Contains(text, "Receivers go on.") {
			t.Errorf("now without %s:\n%s", field, text)
		}
		b.console.now.at, b.console.hour.at = when, when // not from the cache
	}
	b.away = context.DeadlineExceeded
	if text := b.get("/console/part/errors").Body.String(); !strings.Contains(text, "This takes too long.") ||
		!strings.Contains(text, "Choose a shorter time range") || !strings.Contains(text, `data-every="10"`) {
		t.Errorf("a slow query:\n%s", text)
	}
	b.away = nil
	if text := b.get("/console/part/errors?since=x").Body.String(); !strings.Contains(text, "This cannot be shown.") ||
		strings.Contains(text, "data-every") {
		t.Errorf("a wrong filter:\n%s", text)
	}
}
