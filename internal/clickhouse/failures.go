package clickhouse

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/penstock/penstock/internal/pipeline"
)

// Kept is a row of the errors table.
type Kept struct {
	ID         string     `json:"event_id"`
	Time       time.Time  `json:"time"`
	Stage      string     `json:"stage"`
	Code       string     `json:"code"`
	Message    string     `json:"message"`
	Project    string     `json:"project,omitempty"`
	RawBytes   uint64     `json:"raw_bytes"`
	RawSHA256  string     `json:"raw_sha256,omitempty"`
	RawObject  string     `json:"raw_object,omitempty"` // key in the bucket; empty: the bytes are in the row
	Redriven   *time.Time `json:"redriven_at,omitempty"`
	Object     string     `json:"object"`     // object that contained the failure record
	Row        uint32     `json:"object_row"` // row in that object
	Properties string     `json:"-"`          // everything else, as JSON
	Context    string     `json:"-"`
	Raw        string     `json:"-"`
}

// ErrorFilter selects failures. Empty fields match all.
type ErrorFilter struct {
	IDs                        []pipeline.UUID
	From, To                   time.Time
	Code, Project, Stage, Text string // Text is a part of the message
	Release                    string // of the client, from the raw payload
	Source                     string // the object whose load failed
	Pending                    bool   // only failures not yet redriven
	Limit                      int    // the newest N; 0: all
	Oldest                     bool   // oldest first
	Whole                      bool   // with properties, context and raw bytes
}

// where returns the filter's condition and its arguments.
func (f ErrorFilter) where() (string, []any) {
	where, args := []string{"1"}, []any{}
	add := func(wanted bool, condition string, values ...any) {
		if wanted {
			where, args = append(where, condition), append(args, values...)
		}
	}
	add(len(f.IDs) > 0, "event_id IN (?)", uuids(f.IDs))
	add(!f.From.IsZero(), "received_at >= fromUnixTimestamp64Milli(?)", f.From.UnixMilli())
	add(!f.To.IsZero(), "received_at < fromUnixTimestamp64Milli(?)", f.To.UnixMilli())
	add(f.Code != "", "name = ?", f.Code)
	add(f.Project != "", "project = ?", f.Project)
	add(f.Stage != "", "stage = ?", f.Stage)
	add(f.Source != "", "source_object = ?", f.Source)
	add(f.Text != "", "position(message, ?) > 0", f.Text)
	add(f.Release != "", releaseOf+" = ?", f.Release)
	add(f.Pending, "redriven_at IS NULL")
	return strings.Join(where, " AND "), args
}

// releaseOf extracts the release from a raw payload, which may be invalid JSON.
const releaseOf = `extract(raw, '"(?:app_version|appVersion|app_release|release|build)"\\s*:\\s*"([^"\\\\]{1,100})"')`

// done joins failures with their redrives.
const done = ` LEFT JOIN (
			SELECT event_id AS id, toNullable(max(redriven.redriven_at)) AS redriven_at FROM redriven GROUP BY id
		) AS done ON done.id = errors.event_id`

// ErrorCount counts similar failures.
type ErrorCount struct {
	Code    string    `json:"code"`
	Stage   string    `json:"stage"`
	Project string    `json:"project,omitempty"`
	Release string    `json:"release,omitempty"`
	Count   uint64    `json:"count"`
	Pending uint64    `json:"pending"` // not yet redriven
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
	Example string    `json:"example"` // message of one of them
}

// CountErrors calls each with the counts of the failures of a filter, largest first.
func (db *DB) CountErrors(ctx context.Context, f ErrorFilter, each func(ErrorCount) error) error {
	where, args := f.where()
	limit := ""
	if f.Limit > 0 {
		limit = fmt.Sprintf(" LIMIT %d", f.Limit)
	}
	var c ErrorCount
	return db.each(ctx, "count errors", []any{&c.Code, &c.Stage, &c.Project, &c.Release, &c.Count, &c.Pending, &c.First,
		&c.Last, &c.Example}, func() error { return each(c) },
		`SELECT toString(name), toString(stage), toString(project), `+releaseOf+` AS release, count() AS n,
			countIf(redriven_at IS NULL), min(received_at), max(received_at), any(message)
		FROM errors FINAL`+done+" WHERE "+where+` GROUP BY name, stage, project, release ORDER BY n DESC, name, project,
			release`+limit+" SETTINGS join_use_nulls = 1", args...)
}

// Errors calls each with the failures of a filter.
func (db *DB) Errors(ctx context.Context, f ErrorFilter, each func(Kept) error) error {
	where, args := f.where()
	whole := "'', '', ''"
	if f.Whole {
		whole = "toString(properties), toString(context), raw"
	}
	order := "received_at DESC, event_id DESC"
	if f.Oldest {
		order = "received_at, event_id"
	}
	if f.Limit > 0 {
		order += fmt.Sprintf(" LIMIT %d", f.Limit)
	}
	var k Kept
	return db.each(ctx, "read errors", []any{&k.ID, &k.Time, &k.Stage, &k.Code, &k.Message, &k.Project, &k.RawBytes,
		&k.RawObject, &k.RawSHA256, &k.Redriven, &k.Object, &k.Row, &k.Properties, &k.Context, &k.Raw},
		func() error { return each(k) },
		`SELECT toString(event_id), received_at, stage, name, message, project, toUInt64(raw_bytes), raw_object, raw_sha256,
			redriven_at, toString(object), object_row, `+whole+`
		FROM errors FINAL`+done+" WHERE "+where+" ORDER BY "+order+" SETTINGS join_use_nulls = 1", args...)
}

// Redriven is the result of a failure that was sent again.
type Redriven struct {
	ID                 pipeline.UUID
	Accepted, Rejected int
	RequestID, Object  string
	Code               string // if the request was rejected
}

// MarkRedriven records redrives.
func (db *DB) MarkRedriven(ctx context.Context, all []Redriven) error {
	now := time.Now().UTC()
	return db.insert(ctx, "mark redriven",
		"INSERT INTO redriven (event_id, redriven_at, accepted, rejected, request_id, object, code)",
		func(row func(...any) error) error {
			for _, r := range all {
				if err := row(uuid.UUID(r.ID), now, uint32(r.Accepted), uint32(r.Rejected), r.RequestID, r.Object,
					r.Code); err != nil {
					return err
				}
			}
			return nil
		})
}

func uuids(ids []pipeline.UUID) []uuid.UUID {
	all := make([]uuid.UUID, len(ids))
	for i, id := range ids {
		all[i] = uuid.UUID(id)
	}
	return all
}
