package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
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

// errorFilter chooses failures.
type errorFilter struct {
	IDs     []string `json:"ids,omitempty" param:"id" arg:"ID…" usage:"failures, by their event_id; none: all that the other choices leave"`
	Since   string   `json:"since" param:"since" default:"24h" usage:"begin of the time range: 2026-11-22, 2026-11-22T03:00:00Z, or a duration ago, as 24h"`
	Until   string   `json:"until" param:"until" default:"now" usage:"end of the time range"`
	Code    string   `json:"code,omitempty" param:"code" usage:"only those of this code, as invalid_json"`
	Project string   `json:"project,omitempty" param:"project" usage:"only those of this project"`
	Stage   string   `json:"stage,omitempty" param:"stage" usage:"only those of receiver, batcher or loader"`
	Text    string   `json:"text,omitempty" param:"text" usage:"only those whose message holds this text"`
	Pending bool     `json:"pending,omitempty" param:"pending" usage:"only those that were not redriven"`
	Limit   int      `json:"limit" param:"limit" default:"100" usage:"the newest so many; 0: all"`
}

// chosen tells whether anything is named: what changes things wants that.
func (f errorFilter) chosen() bool {
	return len(f.IDs) > 0 || f.Code != "" || f.Project != "" || f.Stage != "" || f.Text != ""
}

func (f errorFilter) filter() (clickhouse.ErrorFilter, error) {
	if f.Stage != "" && f.Stage != "receiver" && f.Stage != "batcher" && f.Stage != "loader" {
		return clickhouse.ErrorFilter{}, fmt.Errorf("there is no stage %q: receiver, batcher or loader", f.Stage)
	}
	out := clickhouse.ErrorFilter{Code: f.Code, Project: f.Project, Stage: f.Stage, Text: f.Text, Pending: f.Pending, Limit: f.Limit}
	for _, text := range f.IDs {
		id, err := pipeline.ParseUUID([]byte(text))
		if err != nil {
			return out, fmt.Errorf("%q is no id of a failure; `penstock errors list` lists them", text)
		}
		out.IDs = append(out.IDs, id)
	}
	if len(out.IDs) > 0 {
		return out, nil // whenever they were
	}
	span, err := parseSpan(f.Since, f.Until)
	out.From, out.To = span.From, span.To
	return out, err
}

// errorDetail is a failure with all that was kept of it.
type errorDetail struct {
	clickhouse.Kept
	Properties json.RawMessage `json:"properties"` // without the raw bytes
	Context    json.RawMessage `json:"context"`
	Raw        []byte          `json:"raw_base64"` // as sent, untruncated
}

type errorRedrive struct {
	errorFilter
	All    bool              `json:"all,omitempty" param:"all" usage:"all of the time range"`
	As     string            `json:"as,omitempty" param:"as" usage:"project for failures whose project is not known, as of an unknown key"`
	DryRun bool              `json:"dry_run,omitempty" param:"dry-run" usage:"only list what would be sent"`
	Bodies map[string][]byte `json:"bodies_base64,omitempty"` // by id: in place of the raw bytes
}

// errorResult is what became of a failure that was sent again.
type errorResult struct {
	ID       string `json:"event_id"`
	Result   string `json:"result"` // accepted, partly, sampled, refused, skipped
	Accepted int    `json:"accepted"`
	Rejected int    `json:"rejected"`
	Sampled  int    `json:"sampled,omitempty"` // left out by the project's sample
	Object   string `json:"object,omitempty"`
	Code     string `json:"code,omitempty"`
	Message  string `json:"message,omitempty"`
}

