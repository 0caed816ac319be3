package operate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/show"
)

// errorFilter selects failures.
type errorFilter struct {
	IDs     []string `json:"ids,omitempty" param:"id" arg:"ID…" usage:"event_id of failure records; none: all that the flags choose"`
	Since   string   `json:"since" param:"since" default:"24h" usage:"start of the time range: 2026-11-22, 2026-11-22T03:00:00Z, or a duration ago, such as 24h or 7d"`
	Until   string   `json:"until" param:"until" default:"now" usage:"end of the time range"`
	Code    string   `json:"code,omitempty" param:"code" usage:"only failure records with this error code, such as invalid_json"`
	Project string   `json:"project,omitempty" param:"project" usage:"only failure records of this project"`
	Stage   string   `json:"stage,omitempty" param:"stage" enum:"receiver batcher loader" usage:"only failure records of this stage: receiver, batcher or loader"`
	Text    string   `json:"text,omitempty" param:"text" usage:"only failure records whose message contains this text"`
	Release string   `json:"release,omitempty" param:"release" usage:"only failure records whose raw payload has this app_version, release or build"`
	Pending bool     `json:"pending,omitempty" param:"pending" usage:"only failure records that were not redriven"`
	Limit   int      `json:"limit" param:"limit" default:"100" usage:"at most this number, newest first; 0: all"`
}

// chosen reports whether failure records are named. Operations that change something require it.
func (f errorFilter) chosen() bool {
	return len(f.IDs) > 0 || f.Code != "" || f.Project != "" || f.Stage != "" || f.Text != "" || f.Release != ""
}

func (f errorFilter) filter() (clickhouse.ErrorFilter, error) {
	out := clickhouse.ErrorFilter{Code: f.Code, Project: f.Project, Stage: f.Stage, Text: f.Text, Release: f.Release,
		Pending: f.Pending, Limit: f.Limit}
	for _, text := range f.IDs {
		id, err := pipeline.ParseUUID([]byte(text))
		if err != nil {
			return out, Usagef("%q is not an id of a failure record; list them with \"penstock errors list\"", text)
		}
		out.IDs = append(out.IDs, id)
	}
	if len(out.IDs) > 0 {
		return out, nil // of any time
	}
	span, err := parseSpan(f.Since, f.Until)
	out.From, out.To = span.From, span.To
	return out, err
}

// errorDetail is a failure with everything that was kept.
type errorDetail struct {
	clickhouse.Kept
	Properties json.RawMessage `json:"properties"` // without the raw bytes
	Context    json.RawMessage `json:"context"`
	Raw        []byte          `json:"raw_base64"` // as sent, untruncated
}

type errorRedrive struct {
	errorFilter
	All    bool              `json:"all,omitempty" param:"all" usage:"all failure records of the time range"`
	As     string            `json:"as,omitempty" param:"as" usage:"project of failure records without one, such as those of an unknown key"`
	Edit   string            `json:"edit,omitempty" param:"edit" usage:"replace text in each payload before it is sent: s/REGEXP/TEXT/ (Go's syntax; $1 is a group)"`
	DryRun bool              `json:"dry_run,omitempty" param:"dry-run" usage:"only list what would be sent"`
	Bodies map[string][]byte `json:"bodies_base64,omitempty"` // by id: replaces the raw bytes
	edit   edit
}

// errorResult is the result of a failure that was sent again.
type errorResult struct {
	ID       string `json:"event_id"`
	Result   string `json:"result"` // accepted, partly, sampled, rejected, skipped
	Accepted int    `json:"accepted"`
	Rejected int    `json:"rejected"`
	Sampled  int    `json:"sampled,omitempty"` // left out by the project's sampling
	Object   string `json:"object,omitempty"`
	Code     string `json:"code,omitempty"`
	Message  string `json:"message,omitempty"`
}

