package dev

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/penstock/penstock/internal/app"
	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/internal/traffic"
)

// summary is what `dev --events` prints.
type summary struct {
	Sent     int64   `json:"sent"`
	Accepted int64   `json:"accepted"`
	Rejected int64   `json:"rejected"`
	Objects  uint64  `json:"objects"`
	Rows     uint64  `json:"rows"`
	Distinct uint64  `json:"distinct_event_ids"`
	Seconds  float64 `json:"seconds"`
}

const (
	batchEvents = 100 // events a request
	workers     = 8   // connections
	// patience is how long the number of rows may stay the same, in addition to a roll, before `dev --events` gives up.
	patience = time.Minute
)

// batch is the number of events in a request: few if the rate is low.
func (st *stack) batch() int {
	if st.opts.Demo == 0 {
		return batchEvents
	}
	return max(1, min(batchEvents, st.opts.Demo/10))
}

// client sends generated events.
func (st *stack) client() *traffic.Client {
	c := traffic.NewClient(st.state.Receiver+"/v1/events", st.state.Key, workers)
	if st.cfg.Receiver.TLS.Cert != "" {
		c.HTTP.Transport.(*http.Transport).TLSClientConfig = st.TLS.HTTPClient().Transport.(*http.Transport).TLSClientConfig
	}
	return c
}

// events sends a number of events, waits for the rows and prints a summary.
func (st *stack) events(ctx context.Context) error {
	began, run := time.Now(), fmt.Sprintf("run%x", time.Now().UnixNano())
	since := began.Add(-time.Second).UnixMilli()
	db := app.OpenTable(st.cfg.ClickHouse, 1)
	defer db.Close()
	var sent traffic.Sent
	sending := make(chan error, 1)
	go func() {
		sending <- traffic.Run(ctx, st.client(), run, st.opts.Events, st.batch(), workers, st.opts.Demo, &sent)
	}()
	line := show.NewLine(st.opts.Err)
	defer line.End()
	var now clickhouse.RunStatus
	done, changed := false, time.Now()
	for {
		select {
		case err := <-sending:
			if err != nil {
				return fmt.Errorf("send: %w", err)
			}
			done, changed, sending = true, time.Now(), nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
		next, err := db.RunStatus(ctx, pipeline.Events.Name, run, since)
		if err != nil {
			return err
		}
		if next != now {
			now, changed = next, time.Now()
		}
		line.Show("sent %d of %d, accepted %d, objects %d, rows %d, %.1f s", sent.Events.Load(), st.opts.Events,
			sent.Accepted.Load(), now.Objects, now.Rows, time.Since(began).Seconds())
		if done && (now.Rows >= uint64(sent.Events.Load()) || time.Since(changed) > st.opts.Roll+patience) {
			break
		}
	}
	line.End()
	sum := summary{Sent: sent.Events.Load(), Accepted: sent.Accepted.Load(), Rejected: sent.Rejected.Load(),
		Objects: now.Objects, Rows: now.Rows, Distinct: now.Distinct,
		Seconds: time.Since(began).Round(time.Millisecond).Seconds()}
	if st.opts.JSON {
		if err := json.NewEncoder(st.opts.Out).Encode(sum); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(st.opts.Out, "sent %d, accepted %d, rejected %d, objects %d, rows %d, distinct ids %d, %.1f s\n",
			sum.Sent, sum.Accepted, sum.Rejected, sum.Objects, sum.Rows, sum.Distinct, sum.Seconds)
	}
	if sum.Rows != uint64(sum.Sent) {
		return fmt.Errorf("sent %s, and %d became rows; see the logs in %s and `penstock status`",
			show.Plural(sum.Sent, "event"), sum.Rows,
			st.opts.Data)
	}
	return nil
}

// demo sends events at a rate until ctx ends, and shows the progress.
func (st *stack) demo(ctx context.Context) error {
	run := fmt.Sprintf("demo%x", time.Now().UnixNano())
	db := app.OpenTable(st.cfg.ClickHouse, 1)
	defer db.Close()
	var sent traffic.Sent
	sending := make(chan error, 1)
	go func() {
		sending <- traffic.Run(ctx, st.client(), run, 0, st.batch(), workers, st.opts.Demo, &sent)
	}()
	line := show.NewLine(st.opts.Err)
	defer line.End()
	first, _ := db.TableStatus(ctx)
	before := first[pipeline.Events.Name]
	began, last, lastAt := time.Now(), int64(0), time.Now()
	for {
		select {
		case err := <-sending:
			if ctx.Err() == nil && err != nil {
				return fmt.Errorf("send: %w", err)
			}
			return nil
		case <-time.After(time.Second):
		}
		tables, err := db.TableStatus(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			line.Show("ClickHouse does not answer: %s", err)
			continue
		}
		now, accepted := tables[pipeline.Events.Name], sent.Accepted.Load()
		rate := float64(accepted-last) / time.Since(lastAt).Seconds()
		last, lastAt = accepted, time.Now()
		lag := "-"
		if now.Newest >= began.UnixMilli() {
			lag = time.Since(pipeline.Millis(now.Newest)).Round(100 * time.Millisecond).String()
		}
		line.Show("accepted %d (%.0f/s), objects %d, rows %d, lag %s", accepted, rate, now.Objects-before.Objects,
			now.Rows-before.Rows, lag)
	}
}
