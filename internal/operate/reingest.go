package operate

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/loader/audit"
)

type reingestParams struct {
	Keys     []string  `json:"keys,omitempty" param:"key" arg:"KEY… | -" usage:"keys of objects; - reads keys from standard input, one per line"`
	Prefix   string    `json:"prefix,omitempty" param:"prefix" usage:"all objects with this key prefix"`
	Since    string    `json:"since,omitempty" param:"since" usage:"start of a time range: 2026-11-22, 2026-11-22T03:00:00Z, or a duration ago, such as 24h or 7d"`
	Until    string    `json:"until" param:"until" default:"now" usage:"end of the time range"`
	Pipeline string    `json:"pipeline" param:"pipeline" default:"events" enum:"events errors" usage:"pipeline of the time range: events or errors"`
	Replace  bool      `json:"replace,omitempty" param:"replace" usage:"also load objects that are loaded, and replace their rows"`
	DryRun   bool      `json:"dry_run,omitempty" param:"dry-run" usage:"only report what would be done"`
	Anew     bool      `json:"anew,omitempty" param:"anew" usage:"with --replace: start over instead of continuing an interrupted run"`
	Parallel int       `json:"parallel" param:"parallel" default:"2" usage:"objects loaded at once; live traffic has separate loaders"`
	began    time.Time // that the record in the audit table has; zero: now
}

// tally counts what a re-ingest does or would do, by action.
type tally struct {
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
	Rows    int64 `json:"rows"`
}

// reingestLine is one line of a re-ingest: an object that could not be loaded, or the final sum.
type reingestLine struct {
	Key     string                  `json:"key,omitempty"`
	Error   string                  `json:"error,omitempty"`
	Plan    map[audit.Action]*tally `json:"plan,omitempty"`
	Expire  *expiring               `json:"expire,omitempty"` // objects that the table will not keep
	DryRun  bool                    `json:"dry_run,omitempty"`
	Job     string                  `json:"job,omitempty"`
	Resumed *time.Time              `json:"resumed,omitempty"` // start of the interrupted run that this one continues
	Loaded  *tally                  `json:"loaded,omitempty"`
	Refused int64                   `json:"refused_rows,omitempty"`
	Failed  int64                   `json:"failed,omitempty"`
	Seconds float64                 `json:"seconds,omitempty"`
}

// expiring are objects that the table's TTL deletes right after they are loaded.
type expiring struct {
	tally
	Before time.Time `json:"before"` // the TTL deletes older rows
	Keys   []string  `json:"keys"`   // the first few
}

const expiringKeys = 10

func (x *expiring) print(w io.Writer) {
	fmt.Fprintf(w, "warning: the table's TTL deletes rows older than %s: it would delete %s of %s again.\n"+
		"To keep them, change the TTL first.\n", x.Before.Format(time.RFC3339), show.Plural(x.Rows, "row"),
		show.Plural(x.Objects, "object"))
	for _, key := range x.Keys {
		fmt.Fprintf(w, "         %s\n", key)
	}
	if more := x.Objects - int64(len(x.Keys)); more > 0 {
		fmt.Fprintf(w, "         and %d more\n", more)
	}
}

func reingestOperation() Operation {
	return Operation{
		Name: "reingest", method: http.MethodPost, path: "/v1/reingest", params: &reingestParams{}, item: reingestLine{},
		Short: "load objects again, by key, prefix or time range",
		About: "Skips objects that are loaded, unless --replace is set. You can interrupt it at any point:\n" +
			"no row is lost or doubled, and the same command continues where it stopped.\n" +
			"A run with --replace and --since 24h continues only by the times that it prints.",
		print: prints(printReingest), run: runs(runReingest),
	}
}

// actions are all actions, in display order.
var actions = []struct {
	action audit.Action
	text   string
}{
	{audit.ActionLoad, "not loaded: to load"},
	{audit.ActionAgain, "without a row in the table: to load again"},
	{audit.ActionReplace, "to replace"},
	{audit.ActionSkip, "loaded: left alone"},
	{audit.ActionExpired, "loaded, and expired by the table's TTL: left alone"},
	{audit.ActionDone, "replaced already, before this run was interrupted"},
	{audit.ActionDropped, "dropped: left alone (name it by its key to load it all the same)"},
}

