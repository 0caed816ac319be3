package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver"
)

// ProjectsConfig is the file that receiver.projects names. docs/projects.md
// holds every field of it.
type ProjectsConfig struct {
	Projects map[string]ProjectConfig `yaml:"projects"`
}

type ProjectConfig struct {
	Rate   RateConfig    `yaml:"rate"`
	Quota  QuotaConfig   `yaml:"quota"`
	Names  []string      `yaml:"names"`
	Sample *SampleConfig `yaml:"sample"`
	Drop   []string      `yaml:"drop"`
	Hash   []string      `yaml:"hash"`
	Salt   string        `yaml:"salt"`
	Keys   []ProjectKey  `yaml:"keys"`
}

type SampleConfig struct {
	By    string   `yaml:"by"`
	Keep  *float64 `yaml:"keep"`
	Names []string `yaml:"names"`
}

// RateConfig is how much may come in a time, and in how much of that time's worth at once.
type RateConfig struct {
	Events EventRate `yaml:"events"`
	Bytes  ByteRate  `yaml:"bytes"`
	Burst  Duration  `yaml:"burst"`
}

type QuotaConfig struct {
	Events int64 `yaml:"events"`
	Bytes  Size  `yaml:"bytes"`
}

// EventRate is a number of events a second that a file writes as 5000/s, 30/m or 100/h.
type EventRate float64

// ByteRate is a number of bytes a second that a file writes as 10MiB/s.
type ByteRate float64

func (r *EventRate) UnmarshalYAML(n *yaml.Node) error {
	v, err := parseRate(n, func(n *yaml.Node) (int64, error) { return strconv.ParseInt(n.Value, 10, 64) })
	*r = EventRate(v)
	return err
}

func (r *ByteRate) UnmarshalYAML(n *yaml.Node) error {
	v, err := parseRate(n, func(n *yaml.Node) (int64, error) { var v Size; err := n.Decode(&v); return int64(v), err })
	*r = ByteRate(v)
	return err
}

func parseRate(n *yaml.Node, amount func(*yaml.Node) (int64, error)) (float64, error) {
	text, per, _ := strings.Cut(n.Value, "/")
	seconds, known := map[string]float64{"s": 1, "m": 60, "h": 3600}[strings.TrimSpace(per)]
	v, err := amount(&yaml.Node{Kind: yaml.ScalarNode, Value: strings.TrimSpace(text), Line: n.Line})
	if err != nil || !known || v <= 0 {
		return 0, fmt.Errorf("line %d: %q is not a rate: 5000/s, 30/m, 100/h; of bytes 10MiB/s", n.Line, n.Value)
	}
	return float64(v) / seconds, nil
}

// minSalt is how long a project's salt must be, in bytes.
const minSalt = 16

// defaultBurst is how much of a rate may come at once where the file says nothing.
const defaultBurst = 10 * time.Second

type ProjectKey struct {
	Name          string   `yaml:"name"`
	SHA256        string   `yaml:"sha256"`
	Scopes        []string `yaml:"scopes"`
	MinDurability string   `yaml:"min_durability"`
	Large         bool     `yaml:"large"`
	Secret        string   `yaml:"secret"`
	Expires       string   `yaml:"expires"`
}

// scopeWrite lets a key send events. It is the only scope, and a key's where
// none is named; with [] a key sends nothing.
const scopeWrite = "write"

// errNoProjects is a file that says nothing: one that was cut to nothing and is
// yet to be written looks so, and obeyed, it would refuse all clients.
var errNoProjects = errors.New("no projects stand in it (`projects: {}` says that there are none)")

// parseProjects reads the file and refuses what a receiver could not obey.
func parseProjects(text []byte, env map[string]string) (*ProjectsConfig, error) {
	cfg := &ProjectsConfig{}
	if err := parseStrict(text, env, cfg); err != nil {
		return nil, err
	}
	if cfg.Projects == nil {
		return nil, errNoProjects
	}
	projects, keys, err := cfg.tenants()
	if err == nil {
		err = receiver.CheckProjects(projects, keys)
	}
	return cfg, err
}

