package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/app"
	"github.com/penstock/penstock/internal/app/dev"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/load"
	"github.com/penstock/penstock/internal/traffic"
	"github.com/penstock/penstock/tools/bench/report"
	"github.com/penstock/penstock/tools/devstack"
)

// benchStack is the stack of one run in a separate folder. Its data is deleted at the end.
type benchStack struct {
	dev.Servers
	data   string
	cfg    config.Config
	config string // path of its file
	key    string
	died   context.CancelCauseFunc // ends the run if a process dies
}

// roleProcess is a running receiver or loader.
type roleProcess struct {
	*devstack.Process
	listen, admin string
}

// onStack runs measure on a new stack, with all servers or only MinIO, and stops the stack. measure's context ends if a
// process dies.
func (b *benchmark) onStack(ctx context.Context, all bool,
	measure func(context.Context, *benchStack) error) (err error) {
	st := &benchStack{Servers: dev.Servers{Program: b.program}}
	if st.data, err = os.MkdirTemp("", "penstock-bench-"); err != nil {
		return err
	}
	defer func() {
		for _, p := range st.Processes {
			p.Kill()
		}
		err = errors.Join(err, os.RemoveAll(st.data))
	}()
	if b.large > 0 {
		dir, err := elsewhere(st.data)
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	if st.cfg, err = config.Load("", os.Environ()); err != nil {
		return err
	}
	if err := st.Servers.Start(ctx, b.have, &st.cfg,
		dev.ServerOptions{Data: st.data, Queue: all, Tables: all}); err != nil {
		return err
	}
	key, hash, err := dev.Key(filepath.Join(st.data, "key"))
	if err != nil {
		return err
	}
	c := &st.cfg
	st.key, c.Receiver.Keys = key, []config.Key{{Project: "bench", SHA256: hash}}
	format, _, _ := strings.Cut(string(b.formats[0]), ".") // the flag ndjson.zst is ndjson in the configuration
	c.Receiver.Durability, c.Batcher.Format, c.Batcher.RollAge = b.durability, format, config.Duration(b.roll)
	if b.durability != "object" {
		c.Batcher.ObjectWait = config.Duration(time.Millisecond) // see flush
	}
	if !all {
		c.Storage.Notify = "none"
	}
	if b.profile != "" || b.tail {
		c.Admin.Token = key // profiles and live events need a token
	}
	if b.configure != nil {
		b.configure(c)
	}
	st.config = filepath.Join(st.data, "penstock.yaml")
	if err := writeConfig(st.config, *c); err != nil {
		return err
	}
	if !all {
		err = app.OpenBucket(c.Storage).Create(ctx)
	} else if out, failed := exec.CommandContext(ctx, b.program, // #nosec G204 G702 -- the binary to measure
		"setup", "--config", st.config).CombinedOutput(); failed != nil {
		err = fmt.Errorf("%w\n%s", failed, out)
	}
	if err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	ctx, st.died = context.WithCancelCause(ctx)
	defer st.died(nil)
	for _, p := range st.Processes {
		st.watch(ctx, p)
	}
	err = measure(ctx, st)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause // a dead process explains all other errors
	}
	return err
}

// watch ends the run if a process ends unexpectedly.
func (st *benchStack) watch(ctx context.Context, p *devstack.Process) {
	go func() {
		select {
		case <-p.Done():
			if err := p.Err(); err != nil {
				st.died(err)
			}
		case <-ctx.Done():
		}
	}()
}

// role starts a receiver or a loader.
func (st *benchStack) role(ctx context.Context, role string) (*roleProcess, error) {
	var ports [2]int
	for i := range ports {
		var err error
		if ports[i], err = dev.FreePort(); err != nil {
			return nil, err
		}
	}
	name := role + strconv.Itoa(len(st.Processes))
	r := &roleProcess{listen: dev.Loopback(ports[0]), admin: "http://" + dev.Loopback(ports[1])}
	var err error
	r.Process, err = st.StartRole(ctx, role, st.config, r.admin, filepath.Join(st.data, name+".log"),
		"PENSTOCK_RECEIVER_LISTEN="+r.listen, "PENSTOCK_RECEIVER_NAME="+name, "PENSTOCK_LOADER_NAME="+name,
		"PENSTOCK_BATCHER_DIR="+filepath.Join(st.data, name))
	if err != nil {
		return nil, err
	}
	st.watch(ctx, r.Process)
	return r, nil
}

// metric reads a role's counter by its full name with labels.
func (r *roleProcess) metric(ctx context.Context, name string) (float64, error) {
	text, err := operate.GetAdmin(ctx, http.DefaultClient, r.admin, "/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", r.admin, name)
}

// poolBytes is the total size of the bodies that are sent in turn, in bytes. It is more than a compressor's window, so
// that it finds no repetition.
const poolBytes = 16 << 20

// clients returns the load generator for a receiver at addr. run is a prefix of the events' sessions.
func (b *benchmark) clients(addr, key, run string, rate int) load.Clients {
	c := load.Clients{Connections: b.conns, Rate: float64(rate), Events: b.events, Duration: b.duration,
		Dial: func(ctx context.Context) (load.Poster, error) { return load.Dial(ctx, addr, key) }}
	g := traffic.New(run, uint64(time.Now().UnixNano()))
	g.Properties, g.Paths, g.Kind = b.properties, b.paths, b.kinds[0]
	for size := 0; size < poolBytes || b.name == "disk"; size += c.Bodies[len(c.Bodies)-1].Len() {
		if b.name == "disk" && len(c.Bodies)*b.batch >= b.events {
			break // no repeated event: a compressor would find it
		}
		c.Bodies = append(c.Bodies, traffic.NewBody(g, b.batch))
	}
	return c
}