func errorOperations() []operation {
	return []operation{
		{
			name: "errors list", method: http.MethodGet, path: "/v1/errors", params: &errorFilter{}, item: clickhouse.Kept{},
			short:  "list what was refused, the newest first",
			header: []string{"TIME", "CODE", "STAGE", "PROJECT", "BYTES", "REDRIVEN", "ID", "MESSAGE"},
			row: func(item any) []string {
				k := item.(*clickhouse.Kept)
				redriven := "-"
				if k.Redriven != nil {
					redriven = k.Redriven.Format(time.RFC3339)
				}
				message := strings.Join(strings.Fields(k.Message), " ")
				if utf8.RuneCountInString(message) > 100 {
					message = string([]rune(message)[:100]) + "…"
				}
				project := k.Project
				if project == "" {
					project = "-"
				}
				return []string{k.Time.Format(time.RFC3339), k.Code, k.Stage, project, strconv.FormatUint(k.RawBytes, 10), redriven, k.ID, message}
			},
			sum: func(w io.Writer, n map[string]int) {
				fmt.Fprintln(w, show.Plural(n[""], "failure"))
				if n[""] == 100 {
					fmt.Fprintln(w, "(the newest; --limit 0 lists all)")
				}
			},
			run: listErrors,
		},
		{
			name: "errors show", method: http.MethodGet, path: "/v1/errors/details", params: &errorFilter{}, item: errorDetail{},
			short: "show failures with the bytes that were sent and all that is known of the client",
			print: printError, run: showErrors, special: runErrorsShow,
		},
		{
			name: "errors redrive", method: http.MethodPost, path: "/v1/errors/redrive", params: &errorRedrive{}, item: errorResult{},
			defaults: map[string]string{"limit": "0"},
			short:    "send what was refused through the receiver's own path again, once",
			about: "What was redriven already is left alone. Events without an id and a time get those of the failure, so\n" +
				"that sending one twice makes no second row; one with an id and no time has the time at which it is received.",
			header: []string{"RESULT", "ACCEPTED", "REJECTED", "ID", "MESSAGE"},
			row: func(item any) []string {
				r := item.(*errorResult)
				return []string{r.Result, strconv.Itoa(r.Accepted), strconv.Itoa(r.Rejected), r.ID, strings.TrimSpace(r.Code + " " + r.Message)}
			},
			kind: func(item any) string { return item.(*errorResult).Result },
			sum: func(w io.Writer, n map[string]int) {
				fmt.Fprintf(w, "%s: %d accepted, %d partly, %d refused again, %d skipped\n", show.Plural(n[""], "failure"), n["accepted"], n["partly"], n["refused"], n["skipped"])
				if n["sampled"] > 0 {
					fmt.Fprintf(w, "%d were left out by their project's sample\n", n["sampled"])
				}
			},
			run: redriveErrors, special: runErrorsRedrive,
		},
	}
}

func listErrors(ctx context.Context, o *operator, params any, out sink) error {
	f, err := params.(*errorFilter).filter()
	if err != nil {
		return err
	}
	db, err := o.table()
	if err != nil {
		return err
	}
	return db.Errors(ctx, f, func(k clickhouse.Kept) error { return out.item(k) })
}

func showErrors(ctx context.Context, o *operator, params any, out sink) error {
	f, err := params.(*errorFilter).filter()
	if err != nil {
		return err
	}
	f.Whole = true
	db, err := o.table()
	if err != nil {
		return err
	}
	n := 0
	err = db.Errors(ctx, f, func(k clickhouse.Kept) error {
		n++
		d, err := o.detail(ctx, k)
		if err != nil {
			return err
		}
		return out.item(d)
	})
	if err == nil && n < len(f.IDs) {
		err = fmt.Errorf("%d of the %d failures are not in the table (they come with the next roll of the errors pipeline)", len(f.IDs)-n, len(f.IDs))
	}
	return err
}

