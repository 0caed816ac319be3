package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/tools/bench/ask"
	"github.com/penstock/penstock/tools/bench/report"
)

// usual are the questions that --ask-every asks while events are sent.
var usual = []struct{ name, sql string }{
	{"count_final", "SELECT count() FROM events FINAL WHERE project = 'bench'"},
	{"hour_by_name_final", "SELECT name, count() FROM events FINAL WHERE project = 'bench' AND " +
		"timestamp > now() - INTERVAL 1 HOUR GROUP BY name"},
	{"one_user", "SELECT timestamp, name FROM events FINAL WHERE project = 'bench' AND user_id = " +
		"(SELECT user_id FROM events WHERE project = 'bench' AND user_id != '' LIMIT 1) ORDER BY timestamp DESC LIMIT 100"},
}

// sustained watches the table while events are sent.
type sustained struct {
	server ask.Server
	took   map[string][]float64 // milliseconds of each question
	parts  []float64            // active ones, at each look
}

// sustain starts to ask, and returns what ends it.
func (b *benchmark) sustain(ctx context.Context, st *benchStack) (end func() (*sustained, error), err error) {
	s := &sustained{took: map[string][]float64{}, server: ask.Server{HTTP: st.ClickHouse.HTTP(),
		Native: st.ClickHouse.Addr(), User: st.ClickHouse.User(), Password: st.ClickHouse.Password(),
		Database: st.cfg.ClickHouse.Database}}
	if b.mergeBase > 0 {
		sql := fmt.Sprintf("ALTER TABLE events MODIFY SETTING merge_selector_base = %d", b.mergeBase)
		if _, err := s.server.Query(ctx, sql); err != nil {
			return nil, fmt.Errorf("--merge-base: %w", err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.run(ctx, b.askEvery) }()
	return func() (*sustained, error) {
		cancel()
		return s, <-done
	}, nil
}

// run asks until ctx ends.
func (s *sustained) run(ctx context.Context, every time.Duration) error {
	for every > 0 && retry.Sleep(ctx, every) == nil {
		if parts, err := s.numbers(ctx, "SELECT count() FROM system.parts WHERE active AND table = 'events' AND "+
			"database = currentDatabase()"); err == nil {
			s.parts = append(s.parts, parts[0])
		}
		for _, q := range usual {
			a, err := s.server.Query(ctx, q.sql)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return fmt.Errorf("question %s: %w", q.name, err)
			}
			s.took[q.name] = append(s.took[q.name], a.Took.Seconds()*1000)
		}
	}
	return nil
}

// numbers returns the first row of an answer.
func (s *sustained) numbers(ctx context.Context, sql string) (all []float64, err error) {
	a, err := s.server.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	if len(a.Rows) == 0 {
		return nil, fmt.Errorf("no row: %s", sql)
	}
	for _, v := range a.Rows[0] {
		n, ok := v.(json.Number)
		f, err := n.Float64()
		if !ok || err != nil {
			return nil, fmt.Errorf("%v is no number: %s", v, sql)
		}
		all = append(all, f)
	}
	return all, nil
}

// add adds what the table has cost, after the last merge, if questions were asked.
func (s *sustained) add(ctx context.Context, f *report.Figures, rows int64) error {
	if len(s.parts) == 0 {
		return nil
	}
	counters := []string{"MergedRows", "OSWriteBytes", "WriteBufferFromFileDescriptorWriteBytes"}
	var sums []string
	for _, c := range counters {
		sums = append(sums, "toFloat64(sumIf(value, event = '"+c+"'))")
	}
	now, err := s.numbers(ctx, "SELECT "+strings.Join(sums, ", ")+" FROM system.events")
	if err != nil {
		return err
	}
	parts, err := s.numbers(ctx, "SELECT count(), toFloat64(sum(bytes_on_disk)) FROM system.parts WHERE active AND "+
		"table = 'events' AND database = currentDatabase()")
	if err != nil {
		return err
	}
	f.Add("merged_rows_per_row", now[0]/float64(rows))
	f.Add("clickhouse_wrote_mib", mib(max(now[1], now[2])))
	f.Add("table_mib", mib(parts[1]))
	f.Add("parts", parts[0])
	f.Add("parts_median", report.Median(s.parts))
	for _, q := range usual {
		f.Add(q.name+"_ms", report.Median(s.took[q.name]))
	}
	return nil
}
