package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/codec/foreign"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/loader/audit"
)

// objectInfo is an object with its ledger entry.
type objectInfo struct {
	Key        string     `json:"key"`
	Pipeline   string     `json:"pipeline"`
	Bytes      int64      `json:"bytes"`
	Rows       int64      `json:"rows"` // from its metadata; 0: a foreign object not yet loaded
	Stored     time.Time  `json:"stored_at"`
	ETag       string     `json:"etag"`
	State      string     `json:"state"` // in the ledger; "new": no entry
	Refused    int        `json:"refused,omitempty"`
	Generation uint32     `json:"generation,omitempty"`
	Attempts   uint32     `json:"attempts,omitempty"`
	Error      string     `json:"error,omitempty"`
	Loaded     *time.Time `json:"loaded_at,omitempty"`
}

func describe(spec pipeline.Spec, o pipeline.Object, e pipeline.Load, known bool) objectInfo {
	info := objectInfo{Key: o.Key, Pipeline: spec.Name, Bytes: o.Size, Rows: o.Meta.Rows, Stored: o.Modified.UTC(),
		ETag: o.ETag, State: "new"}
	if known {
		info.State, info.Refused, info.Generation, info.Attempts, info.Error = e.State.String(), len(e.Refused), e.Generation,
			e.Attempts, e.Error
		if e.State == pipeline.Loaded {
			info.Rows, info.Loaded, info.Error = int64(e.Rows)+int64(len(e.Refused)), &e.Finished, ""
		}
	}
	return info
}

type objectsParams struct {
	Since    string `json:"since" param:"since" default:"24h" usage:"start of the time range: 2026-11-22, 2026-11-22T03:00:00Z, or a duration ago, such as 24h or 7d"`
	Until    string `json:"until" param:"until" default:"now" usage:"end of the time range"`
	Pipeline string `json:"pipeline" param:"pipeline" default:"events" enum:"events errors" usage:"events or errors"`
	State    string `json:"state" param:"state" enum:"new loading failed dead dropped loaded" usage:"only objects in this state: new, loading, failed, dead, dropped, loaded"`
	Limit    int    `json:"limit" param:"limit" usage:"at most this number of objects; 0: all"`
}

type catParams struct {
	Keys  []string `json:"keys" param:"key" arg:"KEY…" usage:"keys of the objects"`
	Row   int      `json:"row" param:"row" default:"-1" usage:"only the event of this row; the first is 0"`
	Limit int      `json:"limit" param:"limit" usage:"at most this number of events per object; 0: all"`

	Resolve bool `json:"resolve" param:"resolve" usage:"replace blob references by the values that were sent"`
}

type findParams struct {
	What    []string `json:"what" param:"what" arg:"EVENT_ID | KEY ROW" usage:"id of an event, or key of an object and row in it"`
	Project string   `json:"project" param:"project" usage:"project of an id that a client chose and that is not a UUID"`
	Scan    string   `json:"scan" param:"scan" usage:"if the table lacks the event, read the objects stored within this duration, such as 24h"`
}

// found is the places of an event.
type found struct {
	Object string          `json:"object"`
	Row    uint32          `json:"object_row"`
	In     []string        `json:"in"` // table, bucket
	Event  json.RawMessage `json:"event"`
}

// errEnough ends a listing.
var errEnough = errors.New("enough")

func objectOperations() []Operation {
	return []Operation{
		{
			Name: "objects list", Aliases: []string{"ls"},
			method: http.MethodGet, path: "/v1/objects", params: &objectsParams{}, item: objectInfo{},
			Short:  "list the objects of a time range, with rows, bytes and state in the load ledger",
			header: []string{"STATE", ">ROWS", ">BYTES", "STORED", "KEY"},
			row: rows(func(o *objectInfo) []string {
				return []string{o.State, strconv.FormatInt(o.Rows, 10), strconv.FormatInt(o.Bytes, 10),
					o.Stored.Format(time.RFC3339), o.Key}
			}),
			sum: func(w io.Writer, _ any, n map[string]int) { fmt.Fprintln(w, show.Plural(n[""], "object")) },
			run: runs(listObjects),
		},
		{
			Name: "objects show", Aliases: []string{"cat"},
			method: http.MethodGet, path: "/v1/objects/events", params: &catParams{},
			Short: "print the events of objects as NDJSON, whatever their format", run: runs(catObjects),
		},
		{
			Name: "objects find", method: http.MethodGet, path: "/v1/objects/find", params: &findParams{}, item: found{},
			Short: "find the object and row of an event, or the event in a row",
			print: prints(func(w io.Writer, f *found) error {
				_, err := fmt.Fprintf(w, "object  %s\nrow     %d\nin      %s\nevent   %s\n", f.Object, f.Row,
					strings.Join(f.In, ", "), f.Event)
				return err
			}),
			run: runs(findEvent),
		},
	}
}

