// Package projects reads the file of receiver.projects (file.go), applies its changes to a receiver (watch.go), and
// edits its keys without losing comments (edit.go).
package projects

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/tenant"
)

// File is the file that receiver.projects names. docs/guides/projects.md
// holds every field of it.
type File struct {
	Projects map[string]Project `yaml:"projects"`
}

// Project has the settings for the events of one project.
type Project struct {
	Rate   Rate     `yaml:"rate"`
	Quota  Quota    `yaml:"quota"`
	Names  []string `yaml:"names"`
	Sample *Sample  `yaml:"sample"`
	Drop   []string `yaml:"drop"`
	Hash   []string `yaml:"hash"`
	Salt   string   `yaml:"salt"`
	Keys   []Key    `yaml:"keys"`
}

// Sample is the part of the events that is accepted.
type Sample struct {
	By    string   `yaml:"by"`
	Keep  *float64 `yaml:"keep"`
	Names []string `yaml:"names"`
}

// Rate limits events and bytes in a time. Burst is how much of that time's worth may come at once.
type Rate struct {
	Events EventRate       `yaml:"events"`
	Bytes  ByteRate        `yaml:"bytes"`
	Burst  config.Duration `yaml:"burst"`
}

// Quota is how much may come in a day (UTC); 0: any number.
type Quota struct {
	Events int64       `yaml:"events"`
	Bytes  config.Size `yaml:"bytes"`
}

// EventRate is a number of events a second that a file writes as 5000/s, 30/m or 100/h.
type EventRate float64

// ByteRate is a number of bytes a second that a file writes as 10MiB/s.
type ByteRate float64

// UnmarshalYAML reads 5000/s, 30/m or 100/h.
func (r *EventRate) UnmarshalYAML(n *yaml.Node) error {
	v, err := parseRate(n, func(n *yaml.Node) (int64, error) { return strconv.ParseInt(n.Value, 10, 64) })
	*r = EventRate(v)
	return err
}

// UnmarshalYAML reads 10MiB/s.
func (r *ByteRate) UnmarshalYAML(n *yaml.Node) error {
	v, err := parseRate(n, func(n *yaml.Node) (int64, error) {
		var v config.Size
		err := n.Decode(&v)
		return int64(v),
			err
	})
	*r = ByteRate(v)
	return err
}

func parseRate(n *yaml.Node, amount func(*yaml.Node) (int64, error)) (float64, error) {
	text, per, _ := strings.Cut(n.Value, "/")
	seconds, known := map[string]float64{"s": 1, "m": 60, "h": 3600}[strings.TrimSpace(per)]
	v, err := amount(&yaml.Node{Kind: yaml.ScalarNode, Value: strings.TrimSpace(text), Line: n.Line})
	if err != nil || !known || v <= 0 {
		return 0, errors.New("want a rate, as 5000/s, 30/m or 100/h; of bytes as 10MiB/s")
	}
	return float64(v) / seconds, nil
}

// minSalt is the least length of a project's salt, in bytes.
const minSalt = 16

// defaultBurst is the burst if the file has none.
const defaultBurst = 10 * time.Second

// Key is a key of a project.
type Key struct {
	Name          string   `yaml:"name"`
	SHA256        string   `yaml:"sha256"`
	Scopes        []string `yaml:"scopes"`
	MinDurability string   `yaml:"min_durability"`
	Large         bool     `yaml:"large"`
	Secret        string   `yaml:"secret"`
	Expires       string   `yaml:"expires"`
}

// ScopeWrite lets a key send events. It is the only scope, and the default; a key with [] may send nothing.
const ScopeWrite = "write"

// ErrEmpty means that the file is empty. It may be about to be written, and applying it would reject all clients.
var ErrEmpty = errors.New("no projects stand in it (`projects: {}` says that there are none)")

// Parse reads the file and rejects what a receiver could not apply.
func Parse(text []byte, env map[string]string) (*File, error) {
	cfg := &File{}
	if err := config.ParseStrict("", text, env, cfg); err != nil {
		return nil, err
	}
	if cfg.Projects == nil {
		return nil, ErrEmpty
	}
	projects, keys, err := cfg.Tenants()
	if err == nil {
		err = receiver.CheckProjects(projects, keys)
	}
	return cfg, err
}

// Tenants converts projects and keys for the receiver.
func (c *File) Tenants() (projects []tenant.Project, keys []tenant.Key, err error) {
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

func (p Project) settings(name string) (tenant.Project, error) {
	out := tenant.Project{Name: name, Names: p.Names, Drop: p.Drop, Hash: p.Hash, Salt: p.Salt,
		Quota: tenant.Quota{Events: p.Quota.Events, Bytes: int64(p.Quota.Bytes)}}
	if p.Quota.Events < 0 {
		return out, fmt.Errorf("projects.%s.quota.events %d: 0, for none, or more", name, p.Quota.Events)
	}
	if len(p.Hash) > 0 && len(p.Salt) < minSalt {
		return out, fmt.Errorf(
			"projects.%s.salt has %d bytes: hash wants a secret of %d at least, or hashes are found by trying (openssl rand "+
				"-hex 16)", name, len(p.Salt), minSalt)
	}
	burst := time.Duration(p.Rate.Burst)
	if burst == 0 {
		burst = defaultBurst
	}
	if burst < 0 {
		return out, fmt.Errorf("projects.%s.rate.burst %s: more than 0", name, burst)
	}
	// At least one event or byte at once; otherwise a slow rate would accept nothing.
	rate := func(perSecond float64) (r tenant.Rate) {
		if perSecond > 0 {
			r = tenant.Rate{PerSecond: perSecond, Burst: max(1, perSecond*burst.Seconds())}
		}
		return r
	}
	if s := p.Sample; s != nil {
		if s.Keep == nil || !(*s.Keep >= 0 && *s.Keep <= 1) {
			return out, fmt.Errorf("projects.%s.sample.keep: want the part that is kept, 0 to 1, as 0.1", name)
		}
		out.Sample = &tenant.Sample{By: cmp.Or(s.By, tenant.BySession), Keep: *s.Keep, Names: s.Names}
		if by := out.Sample.By; by != tenant.BySession && by != tenant.ByUser && by != tenant.ByEvent {
			return out, fmt.Errorf("projects.%s.sample.by %q: session, user or event", name, by)
		}
	}
	out.Events, out.Bytes = rate(float64(p.Rate.Events)), rate(float64(p.Rate.Bytes))
	return out, nil
}

func (k Key) key() (key tenant.Key, err error) {
	key = tenant.Key{Name: k.Name, Secret: k.Secret, Small: !k.Large, ReadOnly: k.Scopes != nil}
	if k.Name == "" {
		return key, errors.New("name is empty: it is what `penstock keys revoke` goes by")
	}
	if key.Hash, err = config.ParseHash(k.SHA256); err != nil {
		return key, err
	}
	for _, s := range k.Scopes {
		if s != ScopeWrite {
			return key, fmt.Errorf("scopes: %q is none (known: %s)", s, ScopeWrite)
		}
		key.ReadOnly = false
	}
	if key.MinDurability, err = config.ParseDurability(k.MinDurability); err != nil {
		return key, err
	}
	key.Expires, err = config.ParseExpiry(k.Expires)
	return key, err
}
