package clickhouse

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// Job is a re-ingest with --replace.
type Job struct {
	Selection, ID             string
	Started                   time.Time
	Finished                  bool
	Objects, Rows, FailedOnes uint64
	Detail                    string // of verify: its result, as JSON
}

// verifyJobs begins the selection of jobs that are runs of verify.
const verifyJobs = "verify "

// VerifyJob is a run of verify over a pipeline. The caller sets Objects, Rows, FailedOnes (the differences) and Detail.
// Only the last run with and the last run without differences are kept.
func VerifyJob(pipeline string, began time.Time, differ bool) Job {
	j := Job{Selection: verifyJobs + pipeline, ID: "clean", Started: began, Finished: true}
	if differ {
		j.ID = "differences"
	}
	return j
}

// OpenJob returns the newest job for a selection; ok is false if there is none or
// it is finished.
func (db *DB) OpenJob(ctx context.Context, selection string) (j Job, ok bool, err error) {
	err = db.one(ctx, "read jobs",
		[]any{&j.Selection, &j.ID, &j.Started, &j.Finished, &j.Objects, &j.Rows, &j.FailedOnes},
		`SELECT selection, id, started_at, finished, objects, rows, failed FROM jobs FINAL
		WHERE selection = ? ORDER BY started_at DESC LIMIT 1`, selection)
	if errors.Is(err, sql.ErrNoRows) {
		return Job{}, false, nil
	}
	return j, err == nil && !j.Finished, err
}

// SaveJob writes a job. Times are sent as numbers, because the driver truncates a time in a query to seconds.
func (db *DB) SaveJob(ctx context.Context, j Job) error {
	return db.exec(ctx, "write job",
		`INSERT INTO jobs (selection, id, started_at, updated_at, finished, objects, rows, failed, detail)
		SELECT ?, ?, fromUnixTimestamp64Milli(?), fromUnixTimestamp64Milli(?), ?, ?, ?, ?, ?`,
		j.Selection, j.ID, j.Started.UnixMilli(), time.Now().UnixMilli(), j.Finished, j.Objects, j.Rows, j.FailedOnes,
		j.Detail)
}

// LastVerify calls each with the Detail of the last run of verify over each pipeline.
func (db *DB) LastVerify(ctx context.Context, each func(detail string) error) error {
	var detail string
	return db.each(ctx, "read jobs", []any{&detail}, func() error { return each(detail) },
		`SELECT argMax(detail, updated_at) AS last FROM jobs FINAL WHERE startsWith(selection, ?) AND detail != ''
		GROUP BY selection ORDER BY selection DESC`, verifyJobs)
}
