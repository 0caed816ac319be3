package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/penstock/penstock/internal/app"
	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/loader/audit"
)

func runVerify(ctx context.Context, s streams, args []string) error {
	fs := newFlags(s, "verify", "Holds bucket, ledger and table against each other, object by object and in sum.\nExit status 1 and a list where they differ: missing, dead, short, double, gone, changed, extra, blobs.")
	path := configFlag(fs)
	since := fs.String("since", "24h", "begin of the `time` range: 2026-11-22, 2026-11-22T03:00:00Z, or a duration ago, as 24h")
	until := fs.String("until", "now", "end of the `time` range")
	grace := fs.Duration("grace", 5*time.Minute, "objects stored less than this `age` ago may still be waiting to be loaded")
	asJSON := fs.Bool("json", false, "as JSON, a line a pipeline")
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	span, err := parseSpan(*since, *until)
	if err != nil {
		return err
	}
	cfg, err := readConfig(*path)
	if err != nil {
		return err
	}
	db, err := clickhouse.Open(app.TableOptions(cfg.ClickHouse, 2))
	if err != nil {
		return err
	}
	defer db.Close()
	store := app.OpenBucket(cfg.Storage)
	source, err := app.Source(cfg, store, db)
	if err != nil {
		return err
	}
	days := int(span.To.Sub(span.From.Truncate(24*time.Hour))/(24*time.Hour)) + 1
	differ := false
	for _, spec := range pipeline.Specs() {
		line := show.NewLine(s.err)
		began, done := time.Now(), 0
		v, err := audit.Verify(ctx, spec, audit.VerifyOptions{Span: span, Grace: *grace, Bucket: store, Source: &source, Ledger: db, Table: db, Progress: func(v audit.Verified) {
			done++
			left := time.Duration(float64(time.Since(began)) / float64(done) * float64(max(0, days-done)))
			line.Show("%s: day %d of %d, %d objects, %d rows, %d differences, %s left", spec.Name, done, days, v.Objects, v.TableRows, len(v.Differences), left.Round(time.Second))
		}})
		line.End()
		if err != nil {
			return err
		}
		differ = differ || len(v.Differences) > 0
		if *asJSON {
			if err := json.NewEncoder(s.out).Encode(v); err != nil {
				return err
			}
			continue
		}
		blobs, expired := "", ""
		if v.Expired > 0 {
			expired = fmt.Sprintf(", %d expired", v.Expired)
		}
		if v.Blobs > 0 {
			blobs = fmt.Sprintf("%d objects of blobs, %d bytes; ", v.Blobs, v.BlobBytes)
		}
		fmt.Fprintf(s.out, "%-7s %d objects, %d waiting; rows: bucket %d, ledger %d, table %d (%d collapsed by resends%s); %d refused; %d objects dropped; %s%d differences\n",
			spec.Name, v.Objects, v.Waiting, v.BucketRows, v.LedgerRows, v.TableRows, v.Collapsed, expired, v.Refused, v.Dropped, blobs, len(v.Differences))
		fmt.Fprintf(s.out, "        outside the folders of these days: %d objects stored since then, compared with the ledger only; "+
			"%d others not checked; %d files that are not data ignored\n", v.Others, v.NotChecked, v.Ignored)
		for _, d := range v.Differences {
			fmt.Fprintf(s.out, "  %-8s %s: %s\n", d.Kind, d.Key, d.Message)
		}
	}
	if differ {
		return errors.New("bucket, ledger and table differ: see above")
	}
	return nil
}
