package audit

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/bubble"
)

// right is a claim shared by processes.
type right struct {
	owner    string
	until    time.Time // end of the owner's claim; zero: never
	err      error
	taken    int
	released int
}

// claimed is the right held by one process.
type claimed struct {
	*right
	owner string
}

func (c claimed) Renew(context.Context) (bool, error) { return c.right.owner == c.owner, c.err }
func (c claimed) Release(context.Context) error {
	c.released++
	c.right.owner = ""
	return c.err
}

func (r *right) of(owner string) func(context.Context) (Claim, bool, error) {
	return func(context.Context) (Claim, bool, error) {
		if expired := !r.until.IsZero() && time.Now().After(r.until); r.err != nil || r.owner != "" && !expired {
			return nil, false, r.err
		}
		r.owner, r.until = owner, time.Time{}
		r.taken++
		return claimed{r, owner}, true, nil
	}
}

// periodic runs a periodic sweep of a world for a while. It returns the enqueued keys and the log.
func (w *world) periodic(t *testing.T, r *right, owner string, d time.Duration) (told []string, log string) {
	t.Helper()
	var lines bytes.Buffer
	p := NewPeriodic(pipeline.Events, PeriodicOptions{Bucket: w, Ledger: w, Claim: r.of(owner),
		Enqueue: func(_ context.Context, n pipeline.Notification) (bool, error) {
			known := slices.Contains(told, n.Key)
			told = append(told, n.Key)
			return known, nil
		},
		Every: 10 * time.Minute, Span: 24 * time.Hour, Grace: time.Minute}, slog.New(slog.NewTextHandler(&lines, nil)),
		prometheus.NewRegistry())
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	p.Run(ctx)
	return told, lines.String()
}

// Objects that are not loaded are enqueued repeatedly; those outside the span are not.
func TestPeriodicSweeps(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w, r := newWorld(), &right{}
		lost := pipeline.Key{Prefix: "events/", Time: time.Now().Add(-time.Hour), Receiver: "r",
			Format: pipeline.Parquet}.String()
		w.objects[lost] = time.Now().Add(-time.Hour)
		w.objects["events/dt=1999-01-01/x.ndjson"] = time.Now().Add(-time.Hour)
		told, log := w.periodic(t, r, "a", time.Hour)
		if n := len(told); n < 5 || n > 12 || slices.ContainsFunc(told, func(key string) bool { return key != lost }) {
			t.Errorf("enqueued %q in an hour, want %s every 5 to 10 minutes", told, lost)
		}
		if n := strings.Count(log, "sweep found objects that were not loaded"); n != 1 {
			t.Errorf("the log has the find %d times, want once, since the queue knew it then:\n%s", n, log)
		}
		if r.taken != 1 || r.released != 1 {
			t.Errorf("the claim was taken %d times, released %d times", r.taken, r.released)
		}
	})
}

// One process sweeps. If its claim is lost or cannot be renewed, it acquires it again.
func TestPeriodicNeedsTheClaim(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w, r := newWorld(), &right{owner: "b"}
		if told, _ := w.periodic(t, r, "a", time.Hour); w.pages+w.queries > 0 || len(told) > 0 || r.released > 0 {
			t.Errorf("while another has the claim: %d pages, enqueued %q, released %d times", w.pages, told, r.released)
		}
		r.owner = ""
		key := pipeline.Key{Prefix: "events/", Time: time.Now(), Receiver: "r", Format: pipeline.Parquet}.String()
		w.objects[key] = time.Now().Add(-time.Hour)
		w.between = func() { r.owner, r.until = "b", time.Now().Add(time.Hour) } // during the second sweep
		w.periodic(t, r, "a", 2*time.Hour)
		if r.taken != 2 || w.queries < 3 {
			t.Errorf("the claim was taken %d times, want twice; %d sweeps", r.taken, w.queries)
		}
		r.err = errors.New("the store is away")
		queries := w.queries
		if _, log := w.periodic(t, r, "a", time.Hour); w.queries > queries || !strings.Contains(log, "the store is away") {
			t.Errorf("%d sweeps without a claim; log:\n%s", w.queries-queries, log)
		}
	})
}

// After a failed sweep, the next one runs.
func TestPeriodicGoesOn(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w, r := newWorld(), &right{}
		key := pipeline.Key{Prefix: "events/", Time: time.Now(), Receiver: "r", Format: pipeline.Parquet}.String()
		w.objects[key] = time.Now().Add(-time.Hour)
		w.failing, w.until = "ledger", time.Now().Add(time.Hour)
		told, log := w.periodic(t, r, "a", 2*time.Hour)
		if len(told) == 0 || !strings.Contains(log, "sweep failed") {
			t.Errorf("enqueued %q; log:\n%s", told, log)
		}
	})
}
