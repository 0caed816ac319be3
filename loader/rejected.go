package loader

import (
	"context"
	"errors"
	"slices"

	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/codec/foreign"
	"github.com/penstock/penstock/internal/pipeline"
)

// maxWaiting bounds the rejected rows that are kept until the first valid one, in bytes.
const maxWaiting = 16 << 20

// rejections are the rows of a foreign file that are not valid events. They are reported only after a valid row: binary
// data read as text would make a thousand failure records.
type rejections struct {
	*attempt
	any    bool // the file has a valid row
	waits  []pipeline.Failure
	failed string // why the first rejected row is invalid
	rows   int64  // rejected so far
	bytes  int    // in waits
}

// take collects the rows that the last Decode left out. events is the number of events that it returned.
func (r *rejections) take(ctx context.Context, dec codec.Decoder, events int) error {
	from, ok := dec.(*foreign.Decoder)
	if !ok {
		return nil
	}
	if n := from.Repaired(); n > 0 {
		r.metrics.repaired.WithLabelValues("lone_surrogate").Add(float64(n))
	}
	for _, row := range from.Rejected() {
		if r.rows++; r.rows == 1 {
			r.failed = row.Message
		}
		if !slices.Contains(r.entry.Refused, row.Row) {
			f := r.refusal(row.Row, nil, row.Raw, errors.New(row.Message))
			f.Code = row.Code
			r.waits = append(r.waits, f)
			r.bytes += len(row.Raw)
		}
	}
	r.any = r.any || events > 0
	if len(r.entry.Refused)+len(r.waits) > maxRefused {
		if !r.any {
			return r.end()
		}
		return fault("refused_rows", "more than %d of its rows are no events; the first: %s", maxRefused, r.failed)
	}
	if !r.any && r.bytes < maxWaiting || len(r.waits) == 0 {
		return nil
	}
	waits := r.waits
	r.waits, r.bytes = nil, 0
	return r.leaveOut(ctx, waits)
}

// end fails a file without a valid row, after all of it is decoded.
func (r *rejections) end() error {
	if r.any || r.rows == 0 {
		return nil
	}
	return faultFinal("no_valid_rows", "no row of %d is an event; the first: %s", r.rows, r.failed)
}