func listObjects(ctx context.Context, o *Operator, p *objectsParams, out sink) error {
	span, err := parseSpan(p.Since, p.Until)
	if err != nil {
		return err
	}
	spec, err := pipeline.SpecNamed(p.Pipeline)
	if err != nil {
		return usage(err)
	}
	n := 0
	err = audit.InSpan(spec, span).Objects(ctx, o.Store, func(page []pipeline.Object) error {
		entries, err := audit.Entries(ctx, o.Table, page)
		if err != nil {
			return err
		}
		needsHead := func(obj pipeline.Object) bool { return entries[obj.Key].State != pipeline.Loaded }
		if err := o.heads(ctx, page, needsHead); err != nil {
			return err
		}
		for _, obj := range page {
			e, known := entries[obj.Key]
			info := describe(spec, obj, e, known)
			if p.State != "" && info.State != p.State {
				continue
			}
			if err := out.item(info); err != nil {
				return err
			}
			if n++; n == p.Limit {
				return errEnough
			}
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return err
}

// heads reads the metadata of objects that lack it.
func (o *Operator) heads(ctx context.Context, page []pipeline.Object, need func(pipeline.Object) bool) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range page {
		if !need(page[i]) {
			continue
		}
		g.Go(func() error {
			head, err := o.Store.Head(ctx, page[i].Key)
			if errors.Is(err, objstore.ErrNotFound) {
				return nil // it was deleted meanwhile
			}
			if err != nil {
				return err
			}
			page[i].Meta = head.Meta
			return nil
		})
	}
	return g.Wait()
}

func catObjects(ctx context.Context, o *Operator, p *catParams, out sink) error {
	if len(p.Keys) == 0 {
		return Usagef("KEY is missing; list objects with \"penstock objects list\"")
	}
	c := cat{catParams: p, source: o.Source, out: out, resolver: resolver{store: o.Store,
		limit: int64(max(o.Config.Receiver.MaxEvent, config.Default().Receiver.MaxEvent))}}
	for _, key := range p.Keys {
		if err := c.object(ctx, key); err != nil {
			return err
		}
	}
	return errors.Join(c.rejected, c.done())
}

// cat prints events.
type cat struct {
	*catParams
	resolver
	source   Source
	out      sink
	buf      []byte
	rejected error // about rows that are not valid events
}

func (c *cat) object(ctx context.Context, key string) error {
	printed, rejected := 0, 0
	var first foreign.Rejected
	_, err := c.source.ReadRows(ctx, key, func(e *pipeline.Event) error {
		if c.Row >= 0 && int(e.Row) != c.Row {
			return nil
		}
		if err := c.print(ctx, key, e); err != nil {
			return err
		}
		if printed++; printed == c.Limit {
			return errEnough
		}
		return nil
	}, func(r foreign.Rejected) error {
		if c.Row >= 0 && int(r.Row) != c.Row {
			return nil
		}
		if rejected++; rejected == 1 {
			first = r
		}
		return nil
	})
	switch {
	case err != nil && !errors.Is(err, errEnough):
		return err
	case rejected > 0:
		c.rejected = errors.Join(c.rejected, fmt.Errorf("%s left out of %s: not a valid event; the first is row %d: %s",
			show.Plural(rejected, "row"), key, first.Row, first.Message))
	case c.Row >= 0 && printed == 0:
		return fmt.Errorf("%s has no row %d", key, c.Row)
	}
	return nil
}

func (c *cat) print(ctx context.Context, key string, e *pipeline.Event) (err error) {
	if c.Resolve {
		e.Properties, err = c.resolve(ctx, fmt.Sprintf("%s row %d", key, e.Row), e.Properties)
		if err != nil {
			return err
		}
	}
	c.buf = codec.AppendLine(c.buf[:0], e)
	return c.out.item(json.RawMessage(c.buf[:len(c.buf)-1]))
}

func findEvent(ctx context.Context, o *Operator, p *findParams, out sink) error {
	if len(p.What) == 2 {
		return o.findRow(ctx, p.What[0], p.What[1], out)
	}
	if len(p.What) != 1 {
		return Usagef("EVENT_ID, or KEY and ROW, are missing")
	}
	id, err := pipeline.ParseUUID([]byte(p.What[0]))
	if err != nil {
		if p.Project == "" {
			return Usagef("%q is not a UUID; for an id that a client chose, set --project", p.What[0])
		}
		id = pipeline.UUIDv5([]byte(p.Project), []byte(p.What[0]))
	}
	n, err := o.findInTable(ctx, id, out)
	if err != nil || n > 0 {
		return err
	}
	if p.Scan == "" {
		return fmt.Errorf("no row has the event %s; --scan 24h looks into the objects of the last 24 hours", id)
	}
	return o.findInBucket(ctx, id, p.Scan, out)
}

// findInTable finds the rows of an event.
func (o *Operator) findInTable(ctx context.Context, id pipeline.UUID, out sink) (n int, err error) {
	for _, spec := range pipeline.Specs() {
		places, err := o.Table.FindEvent(ctx, spec.Name, id)
		if err != nil {
			return n, err
		}
		for _, at := range places {
			n++
			f := found{Object: at.Object, Row: at.Row, In: []string{"table"}}
			if f.Event, err = o.eventAt(ctx, at.Object, at.Row); err == nil {
				f.In = append(f.In, "bucket")
			} else if f.Event, err = json.Marshal(at); err != nil {
				return n, err
			}
			if err := out.item(f); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// findInBucket searches the objects stored since a time for an event.
func (o *Operator) findInBucket(ctx context.Context, id pipeline.UUID, since string, out sink) error {
	span, err := parseSpan(since, "now")
	if err != nil {
		return err
	}
	began, objects, unread, n := time.Now(), int64(0), 0, 0
	var buf []byte
	read := func(key string) error {
		_, err := o.Source.Read(ctx, key, func(e *pipeline.Event) error {
			if e.ID != id {
				return nil
			}
			n++
			buf = codec.AppendLine(buf[:0], e)
			return out.item(found{Object: key, Row: e.Row, In: []string{"bucket"}, Event: json.RawMessage(buf[:len(buf)-1])})
		})
		if err != nil && ctx.Err() == nil {
			unread++ // an unreadable object does not end the search
			out.progress(progress{Text: err.Error()})
			err = nil
		}
		objects++
		out.progress(progress{Objects: objects, Seconds: time.Since(began).Seconds(), Text: "reading " + key})
		return err
	}
	for _, spec := range pipeline.Specs() {
		err := audit.InSpan(spec, span).Objects(ctx, o.Store, func(page []pipeline.Object) error {
			for _, obj := range page {
				if err := read(obj.Key); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if n == 0 {
		return fmt.Errorf("neither a row nor an object since %s has the event %s (%s could not be read)",
			span.From.Format(time.RFC3339), id, show.Plural(unread, "object"))
	}
	return nil
}

func (o *Operator) findRow(ctx context.Context, key, row string, out sink) error {
	n, err := strconv.ParseUint(row, 10, 32)
	if err != nil {
		return Usagef("ROW %q is not a number", row)
	}
	spec, err := pipeline.SpecOf(key)
	if err != nil {
		return err
	}
	event, err := o.eventAt(ctx, key, uint32(n))
	if err != nil {
		return err
	}
	f := found{Object: key, Row: uint32(n), In: []string{"bucket"}, Event: event}
	places, err := o.Table.FindRow(ctx, spec.Name, key, uint32(n))
	if err != nil {
		return err
	}
	if len(places) > 0 {
		f.In = append(f.In, "table")
	}
	return out.item(f)
}

// eventAt reads one event of an object.
func (o *Operator) eventAt(ctx context.Context, key string, row uint32) (json.RawMessage, error) {
	var event json.RawMessage
	_, err := o.Source.Read(ctx, key, func(e *pipeline.Event) error {
		if e.Row != row {
			return nil
		}
		b := codec.AppendLine(nil, e)
		event = b[:len(b)-1]
		return errEnough
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	if event == nil {
		return nil, fmt.Errorf("%s has no row %d", key, row)
	}
	return event, nil
}
