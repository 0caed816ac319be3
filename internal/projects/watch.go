package projects

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/tenant"
)

// Watcher applies changes of the file to a receiver.
type Watcher struct {
	path     string
	receiver *receiver.Receiver
	log      *slog.Logger
	invalid  prometheus.Gauge
	reads    *prometheus.CounterVec
	used     [2]*prometheus.GaugeVec // events, bytes
	seen     os.FileInfo             // as it was when it was read last; nil: it was not there
	problem  atomic.Pointer[string]  // why the file cannot be used; nil: it can
}

// pollEvery is the interval between two looks at the file.
const pollEvery = time.Second

// Open reads the file for the first time.
func Open(path string, r *receiver.Receiver, log *slog.Logger, reg prometheus.Registerer) (*Watcher, error) {
	p := &Watcher{path: path, receiver: r, log: log,
		invalid: prometheus.NewGauge(prometheus.GaugeOpts{Name: "penstock_receiver_projects_invalid",
			Help: "1 while the projects file cannot be used. The previous projects stay in use."}),
		reads: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_receiver_projects_reads_total",
			Help: "Reads of the projects file after it changed, by result: ok or invalid."}, []string{"result"}),
	}
	for i, unit := range []string{"events", "bytes"} {
		p.used[i] = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "penstock_receiver_quota_used_" + unit,
			Help: "What a project with a quota has sent today, in " + unit + "."}, []string{"project"})
		reg.MustRegister(p.used[i])
	}
	p.reads.WithLabelValues("ok")
	p.reads.WithLabelValues("invalid")
	reg.MustRegister(p.invalid, p.reads)
	p.seen, _ = os.Stat(path)
	err := p.read()
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrEmpty) {
		err = fmt.Errorf("%w; create it with \"penstock keys add PROJECT\"", err)
	}
	if err != nil {
		return nil, fmt.Errorf("receiver.projects: %w", err)
	}
	return p, nil
}

// read applies the file, all of it or nothing.
func (p *Watcher) read() error {
	text, err := os.ReadFile(p.path)
	if err != nil {
		return err
	}
	cfg, err := Parse(text, config.Environment(os.Environ()))
	if err == nil {
		projects, keys, _ := cfg.Tenants()
		err = p.receiver.SetProjects(projects, keys)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", p.path, err)
	}
	return nil
}

// Watch reads the file again after it has changed and stayed the same for two looks, because it may be half written at
// the first. It ends with ctx, and saves the used quotas in dir.
func (p *Watcher) Watch(ctx context.Context, dir string) {
	tick, keep := time.NewTicker(pollEvery), time.NewTicker(usageEvery)
	defer tick.Stop()
	defer keep.Stop()
	var kept []byte
	last := p.seen
	for {
		select {
		case <-ctx.Done():
			p.keepUsage(dir, kept)
			return
		case <-keep.C:
			kept = p.keepUsage(dir, kept)
			continue
		case <-tick.C:
		}
		// A file that is replaced while it is read differs at the next look.
		now, _ := os.Stat(p.path)
		still := sameFile(last, now)
		if last = now; !still || sameFile(p.seen, now) {
			continue
		}
		p.seen = now
		if err := p.read(); err != nil {
			p.invalid.Set(1)
			text := fmt.Sprintf("receiver.projects: %v; the previous projects stay in use", err)
			p.problem.Store(&text)
			p.reads.WithLabelValues("invalid").Inc()
			p.log.Error("projects file is invalid; the previous one stays in use", "error", err)
			continue
		}
		p.invalid.Set(0)
		p.problem.Store(nil)
		p.reads.WithLabelValues("ok").Inc()
		p.log.Info("projects file reloaded", "path", p.path)
	}
}

// Problem says why the file cannot be used; empty: it can.
func (p *Watcher) Problem() string {
	if text := p.problem.Load(); text != nil {
		return *text
	}
	return ""
}

// The used quotas are saved this often, and at the end. A receiver that is killed forgets what came since. usageName is
// the file.
const (
	usageEvery = 5 * time.Second
	usageName  = "quota.json"
)

// keepUsage saves the used quotas, unless they equal kept.
func (p *Watcher) keepUsage(dir string, kept []byte) []byte {
	usage := p.receiver.Usage()
	for _, used := range p.used {
		used.Reset()
	}
	for name, u := range usage.Projects {
		p.used[0].WithLabelValues(name).Set(float64(u.Events))
		p.used[1].WithLabelValues(name).Set(float64(u.Bytes))
	}
	text, err := json.Marshal(usage)
	if err == nil && (bytes.Equal(text, kept) || kept == nil && len(usage.Projects) == 0) {
		return kept
	}
	path := filepath.Join(dir, usageName)
	if err == nil {
		err = os.WriteFile(path+".tmp", text, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err != nil {
		p.log.Warn("quota usage cannot be saved; a restart would count from before", "error", err)
		return kept
	}
	return text
}

// ReadUsage restores the quotas that an earlier receiver saved in dir.
func (p *Watcher) ReadUsage(dir string) {
	text, err := os.ReadFile(filepath.Join(dir, usageName))
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	var usage tenant.Usage
	if err == nil {
		err = json.Unmarshal(text, &usage)
	}
	if err != nil {
		p.log.Warn("quota usage cannot be read; quotas start at 0", "error", err)
		return
	}
	p.receiver.SetUsage(usage)
}

func sameFile(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
