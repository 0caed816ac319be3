package operate

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/show"
)

// letterFilter selects dead letters or failing objects. Keys name both.
type letterFilter struct {
	Keys     []string `json:"keys,omitempty" param:"key" arg:"KEY…" usage:"keys of objects"`
	All      bool     `json:"all,omitempty" param:"all" usage:"all dead letters; with --failing, all failing objects"`
	Failing  bool     `json:"failing,omitempty" param:"failing" usage:"objects that failed and will be tried again, instead of dead letters"`
	Pipeline string   `json:"pipeline,omitempty" param:"pipeline" enum:"events errors" usage:"events or errors; empty: both"`
	Code     string   `json:"code,omitempty" param:"code" usage:"only objects with this error code, such as object_damaged"`
	Reason   string   `json:"reason,omitempty" param:"reason" usage:"only objects whose reason contains this text"`
}

// chosen reports whether objects are named. Operations that change something require it.
func (f letterFilter) chosen() error {
	if len(f.Keys) == 0 && !f.All && f.Pipeline == "" && f.Code == "" && f.Reason == "" {
		return Usagef("no object is chosen: name keys, or set --code, --reason, --pipeline or --all")
	}
	return nil
}

// letterChoice selects what to try again.
type letterChoice struct{ letterFilter }

func (p *letterChoice) check(*Operator) error { return p.chosen() }

type dropParams struct {
	letterFilter
	Why string `json:"why" param:"why" usage:"reason, stored in the load ledger"`
	Yes bool   `json:"yes" param:"yes" usage:"do not ask for confirmation"`
}

// letterResult is the result for one dead letter or failing object.
type letterResult struct {
	Key    string `json:"key"`
	Result string `json:"result"` // redriven, dropped
	Was    string `json:"was"`    // dead or failed
}

// letterDetail is everything known about a dead letter or a failing object.
type letterDetail struct {
	pipeline.DeadLetter
	Object   *objectInfo       `json:"object,omitempty"` // nil: no longer in the bucket
	Failures []clickhouse.Kept `json:"recent_failures"`
}

func deadLetterOperations() []Operation {
	result := rows(func(r *letterResult) []string { return []string{r.Result, r.Key} })
	was := func(item any) string { return item.(*letterResult).Was }
	changed := func(what string) func(io.Writer, any, map[string]int) {
		return func(w io.Writer, _ any, n map[string]int) { fmt.Fprintln(w, lettersText(n, false), what) }
	}
	return []Operation{
		{
			Name: "dlq list", method: http.MethodGet, path: "/v1/dlq", params: &letterFilter{}, item: pipeline.DeadLetter{},
			Short: "list dead letters or failing objects, and why they failed",
			About: "A failing object was tried, and will be tried again: up to loader.max_attempts times,\n" +
				"then it is a dead letter. Commands that name an object by its key accept both.",
			header: []string{"STATE", "CODE", ">FAILURES", "FIRST", "LAST", "KEY", "REASON"},
			row: rows(func(d *pipeline.DeadLetter) []string {
				return []string{d.State, d.Code, strconv.Itoa(int(d.Failures)),
					d.First.Format(time.RFC3339), d.Last.Format(time.RFC3339),
					d.Key, d.Reason}
			}),
			kind: func(item any) string { return item.(*pipeline.DeadLetter).State },
			sum: func(w io.Writer, params any, n map[string]int) {
				fmt.Fprintln(w, lettersText(n, params.(*letterFilter).Failing))
			},
			run: runs(func(ctx context.Context, o *Operator, f *letterFilter, out sink) error {
				return o.letters(ctx, *f, func(l pipeline.Load) error { return out.item(l.DeadLetter()) })
			}),
		},
		{
			Name: "dlq show", method: http.MethodGet, path: "/v1/dlq/letters", params: &letterFilter{}, item: letterDetail{},
			Short: "show dead letters or failing objects with load ledger and last failures",
			print: prints(printLetter), run: runs(showLetters),
		},
		{
			Name: "dlq redrive", method: http.MethodPost, path: "/v1/dlq/redrive", params: &letterChoice{}, item: letterResult{},
			Short:  "try to load dead letters or failing objects now",
			header: []string{"RESULT", "KEY"}, row: result, kind: was, sum: changed("redriven"),
			run: runs(redriveLetters),
		},
		{
			Name: "dlq drop", method: http.MethodPost, path: "/v1/dlq/drop", params: &dropParams{}, item: letterResult{},
			Short:  "mark dead letters or failing objects as never to load; they stay in the bucket",
			header: []string{"RESULT", "KEY"}, row: result, kind: was, sum: changed("dropped"),
			run: runs(dropLetters),
		},
		{
			Name: "dlq rebuild", method: http.MethodPost, path: "/v1/dlq/rebuild", params: &struct{}{}, item: rebuilt{},
			Short: "rebuild the dead letters in NATS from the load ledger",
			print: prints(func(w io.Writer, r *rebuilt) error {
				_, err := fmt.Fprintf(w, "%s in the stream; there were %d\n", show.Plural(r.Now, "dead letter"), r.Before)
				return err
			}),
			run: runs(rebuildLetters),
		},
	}
}

