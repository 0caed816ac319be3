package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/term"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/traffic"
)

// devSummary is what `dev --events` prints.
type devSummary struct {
	Sent     int64   `json:"sent"`
	Accepted int64   `json:"accepted"`
	Rejected int64   `json:"rejected"`
	Objects  uint64  `json:"objects"`
	Rows     uint64  `json:"rows"`
	Distinct uint64  `json:"distinct_event_ids"`
	Seconds  float64 `json:"seconds"`
}

const (
	devBatch   = 100 // events a request
	devWorkers = 8   // connections
	// devPatience is how long the number of rows may stand still, in addition
	// to a roll, before `dev --events` gives up.
	devPatience = time.Minute
)

// batch is how many events go into a request: few where the rate is low.
func (st *stack) batch() int {
	if st.opts.demo == 0 {
		return devBatch
	}
	return max(1, min(devBatch, st.opts.demo/10))
}

// client sends generated events.
func (st *stack) client() *traffic.Client {
	c := traffic.NewClient(st.state.Receiver+"/v1/events", st.state.Key, devWorkers)
	if st.cfg.Receiver.TLS.Cert != "" {
		c.HTTP.Transport.(*http.Transport).TLSClientConfig = st.files.HTTPClient().Transport.(*http.Transport).TLSClientConfig
	}
	return c
}

// events sends a number of events, waits for the rows and prints a summary.
func (st *stack) events(ctx context.Context) error {
	began, run := time.Now(), fmt.Sprintf("run%x", time.Now().UnixNano())
	since := began.Add(-time.Second).UnixMilli()
	db, err := clickhouse.Open(tableOptions(st.cfg.ClickHouse, 1))
	if err != nil {
		return err
	}
	defer db.Close()
	var sent traffic.Sent
	sending := make(chan error, 1)
	go func() {
		sending <- traffic.Run(ctx, st.client(), run, st.opts.events, st.batch(), devWorkers, st.opts.demo, &sent)
	}()
	line := newLiveLine(st.out)
	defer line.end()
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
		line.show("sent %d of %d, accepted %d, objects %d, rows %d, %.1f s", sent.Events.Load(), st.opts.events, sent.Accepted.Load(), now.Objects, now.Rows, time.Since(began).Seconds())
		if done && (now.Rows >= uint64(sent.Events.Load()) || time.Since(changed) > st.opts.roll+devPatience) {
			break
		}
	}
	line.end()
	sum := devSummary{Sent: sent.Events.Load(), Accepted: sent.Accepted.Load(), Rejected: sent.Rejected.Load(),
		Objects: now.Objects, Rows: now.Rows, Distinct: now.Distinct, Seconds: time.Since(began).Round(time.Millisecond).Seconds()}
	if st.opts.json {
		if err := json.NewEncoder(st.out.out).Encode(sum); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(st.out.out, "sent %d, accepted %d, rejected %d, objects %d, rows %d, distinct ids %d, %.1f s\n",
			sum.Sent, sum.Accepted, sum.Rejected, sum.Objects, sum.Rows, sum.Distinct, sum.Seconds)
	}
	if sum.Rows != uint64(sum.Sent) {
		return fmt.Errorf("%d events were sent and %d are rows; see the logs in %s and `penstock status`", sum.Sent, sum.Rows, st.opts.data)
	}
	return nil
}

// demo sends at a rate until ctx ends, and shows how it goes.
func (st *stack) demo(ctx context.Context) error {
	run := fmt.Sprintf("demo%x", time.Now().UnixNano())
	db, err := clickhouse.Open(tableOptions(st.cfg.ClickHouse, 1))
	if err != nil {
		return err
	}
	defer db.Close()
	var sent traffic.Sent
	sending := make(chan error, 1)
	go func() {
		sending <- traffic.Run(ctx, st.client(), run, 0, st.batch(), devWorkers, st.opts.demo, &sent)
	}()
	line := newLiveLine(st.out)
	defer line.end()
	before, _ := db.TableStatus(ctx, pipeline.Events.Name)
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
		now, err := db.TableStatus(ctx, pipeline.Events.Name)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			line.show("ClickHouse does not answer: %s", err)
			continue
		}
		accepted := sent.Accepted.Load()
		rate := float64(accepted-last) / time.Since(lastAt).Seconds()
		last, lastAt = accepted, time.Now()
		lag := "-"
		if now.Newest >= began.UnixMilli() {
			lag = time.Since(pipeline.Millis(now.Newest)).Round(100 * time.Millisecond).String()
		}
		line.show("accepted %d (%.0f/s), objects %d, rows %d, lag %s", accepted, rate, now.Objects-before.Objects, now.Rows-before.Rows, lag)
	}
}

// liveLine is a line on standard error that is drawn over itself on a
// terminal, and comes every ten seconds anew where there is none.
type liveLine struct {
	out      streams
	terminal bool
	drawn    bool
	last     time.Time
}

func newLiveLine(s streams) *liveLine {
	f, ok := s.err.(interface{ Fd() uintptr })
	return &liveLine{out: s, terminal: ok && term.IsTerminal(int(f.Fd())), last: time.Now()}
}

func (l *liveLine) show(format string, args ...any) {
	if l.terminal {
		fmt.Fprintf(l.out.err, "\r\x1b[K"+format, args...)
		l.drawn = true
	} else if time.Since(l.last) >= 10*time.Second {
		l.last = time.Now()
		fmt.Fprintf(l.out.err, format+"\n", args...)
	}
}

func (l *liveLine) end() {
	if l.drawn {
		fmt.Fprintln(l.out.err)
		l.drawn = false
	}
}