// tenants are the projects and keys as the receiver wants them.
func (c *ProjectsConfig) tenants() (projects []receiver.Project, keys []receiver.Key, err error) {
	var errs []error
	for name, p := range c.Projects {
		project, err := p.settings(name)
		if name == "" {
			err = errors.New("projects: a project without a name")
		}
		errs = append(errs, err)
		projects = append(projects, project)
		names := map[string]bool{}
		for i, k := range p.Keys {
			key, err := k.key()
			if err == nil && names[k.Name] {
				err = fmt.Errorf("name %q is that of another key of this project", k.Name)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("projects.%s.keys[%d].%w", name, i, err))
			}
			names[k.Name], key.Project = true, name
			keys = append(keys, key)
		}
	}
	return projects, keys, errors.Join(errs...)
}

func (p ProjectConfig) settings(name string) (receiver.Project, error) {
	out := receiver.Project{Name: name, Names: p.Names, Drop: p.Drop, Hash: p.Hash, Salt: p.Salt, Quota: receiver.Quota{Events: p.Quota.Events, Bytes: int64(p.Quota.Bytes)}}
	if p.Quota.Events < 0 {
		return out, fmt.Errorf("projects.%s.quota.events %d: 0, for none, or more", name, p.Quota.Events)
	}
	if len(p.Hash) > 0 && len(p.Salt) < minSalt {
		return out, fmt.Errorf("projects.%s.salt has %d bytes: hash wants a secret of %d at least, or hashes are found by trying (openssl rand -hex 16)", name, len(p.Salt), minSalt)
	}
	burst := time.Duration(p.Rate.Burst)
	if burst == 0 {
		burst = defaultBurst
	}
	if burst < 0 {
		return out, fmt.Errorf("projects.%s.rate.burst %s: more than 0", name, burst)
	}
	// At least an event or a byte at once, or a slow rate would let nothing through.
	rate := func(perSecond float64) (r receiver.Rate) {
		if perSecond > 0 {
			r = receiver.Rate{PerSecond: perSecond, Burst: max(1, perSecond*burst.Seconds())}
		}
		return r
	}
	if s := p.Sample; s != nil {
		if s.Keep == nil || !(*s.Keep >= 0 && *s.Keep <= 1) {
			return out, fmt.Errorf("projects.%s.sample.keep: want the part that is kept, 0 to 1, as 0.1", name)
		}
		out.Sample = &receiver.Sample{By: cmp.Or(s.By, receiver.SampleSession), Keep: *s.Keep, Names: s.Names}
		if by := out.Sample.By; by != receiver.SampleSession && by != receiver.SampleUser && by != receiver.SampleEvent {
			return out, fmt.Errorf("projects.%s.sample.by %q: session, user or event", name, by)
		}
	}
	out.Events, out.Bytes = rate(float64(p.Rate.Events)), rate(float64(p.Rate.Bytes))
	return out, nil
}

func (k ProjectKey) key() (key receiver.Key, err error) {
	key = receiver.Key{Name: k.Name, Secret: k.Secret, Small: !k.Large, ReadOnly: k.Scopes != nil}
	if k.Name == "" {
		return key, errors.New("name is empty: it is what `penstock keys revoke` goes by")
	}
	if key.Hash, err = parseHash(k.SHA256); err != nil {
		return key, err
	}
	for _, s := range k.Scopes {
		if s != scopeWrite {
			return key, fmt.Errorf("scopes: %q is none (known: %s)", s, scopeWrite)
		}
		key.ReadOnly = false
	}
	if key.MinDurability, err = parseFloor(k.MinDurability); err != nil {
		return key, err
	}
	key.Expires, err = parseExpiry(k.Expires)
	return key, err
}

func parseHash(text string) (hash [32]byte, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(hash) {
		return hash, errors.New("sha256: want 64 hex digits, the SHA-256 of the key (printf %s KEY | sha256sum)")
	}
	copy(hash[:], b)
	return hash, nil
}

func parseFloor(text string) (d pipeline.Durability, err error) {
	if text == "" {
		return 0, nil
	}
	d, ok := pipeline.ParseDurability(text)
	if !ok {
		return 0, fmt.Errorf("min_durability %q: memory, disk or object", text)
	}
	return d, nil
}

func parseExpiry(text string) (t time.Time, err error) {
	if text == "" {
		return t, nil
	}
	if t, err = time.Parse(time.RFC3339, text); err != nil {
		if t, err = time.Parse(time.DateOnly, text); err != nil {
			return t, fmt.Errorf("expires %q: want a time, as 2026-12-31 or 2026-12-31T18:00:00Z", text)
		}
	}
	return t, nil
}