// detail completes a failure with its raw bytes, from the bucket where they are there.
func (o *operator) detail(ctx context.Context, k clickhouse.Kept) (errorDetail, error) {
	d := errorDetail{Kept: k, Context: json.RawMessage(k.Context), Raw: []byte(k.Raw)}
	var props map[string]json.RawMessage
	if err := json.Unmarshal([]byte(k.Properties), &props); err != nil {
		return d, fmt.Errorf("failure %s: its properties cannot be read: %w", k.ID, err)
	}
	delete(props, "raw")
	delete(props, "raw_base64")
	var err error
	if d.Properties, err = json.Marshal(props); err != nil {
		return d, err
	}
	if k.RawObject != "" {
		body, err := o.rawBytes(ctx, k.RawObject, props["raw_blob"])
		if err != nil {
			return d, fmt.Errorf("failure %s: its bytes cannot be had: %w", k.ID, err)
		}
		defer body.Close()
		if d.Raw, err = io.ReadAll(body); err != nil {
			return d, fmt.Errorf("failure %s: its bytes cannot be had: %w", k.ID, err)
		}
		sum := sha256.Sum256(d.Raw)
		if want := k.RawSHA256; hex.EncodeToString(sum[:]) != want {
			return d, fmt.Errorf("failure %s: the object %s is damaged: its sha256 is %x, it was kept as %s", k.ID, k.RawObject, sum, want)
		}
	}
	d.RawBytes = uint64(len(d.Raw))
	return d, nil
}

// rawBytes opens the bytes of a failure that do not stand in its row: a blob of
// the errors pipeline or, of earlier versions, an object of their own.
func (o *operator) rawBytes(ctx context.Context, object string, blob json.RawMessage) (io.ReadCloser, error) {
	var value struct {
		Ref *pipeline.BlobRef `json:"$blob"`
	}
	if json.Unmarshal(blob, &value) == nil && value.Ref != nil {
		return o.store.GetRange(ctx, value.Ref.Object, value.Ref.Range[0], value.Ref.Range[1])
	}
	_, body, err := o.store.Get(ctx, object)
	return body, err
}

// text is a property of the failure.
func (d *errorDetail) text(name string) string {
	var props map[string]any
	json.Unmarshal(d.Properties, &props)
	s, _ := props[name].(string)
	return s
}

func printError(w io.Writer, item any) error {
	d := item.(*errorDetail)
	fmt.Fprintf(w, "id          %s\ntime        %s\nstage       %s\ncode        %s\nmessage     %s\nproject     %s\n", d.ID, d.Time.Format(time.RFC3339Nano), d.Stage, d.Code, d.Message, d.Project)
	if d.Redriven != nil {
		fmt.Fprintf(w, "redriven    %s\n", d.Redriven.Format(time.RFC3339))
	}
	fmt.Fprintf(w, "metadata    %s\nclient      %s\nin          %s row %d\n", d.Properties, d.Context, d.Kept.Object, d.Row)
	if utf8.Valid(d.Raw) && !bytes.ContainsRune(d.Raw, 0) {
		fmt.Fprintf(w, "raw         %d bytes:\n%s\n\n", len(d.Raw), d.Raw)
	} else {
		fmt.Fprintf(w, "raw         %d bytes, not text (--raw prints them as they are); as quoted text:\n%s\n\n", len(d.Raw), strconv.QuoteToASCII(string(d.Raw)))
	}
	return nil
}

// runErrorsShow adds --raw: nothing but the bytes.
func runErrorsShow(ctx context.Context, s streams, args []string) error {
	op := findOperation("errors show")
	raw := false
	var rest []string
	for _, a := range args {
		if a == "--raw" || a == "-raw" {
			raw = true
		} else {
			rest = append(rest, a)
		}
	}
	op.about = "--raw prints nothing but the bytes that were sent, as they were sent."
	if raw {
		op.print = func(w io.Writer, item any) error {
			_, err := w.Write(item.(*errorDetail).Raw)
			return err
		}
	}
	return op.command(ctx, s, rest, hooks{prepare: func(params any, _ executor) error {
		if f := params.(*errorFilter); len(f.IDs) == 0 && raw {
			return errors.New("--raw wants the id of a failure")
		}
		return nil
	}})
}