func errorOperations() []Operation {
	return []Operation{
		{
			Name: "errors list", method: http.MethodGet, path: "/v1/errors", params: &errorFilter{}, item: clickhouse.Kept{},
			Short:  "list failure records, newest first",
			header: []string{"TIME", "CODE", "STAGE", "PROJECT", ">BYTES", "REDRIVEN", "ID", "MESSAGE"},
			row: rows(func(k *clickhouse.Kept) []string {
				redriven := "-"
				if k.Redriven != nil {
					redriven = k.Redriven.Format(time.RFC3339)
				}
				return []string{k.Time.Format(time.RFC3339), k.Code, k.Stage, dash(k.Project), strconv.FormatUint(k.RawBytes, 10),
					redriven, k.ID, short(k.Message)}
			}),
			sum: func(w io.Writer, _ any, n map[string]int) {
				fmt.Fprintln(w, show.Plural(n[""], "failure"))
				if n[""] == 100 {
					fmt.Fprintln(w, "(the newest; --limit 0 lists all)")
				}
			},
			run: runs(listErrors),
		},
		{
			Name: "errors count", method: http.MethodGet, path: "/v1/errors/counts", params: &errorFilter{},
			item:   clickhouse.ErrorCount{},
			Short:  "count failure records by code, stage, project and release",
			header: []string{">COUNT", ">PENDING", "CODE", "STAGE", "PROJECT", "RELEASE", "FIRST", "LAST", "EXAMPLE"},
			row: rows(func(c *clickhouse.ErrorCount) []string {
				return []string{strconv.FormatUint(c.Count, 10), strconv.FormatUint(c.Pending, 10), c.Code, c.Stage,
					dash(c.Project), dash(c.Release), c.First.Format(time.RFC3339), c.Last.Format(time.RFC3339), short(c.Example)}
			}),
			run: runs(func(ctx context.Context, o *Operator, p *errorFilter, out sink) error {
				f, err := p.filter()
				if err != nil {
					return err
				}
				return o.Table.CountErrors(ctx, f, func(c clickhouse.ErrorCount) error { return out.item(c) })
			}),
		},
		{
			Name: "errors show", method: http.MethodGet, path: "/v1/errors/details", params: &errorFilter{}, item: errorDetail{},
			Short: "show failure records with raw payload and client",
			print: prints(printError), run: runs(showErrors),
		},
		{
			Name: "errors redrive", method: http.MethodPost, path: "/v1/errors/redrive", params: &errorRedrive{},
			item:     errorResult{},
			defaults: map[string]string{"limit": "0"},
			Short:    "send raw payloads through the receiver again, each once",
			About: "Skips failure records that were redriven already. Events without id and time get those of the\n" +
				"failure record, so a second redrive makes no second row. Events with an id and no time get the\n" +
				"current time.",
			header: []string{"RESULT", ">ACCEPTED", ">REJECTED", "ID", "MESSAGE"},
			row: rows(func(r *errorResult) []string {
				return []string{r.Result, strconv.Itoa(r.Accepted), strconv.Itoa(r.Rejected), r.ID,
					strings.TrimSpace(r.Code + " " + r.Message)}
			}),
			kind: func(item any) string { return item.(*errorResult).Result },
			sum:  sumRedrive,
			run:  runs(redriveErrors),
		},
	}
}

// sumRedrive prints how many failures had each result.
func sumRedrive(w io.Writer, _ any, n map[string]int) {
	if n["pending"] > 0 {
		fmt.Fprintf(w, "Dry run: nothing was sent. %s would be tried.\n", show.Plural(n["pending"], "failure"))
		return
	}
	fmt.Fprintf(w, "%s: %d accepted, %d partly, %d rejected again, %d skipped\n", show.Plural(n[""], "failure"),
		n["accepted"], n["partly"], n["rejected"], n["skipped"])
	if n["sampled"] > 0 {
		fmt.Fprintf(w, "left out by their project's sample: %d\n", n["sampled"])
	}
}

