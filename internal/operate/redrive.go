package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/codec/foreign"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/loader"
	"github.com/penstock/penstock/receiver"
)

// redrivePage is how many failures are read and marked together, and
// redriveAtOnce how many are sent at the same time: they share the early roll
// that durability object asks for.
const (
	redrivePage   = 256
	redriveAtOnce = 64
	redriveTries  = 20
)

func redriveErrors(ctx context.Context, o *Operator, params any, out sink) error {
	p := params.(*errorRedrive)
	f, err := p.filter()
	if err != nil {
		return err
	}
	if !p.chosen() && !p.All {
		return errors.New("name failures, or choose by --code, --project, --stage or --text, or say --all")
	}
	db, err := o.Table()
	if err != nil {
		return err
	}
	f.Pending, f.Oldest = true, true
	if p.DryRun {
		return db.Errors(ctx, f, func(k clickhouse.Kept) error {
			return out.item(errorResult{ID: k.ID, Result: "pending", Code: k.Code, Message: k.Message})
		})
	}
	// One at a time, or each would send what the other has not marked yet.
	claim, held, err := o.Claim(ctx, "redrive", "redrive-"+o.Name, redriveClaim)
	if err != nil {
		return err
	}
	if !held {
		return fmt.Errorf("another redrive is running, or was killed less than %s ago", redriveClaim)
	}
	defer claim.Release(context.WithoutCancel(ctx))
	rec, stop, err := o.Receiver()
	if err != nil {
		return err
	}
	err = o.redriveAll(ctx, db, rec, f, p, func() error { _, err := claim.Renew(ctx); return err }, out)
	return errors.Join(err, stop())
}

func (o *Operator) redriveAll(ctx context.Context, db Table, rec Receiver, f clickhouse.ErrorFilter, p *errorRedrive,
	renew func() error, out sink) error {
	var ids []pipeline.UUID
	if err := db.Errors(ctx, f, func(k clickhouse.Kept) error {
		id, err := pipeline.ParseUUID([]byte(k.ID))
		ids = append(ids, id)
		return err
	}); err != nil {
		return err
	}
	began := time.Now()
	for done := 0; done < len(ids); {
		page := ids[done:min(done+redrivePage, len(ids))]
		if err := renew(); err != nil {
			return err
		}
		if err := o.redrivePage(ctx, db, rec, page, p, out); err != nil {
			return err
		}
		done += len(page)
		out.progress(progress{Seconds: time.Since(began).Seconds(),
			Text: fmt.Sprintf("%d of %d failures, %.0f/s", done, len(ids), float64(done)/time.Since(began).Seconds())})
	}
	return nil
}

func (o *Operator) redrivePage(ctx context.Context, db Table, rec Receiver, ids []pipeline.UUID, p *errorRedrive,
	out sink) error {
	var details []errorDetail
	if err := db.Errors(ctx, clickhouse.ErrorFilter{IDs: ids, Pending: true, Whole: true}, func(k clickhouse.Kept) error {
		d, err := o.detail(ctx, k)
		details = append(details, d)
		return err
	}); err != nil {
		return err
	}
	results := make([]errorResult, len(details))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(redriveAtOnce)
	for i := range details {
		g.Go(func() (err error) {
			results[i], err = o.redriveOne(ctx, rec, details[i], p)
			return err
		})
	}
	// What was sent is stored by now: the mark follows. Killed between the two,
	// the next redrive sends the same ids again, which is the same rows.
	err := g.Wait()
	var marks []clickhouse.Redriven
	for _, r := range results {
		if r.Accepted+r.Sampled > 0 {
			id, _ := pipeline.ParseUUID([]byte(r.ID))
			marks = append(marks, clickhouse.Redriven{ID: id, Accepted: r.Accepted, Rejected: r.Rejected, Object: r.Object,
				Code: r.Code})
		}
	}
	if len(marks) > 0 {
		err = errors.Join(err, db.MarkRedriven(context.WithoutCancel(ctx), marks))
	}
	if err != nil {
		return err
	}
	for _, r := range results {
		if err := out.item(r); err != nil {
			return err
		}
	}
	return nil
}

