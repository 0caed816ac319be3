package clickhouse

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/penstock/penstock/internal/pipeline"
)

// Place is where an event came into the table.
type Place struct {
	Object     string    `json:"object"`
	Row        uint32    `json:"object_row"`
	EventID    string    `json:"event_id"`
	Table      string    `json:"table"`
	Project    string    `json:"project"`
	Name       string    `json:"name"`
	Timestamp  time.Time `json:"timestamp"`
	ReceivedAt time.Time `json:"received_at"`
	Receiver   string    `json:"receiver"`
	Seq        uint64    `json:"seq"`
}

const placeColumns = "toString(object), object_row, toString(event_id), project, name, timestamp, received_at, receiver, seq"

// FindEvent lists the rows of an event: several where a client sent it again
// and no merge has collapsed them.
func (db *DB) FindEvent(ctx context.Context, table string, id pipeline.UUID) ([]Place, error) {
	return db.places(ctx, table, "event_id = ?", uuid.UUID(id))
}

// FindRow is an object's row.
func (db *DB) FindRow(ctx context.Context, table, object string, row uint32) ([]Place, error) {
	return db.places(ctx, table, "object = ? AND object_row = ?", object, row)
}

func (db *DB) places(ctx context.Context, table, where string, args ...any) ([]Place, error) {
	rows, err := db.conn.Query(ctx, "SELECT "+placeColumns+" FROM "+quoteName(table)+" WHERE "+where+" ORDER BY received_at LIMIT 1000", args...)
	if err != nil {
		return nil, fmt.Errorf("find in %s: %w", table, class(err))
	}
	defer rows.Close()
	var all []Place
	for rows.Next() {
		p := Place{Table: table}
		if err := rows.Scan(&p.Object, &p.Row, &p.EventID, &p.Project, &p.Name, &p.Timestamp, &p.ReceivedAt, &p.Receiver, &p.Seq); err != nil {
			return nil, fmt.Errorf("find in %s: %w", table, class(err))
		}
		all = append(all, p)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("find in %s: %w", table, class(err))
	}
	return all, nil
}

// Kept is a failure as it stands in the table of errors.
type Kept struct {
	ID         string     `json:"event_id"`
	Time       time.Time  `json:"time"`
	Stage      string     `json:"stage"`
	Code       string     `json:"code"`
	Message    string     `json:"message"`
	Project    string     `json:"project,omitempty"`
	RawBytes   uint64     `json:"raw_bytes"`
	RawSHA256  string     `json:"raw_sha256,omitempty"`
	RawObject  string     `json:"raw_object,omitempty"` // of the bucket; empty: the bytes are in the row
	Redriven   *time.Time `json:"redriven_at,omitempty"`
	Object     string     `json:"object"`     // that the failure itself came in
	Row        uint32     `json:"object_row"` // and its row there
	Properties string     `json:"-"`          // all else, as JSON
	Context    string     `json:"-"`
	Raw        string     `json:"-"`
}

// ErrorFilter chooses failures. Empty fields choose all.
type ErrorFilter struct {
	IDs                        []pipeline.UUID
	From, To                   time.Time
	Code, Project, Stage, Text string // Text is looked for in the message
	Source                     string // the object whose load it was
	Pending                    bool   // only those not redriven
	Limit                      int    // the newest so many; 0: all
	Oldest                     bool   // first, not last
	Whole                      bool   // with properties, context and raw bytes
}

