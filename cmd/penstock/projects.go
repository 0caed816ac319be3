package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver"
)

// ProjectsConfig is the file that receiver.projects names. docs/projects.md
// holds every field of it.
type ProjectsConfig struct {
	Projects map[string]ProjectConfig `yaml:"projects"`
}

type ProjectConfig struct {
	Keys []ProjectKey `yaml:"keys"`
}

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

// parseProjects reads the file and refuses what a receiver could not obey.
func parseProjects(text []byte, env map[string]string) (*ProjectsConfig, error) {
	cfg := &ProjectsConfig{}
	if err := parseStrict(text, env, cfg); err != nil {
		return nil, err
	}
	_, _, err := cfg.tenants()
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
	return receiver.Project{Name: name}, nil
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
	reg.MustRegister(p.invalid, p.reads)
	p.seen, _ = os.Stat(path)
	err := p.read()
	if errors.Is(err, os.ErrNotExist) {
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

// watch reads the file again whenever it has changed, until ctx ends.
func (p *projectsFile) watch(ctx context.Context) {
	tick := time.NewTicker(projectsPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// A file that is replaced while it is read is another one at the next look.
		now, _ := os.Stat(p.path)
		if sameFile(p.seen, now) {
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