// lettersText counts objects by their state. failing says what none is called.
func lettersText(n map[string]int, failing bool) string {
	dead, failed := n[pipeline.Dead.String()], n[pipeline.Failed.String()]
	switch {
	case failed == 0 && !failing:
		return show.Plural(dead, "dead letter")
	case dead == 0:
		return show.Plural(failed, "failing object")
	}
	return show.Plural(dead, "dead letter") + " and " + show.Plural(failed, "failing object")
}

// rebuilt is the number of dead letters in the queue's stream, before and after.
type rebuilt struct {
	Before uint64 `json:"before"`
	Now    int    `json:"now"`
}

// letters calls each with the entries of a filter.
func (o *Operator) letters(ctx context.Context, f letterFilter, each func(pipeline.Load) error) error {
	missing := map[string]bool{}
	for _, k := range f.Keys {
		missing[k] = true
	}
	for _, spec := range pipeline.Specs() {
		if f.Pipeline != "" && f.Pipeline != spec.Name {
			continue
		}
		consider := func(l pipeline.Load) error {
			if len(f.Keys) > 0 && !missing[l.Key] || f.Code != "" && l.Code != f.Code ||
				!strings.Contains(l.Error, f.Reason) {
				return nil
			}
			delete(missing, l.Key)
			return each(l)
		}
		var err error
		if len(f.Keys) > 0 || !f.Failing {
			err = o.Table.Dead(ctx, spec.Name, consider)
		}
		if err == nil && (len(f.Keys) > 0 || f.Failing) {
			err = o.Table.Failing(ctx, spec.Name, consider)
		}
		if err != nil {
			return err
		}
	}
	for k := range missing {
		return fmt.Errorf("%s is neither a dead letter nor failing; run `penstock dlq list` and "+
			"`penstock dlq list --failing`", k)
	}
	return nil
}

func showLetters(ctx context.Context, o *Operator, f *letterFilter, out sink) error {
	if err := f.chosen(); err != nil {
		return err
	}
	return o.letters(ctx, *f, func(l pipeline.Load) error {
		d := letterDetail{DeadLetter: l.DeadLetter(), Failures: []clickhouse.Kept{}}
		obj, err := o.Store.Head(ctx, l.Key)
		if err != nil && !errors.Is(err, objstore.ErrNotFound) {
			return err
		}
		if err == nil {
			spec, _ := pipeline.SpecNamed(l.Pipeline)
			info := describe(spec, obj, l, true)
			d.Object = &info
		}
		if err := o.Table.Errors(ctx, clickhouse.ErrorFilter{Source: l.Key, Limit: 20}, func(k clickhouse.Kept) error {
			d.Failures = append(d.Failures, k)
			return nil
		}); err != nil {
			return err
		}
		return out.item(d)
	})
}

func printLetter(w io.Writer, d *letterDetail) error {
	fmt.Fprintf(w,
		"key       %s\nstate     %s\ncode      %s\nreason    %s\nattempts  %d, of which %d failed because of the object\n"+
			"first     %s\nlast      %s\ntoken     %s\n",
		d.Key, d.State, d.Code, d.Reason, d.Attempts, d.DeadLetter.Failures, d.First.Format(time.RFC3339),
		d.Last.Format(time.RFC3339), d.Token)
	if d.Object == nil {
		fmt.Fprintln(w, "object    not in the bucket any more")
	} else {
		fmt.Fprintf(w, "object    %s, %s, stored %s, etag %s\n", show.Plural(d.Object.Bytes, "byte"),
			show.Plural(d.Object.Rows, "row"), d.Object.Stored.Format(time.RFC3339), d.Object.ETag)
	}
	for _, k := range d.Failures {
		fmt.Fprintf(w, "failure   %s %s: %s\n", k.Time.Format(time.RFC3339), k.Code, k.Message)
	}
	_, err := fmt.Fprintln(w)
	return err
}

