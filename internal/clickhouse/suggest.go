package clickhouse

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/penstock/penstock/internal/show"
)

// Suggestion is a column that the property catalogue suggests.
type Suggestion struct {
	Name   string `json:"name"`
	Path   string `json:"path"`
	Type   string `json:"type"`
	Events uint64 `json:"events"` // with the property
	Why    string `json:"why"`
}

// A path gets a column if it is in 1 % of the events, or in half of the events of a name that has at least a thousandth
// of all events. For example, a price is in few events but in every purchase.
const (
	suggestShare     = 0.01
	suggestNameShare = 0.5
	suggestName      = 0.001
	suggestMost      = 30
)

// oneKind is the share of a path's values that must fit the column's type.
const oneKind = 0.95

// pathUse is the use of one path over all names of events.
type pathUse struct {
	path   string
	events uint64
	kinds  map[string]uint64
	float  bool    // some number is not an Int64
	texts  float64 // events with a number as text, by the examples
	most   Property
}

// SuggestColumns suggests columns for the events of a project; an empty project means all. have are the configured
// columns.
func (db *DB) SuggestColumns(ctx context.Context, table, project string, have []Column) ([]Suggestion, error) {
	totals, err := db.eventsByName(ctx, project)
	if err != nil {
		return nil, err
	}
	total := 0.0
	for _, n := range totals {
		total += float64(n)
	}
	byPath := map[string]*pathUse{}
	if err := db.Properties(ctx, project, "", func(p Property) error {
		u := byPath[p.Path]
		if u == nil {
			u = &pathUse{path: p.Path, kinds: map[string]uint64{}}
			byPath[p.Path] = u
		}
		u.add(p, float64(totals[[2]string{p.Project, p.Name}]) >= suggestName*total)
		return nil
	}); err != nil {
		return nil, err
	}
	var all []Suggestion
	for _, u := range byPath {
		known := slices.ContainsFunc(have, func(c Column) bool { return c.Path == u.path })
		kind := u.kind()
		if known || kind == "" || float64(u.events) < suggestShare*total && u.most.Share < suggestNameShare {
			continue
		}
		all = append(all, Suggestion{Path: u.path, Type: kind, Events: u.events, Why: u.why(total)})
	}
	slices.SortFunc(all, func(a, b Suggestion) int {
		return cmp.Or(cmp.Compare(b.Events, a.Events), cmp.Compare(a.Path, b.Path))
	})
	all = all[:min(len(all), suggestMost)]
	nameColumns(all, have)
	return all, db.chooseText(ctx, table, project, all)
}

// eventsByName returns the number of events by project and name.
func (db *DB) eventsByName(ctx context.Context, project string) (map[[2]string]uint64, error) {
	all := map[[2]string]uint64{}
	var k [2]string
	var n uint64
	return all, db.each(ctx, "read the property catalogue", []any{&k[0], &k[1], &n}, func() error {
		all[k] = n
		return nil
	}, `SELECT toString(project), toString(name), sum(events) FROM property_counts
		WHERE path = '' AND (? = '' OR project = ?) GROUP BY project, name`, project, project)
}

// add adds the use in events of one name. frequent says whether the name is frequent.
func (u *pathUse) add(p Property, frequent bool) {
	u.events += p.Events
	for _, t := range p.Types {
		k := kindOf(t.Type)
		u.kinds[k] += t.Events
		u.float = u.float || k == numberKind && t.Type != "Int64"
		if k == textKind && t.Example != nil {
			if f, err := strconv.ParseFloat(*t.Example, 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
				u.texts += float64(t.Events)
			}
		}
	}
	if frequent && (u.most.Path == "" || p.Share > u.most.Share) {
		u.most = p
	}
}

// kind returns the column type for the path; empty: none fits. Numbers are Float64 if a float was ever seen, or if some
// are text, which may hold any number.
func (u *pathUse) kind() string {
	if strings.HasSuffix(u.path, "*") || strings.Contains(u.path, "$") {
		return "" // stands for many paths, or is part of a blob reference
	}
	enough := oneKind * float64(u.events)
	numbers := float64(u.kinds[numberKind])
	switch {
	case numbers >= enough && !u.float:
		return "Int64"
	case numbers >= enough, numbers > 0 && numbers+u.texts >= enough:
		return "Float64"
	case float64(u.kinds[textKind]) >= enough:
		return "String"
	case float64(u.kinds[boolKind]) >= enough:
		return "Bool"
	}
	return ""
}

// why says how frequent the path is, and which values the column omits.
func (u *pathUse) why(total float64) string {
	why := show.Plural(u.events, "event") + ", "
	if share := float64(u.events) / total; share >= suggestShare {
		why += fmt.Sprintf("%.0f %% of all", 100*share)
	} else {
		why += fmt.Sprintf("%.0f %% of %s", 100*u.most.Share, u.most.Name)
	}
	if len(u.kinds) > 1 {
		for _, k := range []string{numberKind, textKind, boolKind, arrayKind, objectKind} {
			if n := u.kinds[k]; n > 0 {
				why += fmt.Sprintf("; %s %.1f %%", k, 100*float64(n)/float64(u.events))
			}
		}
	}
	return why
}

var notInName = regexp.MustCompile(`[^A-Za-z0-9_]+`)

// nameColumns gives each suggestion a unique name.
func nameColumns(all []Suggestion, have []Column) {
	used := map[string]bool{}
	for _, c := range have {
		used[c.Name] = true
	}
	for i := range all {
		s := &all[i]
		base := strings.Trim(notInName.ReplaceAllString(s.Path, "_"), "_")
		base = base[:min(len(base), 56)]
		s.Name = base
		for n := 2; used[s.Name] || (Column{s.Name, s.Path, s.Type}).Check() != nil; n++ {
			if s.Name = "p_" + base; n > 2 {
				s.Name = fmt.Sprintf("p_%s_%d", base, n)
			}
		}
		used[s.Name] = true
	}
}

// A text with few distinct values becomes LowCardinality(String).
const (
	fewTexts   = 10_000
	textSample = 1_000_000
)

// chooseText reads values from the table, because the catalogue does not know how many are distinct.
func (db *DB) chooseText(ctx context.Context, table, project string, all []Suggestion) error {
	var columns, counts []string
	var of []*Suggestion
	for i := range all {
		if all[i].Type == "String" {
			c := fmt.Sprintf("c%d", i)
			columns = append(columns, propertySQL(all[i].Path)+".:String AS "+c)
			counts = append(counts, "uniq("+c+"), count("+c+")")
			of = append(of, &all[i])
		}
	}
	if len(of) == 0 {
		return nil
	}
	found := make([]uint64, 2*len(of))
	into := make([]any, len(found))
	for i := range found {
		into[i] = &found[i]
	}
	where := ""
	var args []any
	if project != "" {
		where, args = " WHERE project = ?", []any{project}
	}
	if err := db.one(ctx, "count texts of "+table, into, fmt.Sprintf("SELECT %s FROM (SELECT %s FROM %s%s LIMIT %d) "+
		"SETTINGS max_execution_time = 20, timeout_overflow_mode = 'break'", strings.Join(counts, ", "),
		strings.Join(columns, ", "), quoteName(table), where, textSample), args...); err != nil {
		return err
	}
	for i, s := range of {
		if different, n := found[2*i], found[2*i+1]; different <= fewTexts && 2*different <= n {
			s.Type = "LowCardinality(String)"
		}
	}
	return nil
}
