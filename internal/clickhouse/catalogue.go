package clickhouse

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/clickhouse/native"
)

// Catalogue counts which properties the events of a table have. Loaders count while they build blocks. The counts go to
// the table property_counts. The catalogue never fails a load: counts that cannot be written are kept and written
// later.
//
// It also knows which paths of a project have ever had a float. Numbers of these paths are Float64, so a path's numbers
// have one type.
type Catalogue struct {
	db       *DB
	table    string
	examples bool
	log      *slog.Logger
	metrics  catalogueMetrics
	writing  sync.Mutex // held while counts are written or read, so one at a time
	reading  sync.Mutex
	read     time.Time // last attempt; guarded by reading

	mu       sync.Mutex
	limit    int // max_dynamic_paths of the table; 0: unknown
	projects allPaths
	pending  map[propertyKey]propertyCount
	timer    *time.Timer // until the next write; nil: no write is due
	failing  bool        // the last write or read failed
	closed   bool
}

// CatalogueOptions configure a Catalogue.
type CatalogueOptions struct {
	Table    string // whose blocks it counts
	Examples bool   // keep an example of each property
	Log      *slog.Logger
	Metrics  prometheus.Registerer
}

// Bounds of a catalogue: its memory must not depend on what clients send.
const (
	maxProjectPaths = 4096    // recent paths of a project; further ones are counted together
	maxProjectNames = 1024    // names of events since the start; further ones are counted together
	maxPending      = 100_000 // counts waiting for a write
	maxKnownPaths   = 300_000 // paths read, of all projects
)

const (
	catalogueDelay   = 5 * time.Second  // from the first new count to the write
	catalogueRetry   = 30 * time.Second // after a failed write
	catalogueRefresh = time.Minute      // also shows floats that other loaders found
	catalogueTimeout = 5 * time.Second
)

type catalogueMetrics struct {
	paths, failures prometheus.Counter
	exploding       prometheus.Gauge
}

type propertyKey struct{ project, name, path, kind string }

type propertyCount struct {
	events      uint64
	first, last int64 // ms
	example     *string
}

// Catalogue makes the DB count the values of the blocks that it inserts. Close writes the rest.
func (db *DB) Catalogue(opts CatalogueOptions) {
	m := catalogueMetrics{
		paths: prometheus.NewCounter(prometheus.CounterOpts{Name: "penstock_loader_new_property_paths_total",
			Help: "Paths of properties that were new to their project. A steady rise means that clients use ids as keys."}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "penstock_loader_catalogue_failures_total",
			Help: "Writes to the property catalogue, or reads, that failed. They are tried again."}),
		exploding: prometheus.NewGauge(prometheus.GaugeOpts{Name: "penstock_loader_exploding_projects",
			Help: "Projects that have twice as many paths of properties as a part keeps in columns. " +
				"`penstock status` has the keys."}),
	}
	opts.Metrics.MustRegister(m.paths, m.failures, m.exploding)
	db.catalogue = &Catalogue{db: db, table: opts.Table, examples: opts.Examples, log: opts.Log, metrics: m,
		projects: allPaths{}, pending: map[propertyKey]propertyCount{}}
}

// renew reads what all loaders have found, unless it did so recently. If that fails, numbers have one type only within
// a block.
func (c *Catalogue) renew(ctx context.Context) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if time.Since(c.read) > catalogueRefresh {
		c.settle("read", c.refresh(ctx))
		c.read = time.Now()
	}
}

// survey counts a block's values. It changes no numbers in a block that is sent as text.
func (c *Catalogue) survey(b *native.Block, unify bool) *survey {
	s := &survey{}
	isFloat := c.isFloat
	if !unify {
		isFloat = nil
	}
	s.groups = b.Survey(isFloat, func(n native.Count) {
		p := property{Count: n}
		if c.examples && c.wantsExample(n) {
			if text, ok := n.Example(); ok {
				p.example = &text
			}
		}
		s.properties = append(s.properties, p)
	})
	return s
}

// survey is the content of a block.
type survey struct {
	groups     []native.Group
	properties []property
}

type property struct {
	native.Count
	example *string
}

func (c *Catalogue) isFloat(project, path string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.projects[project]
	return p != nil && p.floats[path]
}

// wantsExample is false if the next write already has an example. Reading values from columns is slow.
func (c *Catalogue) wantsExample(n native.Count) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pending[propertyKey{n.Group.Project, n.Group.Name, n.Path, n.Type}].example == nil
}

