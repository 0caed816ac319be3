package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/loader/audit"
)

// verifyParams select what to compare.
type verifyParams struct {
	Since string `json:"since" param:"since" default:"24h" usage:"start of the time range: 2026-11-22, 2026-11-22T03:00:00Z, or a duration ago, such as 24h or 7d"`
	Until string `json:"until" param:"until" default:"now" usage:"end of the time range"`
	Last  bool   `json:"last,omitempty" param:"last" usage:"show the results of the last run, by whomever it was started"`
	Grace string `json:"grace" param:"grace" default:"5m" usage:"objects stored less than this duration ago may still be waiting to be loaded"`
}

// verifyResult is the result of a run over a pipeline.
type verifyResult struct {
	audit.Verified
	From  time.Time `json:"from"` // the range of the run
	To    time.Time `json:"to"`
	Began time.Time `json:"began_at"`
	Ended time.Time `json:"ended_at"`
	Found int       `json:"found"` // differences; a kept result lists only the first
}

// keptDifferences is how many differences of a result are kept for --last.
const keptDifferences = 200

func verifyOperation() Operation {
	return Operation{
		Name: "verify", method: http.MethodGet, path: "/v1/verify", params: &verifyParams{}, item: verifyResult{},
		Short: "check that bucket, ledger and table agree",
		About: "Compares them object by object, and their sums. If they differ, it lists the differences and\n" +
			"exits with status 1: missing, dead, short, double, gone, changed, extra, blobs.\n" +
			"Its result is kept, and --last shows it again.",
		print: prints(printVerified), run: runs(verify),
	}
}

// verify compares bucket, ledger and table for each object and in total. It fails if they differ.
func verify(ctx context.Context, o *Operator, p *verifyParams, out sink) error {
	if p.Last {
		return o.lastVerify(ctx, out)
	}
	span, err := parseSpan(p.Since, p.Until)
	if err != nil {
		return err
	}
	grace, err := parseDuration("--grace", p.Grace)
	if err != nil {
		return err
	}
	days := int(span.To.Sub(span.From.Truncate(24*time.Hour))/(24*time.Hour)) + 1
	differ := false
	for _, spec := range pipeline.Specs() {
		began, done := time.Now(), 0
		checked := func(v audit.Verified) {
			done++
			left := time.Duration(float64(time.Since(began)) / float64(done) * float64(max(0, days-done)))
			out.progress(progress{Text: fmt.Sprintf("%s: day %d of %d, %s, %s, %s, %s left", spec.Name, done, days,
				show.Plural(v.Objects, "object"), show.Plural(v.TableRows, "row"),
				show.Plural(len(v.Differences), "difference"), left.Round(time.Second))})
		}
		v, err := audit.Verify(ctx, spec, audit.VerifyOptions{Span: span, Grace: grace, Bucket: o.Store, Source: o.Source,
			Ledger: o.Table, Table: o.Table, Progress: checked})
		if err == nil {
			r := verifyResult{Verified: v, From: span.From, To: span.To, Began: began.UTC(), Ended: time.Now().UTC(),
				Found: len(v.Differences)}
			if r.To.After(r.Ended) { // until now allows for other clocks
				r.To = r.Ended
			}
			o.recordVerify(ctx, r)
			err = out.item(r)
		}
		if err != nil {
			return err
		}
		differ = differ || len(v.Differences) > 0
	}
	if differ {
		return errDiffer
	}
	return nil
}

var errDiffer = errors.New("bucket, ledger and table differ: see above")

// lastVerify shows the kept results.
func (o *Operator) lastVerify(ctx context.Context, out sink) error {
	n, differ := 0, false
	err := o.Table.LastVerify(ctx, func(detail string) error {
		var r verifyResult
		if err := json.Unmarshal([]byte(detail), &r); err != nil {
			return fmt.Errorf("table jobs: the result of verify is not readable: %w", err)
		}
		n++
		differ = differ || r.Found > 0
		return out.item(r)
	})
	switch {
	case err != nil:
		return err
	case n == 0:
		return errNotVerified
	case differ:
		return errDiffer
	}
	return nil
}

// NotVerified reports whether an error says that no result of verify is kept.
func NotVerified(err error) bool { return errors.Is(err, errNotVerified) }

// errNotVerified is returned if no result is kept.
var errNotVerified = errors.New("no result of verify is kept: run it")

// recordVerify records a run's result. Metrics show when the last good run was.
func (o *Operator) recordVerify(ctx context.Context, r verifyResult) {
	j := clickhouse.VerifyJob(r.Pipeline, r.Began, r.Found > 0)
	j.Objects, j.Rows, j.FailedOnes = r.Objects, r.TableRows, uint64(r.Found)
	r.Differences = r.Differences[:min(len(r.Differences), keptDifferences)]
	text, err := json.Marshal(r)
	if err == nil {
		j.Detail = string(text)
		err = o.Table.SaveJob(ctx, j)
	}
	if err != nil {
		fmt.Fprintf(o.Said, "warning: the result of this run is missing in the table jobs and in the metrics: %s\n", err)
	}
}

func printVerified(w io.Writer, v *verifyResult) error {
	blobs, expired := "", ""
	if v.Expired > 0 {
		expired = fmt.Sprintf(", %d expired", v.Expired)
	}
	if v.Blobs > 0 {
		blobs = fmt.Sprintf("blobs: %s, %s; ", show.Plural(v.Blobs, "object"), show.Plural(v.BlobBytes, "byte"))
	}
	fmt.Fprintf(w,
		"%-7s %s, %d waiting; rows: bucket %d, ledger %d, table %d (%d collapsed by resends%s); %d refused; "+
			"%s dropped; %s%s\n",
		v.Pipeline, show.Plural(v.Objects, "object"), v.Waiting, v.BucketRows, v.LedgerRows, v.TableRows, v.Collapsed,
		expired, v.Refused, show.Plural(v.Dropped, "object"), blobs, show.Plural(len(v.Differences), "difference"))
	fmt.Fprintf(w,
		"        outside the folders of these days: %s stored since then, compared with the ledger only; "+
			"%s not checked; %s ignored as no data\n", show.Plural(v.Others, "object"), show.Plural(v.NotChecked, "other"),
		show.Plural(v.Ignored, "file"))
	if v.EdgeBlobs > 0 {
		fmt.Fprintf(w, "        %s of the edge receiver: not compared with the events that refer to them\n",
			show.Plural(v.EdgeBlobs, "blob object"))
	}
	for _, d := range v.Differences {
		fmt.Fprintf(w, "  %-8s %s: %s\n", d.Kind, d.Key, d.Message)
	}
	if more := v.Found - len(v.Differences); more > 0 {
		fmt.Fprintf(w, "  and %d more: run verify to list them\n", more)
	}
	return nil
}