// importedRow makes what a client would send of a row of a file that was
// rejected: an operator may have mended it. project is the one that the
// configuration has for the file.
func (o *Operator) importedRow(key string, row uint32, at time.Time, text []byte) (body []byte, project string,
	err error) {
	imports, err := o.Config.Mappings()
	if err != nil {
		return nil, "", err
	}
	e, err := foreign.Event(text, row, foreign.Options{Key: key, Modified: at.UnixMilli(), Mapping: imports.Of(key)})
	if err != nil {
		return nil, "", err
	}
	return loader.ClientForm(&e), string(e.Project), nil
}

func (o *Operator) redriveOne(ctx context.Context, rec Receiver, d errorDetail, p *errorRedrive) (errorResult, error) {
	r := errorResult{ID: d.ID, Result: "skipped"}
	project := d.Project
	if project == "" {
		project = p.As
	}
	var in struct {
		Index   *int // in the request; a request as a whole has none
		Count   int  // of the events that share the record; 0: there is one
		Headers map[string]string
		Object  string  `json:"source_object"` // of a load
		Row     *uint32 `json:"source_row"`    // of it; a load as a whole has none
	}
	json.Unmarshal(d.Properties, &in)
	body, encoding := d.Raw, d.text("content_encoding")
	contentType := d.text("content_type")
	if mended, ok := p.Bodies[d.ID]; ok {
		body, encoding = mended, ""
		if !strings.HasPrefix(contentType, "application/cloudevents") {
			contentType = "" // what the filter printed is JSON
		}
	}
	switch {
	case d.Stage == "loader" && in.Row == nil:
		r.Message = "it is the failure of a load, with nothing to send: `penstock dlq` and `penstock reingest` load " +
			"objects again"
		return r, nil
	case len(body) == 0:
		r.Message = "there are no bytes to send"
		return r, nil
	case in.Count > 0 && in.Index == nil && p.Bodies[d.ID] == nil:
		r.Message = fmt.Sprintf(
			"its bytes are the whole body, which has accepted events besides these %d: send the rejected ones by --through",
			in.Count)
		return r, nil
	case d.text("class") == "taken" && p.Bodies[d.ID] == nil:
		r.Message = "its event was taken and is in events; what --through makes of it is sent"
		return r, nil
	}
	if d.Stage == "loader" && d.Code != "refused_row" {
		imported, of, err := o.importedRow(in.Object, *in.Row, d.Time, body)
		if err != nil {
			r.Result, r.Code, r.Message = "refused", "invalid_row", err.Error()
			return r, nil
		}
		body, contentType = imported, ""
		if of != "" {
			project = of
		}
	}
	switch {
	case project == "":
		r.Message = "its project is not known: say --as PROJECT"
		return r, nil
	}
	id, err := pipeline.ParseUUID([]byte(d.ID))
	if err != nil {
		return r, err
	}
	var client struct {
		IP        string `json:"ip"`
		UserAgent string `json:"user_agent"`
	}
	json.Unmarshal(d.Context, &client)
	send := receiver.Redrive{ID: id, Time: d.Time.UnixMilli(), Project: project, Path: d.text("path"),
		Event: in.Index != nil || in.Row != nil, ContentType: contentType, ContentEncoding: encoding,
		ClientIP: client.IP, UserAgent: client.UserAgent, Body: body, Durability: pipeline.Bucket}
	for name, value := range in.Headers {
		send.Headers = append(send.Headers, pipeline.Header{Name: name, Value: value})
	}
	done, err := rec.Redrive(ctx, send)
	for again := 0; err != nil && again < redriveTries; again++ { // busy with others, as a rule
		if err := retry.Sleep(ctx, 300*time.Millisecond); err != nil {
			return r, err
		}
		done, err = rec.Redrive(ctx, send)
	}
	if err != nil {
		r.Message = err.Error()
		return r, nil // it hinders no other
	}
	r.Accepted, r.Rejected, r.Sampled, r.Object, r.Code, r.Message = done.Accepted, done.Rejected, done.Sampled,
		done.Object, done.Code, done.Message
	switch {
	case done.Accepted == 0 && done.Rejected == 0 && done.Sampled > 0:
		r.Result = "sampled"
	case done.Accepted+done.Sampled == 0:
		r.Result = "refused"
	case done.Rejected > 0:
		r.Result = "partly"
	default:
		r.Result = "accepted"
	}
	return r, nil
}

// redriveClaim is how long a redrive that was killed keeps others away.
const redriveClaim = time.Minute