func printReingest(w io.Writer, l *reingestLine) error {
	if l.Key != "" {
		_, err := fmt.Fprintf(w, "failed  %s: %s\n", l.Key, l.Error)
		return err
	}
	if l.Resumed != nil {
		fmt.Fprintf(w, "continuing the interrupted run that began at %s (--anew starts from the beginning)\n",
			l.Resumed.Format(time.RFC3339))
		if l.Plan == nil && l.Loaded == nil {
			return nil
		}
	}
	for _, a := range actions {
		if t := l.Plan[a.action]; t != nil {
			rows := show.Plural(t.Rows, "row")
			if !l.DryRun && t.Rows == 0 {
				rows = "rows not counted"
			}
			fmt.Fprintf(w, "%16s, %s, %s: %s\n", show.Plural(t.Objects, "object"), show.Plural(t.Bytes, "byte"), rows, a.text)
		}
	}
	if len(l.Plan) == 0 && l.Failed == 0 {
		fmt.Fprintln(w, "no object matches")
	}
	if l.Expire != nil {
		l.Expire.print(w)
	}
	if l.Loaded != nil {
		fmt.Fprintf(w, "loaded %s, %s (%d refused) in %.1f s, %.0f rows/s; %d failed\n",
			show.Plural(l.Loaded.Objects, "object"), show.Plural(l.Loaded.Rows, "row"), l.Refused, l.Seconds,
			float64(l.Loaded.Rows)/max(l.Seconds, 0.001), l.Failed)
	}
	return nil
}

// selection describes the params' selection. The same command gives the same text.
func (p *reingestParams) selection() string {
	if len(p.Keys) > 0 {
		keys := slices.Sorted(slices.Values(p.Keys))
		sum := sha256.Sum256([]byte(strings.Join(keys, "\n")))
		return fmt.Sprintf("%d keys, sha256 %s", len(keys), hex.EncodeToString(sum[:8]))
	}
	if p.Prefix != "" {
		return "prefix " + p.Prefix
	}
	return fmt.Sprintf("%s since %s until %s", p.Pipeline, p.Since, p.Until)
}

// fixed replaces relative durations by times, and reports whether there were any. A job is found by its range, and
// "24h" is another range at each run.
func (p *reingestParams) fixed(now time.Time) (*reingestParams, bool) {
	f := *p
	for _, text := range []*string{&f.Since, &f.Until} {
		if d, err := parseAge(*text); err == nil {
			*text = now.Add(-d).Format(time.RFC3339)
		}
	}
	return &f, f.Since != p.Since || f.Until != p.Until
}

// check rejects params that select nothing, or in two ways.
func (p *reingestParams) check(*Operator) error {
	ways := 0
	for _, c := range []bool{len(p.Keys) > 0, p.Prefix != "", p.Since != ""} {
		if c {
			ways++
		}
	}
	if ways != 1 {
		return Usagef("choose objects by one of KEY, --prefix and --since")
	}
	if p.Parallel < 1 {
		return Usagef("--parallel %d: set 1 or more", p.Parallel)
	}
	for _, key := range append(slices.Clone(p.Keys), p.Prefix) {
		if _, err := pipeline.SpecOf(key); err != nil && key != "" {
			return usage(err)
		}
	}
	_, err := p.chosen(time.Now())
	return err
}

// chosen returns the objects that the params select at a time.
func (p *reingestParams) chosen(now time.Time) (c audit.Selection, err error) {
	c.Keys, c.Prefix = p.Keys, p.Prefix
	if p.Since == "" {
		return c, nil
	}
	if c.Spec, err = pipeline.SpecNamed(p.Pipeline); err == nil {
		c.Span, err = parseSpanAt(p.Since, p.Until, now)
	}
	return c, err
}

func runReingest(ctx context.Context, o *Operator, p *reingestParams, out sink) error {
	now := p.began
	if now.IsZero() {
		now = time.Now().UTC()
	}
	p, relative := p.fixed(now)
	r := &reingest{o: o, p: p, relative: relative, out: out, plan: map[audit.Action]*tally{},
		loaders: map[pipeline.Spec]Loader{},
		job: clickhouse.Job{Selection: p.selection(), ID: fmt.Sprintf("%x", time.Now().UnixNano()),
			Started: now.Truncate(time.Millisecond)}}
	var err error
	if r.chosen, err = p.chosen(now); err != nil {
		return err
	}
	if p.Replace {
		if err := r.resume(ctx); err != nil {
			return err
		}
	}
	if err := r.count(ctx); err != nil {
		return err
	}
	sum := reingestLine{Plan: r.plan, Expire: r.expiring, DryRun: p.DryRun, Job: r.replacing()}
	if !p.DryRun {
		if err := r.carryOut(ctx); err != nil {
			return err
		}
		sum.Loaded, sum.Refused, sum.Failed, sum.Seconds = &r.done, r.refused, r.failed, time.Since(r.began).Seconds()
	}
	if err := out.item(sum); err != nil {
		return err
	}
	if r.failed > 0 {
		return fmt.Errorf("%s could not be loaded", show.Plural(r.failed, "object"))
	}
	return nil
}

