package operate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/codec/foreign"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/loader"
	"github.com/penstock/penstock/receiver"
)

// redrivePage is how many failures are read and marked together. redriveAtOnce is how many are sent concurrently: they
// share the early roll of durability `object`.
const (
	redrivePage   = 256
	redriveAtOnce = 64
	redriveTries  = 20
)

func (p *errorRedrive) check(*Operator) error {
	if _, err := p.filter(); err != nil {
		return err
	}
	if !p.chosen() && !p.All {
		return Usagef("no failure record is chosen: name ids, or set --code, --project, --stage, --release, --text or --all")
	}
	_, err := parseEdit(p.Edit)
	return err
}

func redriveErrors(ctx context.Context, o *Operator, p *errorRedrive, out sink) error {
	f, err := p.filter()
	if err != nil {
		return err
	}
	if p.edit, err = parseEdit(p.Edit); err != nil {
		return err
	}
	f.Pending, f.Oldest = true, true
	if p.DryRun {
		return o.dryRedrive(ctx, f, p, out)
	}
	// One redrive at a time: otherwise each would send failures that the other has not marked yet.
	claim, held, err := o.Claim(ctx, "redrive", "redrive-"+o.Name, redriveClaim)
	if err != nil {
		return err
	}
	if !held {
		return fmt.Errorf("another redrive is running, by %s; run this one when it has ended", claim.Holder())
	}
	defer claim.Release(context.WithoutCancel(ctx))
	rec, stop, err := o.Receiver()
	if err != nil {
		return err
	}
	err = o.redriveAll(ctx, rec, f, p, func() error { _, err := claim.Renew(ctx); return err }, out)
	return errors.Join(err, stop())
}

// dryRedrive lists the failures to send.
func (o *Operator) dryRedrive(ctx context.Context, f clickhouse.ErrorFilter, p *errorRedrive, out sink) error {
	f.Whole = p.edit.find != nil
	return o.Table.Errors(ctx, f, func(k clickhouse.Kept) error {
		r := errorResult{ID: k.ID, Result: "pending", Code: k.Code, Message: k.Message}
		if p.edit.find != nil {
			d, err := o.detail(ctx, k)
			if err != nil {
				return err
			}
			r.Code, r.Message = "", "would not be edited: "+short(string(d.Raw))
			if body, ok := p.edit.apply(d.Raw); ok {
				r.Message = "would be sent as " + short(string(body))
			}
		}
		return out.item(r)
	})
}

// edit is a replacement in payloads.
type edit struct {
	find *regexp.Regexp // nil: no replacement
	by   []byte
}

// parseEdit reads s/REGEXP/TEXT/, with any separator.
func parseEdit(text string) (e edit, err error) {
	if text == "" {
		return e, nil
	}
	wrong := Usagef("--edit %q: want s/REGEXP/TEXT/, with a separator that neither has", text)
	separator, size := utf8.DecodeRuneInString(strings.TrimPrefix(text, "s"))
	parts := strings.Split(text[min(len(text), 1+size):], string(separator))
	if text[0] != 's' || len(parts) != 3 || parts[2] != "" || parts[0] == "" {
		return e, wrong
	}
	if e.find, err = regexp.Compile(parts[0]); err != nil {
		return e, Usagef("--edit %q: %w", text, err)
	}
	e.by = []byte(parts[1])
	return e, nil
}

// apply returns the edited payload, and whether anything was replaced.
func (e edit) apply(raw []byte) ([]byte, bool) {
	if e.find == nil || !e.find.Match(raw) {
		return raw, false
	}
	return e.find.ReplaceAll(raw, e.by), true
}

