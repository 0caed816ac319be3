package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Property is one path in a project's events of one name.
type Property struct {
	Project string         `json:"project"`
	Name    string         `json:"name"`
	Path    string         `json:"path"`
	Events  uint64         `json:"events"` // with a value at the path; approximate
	Share   float64        `json:"share"`  // of the name's events
	Types   []PropertyType `json:"types"`  // most frequent first
	First   time.Time      `json:"first_seen"`
	Last    time.Time      `json:"last_seen"`
}

// PropertyType is the values of one type.
type PropertyType struct {
	Type    string    `json:"type"`
	Events  uint64    `json:"events"`
	Share   float64   `json:"share"` // of the path's values
	First   time.Time `json:"first_seen"`
	Last    time.Time `json:"last_seen"`
	Example *string   `json:"example,omitempty"`
}

// Properties calls each with the catalogue's properties, sorted by project, name and path. An empty project or name
// means all.
func (db *DB) Properties(ctx context.Context, project, name string, each func(Property) error) error {
	var p Property
	var t PropertyType
	var row struct{ project, name, path string }
	total := uint64(0) // events of the name
	end := func() error {
		if p.Path == "" {
			return nil
		}
		p.finish(total)
		return each(p)
	}
	err := db.each(ctx, "read the property catalogue",
		[]any{&row.project, &row.name, &row.path, &t.Type, &t.Events, &t.First, &t.Last, &t.Example}, func() error {
			if p.Project != row.project || p.Name != row.name || p.Path != row.path {
				if err := end(); err != nil {
					return err
				}
				if p.Project != row.project || p.Name != row.name {
					total = 0
				}
				p = Property{Project: row.project, Name: row.name, Path: row.path}
			}
			if row.path == "" {
				total = t.Events
				return nil
			}
			p.Types = append(p.Types, t)
			return nil
		}, `SELECT toString(project), toString(name), path, toString(type), sum(events) AS n, min(first_seen), max(last_seen),
			anyLast(example) FROM property_counts WHERE (? = '' OR project = ?) AND (? = '' OR name = ?)
			GROUP BY project, name, path, type ORDER BY project, name, path, n DESC, type`, project, project, name, name)
	if err != nil {
		return err
	}
	return end()
}

// finish computes the fields that depend on all types.
func (p *Property) finish(total uint64) {
	p.First, p.Last = p.Types[0].First, p.Types[0].Last
	for _, t := range p.Types {
		p.Events += t.Events
		if t.First.Before(p.First) {
			p.First = t.First
		}
		if t.Last.After(p.Last) {
			p.Last = t.Last
		}
	}
	for i := range p.Types {
		p.Types[i].Share = float64(p.Types[i].Events) / float64(p.Events)
	}
	if total > 0 { // a redelivery may count only one of the two
		p.Share = min(1, float64(p.Events)/float64(total))
	}
}

// The kinds of types. Numbers of different types are one kind.
const (
	numberKind = "number"
	textKind   = "text"
	boolKind   = "bool"
	arrayKind  = "array"
	objectKind = "object"
)

func kindOf(kind string) string {
	switch {
	case kind == "Int64" || kind == "UInt64" || kind == "Float64":
		return numberKind
	case kind == "String":
		return textKind
	case kind == "Bool":
		return boolKind
	case strings.HasPrefix(kind, "Array"):
		return arrayKind
	}
	return objectKind
}

// Warning describes a problem with the types of a path; empty: none.
func (p Property) Warning() string {
	var kinds []string
	for _, t := range p.Types {
		if k := kindOf(t.Type); !slices.Contains(kinds, k) {
			kinds = append(kinds, k)
		}
	}
	numbers := 0
	for _, t := range p.Types {
		if kindOf(t.Type) == numberKind {
			numbers++
		}
	}
	read := propertySQL(p.Path)
	switch {
	case len(kinds) > 1 && kinds[0] == numberKind:
		return fmt.Sprintf("mixed types: %s; read it by num(%s)", strings.Join(kinds, ", "), read)
	case len(kinds) > 1:
		return fmt.Sprintf("mixed types: %s; read it by text(%s)", strings.Join(kinds, ", "), read)
	case numbers > 1:
		return fmt.Sprintf("numbers of %d types; read it by num(%s)", numbers, read)
	}
	return ""
}

// propertySQL returns the expression of a path.
func propertySQL(path string) string {
	keys := strings.Split(path, ".")
	for i, k := range keys {
		if !columnName.MatchString(k) {
			keys[i] = quoteName(k)
		}
	}
	return "properties." + strings.Join(keys, ".")
}

// DropExamples deletes the examples of the catalogue.
func (db *DB) DropExamples(ctx context.Context) error {
	var n uint64
	if err := db.one(ctx, "read the property catalogue", []any{&n},
		"SELECT count(example) FROM property_counts"); err != nil || n == 0 {
		return err
	}
	return db.exec(ctx, "drop examples of the property catalogue",
		"ALTER TABLE property_counts UPDATE example = NULL WHERE example IS NOT NULL")
}