// redrivePage is how many failures are read and marked together, and
// redriveAtOnce how many are sent at the same time: they share the early roll
// that durability object asks for.
const (
	redrivePage   = 256
	redriveAtOnce = 64
	redriveTries  = 20
)

func redriveErrors(ctx context.Context, o *operator, params any, out sink) error {
	p := params.(*errorRedrive)
	f, err := p.filter()
	if err != nil {
		return err
	}
	if !p.chosen() && !p.All {
		return errors.New("name failures, or choose by --code, --project, --stage or --text, or say --all")
	}
	db, err := o.table()
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
	claim, held, err := o.store.Claim(ctx, "redrive", "redrive-"+loaderName(o.cfg), redriveClaim)
	if err != nil {
		return err
	}
	if !held {
		return fmt.Errorf("another redrive is running, or was killed less than %s ago", redriveClaim)
	}
	defer claim.Release(context.WithoutCancel(ctx))
	rec, stop, err := o.receiver()
	if err != nil {
		return err
	}
	err = o.redriveAll(ctx, db, rec, f, p, func() error { _, err := claim.Renew(ctx); return err }, out)
	return errors.Join(err, stop())
}

func (o *operator) redriveAll(ctx context.Context, db *clickhouse.DB, rec *receiver.Receiver, f clickhouse.ErrorFilter, p *errorRedrive, renew func() error, out sink) error {
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
		out.progress(progress{Seconds: time.Since(began).Seconds(), Text: fmt.Sprintf("%d of %d failures, %.0f/s", done, len(ids), float64(done)/time.Since(began).Seconds())})
	}
	return nil
}