// resume continues an interrupted job with the same selection.
func (r *reingest) resume(ctx context.Context) error {
	open, ok, err := r.o.Table.OpenJob(ctx, r.job.Selection)
	switch {
	case err != nil:
		return err
	case ok && !r.p.Anew:
		// Keep the first run's range: it excludes later objects.
		if r.chosen, err = r.p.chosen(open.Started); err != nil {
			return err
		}
		r.job = open
		return r.out.item(reingestLine{Resumed: &r.job.Started})
	case r.p.DryRun:
		return nil
	}
	return r.o.Table.SaveJob(ctx, r.job)
}

// carryOut executes the plan and closes the job.
func (r *reingest) carryOut(ctx context.Context) error {
	if err := r.do(ctx); err != nil {
		if ctx.Err() != nil {
			same := "the same command"
			if r.relative {
				same += fmt.Sprintf(" with --since %s --until %s", r.p.Since, r.p.Until)
			}
			return fmt.Errorf("interrupted after %s and %s; nothing is double or lost, and %s continues from here",
				show.Plural(r.done.Objects, "object"), show.Plural(r.done.Rows, "row"), same)
		}
		return err
	}
	if !r.p.Replace {
		return nil
	}
	// Failed objects do not interrupt a run: their ledger entries say so.
	r.job.Finished, r.job.FailedOnes = true, uint64(r.failed)
	r.job.Objects, r.job.Rows = uint64(r.done.Objects), uint64(r.done.Rows)
	return r.o.Table.SaveJob(ctx, r.job)
}

// reingest is one run.
type reingest struct {
	o        *Operator
	p        *reingestParams
	out      sink
	job      clickhouse.Job
	relative bool // the range was given in relative durations; p has its times
	chosen   audit.Selection
	loaders  map[pipeline.Spec]Loader
	plan     map[audit.Action]*tally
	expiring *expiring // nil: no object expires
	began    time.Time

	mu      sync.Mutex // guards the fields below, and out
	done    tally
	refused int64
	failed  int64
	waiting string
}

// each decides about the selected objects, page by page.
func (r *reingest) each(ctx context.Context, page func(Loader, []audit.Item) error,
	missing func(string, error) error) error {
	plan := audit.Plan{Job: r.replacing(), ByKey: len(r.p.Keys) > 0}
	return r.chosen.Objects(ctx, r.o.Store, func(spec pipeline.Spec, objects []pipeline.Object) error {
		items, err := plan.Items(ctx, spec, objects, r.o.Table, r.o.Table)
		if err != nil {
			return err
		}
		if r.loaders[spec] == nil && !r.p.DryRun { // it connects to the queue, and creates what is missing there
			if r.loaders[spec], err = r.o.Loader(ctx, spec); err != nil {
				return err
			}
		}
		return page(r.loaders[spec], items)
	}, func(key string, err error) error {
		if !errors.Is(err, objstore.ErrNotFound) {
			return err
		}
		return missing(key, err)
	})
}

// replacing is the job that replaces rows; empty: none.
func (r *reingest) replacing() string {
	if r.p.Replace {
		return r.job.ID
	}
	return ""
}

// count computes the plan.
func (r *reingest) count(ctx context.Context) error {
	return r.each(ctx, func(_ Loader, items []audit.Item) error {
		if r.p.DryRun {
			objects := make([]pipeline.Object, len(items))
			unknown := map[string]bool{}
			for i := range items {
				objects[i] = items[i].Object
				unknown[items[i].Object.Key] = items[i].Entry.State != pipeline.Loaded
			}
			if err := r.o.heads(ctx, objects, func(o pipeline.Object) bool { return unknown[o.Key] }); err != nil {
				return err
			}
			for i := range items {
				items[i].Object = objects[i]
			}
		}
		for _, it := range items {
			t := r.plan[it.Action]
			if t == nil {
				t = &tally{}
				r.plan[it.Action] = t
			}
			t.add(it)
			if !it.Limit.IsZero() {
				r.expires(it)
			}
		}
		return nil
	}, func(key string, err error) error {
		if !r.p.DryRun {
			return nil // do reports it
		}
		r.failed++
		return r.out.item(reingestLine{Key: key, Error: err.Error()})
	})
}