// add adds the counts of a block that has been inserted.
func (c *Catalogue) add(s *survey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range s.groups {
		g := &s.groups[i]
		c.count(propertyKey{g.Project, c.projects.of(g.Project).name(g.Name), "", ""},
			propertyCount{events: uint64(g.Rows), first: g.First, last: g.Last})
	}
	for _, n := range s.properties {
		p := c.projects.of(n.Group.Project)
		before := len(p.paths)
		path := p.path(n.Path)
		if len(p.paths) > before {
			c.metrics.paths.Inc()
			c.warn(n.Group.Project, p)
		}
		if path == n.Path && n.Type == "Float64" {
			p.floats[path] = true
		}
		c.count(propertyKey{n.Group.Project, p.name(n.Group.Name), path, n.Type},
			propertyCount{uint64(n.Rows), n.Group.First, n.Group.Last, n.example})
	}
	c.later(catalogueDelay)
}

// later schedules a write, unless one is scheduled.
func (c *Catalogue) later(delay time.Duration) {
	if c.timer == nil && !c.closed {
		c.timer = time.AfterFunc(delay, c.tick)
	}
}

// count adds to the pending counts. Beyond the bound, new properties are dropped; that happens only after a long time
// without a write.
func (c *Catalogue) count(k propertyKey, n propertyCount) {
	was, ok := c.pending[k]
	switch {
	case ok:
		n.events += was.events
		n.first, n.last = min(n.first, was.first), max(n.last, was.last)
		if was.example != nil {
			n.example = was.example
		}
	case len(c.pending) >= maxPending:
		return
	}
	c.pending[k] = n
}

// warn logs once that a project has too many paths.
func (c *Catalogue) warn(project string, p *projectPaths) {
	if c.limit == 0 || len(p.paths) != explodesBeyond*c.limit+1 {
		return
	}
	c.metrics.exploding.Inc()
	c.log.Warn("a project has many more paths of properties than a part keeps in columns; queries of the others are slow",
		"project", project, "max_dynamic_paths", c.limit, "most", p.worst())
}

// tick writes what is pending.
func (c *Catalogue) tick() {
	ctx, cancel := context.WithTimeout(context.Background(), catalogueTimeout)
	defer cancel()
	err := c.flush(ctx)
	c.settle("write", err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer = nil
	if err != nil {
		c.later(catalogueRetry)
	} else if len(c.pending) > 0 {
		c.later(catalogueDelay)
	}
}

// settle logs the first failure of a series, and its end.
func (c *Catalogue) settle(what string, err error) {
	c.mu.Lock()
	failed := c.failing
	c.failing = err != nil
	c.mu.Unlock()
	switch {
	case err != nil:
		c.metrics.failures.Inc()
		if !failed {
			c.log.Warn("the property catalogue cannot be used; loading goes on, and it is tried again", "to", what, "error", err)
		}
	case failed:
		c.log.Info("the property catalogue works again")
	}
}

// flush writes the pending counts.
func (c *Catalogue) flush(ctx context.Context) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	counts := c.pending
	c.pending = map[propertyKey]propertyCount{}
	c.mu.Unlock()
	if len(counts) == 0 {
		return nil
	}
	err := c.db.insert(ctx, "write the property catalogue",
		"INSERT INTO property_counts (project, name, path, type, events, first_seen, last_seen, example)",
		func(row func(...any) error) error {
			for k, n := range counts {
				if err := row(k.project, k.name, k.path, k.kind, n.events, time.UnixMilli(n.first), time.UnixMilli(n.last),
					n.example); err != nil {
					return err
				}
			}
			return nil
		})
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		for k, n := range counts {
			c.count(k, n)
		}
	}
	return err
}

// refresh reads the paths of all projects.
func (c *Catalogue) refresh(ctx context.Context) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, catalogueTimeout)
	defer cancel()
	limit, err := c.db.maxDynamicPaths(ctx, c.table)
	if err != nil {
		return err
	}
	projects := allPaths{}
	var project, path string
	var float, recent bool
	err = c.db.each(ctx, "read the property catalogue", []any{&project, &path, &float, &recent}, func() error {
		p := projects.of(project)
		if float {
			p.floats[path] = true
		}
		if recent {
			p.add(path)
		}
		return nil
	}, `SELECT toString(project), path, countIf(type = 'Float64') > 0, max(last_seen) > now() - `+recently+`
		FROM property_counts WHERE path != '' GROUP BY project, path ORDER BY max(last_seen) DESC LIMIT ?`, maxKnownPaths)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	exploding := 0
	for k := range c.pending { // not yet written
		if p := projects.of(k.project); k.path != "" {
			p.add(k.path)
			if k.kind == "Float64" {
				p.floats[k.path] = true
			}
		}
	}
	for name, p := range projects {
		if was := c.projects[name]; was != nil {
			p.names = was.names
		}
		if limit > 0 && len(p.paths) > explodesBeyond*limit {
			exploding++
		}
	}
	c.projects, c.limit = projects, limit
	c.metrics.exploding.Set(float64(exploding))
	return nil
}

// close writes what is pending.
func (c *Catalogue) close() {
	c.mu.Lock()
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), catalogueTimeout)
	defer cancel()
	c.settle("write", c.flush(ctx))
}
