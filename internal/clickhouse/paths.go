package clickhouse

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/penstock/penstock/internal/show"
)

// projectPaths is what a catalogue knows about a project.
type projectPaths struct {
	paths  map[string]struct{} // seen recently
	floats map[string]bool     // paths that ever had a float
	names  map[string]struct{} // names of events since the start
	fan    fan
}

// allPaths are the projectPaths by project.
type allPaths map[string]*projectPaths

func (a allPaths) of(project string) *projectPaths {
	p := a[project]
	if p == nil {
		p = &projectPaths{map[string]struct{}{}, map[string]bool{}, map[string]struct{}{}, fan{}}
		a[project] = p
	}
	return p
}

func (p *projectPaths) add(path string) {
	if _, known := p.paths[path]; !known {
		p.paths[path] = struct{}{}
		p.fan.add(path)
	}
}

// path returns the path under which to count values: the path itself, or one shared by many if the project has too many
// paths.
func (p *projectPaths) path(path string) string {
	if _, known := p.paths[path]; !known {
		if len(p.paths) >= maxProjectPaths {
			return p.fan.fold(path)
		}
		p.add(path)
	}
	return path
}

// name is path for the names of events.
func (p *projectPaths) name(name string) string {
	if _, known := p.names[name]; !known {
		if len(p.names) >= maxProjectNames {
			return "*"
		}
		p.names[name] = struct{}{}
	}
	return name
}

// worst returns the keys with most paths below them.
func (p *projectPaths) worst() []string {
	var all []string
	for _, k := range p.fan.most(3) {
		all = append(all, fmt.Sprintf("%s (%s)", k.Pattern, show.Plural(k.Keys, "key")))
	}
	return all
}

// fan counts the keys below each key. Ids used as keys show up as a very large count.
type fan map[string]map[string]struct{}

// foldFrom is the number of keys below a key beyond which further ones are counted together.
const foldFrom = 256

func (f fan) add(path string) {
	for at, key := range prefixes(path) {
		if f[at] == nil {
			f[at] = map[string]struct{}{}
		}
		f[at][key] = struct{}{}
	}
}

// prefixes yields each key of a path and what precedes it.
func prefixes(path string) func(yield func(before, key string) bool) {
	return func(yield func(before, key string) bool) {
		for from := 0; from <= len(path); {
			end := len(path)
			if i := strings.IndexByte(path[from:], '.'); i >= 0 {
				end = from + i
			}
			if !yield(path[:max(0, from-1)], path[from:end]) {
				return
			}
			from = end + 1
		}
	}
}

// fold returns the pattern of the first key in the path that has very many keys below it.
func (f fan) fold(path string) string {
	for before := range prefixes(path) {
		if len(f[before]) >= foldFrom {
			return pattern(before)
		}
	}
	return "*"
}

func pattern(before string) string {
	if before == "" {
		return "*"
	}
	return before + ".*"
}

// Keys is a place where a project has too many keys.
type Keys struct {
	Pattern string `json:"pattern"` // exp.*
	Keys    int    `json:"keys"`
}

// most returns the n places with the most keys.
func (f fan) most(n int) []Keys {
	var all []Keys
	for before, keys := range f {
		all = append(all, Keys{pattern(before), len(keys)})
	}
	slices.SortFunc(all, func(a, b Keys) int {
		return cmp.Or(cmp.Compare(b.Keys, a.Keys), cmp.Compare(a.Pattern, b.Pattern))
	})
	return all[:min(n, len(all))]
}

// recently is how long a path counts after it was seen, as an SQL interval.
const recently = "INTERVAL 7 DAY"

// defaultDynamicPaths is how many paths a part keeps in columns if the JSON type does not say.
const defaultDynamicPaths = 1024

// explodesBeyond is the factor by which a project's paths may exceed a part's. Beyond that its keys are ids, or it has
// very many kinds of events.
const explodesBeyond = 2

var dynamicPaths = regexp.MustCompile(`max_dynamic_paths=(\d+)`)

// maxDynamicPaths returns how many paths of properties a merged part keeps in columns. All others share a few columns.
func (db *DB) maxDynamicPaths(ctx context.Context, table string) (int, error) {
	var kind, engine string
	if err := db.one(ctx, "read the type of properties", []any{&kind, &engine},
		`SELECT (SELECT anyIf(type, name = 'properties') FROM system.columns WHERE database = ? AND table = ?),
			(SELECT any(engine_full) FROM system.tables WHERE database = ? AND name = ?)`,
		db.database, table, db.database, table); err != nil {
		return 0, err
	}
	limit := defaultDynamicPaths
	for _, of := range [][]string{dynamicPaths.FindStringSubmatch(kind), mergedPaths.FindStringSubmatch(engine)} {
		if of == nil {
			continue
		}
		n, err := strconv.Atoi(of[1])
		if err != nil {
			return 0, err
		}
		limit = min(limit, n)
	}
	return limit, nil
}

// boundedPaths is the limit of paths in 001_events.sql.
const boundedPaths = 256

var mergedPaths = regexp.MustCompile(mergeSetting + ` = (\d+)`)

const mergeSetting = "merge_max_dynamic_subcolumns_in_wide_part"

// BoundPaths sets the limit of a new table for merges if the type of properties is an earlier version's, which has no
// limit. It reports whether it changed the table.
func (db *DB) BoundPaths(ctx context.Context, table string) (changed bool, err error) {
	limit, err := db.maxDynamicPaths(ctx, table)
	if err != nil || limit <= boundedPaths {
		return false, err
	}
	return true, db.exec(ctx, "limit the paths of "+table, fmt.Sprintf("ALTER TABLE %s MODIFY SETTING %s = %d,"+
		" merge_max_dynamic_subcolumns_in_compact_part = %[3]d", quoteName(table), mergeSetting, boundedPaths))
}

// Explosion is a project with more paths than a part keeps in columns.
type Explosion struct {
	Project string `json:"project"`
	Paths   uint64 `json:"paths"`
	Limit   int    `json:"max_dynamic_paths"`
	Most    []Keys `json:"most"`
}

// Explosions returns the projects that recently had far more paths than a part keeps in columns.
func (db *DB) Explosions(ctx context.Context, table string) (all []Explosion, err error) {
	limit, err := db.maxDynamicPaths(ctx, table)
	if err != nil {
		return nil, err
	}
	var e Explosion
	var paths []string
	err = db.each(ctx, "read the property catalogue", []any{&e.Project, &e.Paths, &paths}, func() error {
		keys := fan{}
		for _, path := range paths {
			keys.add(path)
		}
		all = append(all, Explosion{e.Project, e.Paths, limit, keys.most(3)})
		return nil
	}, fmt.Sprintf(`SELECT toString(project), uniqExact(path) AS paths, groupUniqArray(%d)(path) FROM property_counts
		WHERE path != '' AND last_seen > now() - `+recently+` GROUP BY project HAVING paths > %d ORDER BY project`,
		5*maxProjectPaths, explodesBeyond*limit))
	return all, err
}