// Errors calls each with the failures of a filter.
func (db *DB) Errors(ctx context.Context, f ErrorFilter, each func(Kept) error) error {
	where, args := []string{"1"}, []any{}
	add := func(cond string, values ...any) { where, args = append(where, cond), append(args, values...) }
	if len(f.IDs) > 0 {
		ids := make([]uuid.UUID, len(f.IDs))
		for i, id := range f.IDs {
			ids[i] = uuid.UUID(id)
		}
		add("event_id IN (?)", ids)
	}
	if !f.From.IsZero() {
		add("received_at >= fromUnixTimestamp64Milli(?)", f.From.UnixMilli())
	}
	if !f.To.IsZero() {
		add("received_at < fromUnixTimestamp64Milli(?)", f.To.UnixMilli())
	}
	for _, c := range []struct{ column, value string }{{"name", f.Code}, {"project", f.Project}, {"stage", f.Stage}} {
		if c.value != "" {
			add(c.column+" = ?", c.value)
		}
	}
	if f.Source != "" {
		add("source_object = ?", f.Source)
	}
	if f.Text != "" {
		add("position(message, ?) > 0", f.Text)
	}
	if f.Pending {
		add("redriven_at IS NULL")
	}
	columns := "toString(event_id), received_at, stage, name, message, project, toUInt64(raw_bytes), raw_object, raw_sha256, redriven_at, toString(object), object_row"
	if f.Whole {
		columns += ", toString(properties), toString(context), raw"
	} else {
		columns += ", '', '', ''"
	}
	order := "ORDER BY received_at DESC, event_id DESC"
	if f.Oldest {
		order = "ORDER BY received_at, event_id"
	}
	if f.Limit > 0 {
		order += fmt.Sprintf(" LIMIT %d", f.Limit)
	}
	rows, err := db.conn.Query(ctx, "SELECT "+columns+" FROM errors FINAL LEFT JOIN (SELECT event_id AS id, toNullable(max(redriven.redriven_at)) AS redriven_at FROM redriven GROUP BY id) AS done ON done.id = errors.event_id WHERE "+
		strings.Join(where, " AND ")+" "+order+" SETTINGS join_use_nulls = 1", args...)
	if err != nil {
		return fmt.Errorf("read errors: %w", class(err))
	}
	defer rows.Close()
	for rows.Next() {
		var k Kept
		if err := rows.Scan(&k.ID, &k.Time, &k.Stage, &k.Code, &k.Message, &k.Project, &k.RawBytes, &k.RawObject, &k.RawSHA256, &k.Redriven, &k.Object, &k.Row,
			&k.Properties, &k.Context, &k.Raw); err != nil {
			return fmt.Errorf("read errors: %w", class(err))
		}
		if err := each(k); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read errors: %w", class(err))
	}
	return nil
}

// Redriven is what became of a failure that was sent again.
type Redriven struct {
	ID                 pipeline.UUID
	Accepted, Rejected int
	RequestID, Object  string
	Code               string // of a refusal as a whole
}

// MarkRedriven writes down that failures were sent again.
func (db *DB) MarkRedriven(ctx context.Context, all []Redriven) error {
	batch, err := db.conn.PrepareBatch(ctx, "INSERT INTO redriven (event_id, redriven_at, accepted, rejected, request_id, object, code)")
	if err != nil {
		return fmt.Errorf("mark redriven: %w", class(err))
	}
	now := time.Now().UTC()
	for _, r := range all {
		if err := batch.Append(uuid.UUID(r.ID), now, uint32(r.Accepted), uint32(r.Rejected), r.RequestID, r.Object, r.Code); err != nil {
			batch.Abort()
			return fmt.Errorf("mark redriven: %w", err)
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("mark redriven: %w", class(err))
	}
	return nil
}

// Job is a re-ingest with --replace, by what it is about.
type Job struct {
	Selection, ID             string
	Started                   time.Time
	Finished                  bool
	Objects, Rows, FailedOnes uint64
}

// OpenJob is the job for a selection that was begun last and is not finished.
func (db *DB) OpenJob(ctx context.Context, selection string) (j Job, ok bool, err error) {
	err = db.conn.QueryRow(ctx, `SELECT selection, id, started_at, finished, objects, rows, failed FROM jobs FINAL
		WHERE selection = ? ORDER BY started_at DESC LIMIT 1`, selection).
		Scan(&j.Selection, &j.ID, &j.Started, &j.Finished, &j.Objects, &j.Rows, &j.FailedOnes)
	if errors.Is(err, sql.ErrNoRows) {
		return Job{}, false, nil
	}
	if err != nil {
		return Job{}, false, fmt.Errorf("read jobs: %w", class(err))
	}
	return j, !j.Finished, nil
}

// SaveJob writes a job as it stands.
func (db *DB) SaveJob(ctx context.Context, j Job) error {
	// As numbers: the driver cuts a time in a query to seconds.
	if err := db.conn.Exec(ctx, `INSERT INTO jobs (selection, id, started_at, updated_at, finished, objects, rows, failed)
		SELECT ?, ?, fromUnixTimestamp64Milli(?), fromUnixTimestamp64Milli(?), ?, ?, ?, ?`,
		j.Selection, j.ID, j.Started.UnixMilli(), time.Now().UnixMilli(), j.Finished, j.Objects, j.Rows, j.FailedOnes); err != nil {
		return fmt.Errorf("write job: %w", class(err))
	}
	return nil
}
