package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/load"
	"github.com/penstock/penstock/internal/traffic"
	"github.com/penstock/penstock/internal/version"
	"github.com/penstock/penstock/tools/bench/ask"
	"github.com/penstock/penstock/tools/bench/report"
)

// asking is the benchmark of questions.
type asking struct {
	*benchmark
	plan      ask.Plan
	aged      bool // ask again after the merges of a day
	hold      bool
	copies    int // copies of all rows, for the questions of scale
	questions []ask.Question
	http      *http.Client
}

const askAbout = "Sends events of 30 days to a receiver, 1 % of the requests twice, waits until they are rows, and " +
	"asks an analyst's questions.\nEach answer is compared with the same question to plain typed tables, which hold " +
	"each event once.\nExit status 1 if an answer differs. The stack is under $TMPDIR and gone afterwards."

// parseAsk reads the flags.
func parseAsk(s streams, args []string) (*asking, *benchOptions, error) {
	o := &benchOptions{name: "ask", durability: "memory", formats: []pipeline.Format{pipeline.Parquet},
		kinds: []traffic.Kind{traffic.Game}, roll: 5 * time.Second, loaders: 1, flags: map[string]string{}}
	a := &asking{}
	fs := newFlags(s, o.name, askAbout)
	fs.IntVar(&o.events, "rows", 10_000_000, "`number` of events, without resends")
	fs.IntVar(&o.batch, "batch", 500, "`events` a request")
	fs.IntVar(&o.conns, "connections", 4, "`number` of connections that send at once")
	fs.IntVar(&o.runs, "runs", 3, "`number` of runs of a question after the first one; their median counts")
	scale := fs.String("scale", "",
		"ask the most usual questions of this `number` of rows, too, as 100M: the rows are copied to earlier days")
	only := fs.String("only", "", "ask the questions whose name has one of these `texts`, with commas between them")
	fs.BoolVar(&a.aged, "aged", false, "ask again when weeks that are over are merged, as ClickHouse does after a day")
	fs.BoolVar(&a.hold, "hold", false, "leave the servers running after the questions, until Ctrl-C")
	fs.StringVar(&o.json, "json", "", "write the figures as JSON to this `file`; - is standard output, in place of tables")
	fs.StringVar(&o.penstock, "penstock", "", "`binary` to measure; by default this checkout's, which is built")
	fs.StringVar(&o.before, "before", "", "`binary` of an earlier schema, asked as its docs wrote the questions")
	if err := parseFlags(fs, args); err != nil {
		return nil, nil, err
	}
	if o.batch < 1 || o.conns < 1 || o.runs < 0 || o.events/o.batch < 50 {
		return nil, nil, fmt.Errorf("--rows %d --batch %d --connections %d --runs %d: at least 50 requests, a connection "+
			"and no run less than 0", o.events, o.batch, o.conns, o.runs)
	}
	a.plan = ask.Plan{Events: o.events, Batch: o.batch, Seed: 1, End: time.Now().UTC().Truncate(time.Second)}
	a.http = traffic.NewClient("", "", o.conns).HTTP
	var err error
	if a.copies, err = copies(*scale, o.events); err != nil {
		return nil, nil, fmt.Errorf("--scale %s: %w", *scale, err)
	}
	a.questions, err = selected(*only)
	return a, o, err
}

// runAsk measures and reports.
func runAsk(ctx context.Context, s streams, args []string) error {
	a, o, err := parseAsk(s, args)
	if err != nil {
		return err
	}
	if err := o.writable(); err != nil {
		return err
	}
	var done func()
	if a.benchmark, done, err = o.open(ctx, s); err != nil {
		return err
	}
	defer done()
	r := ask.Report{Version: version.Current().Version, Time: time.Now().UTC().Truncate(time.Second),
		Machine: report.ThisMachine(os.TempDir()), Events: o.events}
	err = a.all(ctx, &r)
	a.line.End()
	if len(r.Sides) == 0 {
		return err
	}
	return errors.Join(err, r.Write(s.out, o.json))
}