func (o *Operator) redriveAll(ctx context.Context, rec Receiver, f clickhouse.ErrorFilter, p *errorRedrive,
	renew func() error, out sink) error {
	var ids []pipeline.UUID
	if err := o.Table.Errors(ctx, f, func(k clickhouse.Kept) error {
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
		if err := o.redrivePage(ctx, rec, page, p, out); err != nil {
			return err
		}
		done += len(page)
		out.progress(progress{Seconds: time.Since(began).Seconds(),
			Text: fmt.Sprintf("%d of %s, %.0f/s", done, show.Plural(len(ids), "failure"),
				float64(done)/time.Since(began).Seconds())})
	}
	return nil
}

func (o *Operator) redrivePage(ctx context.Context, rec Receiver, ids []pipeline.UUID, p *errorRedrive,
	out sink) error {
	var details []errorDetail
	filter := clickhouse.ErrorFilter{IDs: ids, Pending: true, Whole: true}
	if err := o.Table.Errors(ctx, filter, func(k clickhouse.Kept) error {
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
	// The payload is stored now, and the mark follows. If the process is killed in between, the next redrive sends the
	// same ids again, which gives the same rows.
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
		err = errors.Join(err, o.Table.MarkRedriven(context.WithoutCancel(ctx), marks))
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

// importedRow turns a rejected row of a file into a client's event. An operator may have fixed it. project is the
// file's in the configuration.
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

// origin is a failure's origin, from its properties.
type origin struct {
	Index   *int // in the request; nil: the whole request
	Count   int  // events that share the record; 0: one
	Headers map[string]string
	Object  string  `json:"source_object"` // whose load failed
	Row     *uint32 `json:"source_row"`    // in the object; nil: the whole object
}

// notSent returns why a failure is not sent again; empty: it is sent. mended means that the operator supplied other
// bytes.
func notSent(d errorDetail, from origin, bytes int, mended bool) string {
	switch {
	case d.Stage == "loader" && from.Row == nil:
		return "it is the failure of a load, with nothing to send: `penstock dlq` and `penstock reingest` load objects again"
	case bytes == 0:
		return "there are no bytes to send"
	case from.Count > 0 && from.Index == nil && !mended:
		return fmt.Sprintf("its bytes are the whole body, which has accepted events besides these %d: "+
			"send the rejected ones by --through", from.Count)
	case d.text("class") == "taken" && !mended:
		return "its event was taken and is in events; what --through makes of it is sent"
	}
	return ""
}

func (o *Operator) redriveOne(ctx context.Context, rec Receiver, d errorDetail, p *errorRedrive) (errorResult, error) {
	r := errorResult{ID: d.ID, Result: "skipped"}
	send, from, err := request(d)
	if err != nil {
		return r, err
	}
	send.Project = cmp.Or(d.Project, p.As)
	mended, ok := p.Bodies[d.ID]
	if !ok {
		mended, ok = p.edit.apply(d.Raw)
		if !ok {
			mended = nil
		}
	}
	if ok {
		send.Body, send.ContentEncoding = mended, ""
		if !strings.HasPrefix(send.ContentType, "application/cloudevents") {
			send.ContentType = "" // the filter's output is JSON
		}
	}
	if r.Message = notSent(d, from, len(send.Body), mended != nil); r.Message != "" {
		return r, nil
	}
	if d.Stage == "loader" && d.Code != "refused_row" {
		imported, of, err := o.importedRow(from.Object, *from.Row, d.Time, send.Body)
		if err != nil {
			r.Result, r.Code, r.Message = "rejected", "invalid_row", err.Error()
			return r, nil
		}
		send.Body, send.ContentType, send.Project = imported, "", cmp.Or(of, send.Project)
	}
	if send.Project == "" {
		r.Message = "its project is not known: say --as PROJECT"
		return r, nil
	}
	done, err := rec.Redrive(ctx, send)
	for again := 0; err != nil && again < redriveTries; again++ { // usually the receiver is busy
		if err := retry.Sleep(ctx, 300*time.Millisecond); err != nil {
			return r, err
		}
		done, err = rec.Redrive(ctx, send)
	}
	if err != nil {
		r.Message = err.Error()
		return r, nil // others continue
	}
	return resultOf(d.ID, done), nil
}

// request reconstructs the client's request from a failure, as far as it was kept.
func request(d errorDetail) (send receiver.Redrive, from origin, err error) {
	id, err := pipeline.ParseUUID([]byte(d.ID))
	if err != nil {
		return send, from, err
	}
	json.Unmarshal(d.Properties, &from)
	var client struct {
		IP        string `json:"ip"`
		UserAgent string `json:"user_agent"`
	}
	json.Unmarshal(d.Context, &client)
	send = receiver.Redrive{ID: id, Time: d.Time.UnixMilli(), Path: d.text("path"),
		Event: from.Index != nil || from.Row != nil, Body: d.Raw, Durability: pipeline.Bucket,
		ContentType: d.text("content_type"), ContentEncoding: d.text("content_encoding"),
		ClientIP: client.IP, UserAgent: client.UserAgent}
	for name, value := range from.Headers {
		send.Headers = append(send.Headers, pipeline.Header{Name: name, Value: value})
	}
	return send, from, nil
}

func resultOf(id string, done receiver.Redriven) errorResult {
	r := errorResult{ID: id, Result: "accepted", Accepted: done.Accepted, Rejected: done.Rejected, Sampled: done.Sampled,
		Object: done.Object, Code: done.Code, Message: done.Message}
	switch {
	case done.Accepted == 0 && done.Rejected == 0 && done.Sampled > 0:
		r.Result = "sampled"
	case done.Accepted+done.Sampled == 0:
		r.Result = "rejected"
	case done.Rejected > 0:
		r.Result = "partly"
	}
	return r
}

// redriveClaim is how long a killed redrive blocks others.
const redriveClaim = time.Minute
