package clickhouse

import (
	"slices"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

func TestDeletions(t *testing.T) {
	for engine, want := range map[string][]string{
		"MergeTree ORDER BY a SETTINGS index_granularity = 8192":                                                nil,
		"MergeTree ORDER BY a TTL toDateTime(received_at) + toIntervalDay(2) SETTINGS index_granularity = 8192": {"toDateTime(received_at) + toIntervalDay(2)"},
		"MergeTree ORDER BY ` TTL ` TTL a + toIntervalDay(1) DELETE, b + f(1, ' TO ')":                          {"a + toIntervalDay(1)", "b + f(1, ' TO ')"},
		"MergeTree ORDER BY a TTL a TO VOLUME 'cold', a WHERE b = 1, a RECOMPRESS CODEC(ZSTD(1)), c":            {"c"},
		"MergeTree ORDER BY a TTL a GROUP BY b SET c = max(c)":                                                  nil,
	} {
		if got := deletions(engine); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", engine, got, want)
		}
	}
}

func TestExpired(t *testing.T) {
	db, _, _ := open(t)
	if got, err := db.Expired(t.Context(), "events"); err != nil || got != (pipeline.Expiry{}) {
		t.Errorf("without a TTL: %v, %v; want nothing expired", got, err)
	}
	for ttl, want := range map[string]time.Duration{ // negative: by timestamp
		"toDateTime(received_at) + INTERVAL 2 DAY": 48 * time.Hour,
		"received_at + INTERVAL 90 MINUTE":         90 * time.Minute,
		"toDateTime(received_at) + INTERVAL 1 HOUR, toDateTime(received_at) + INTERVAL 2 MINUTE RECOMPRESS CODEC(ZSTD(3))": time.Hour,
		"toDateTime(received_at) + INTERVAL 2 DAY DELETE WHERE project = 'x'":                                              0,
		"toDateTime(timestamp) + INTERVAL 2 DAY":                                                                           -48 * time.Hour,
		"toDateTime(identity_time) + INTERVAL 2 DAY":                                                                       0,
		"toDateTime(received_at) + if(project = 'x', toIntervalDay(1), toIntervalDay(20))":                                 0,
		"toDateTime(received_at) + INTERVAL 200 SECOND RECOMPRESS CODEC(ZSTD(3))":                                          0,
	} {
		if err := db.conn.Exec(t.Context(), "ALTER TABLE events MODIFY TTL "+ttl); err != nil {
			t.Errorf("%s: %v", ttl, err)
			continue
		}
		got, err := db.Expired(t.Context(), "events")
		if err != nil {
			t.Errorf("%s: %v", ttl, err)
			continue
		}
		before, other := got.Received, got.Time
		if want < 0 {
			before, other, want = other, before, -want
		}
		if !other.IsZero() || before.IsZero() != (want == 0) {
			t.Errorf("%s: got %v, want rows before %s ago", ttl, got, want)
		}
		if off := time.Since(before) - want; want != 0 && off.Abs() > 5*time.Second {
			t.Errorf("%s: rows before %s are expired, %s ago", ttl, before, time.Since(before))
		}
	}
}