// selected returns the questions whose name contains one of the texts.
func selected(texts string) ([]ask.Question, error) {
	all, err := ask.Questions()
	if err != nil || texts == "" {
		return all, err
	}
	var some []ask.Question
	for _, q := range all {
		for text := range strings.SplitSeq(texts, ",") {
			if strings.Contains(q.Name, text) {
				some = append(some, q)
				break
			}
		}
	}
	if len(some) == 0 {
		return nil, fmt.Errorf("--only %s: no question is named so", texts)
	}
	return some, nil
}

// copies returns how many copies of all rows give a scale such as 100M.
func copies(scale string, rows int) (int, error) {
	if scale == "" {
		return 1, nil
	}
	unit := 1
	if digits, ok := strings.CutSuffix(scale, "M"); ok {
		scale, unit = digits, 1_000_000
	}
	n, err := strconv.Atoi(scale)
	if err != nil {
		return 0, err
	}
	if n *= unit; n < 2*rows || n%rows != 0 {
		return 0, fmt.Errorf("it has to be a multiple of --rows, which is %d", rows)
	}
	return n / rows, nil
}

// all measures both sides. The truth tables judge only the current one.
func (a *asking) all(ctx context.Context, r *ask.Report) error {
	sides := []string{after}
	if a.before != "" {
		sides = []string{before, after}
	}
	program := a.program
	for _, name := range sides {
		a.program = program
		if name == before {
			a.program = a.before
		}
		if err := a.side(ctx, name, r); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	var failures []string
	for _, side := range append(r.Sides, r.Scaled...) {
		if side.Name != before {
			failures = append(failures, ask.Failures(side)...)
		}
	}
	if len(failures) > 0 {
		return fmt.Errorf("%d answers are wrong:\n%s", len(failures), strings.Join(failures, "\n"))
	}
	return nil
}

// Names of sides.
const (
	before = "before"
	after  = "after"
	aged   = "aged" // after, plus the merges of a day
)

// side sends the events through one binary and asks.
func (a *asking) side(ctx context.Context, name string, r *ask.Report) error {
	keys := map[string]string{}
	a.configure = func(c *config.Config) {
		c.Receiver.Keys = nil
		for _, project := range []string{ask.Game, ask.Chat} {
			keys[project] = "bench_ask_" + project
			sum := sha256.Sum256([]byte(keys[project]))
			c.Receiver.Keys = append(c.Receiver.Keys, config.Key{Project: project, SHA256: hex.EncodeToString(sum[:])})
		}
		for model, t := range ask.Tariffs {
			c.LLM.Prices = append(c.LLM.Prices, config.Price{Model: model, Input: t.Input, Output: t.Output})
		}
	}
	return a.onStack(ctx, true, func(ctx context.Context, st *benchStack) error {
		server := ask.Server{HTTP: st.ClickHouse.HTTP(), Native: st.ClickHouse.Addr(), User: st.ClickHouse.User(),
			Password: st.ClickHouse.Password(), Database: st.cfg.ClickHouse.Database}
		l := &loading{asking: a, name: name, st: st, server: server, keys: keys}
		loaded, err := l.load(ctx)
		if err != nil {
			return err
		}
		if err := l.ask(ctx, loaded, a.questions, &r.Sides); err != nil {
			return err
		}
		if a.aged && name == after {
			if err := l.age(ctx, &r.Sides); err != nil {
				return err
			}
		}
		if a.copies > 1 {
			if err := l.scale(ctx, &r.Scaled); err != nil {
				return err
			}
		}
		if a.hold && name == after {
			l.wait(ctx, r)
		}
		return nil
	})
}

// loading sends the events into one stack.
type loading struct {
	*asking
	name   string
	st     *benchStack
	server ask.Server
	keys   map[string]string // by project
	asker  ask.Asker
}

// ask asks questions about the current rows, and adds a side with the answers.
func (l *loading) ask(ctx context.Context, side ask.Side, questions []ask.Question, into *[]ask.Side) (err error) {
	if err := l.describe(ctx, &side); err != nil {
		return err
	}
	l.asker.Progress = func(what string) { l.line.Show("%s: %s", side.Name, what) }
	if side.Results, err = l.asker.All(ctx, questions); err == nil {
		*into = append(*into, side)
	}
	return err
}

// load sends all events. When they are rows, it sends one more request, whose events are the only ones of the last 5
// minutes.
func (l *loading) load(ctx context.Context) (side ask.Side, err error) {
	side.Name = l.name
	r, err := l.st.role(ctx, "receive")
	if err != nil {
		return side, err
	}
	loaders, err := l.startLoaders(ctx, l.st)
	if err != nil {
		return side, err
	}
	truth, err := ask.OpenTruth(ctx, l.server)
	if err != nil {
		return side, err
	}
	began := time.Now()
	sent, err := l.send(ctx, "http://"+r.listen+"/v1/events", truth)
	if err != nil {
		return side, err
	}
	if err := l.awaitLoaded(ctx, sent); err != nil {
		return side, err
	}
	side.Load = time.Since(began).Seconds()
	cut := time.Now().Truncate(time.Second).Add(time.Second)
	time.Sleep(time.Until(cut.Add(time.Second)))
	live := l.plan.Live(time.Now())
	if err := l.post(ctx, "http://"+r.listen+"/v1/events?durability=object", live); err != nil {
		return side, err
	}
	if err := errors.Join(truth.Add(ctx, live.Rows), truth.Close(ctx)); err != nil {
		return side, err
	}
	sent += len(live.Rows)
	if err := l.awaitLoaded(ctx, sent); err != nil {
		return side, err
	}
	if err := l.awaitMerged(ctx); err != nil {
		return side, err
	}
	side.Sent = sent
	for _, p := range loaders { // stop them: they refresh rollups, which disturbs the questions
		p.Stop(ctx)
	}
	if l.name != before {
		if side.Rollups, err = l.refresh(ctx); err != nil {
			return side, err
		}
	}
	subjects, err := ask.FindSubjects(ctx, l.server, l.plan.Users(), cut)
	l.asker = ask.Asker{Server: l.server, Subjects: subjects, Before: l.name == before, Runs: l.runs,
		CPU: func() (time.Duration, error) {
			groups, err := load.Groups()
			return groups[l.st.ClickHouse.Pid].CPU, err
		}}
	return side, err
}

// refresh computes the rollups and returns the seconds that it took.
func (l *loading) refresh(ctx context.Context) (float64, error) {
	l.line.Show("%s: refreshing rollups", l.name)
	began := time.Now()
	out, err := exec.CommandContext(ctx, l.program, // #nosec G204 -- the binary to measure
		"rollups", "refresh", "--config", l.st.config).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("penstock rollups refresh: %w\n%s", err, out)
	}
	return time.Since(began).Seconds(), l.awaitMerged(ctx)
}