// send runs clients and shows progress.
func (b *benchmark) send(ctx context.Context, c load.Clients) (*load.Sent, error) {
	var live load.Counts
	ended := make(chan struct{})
	var sent *load.Sent
	var err error
	go func() {
		defer close(ended)
		sent, err = c.Run(ctx, &live)
	}()
	began, last, lastAt := time.Now(), int64(0), time.Now()
	for {
		select {
		case <-ended:
			return sent, err
		case <-time.After(500 * time.Millisecond):
		}
		now := live.Accepted.Load()
		rate := float64(now-last) / time.Since(lastAt).Seconds()
		last, lastAt = now, time.Now()
		left := c.Duration - time.Since(began)
		if c.Duration == 0 && now > 0 {
			left = time.Duration(float64(c.Events-int(now)) / (float64(now) / time.Since(began).Seconds()) * float64(
				time.Second))
		}
		b.line.Show("%s: %d events accepted, %.0f/s, %.0f s left", b.now, now, rate, max(0, left.Seconds()))
	}
}

// await polls until done, and shows progress. It gives up if there is no progress for patience.
func (b *benchmark) await(ctx context.Context, what string, every, patience time.Duration,
	ask func() (far int64, done bool, err error)) error {
	last, changed := int64(-1), time.Now()
	for {
		far, done, err := ask()
		if done || err != nil {
			return err
		}
		if far != last {
			last, changed = far, time.Now()
		}
		if time.Since(changed) > patience {
			return fmt.Errorf("waiting for %s: %d, and nothing has moved for %s", what, far, patience)
		}
		b.line.Show("%s: waiting for %s: %d", b.now, what, far)
		if err := retry.Sleep(ctx, every); err != nil {
			return context.Cause(ctx)
		}
	}
}

// flush makes the batcher roll: it sends one more event that is answered once it is in the bucket. Then it waits for
// all other events.
func (b *benchmark) flush(ctx context.Context, r *roleProcess, key string) error {
	if b.durability != "object" {
		c := traffic.NewClient("http://"+r.listen+"/v1/events?durability=object", key, 1)
		if _, err := c.Send(ctx, []byte(`{"name":"bench_flush"}`)); err != nil {
			return fmt.Errorf("flush: %w", err)
		}
	}
	return b.await(ctx, "objects", 20*time.Millisecond, time.Minute, func() (int64, bool, error) {
		st, err := operate.AskRole(ctx, http.DefaultClient, r.admin)
		if err != nil {
			return 0, false, err
		}
		events := st.Batchers[0]
		return events.Stored, events.ActiveRows == 0 && events.Sealed == 0, nil
	})
}

// meter is the usage of all processes up to a moment.
type meter struct {
	groups map[int]load.Usage
	self   load.Usage
}

func readMeter() (m meter, err error) {
	if m.groups, err = load.Groups(); err != nil {
		return m, err
	}
	m.self, err = load.Self()
	return m, err
}

// cpu is the CPU time of processes since an earlier reading, in seconds.
func (m meter) cpu(before meter, of ...*devstack.Process) (sum float64) {
	for _, p := range of {
		sum += (m.groups[p.Pid].CPU - before.groups[p.Pid].CPU).Seconds()
	}
	return sum
}

// own is the CPU time of this process, the generator, since an earlier reading.
func (m meter) own(before meter) float64 { return (m.self.CPU - before.self.CPU).Seconds() }

func mib[N int64 | float64](bytes N) float64 { return float64(bytes) / (1 << 20) }

// addMemory adds a process's current and peak memory.
func addMemory(f *report.Figures, name string, p *devstack.Process, m meter) error {
	peak, err := load.PeakRSS(p.Pid)
	if err != nil {
		return err
	}
	f.Add(name+"_peak_rss_mib", mib(peak))
	f.Add(name+"_end_rss_mib", mib(m.groups[p.Pid].RSS))
	return nil
}

// addSent adds the clients' results.
func addSent(f *report.Figures, s *load.Sent) {
	f.Add("accepted", float64(s.Accepted))
	f.Add("rejected", float64(s.Rejected))
	f.Add("failed_requests", float64(s.Failed()))
	f.Add("sent_mib", mib(s.Bytes))
	f.Add("accepted_per_s", float64(s.Accepted)/s.Elapsed.Seconds())
}

func addLatency(f *report.Figures, s *load.Sent, rate int) {
	ms := func(d time.Duration) float64 { return d.Seconds() * 1000 }
	for _, q := range []struct {
		name  string
		share float64
	}{{"p50", 0.5}, {"p99", 0.99}, {"p999", 0.999}} {
		f.Add("latency_"+q.name+"_ms", ms(s.Latency.Quantile(q.share)))
	}
	f.Add("latency_max_ms", ms(s.Latency.Max()))
	if rate > 0 {
		f.Add("late_p99_ms", ms(s.Late.Quantile(0.99)))
	}
}

// failed adds the errors of a run.
func failed(run *report.Run, s *load.Sent) {
	if s.FirstFailure != nil {
		run.Failures, run.Failure = s.Failures, s.FirstFailure.Error()
	}
}