func (t *tally) add(it audit.Item) {
	t.Objects++
	t.Bytes += it.Object.Size
	if it.Entry.State == pipeline.Loaded {
		t.Rows += int64(it.Entry.Rows)
	} else {
		t.Rows += it.Object.Meta.Rows
	}
}

func (r *reingest) expires(it audit.Item) {
	if r.expiring == nil {
		r.expiring = &expiring{Before: it.Limit}
	}
	r.expiring.add(it)
	if len(r.expiring.Keys) < expiringKeys {
		r.expiring.Keys = append(r.expiring.Keys, it.Object.Key)
	}
}

// do executes the plan.
func (r *reingest) do(ctx context.Context) error {
	r.began = time.Now()
	var total tally
	for _, a := range []audit.Action{audit.ActionLoad, audit.ActionAgain, audit.ActionReplace} {
		if t := r.plan[a]; t != nil {
			total.Objects += t.Objects
			total.Bytes += t.Bytes
		}
	}
	ticking, stop := context.WithCancel(ctx)
	var ticker sync.WaitGroup
	ticker.Go(func() {
		for retry.Sleep(ticking, 200*time.Millisecond) == nil {
			r.mu.Lock()
			r.out.progress(progress{Objects: r.done.Objects, TotalObjects: total.Objects, Rows: r.done.Rows, Bytes: r.done.Bytes,
				TotalBytes: total.Bytes,
				Seconds:    time.Since(r.began).Seconds(), Text: r.waiting})
			r.mu.Unlock()
		}
	})
	defer func() { stop(); ticker.Wait() }()
	g, work := errgroup.WithContext(ctx)
	g.SetLimit(r.p.Parallel)
	err := r.each(work, func(l Loader, items []audit.Item) error {
		for _, it := range items {
			switch it.Action {
			case audit.ActionSkip, audit.ActionDone, audit.ActionDropped, audit.ActionExpired:
				continue
			}
			g.Go(func() error { return r.one(work, l, it) })
			if work.Err() != nil {
				return work.Err()
			}
		}
		return nil
	}, func(key string, err error) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.failed++
		return r.out.item(reingestLine{Key: key, Error: err.Error()})
	})
	if failed := g.Wait(); failed != nil {
		return failed
	}
	return err
}

// collapsed reports whether an object has no rows because clients' resends replaced all of them.
func (r *reingest) collapsed(ctx context.Context, it audit.Item) (bool, error) {
	if it.Action != audit.ActionAgain {
		return false, nil
	}
	return audit.Collapsed(ctx, r.o.Source, r.o.Table, it)
}

// one loads an object. It waits for an unreachable server.
func (r *reingest) one(ctx context.Context, l Loader, it audit.Item) error {
	for attempt := 1; ; attempt++ {
		var entry pipeline.Load
		collapsed, err := r.collapsed(ctx, it)
		if err == nil && !collapsed {
			entry, err = l.Reingest(ctx, it, r.replacing())
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && retry.ClassOf(err) == retry.Outage {
			r.mu.Lock()
			r.waiting = "waiting: " + err.Error()
			r.mu.Unlock()
			if err := retry.Sleep(ctx, retry.Backoff{Min: 500 * time.Millisecond,
				Max: 15 * time.Second}.Delay(attempt)); err != nil {
				return err
			}
			continue
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.waiting = ""
		if err != nil {
			r.failed++
			return r.out.item(reingestLine{Key: it.Object.Key, Error: err.Error()})
		}
		r.done.Objects++
		r.done.Bytes += it.Object.Size
		r.done.Rows += int64(entry.Rows)
		r.refused += int64(len(entry.Refused))
		return nil
	}
}

// ReadKeys reads a reingest's keys from in, one on each line, if "-" is among the keys.
func ReadKeys(params any, in io.Reader) error {
	p := params.(*reingestParams)
	if !slices.Contains(p.Keys, "-") {
		return nil
	}
	p.Keys = slices.DeleteFunc(p.Keys, func(k string) bool { return k == "-" })
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if key := strings.TrimSpace(lines.Text()); key != "" {
			p.Keys = append(p.Keys, key)
		}
	}
	if len(p.Keys) == 0 {
		return Usagef("standard input has no key")
	}
	return lines.Err()
}
