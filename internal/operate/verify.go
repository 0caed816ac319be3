package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/loader/audit"
)

// VerifyParams choose what is compared.
type VerifyParams struct {
	Since, Until string        // see parseWhen; Until may be now
	Grace        time.Duration // objects stored less than this ago may still be waiting
}

// Verify compares bucket, ledger and table, object by object and in sum. It fails if they differ.
func (o *Operator) Verify(ctx context.Context, p VerifyParams, to Output) error {
	span, err := parseSpan(p.Since, p.Until)
	if err != nil {
		return err
	}
	db, err := o.Table()
	if err != nil {
		return err
	}
	source, err := o.Source()
	if err != nil {
		return err
	}
	days := int(span.To.Sub(span.From.Truncate(24*time.Hour))/(24*time.Hour)) + 1
	differ := false
	for _, spec := range pipeline.Specs() {
		line := show.NewLine(to.Err)
		began, done := time.Now(), 0
		progress := func(v audit.Verified) {
			done++
			left := time.Duration(float64(time.Since(began)) / float64(done) * float64(max(0, days-done)))
			line.Show("%s: day %d of %d, %d objects, %d rows, %d differences, %s left",
				spec.Name, done, days, v.Objects, v.TableRows, len(v.Differences), left.Round(time.Second))
		}
		v, err := audit.Verify(ctx, spec, audit.VerifyOptions{Span: span, Grace: p.Grace, Bucket: o.Store, Source: source,
			Ledger: db, Table: db, Progress: progress})
		line.End()
		if err == nil {
			err = printVerified(to, v)
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

func printVerified(to Output, v audit.Verified) error {
	if to.JSON {
		return json.NewEncoder(to.Out).Encode(v)
	}
	blobs, expired := "", ""
	if v.Expired > 0 {
		expired = fmt.Sprintf(", %d expired", v.Expired)
	}
	if v.Blobs > 0 {
		blobs = fmt.Sprintf("%d objects of blobs, %d bytes; ", v.Blobs, v.BlobBytes)
	}
	fmt.Fprintf(to.Out,
		"%-7s %d objects, %d waiting; rows: bucket %d, ledger %d, table %d (%d collapsed by resends%s); %d refused; %d "+
			"objects dropped; %s%d differences\n",
		v.Pipeline, v.Objects, v.Waiting, v.BucketRows, v.LedgerRows, v.TableRows, v.Collapsed, expired, v.Refused, v.Dropped,
		blobs, len(v.Differences))
	fmt.Fprintf(to.Out,
		"        outside the folders of these days: %d objects stored since then, compared with the ledger only; "+
			"%d others not checked; %d files that are not data ignored\n", v.Others, v.NotChecked, v.Ignored)
	for _, d := range v.Differences {
		fmt.Fprintf(to.Out, "  %-8s %s: %s\n", d.Kind, d.Key, d.Message)
	}
	return nil
}
