package operate

import (
	"context"
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
	Since string `json:"since" param:"since" default:"24h" usage:"start of the time range: 2026-11-22, 2026-11-22T03:00:00Z, or a duration ago, such as 24h"`
	Until string `json:"until" param:"until" default:"now" usage:"end of the time range"`
	Grace string `json:"grace" param:"grace" default:"5m" usage:"objects stored less than this duration ago may still be waiting to be loaded"`
}

func verifyOperation() Operation {
	return Operation{
		Name: "verify", method: http.MethodGet, path: "/v1/verify", params: &verifyParams{}, item: audit.Verified{},
		Short: "check that bucket, ledger and table agree",
		About: "Compares them object by object, and their sums. If they differ, it lists the differences and\n" +
			"exits with status 1: missing, dead, short, double, gone, changed, extra, blobs.",
		print: prints(printVerified), run: runs(verify),
	}
}

// verify compares bucket, ledger and table for each object and in total. It fails if they differ.
func verify(ctx context.Context, o *Operator, p *verifyParams, out sink) error {
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
			o.recordVerify(ctx, v, began)
			err = out.item(v)
		}
		if err != nil {
			return err
		}
		differ = differ || len(v.Differences) > 0
	}
	if differ {
		return errors.New("bucket, ledger and table differ: see above")
	}
	return nil
}

// recordVerify records a run's result. Metrics show when the last good run was.
func (o *Operator) recordVerify(ctx context.Context, v audit.Verified, began time.Time) {
	j := clickhouse.VerifyJob(v.Pipeline, began, len(v.Differences) > 0)
	j.Objects, j.Rows, j.FailedOnes = uint64(v.Objects), uint64(v.TableRows), uint64(len(v.Differences))
	if err := o.Table.SaveJob(ctx, j); err != nil {
		fmt.Fprintf(o.Said, "warning: the time of this run is missing in the metrics: %s\n", err)
	}
}

func printVerified(w io.Writer, v *audit.Verified) error {
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
	for _, d := range v.Differences {
		fmt.Fprintf(w, "  %-8s %s: %s\n", d.Kind, d.Key, d.Message)
	}
	return nil
}