// send sends the plan and fills the truth tables. The last request is answered once all events are in the bucket.
func (l *loading) send(ctx context.Context, url string, truth *ask.Truth) (sent int, err error) {
	sends := l.plan.Sends()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	steps, rows := make(chan ask.Send), make(chan []ask.Row, l.conns)
	var workers, teller sync.WaitGroup
	for range l.conns {
		workers.Go(func() {
			for step := range steps {
				request := l.plan.Make(step.Request)
				if err := l.post(ctx, url, request); err != nil {
					cancel(err)
				} else if !step.Again {
					rows <- request.Rows
				}
			}
		})
	}
	teller.Go(func() {
		for some := range rows {
			if ctx.Err() != nil {
				continue // the workers must not wait
			}
			if err := truth.Add(ctx, some); err != nil {
				cancel(err)
			}
		}
	})
	last := len(sends) - 1
	for i, step := range sends[:last] {
		if i%100 == 0 {
			l.line.Show("%s: %d of %d events sent", l.name, i*l.batch, len(sends)*l.batch)
		}
		if ctx.Err() != nil {
			break
		}
		steps <- step
	}
	close(steps)
	workers.Wait()
	if ctx.Err() == nil {
		request := l.plan.Make(sends[last].Request)
		if err := l.post(ctx, url+"?durability=object", request); err != nil {
			cancel(err)
		} else if !sends[last].Again {
			rows <- request.Rows
		}
	}
	close(rows)
	teller.Wait()
	return len(sends) * l.batch, context.Cause(ctx)
}