func (o *operator) redrivePage(ctx context.Context, db *clickhouse.DB, rec *receiver.Receiver, ids []pipeline.UUID, p *errorRedrive, out sink) error {
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
			marks = append(marks, clickhouse.Redriven{ID: id, Accepted: r.Accepted, Rejected: r.Rejected, Object: r.Object, Code: r.Code})
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
func (o *operator) importedRow(key string, row uint32, at time.Time, text []byte) (body []byte, project string, err error) {
	imports, err := o.cfg.Mappings()
	if err != nil {
		return nil, "", err
	}
	e, err := foreign.Event(text, row, foreign.Options{Key: key, Modified: at.UnixMilli(), Mapping: imports.Of(key)})
	if err != nil {
		return nil, "", err
	}
	return loader.ClientForm(&e), string(e.Project), nil
}

func (o *operator) redriveOne(ctx context.Context, rec *receiver.Receiver, d errorDetail, p *errorRedrive) (errorResult, error) {
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
		r.Message = "it is the failure of a load, with nothing to send: `penstock dlq` and `penstock reingest` load objects again"
		return r, nil
	case len(body) == 0:
		r.Message = "there are no bytes to send"
		return r, nil
	case in.Count > 0 && in.Index == nil && p.Bodies[d.ID] == nil:
		r.Message = fmt.Sprintf("its bytes are the whole body, which has accepted events besides these %d: send the rejected ones by --through", in.Count)
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
	send := receiver.Redrive{ID: id, Time: d.Time.UnixMilli(), Project: project, Path: d.text("path"), Event: in.Index != nil || in.Row != nil, ContentType: contentType, ContentEncoding: encoding,
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
	r.Accepted, r.Rejected, r.Sampled, r.Object, r.Code, r.Message = done.Accepted, done.Rejected, done.Sampled, done.Object, done.Code, done.Message
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

// throughParallel is how many filters run at once.
const throughParallel = 4

// runErrorsRedrive adds --through: a filter of the operator's own, here, for
// each failure's bytes.
func runErrorsRedrive(ctx context.Context, s streams, args []string) error {
	op := findOperation("errors redrive")
	op.about += "\n\n--through CMD mends each payload before it is sent: CMD (run by sh -c) gets the raw bytes on\n" +
		"standard input and prints what is to be sent; where it fails, the failure is left as it is."
	through := ""
	var rest []string
	for i := 0; i < len(args); i++ {
		name, value, ok := strings.Cut(strings.TrimPrefix(args[i], "-"), "=")
		switch {
		case (name == "-through" || name == "through") && strings.HasPrefix(args[i], "-"):
			if !ok {
				if i++; i == len(args) {
					return errors.New("--through wants a command")
				}
				value = args[i]
			}
			through = value
		default:
			rest = append(rest, args[i])
		}
	}
	if through == "" {
		return op.command(ctx, s, rest, hooks{})
	}
	return op.command(ctx, s, rest, hooks{wrap: func(ex executor) executor {
		return func(ctx context.Context, op operation, params any, out sink) error {
			return redriveThrough(ctx, ex, op, params.(*errorRedrive), through, out)
		}
	}})
}

// redriveThrough sends what the filter makes of each failure.
func redriveThrough(ctx context.Context, ex executor, op operation, p *errorRedrive, through string, out sink) error {
	if !p.chosen() && !p.All {
		return errors.New("name failures, or choose by --code, --project, --stage or --text, or say --all")
	}
	f := p.errorFilter
	f.Pending = true
	var ids []string
	quiet := func(progress) {}
	if err := ex(ctx, findOperation("errors list"), &f, sink{item: func(item any) error {
		ids = append(ids, item.(*clickhouse.Kept).ID)
		return nil
	}, progress: quiet}); err != nil {
		return err
	}
	began := time.Now()
	for done := 0; done < len(ids); {
		page := ids[done:min(done+redrivePage, len(ids))]
		send := &errorRedrive{errorFilter: errorFilter{Since: p.Since, Until: p.Until}, As: p.As, DryRun: p.DryRun, Bodies: map[string][]byte{}}
		var failed []errorResult
		var mu sync.Mutex
		g, filtering := errgroup.WithContext(ctx)
		g.SetLimit(throughParallel)
		whole := errorFilter{IDs: page}
		err := ex(ctx, findOperation("errors show"), &whole, sink{progress: quiet, item: func(item any) error {
			d := *item.(*errorDetail)
			g.Go(func() error {
				body, why := filter(filtering, through, d.Raw)
				mu.Lock()
				defer mu.Unlock()
				if why != "" {
					failed = append(failed, errorResult{ID: d.ID, Result: "skipped", Message: why})
				} else {
					send.IDs, send.Bodies[d.ID] = append(send.IDs, d.ID), body
				}
				return filtering.Err()
			})
			return nil
		}})
		if err := errors.Join(err, g.Wait()); err != nil {
			return err
		}
		for _, r := range failed {
			if err := out.item(&r); err != nil {
				return err
			}
		}
		if len(send.IDs) > 0 {
			if err := ex(ctx, op, send, sink{progress: quiet, item: out.item}); err != nil {
				return err
			}
		}
		done += len(page)
		out.progress(progress{Seconds: time.Since(began).Seconds(), Text: fmt.Sprintf("%d of %d failures, %.0f/s", done, len(ids), float64(done)/time.Since(began).Seconds())})
	}
	return nil
}

// filter lets a command mend a payload; why says that it did not.
func filter(ctx context.Context, command string, raw []byte) (body []byte, why string) {
	cmd := exec.CommandContext(ctx, "sh", "-c", command) // #nosec G204 G702 -- the operator's own --through, on this machine
	var said bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(raw), &said
	body, err := cmd.Output()
	switch {
	case err != nil:
		return nil, fmt.Sprintf("the filter failed: %s %s", err, strings.TrimSpace(said.String()))
	case len(bytes.TrimSpace(body)) == 0:
		return nil, "the filter printed nothing"
	}
	return body, ""
}