// changeLetters writes an operator's decision about dead letters into the ledger, calls then, and removes them from the
// queue if it keeps any. q is nil if there is no queue.
func (o *Operator) changeLetters(ctx context.Context, f letterFilter, change func(*pipeline.Load),
	then func(q Queue, l pipeline.Load) error, out sink, result string) error {
	if err := f.chosen(); err != nil {
		return err
	}
	q, err := o.Queue(ctx)
	if err != nil {
		return err
	}
	kept, _ := q.(queue.Letters)
	return o.letters(ctx, f, func(l pipeline.Load) error {
		was := l.State.String()
		change(&l)
		// From here on a sweep follows the ledger, even if this process dies before it updates the queue.
		if err := o.Table.SaveLoad(ctx, l); err != nil {
			return err
		}
		if q != nil {
			if err := then(q, l); err != nil {
				return err
			}
		}
		if kept != nil {
			if err := kept.Forget(ctx, l.Pipeline, l.Key); err != nil {
				return err
			}
		}
		return out.item(letterResult{l.Key, result, was})
	})
}

func redriveLetters(ctx context.Context, o *Operator, p *letterChoice, out sink) error {
	return o.changeLetters(ctx, p.letterFilter, func(l *pipeline.Load) {
		l.State, l.Failures = pipeline.Failed, 0
		l.Attempts++
		if l.ChunkRows == 0 {
			return // nothing of it was inserted
		}
		// A mended object replaces the rows that came of the damaged one.
		if obj, err := o.Store.Head(ctx, l.Key); err == nil && obj.ETag != l.ETag {
			l.ETag, l.ChunkRows, l.Refused = obj.ETag, 0, nil
			l.Generation++
		}
	}, func(q Queue, l pipeline.Load) error {
		spec, err := pipeline.SpecNamed(l.Pipeline)
		if err != nil {
			return err
		}
		_, err = q.Enqueue(ctx, spec, pipeline.Notification{Key: l.Key, Size: int64(l.Bytes)}, true)
		return err
	}, out, "redriven")
}

func (p *dropParams) check(*Operator) error {
	if err := p.chosen(); err != nil {
		return err
	}
	if !p.Yes {
		return Usagef("the objects will never be loaded: set --yes to confirm")
	}
	return nil
}

func dropLetters(ctx context.Context, o *Operator, p *dropParams, out sink) error {
	return o.changeLetters(ctx, p.letterFilter, func(l *pipeline.Load) {
		if l.State == pipeline.Failed {
			l.Attempts++ // otherwise a running attempt would hide the drop
		}
		l.State, l.Finished = pipeline.Dropped, time.Now().UTC()
		if p.Why != "" {
			l.Error = "dropped: " + p.Why + " (was: " + l.Error + ")"
		}
	}, func(Queue, pipeline.Load) error { return nil }, out, "dropped")
}

func rebuildLetters(ctx context.Context, o *Operator, _ *struct{}, out sink) error {
	q, err := o.Queue(ctx)
	if err != nil {
		return err
	}
	kept, ok := q.(queue.Letters)
	if !ok {
		return fmt.Errorf("nothing to rebuild: no queue keeps dead letters (queue.type %s), the load ledger alone has them; "+
			"\"penstock dlq list\" lists them", o.Config.QueueType())
	}
	var all []pipeline.DeadLetter
	if err := o.letters(ctx, letterFilter{},
		func(l pipeline.Load) error { all = append(all, l.DeadLetter()); return nil }); err != nil {
		return err
	}
	before, err := kept.Rebuild(ctx, all)
	if err != nil {
		return err
	}
	return out.item(rebuilt{before, len(all)})
}

// ConfirmDrop lists the dead letters to drop, and asks for confirmation.
func ConfirmDrop(ctx context.Context, ex Executor, params any, answers io.Reader, to io.Writer) error {
	p := params.(*dropParams)
	if p.Yes {
		return nil
	}
	f := p.letterFilter
	if err := f.chosen(); err != nil {
		return err
	}
	var keys []string
	list := func(item any) error { keys = append(keys, item.(*pipeline.DeadLetter).Key); return nil }
	if err := ex(ctx, Find("dlq list"), &f, sink{item: list, progress: func(progress) {}}); err != nil {
		return err
	}
	if len(keys) == 0 {
		return errors.New("there is nothing to drop")
	}
	for _, k := range keys[:min(len(keys), 10)] {
		fmt.Fprintln(to, " ", k)
	}
	fmt.Fprintf(to, "This drops %s: kept in the bucket, never loaded. Type yes to continue: ",
		show.Plural(len(keys), "object"))
	answer, _ := bufio.NewReader(answers).ReadString('\n')
	if strings.TrimSpace(answer) != "yes" {
		return errors.New("nothing was dropped")
	}
	p.Keys, p.Yes = keys, true
	return nil
}
