package ask

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Result is the cost of one question.
type Result struct {
	Question string  `json:"question"`
	SQL      string  `json:"sql"`
	Ms       float64 `json:"ms"`     // median
	CPU      float64 `json:"cpu_ms"` // of ClickHouse, mean
	Rows     uint64  `json:"rows_read"`
	Bytes    uint64  `json:"bytes_read"`
	Memory   uint64  `json:"peak_memory_bytes"`
	Most     float64 `json:"most_ms"`
	Equal    bool    `json:"equal"` // to the truth tables' answer
	Error    string  `json:"error,omitempty"`
	Differs  string  `json:"differs,omitempty"` // first difference
}

// slow is the duration from which a question is asked only once.
const slow = 8 * time.Second

// Asker asks a server.
type Asker struct {
	Server   Server
	Subjects Subjects
	Runs     int  // measured runs of a question after a warm-up; 0: measure the only run
	Before   bool // ask as the docs of the older schema do
	// CPU returns the server's CPU time so far. On a busy machine it means more than wall time.
	CPU      func() (time.Duration, error)
	Progress func(what string) // before each question
}

// All asks the questions one after the other. A wrong answer or an error is part of the result.
func (a Asker) All(ctx context.Context, questions []Question) (results []Result, err error) {
	for _, q := range questions {
		a.Progress(q.Name)
		r, err := a.ask(ctx, q)
		if err != nil {
			return results, fmt.Errorf("%s: %w", q.Name, err)
		}
		results = append(results, r)
	}
	return results, nil
}

// ask fails only if the truth tables cannot be queried, or the context ends.
func (a Asker) ask(ctx context.Context, q Question) (Result, error) {
	sql := q.After
	if a.Before {
		sql = q.Before
	}
	sql = a.Subjects.fill(sql)
	r := Result{Question: q.Name, SQL: sql, Most: q.Most.Seconds() * 1000}
	var answers []Answer
	used, err := a.CPU()
	if err != nil {
		return r, err
	}
	for i := range 1 + a.Runs {
		answer, err := a.Server.Query(ctx, sql)
		if err != nil && ctx.Err() != nil {
			return r, ctx.Err()
		} else if err != nil {
			r.Error = err.Error()
			return r, nil
		}
		if answers = append(answers, answer); i == 0 && a.Runs > 0 && answer.Took < slow {
			answers = answers[:0] // the first run warms up
			if used, err = a.CPU(); err != nil {
				return r, err
			}
		}
		if answer.Took >= slow {
			break
		}
	}
	end, err := a.CPU()
	if err != nil {
		return r, err
	}
	r.CPU = (end - used).Seconds() * 1000 / float64(len(answers))
	slices.SortFunc(answers, func(a, b Answer) int { return int(a.Took - b.Took) })
	middle := answers[len(answers)/2]
	r.Ms, r.Rows, r.Bytes, r.Memory = middle.Took.Seconds()*1000, middle.Read, middle.Bytes, middle.Memory

	want, err := a.Server.Query(ctx, a.Subjects.fill(exact(q.Truth)))
	if err != nil {
		return r, fmt.Errorf("ask the truth: %w", err)
	}
	got := answers[0]
	if check := q.checked(sql); check != sql {
		if got, err = a.Server.Query(ctx, a.Subjects.fill(check)); err != nil {
			r.Error = err.Error()
			return r, nil
		}
	}
	r.Differs = difference(got.Rows, want.Rows, q.Approximate)
	r.Equal = r.Differs == ""
	return r, nil
}

// Failures describes the wrong answers of a side that must be right.
func Failures(side Side) (all []string) {
	for _, r := range side.Results {
		if r.Error != "" {
			all = append(all, side.Name+", "+r.Question+": "+r.Error)
		} else if !r.Equal {
			all = append(all, side.Name+", "+r.Question+": "+r.Differs)
		}
	}
	return all
}