// projectsFile keeps a receiver at what the file says.
type projectsFile struct {
	path     string
	receiver *receiver.Receiver
	log      *slog.Logger
	invalid  prometheus.Gauge
	reads    *prometheus.CounterVec
	used     *prometheus.GaugeVec
	seen     os.FileInfo // as it was when it was read last; nil: it was not there
}

// projectsPoll is how often the file is looked at.
const projectsPoll = time.Second

// openProjects reads the file for the first time.
func openProjects(path string, r *receiver.Receiver, log *slog.Logger, reg prometheus.Registerer) (*projectsFile, error) {
	p := &projectsFile{path: path, receiver: r, log: log,
		invalid: prometheus.NewGauge(prometheus.GaugeOpts{Name: "penstock_receiver_projects_invalid",
			Help: "1 while the projects file cannot be used and what it said before is in force."}),
		reads: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_receiver_projects_reads_total",
			Help: "Reads of the projects file after it changed, by result: ok or invalid."}, []string{"result"}),
	}
	p.used = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "penstock_receiver_quota_used",
		Help: "What a project with a quota has sent today, in events and in bytes."}, []string{"project", "of"})
	reg.MustRegister(p.invalid, p.reads, p.used)
	p.seen, _ = os.Stat(path)
	err := p.read()
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errNoProjects) {
		err = fmt.Errorf("%w; `penstock keys add PROJECT` makes it", err)
	}
	if err != nil {
		return nil, fmt.Errorf("receiver.projects: %w", err)
	}
	return p, nil
}

// read puts what the file says in force, all of it or nothing.
func (p *projectsFile) read() error {
	text, err := os.ReadFile(p.path)
	if err != nil {
		return err
	}
	cfg, err := parseProjects(text, environment(os.Environ()))
	if err == nil {
		projects, keys, _ := cfg.tenants()
		err = p.receiver.SetProjects(projects, keys)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", p.path, err)
	}
	return nil
}

// watch reads the file again whenever it has changed and is the same at two looks
// in a row, for it may be half written at the first. It ends with ctx, and keeps what
// is used of quotas in dir.
func (p *projectsFile) watch(ctx context.Context, dir string) {
	tick, keep := time.NewTicker(projectsPoll), time.NewTicker(usageEvery)
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
		// A file that is replaced while it is read is another one at the next look.
		now, _ := os.Stat(p.path)
		still := sameFile(last, now)
		if last = now; !still || sameFile(p.seen, now) {
			continue
		}
		p.seen = now
		if err := p.read(); err != nil {
			p.invalid.Set(1)
			p.reads.WithLabelValues("invalid").Inc()
			p.log.Error("the projects file cannot be used: what it said before stays in force", "error", err)
			continue
		}
		p.invalid.Set(0)
		p.reads.WithLabelValues("ok").Inc()
		p.log.Info("the projects file was read again", "path", p.path)
	}
}

// What is used of quotas is written so often, and at the end: a receiver that is
// killed forgets what came since. usageName is the file's.
const (
	usageEvery = 5 * time.Second
	usageName  = "quota.json"
)

// keepUsage writes what is used, unless kept is the same.
func (p *projectsFile) keepUsage(dir string, kept []byte) []byte {
	usage := p.receiver.Usage()
	p.used.Reset()
	for name, u := range usage.Projects {
		p.used.WithLabelValues(name, "events").Set(float64(u.Events))
		p.used.WithLabelValues(name, "bytes").Set(float64(u.Bytes))
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
		p.log.Warn("what is used of quotas is not kept: after a restart they count from before", "error", err)
		return kept
	}
	return text
}

// readUsage goes on from what an earlier receiver kept in dir.
func (p *projectsFile) readUsage(dir string) {
	text, err := os.ReadFile(filepath.Join(dir, usageName))
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	var usage receiver.Usage
	if err == nil {
		err = json.Unmarshal(text, &usage)
	}
	if err != nil {
		p.log.Warn("what was used of quotas is not known: they begin anew", "error", err)
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

// environment is the process's, by name.
func environment(environ []string) map[string]string {
	env := map[string]string{}
	for _, e := range environ {
		k, v, _ := strings.Cut(e, "=")
		env[k] = v
	}
	return env
}