// short shortens a message to one line of a table.
func short(message string) string {
	message = strings.Join(strings.Fields(message), " ")
	if utf8.RuneCountInString(message) > 100 {
		message = string([]rune(message)[:100]) + "…"
	}
	return message
}

func listErrors(ctx context.Context, o *Operator, p *errorFilter, out sink) error {
	f, err := p.filter()
	if err != nil {
		return err
	}
	return o.Table.Errors(ctx, f, func(k clickhouse.Kept) error { return out.item(k) })
}

func showErrors(ctx context.Context, o *Operator, p *errorFilter, out sink) error {
	f, err := p.filter()
	if err != nil {
		return err
	}
	f.Whole = true
	n := 0
	err = o.Table.Errors(ctx, f, func(k clickhouse.Kept) error {
		n++
		d, err := o.detail(ctx, k)
		if err != nil {
			return err
		}
		return out.item(d)
	})
	if err == nil && n < len(f.IDs) {
		err = fmt.Errorf("%d of %s not found in the table; a new failure appears after the next roll of the errors pipeline",
			len(f.IDs)-n, show.Plural(len(f.IDs), "failure"))
	}
	return err
}

// detail completes a failure with its raw bytes, from the bucket if they are there.
func (o *Operator) detail(ctx context.Context, k clickhouse.Kept) (errorDetail, error) {
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
			return d, fmt.Errorf("failure %s: the object %s is damaged: its sha256 is %x, it was kept as %s", k.ID, k.RawObject,
				sum, want)
		}
	}
	d.RawBytes = uint64(len(d.Raw))
	return d, nil
}

// rawBytes opens a failure's raw bytes that are not in its row: a blob of the errors pipeline, or a separate object
// written by an earlier version.
func (o *Operator) rawBytes(ctx context.Context, object string, blob json.RawMessage) (io.ReadCloser, error) {
	var value struct {
		Ref *pipeline.BlobRef `json:"$blob"`
	}
	if json.Unmarshal(blob, &value) == nil && value.Ref != nil {
		return o.Store.GetRange(ctx, value.Ref.Object, value.Ref.Range[0], value.Ref.Range[1])
	}
	_, body, err := o.Store.Get(ctx, object)
	return body, err
}

// text returns a property of the failure.
func (d *errorDetail) text(name string) string {
	var props map[string]any
	json.Unmarshal(d.Properties, &props)
	s, _ := props[name].(string)
	return s
}

func printError(w io.Writer, d *errorDetail) error {
	fmt.Fprintf(w, "id          %s\ntime        %s\nstage       %s\ncode        %s\nmessage     %s\nproject     %s\n",
		d.ID, d.Time.Format(time.RFC3339Nano), d.Stage, d.Code, d.Message, d.Project)
	if d.Redriven != nil {
		fmt.Fprintf(w, "redriven    %s\n", d.Redriven.Format(time.RFC3339))
	}
	fmt.Fprintf(w, "metadata    %s\nclient      %s\nin          %s row %d\n", d.Properties, d.Context, d.Kept.Object,
		d.Row)
	if utf8.Valid(d.Raw) && !bytes.ContainsRune(d.Raw, 0) {
		fmt.Fprintf(w, "raw         %s:\n%s\n\n", show.Plural(len(d.Raw), "byte"), d.Raw)
	} else {
		fmt.Fprintf(w, "raw         %s, not text (--raw prints them as they are); as quoted text:\n%s\n\n",
			show.Plural(len(d.Raw), "byte"), strconv.QuoteToASCII(string(d.Raw)))
	}
	return nil
}

// Raw is errors show that prints only the original bytes.
func Raw(op Operation) Operation {
	op.print = func(w io.Writer, item any) error {
		_, err := w.Write(item.(*errorDetail).Raw)
		return err
	}
	return op
}

// CheckRaw rejects a request for the raw bytes of failures that are not named.
func CheckRaw(params any) error {
	if len(params.(*errorFilter).IDs) == 0 {
		return Usagef("--raw needs the id of a failure record")
	}
	return nil
}