// post sends a request and requires that all events are accepted.
func (l *loading) post(ctx context.Context, url string, r ask.Request) error {
	c := traffic.Client{URL: url, Key: l.keys[r.Project], HTTP: l.http}
	answer, err := c.Send(ctx, r.Body)
	if err == nil && answer.Accepted != len(r.Rows) {
		err = fmt.Errorf("%d of %d events were accepted", answer.Accepted, len(r.Rows))
	}
	return err
}

// awaitLoaded waits until the ledger has all events, including resends.
func (l *loading) awaitLoaded(ctx context.Context, want int) error {
	l.now = l.name
	return l.await(ctx, "rows", 250*time.Millisecond, rowsPatience, func() (int64, bool, error) {
		n, err := l.number(ctx, "SELECT sum(rows) FROM loads FINAL WHERE status = 'loaded' AND pipeline = 'events'")
		return n, n >= int64(want), err
	})
}

// awaitMerged waits until there have been no merges for two seconds.
func (l *loading) awaitMerged(ctx context.Context) error {
	quiet := 0
	return l.await(ctx, "merges to end", 500*time.Millisecond, 10*time.Minute, func() (int64, bool, error) {
		n, err := l.number(ctx, "SELECT count() FROM system.merges")
		if quiet++; n > 0 {
			quiet = 0
		}
		return n, quiet == 4, err
	})
}

// describe records how the rows are stored.
func (l *loading) describe(ctx context.Context, side *ask.Side) (err error) {
	parts := "FROM system.parts WHERE active AND database = currentDatabase() AND table = 'events'"
	for _, f := range []struct {
		into *int64
		sql  string
	}{
		{&side.Rows, "SELECT sum(rows) " + parts},
		{&side.Parts, "SELECT count() " + parts},
		{&side.Partitions, "SELECT uniqExact(partition_id) " + parts},
		{&side.Bytes, "SELECT sum(bytes_on_disk) " + parts},
	} {
		if *f.into, err = l.number(ctx, f.sql); err != nil {
			return err
		}
	}
	return nil
}

func (l *loading) number(ctx context.Context, sql string) (int64, error) {
	text, err := l.server.One(ctx, sql)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(text, 10, 64)
}

// wait prints the figures and keeps the server running for further questions.
func (l *loading) wait(ctx context.Context, r *ask.Report) {
	l.line.End()
	if err := r.Write(os.Stderr, ""); err != nil {
		return
	}
	fmt.Fprintf(os.Stderr, "%s: %s/?database=%s; Ctrl-C to go on\n", l.name, l.st.ClickHouse.HTTPWithPassword(),
		l.server.Database)
	<-ctx.Done()
}

// age merges partitions older than a week, as ClickHouse does after a day without inserts, and asks again.
func (l *loading) age(ctx context.Context, into *[]ask.Side) error {
	began := time.Now()
	partitions, err := l.server.Query(ctx, "SELECT DISTINCT partition FROM system.parts WHERE active "+
		"AND database = currentDatabase() AND table = 'events' AND toDateOrZero(partition) < today() - 6")
	if err != nil {
		return err
	}
	for i, row := range partitions.Rows {
		l.line.Show("%s: merging %d of %d partitions", l.name, i+1, len(partitions.Rows))
		sql := fmt.Sprintf("OPTIMIZE TABLE events PARTITION '%s' FINAL", row[0])
		if _, err := l.server.Query(ctx, sql); err != nil {
			return err
		}
	}
	return l.ask(ctx, ask.Side{Name: aged, Load: time.Since(began).Seconds()}, l.questions, into)
}

// scale copies all rows to earlier times and asks again. Sessions and ids differ, users are the same.
func (l *loading) scale(ctx context.Context, into *[]ask.Side) error {
	began := time.Now()
	for i := 1; i < l.copies; i++ {
		l.line.Show("%s: copy %d of %d", l.name, i, l.copies-1)
		if err := ask.Copy(ctx, l.server, i); err != nil {
			return err
		}
	}
	if err := l.awaitMerged(ctx); err != nil {
		return err
	}
	var some []ask.Question
	for _, q := range l.questions {
		if q.Scale {
			some = append(some, q)
		}
	}
	return l.ask(ctx, ask.Side{Name: l.name, Load: time.Since(began).Seconds()}, some, into)
}
