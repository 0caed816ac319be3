// Package intake has what tests of receiving share: a sink that records, requests, and answers as clients read them. It
// does not import the receiver, so that the receiver's own tests can use it.
package intake

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// Sink stands for the batcher and the errors pipeline. It copies what it gets. The zero value accepts everything.
type Sink struct {
	Err    error                           // of Append; nil: it accepts the events
	Before func(ctx context.Context) error // in Append, before anything is copied; nil: none
	OnWait func()                          // in Wait; nil: none

	Mu         sync.Mutex // of what follows
	Events     []pipeline.Event
	Blobs      []Blob
	Failures   []pipeline.Failure
	Dropped    []string // the reasons
	Durability pipeline.Durability
	Appends    int
}

// Blob is one with its bytes. Event counts over all requests.
type Blob struct {
	pipeline.Blob
	Data []byte
}

// Append keeps copies of events and blobs.
func (s *Sink) Append(ctx context.Context, events []pipeline.Event, blobs []pipeline.Blob,
	d pipeline.Durability) (pipeline.Ticket, error) {
	if s.Before != nil {
		if err := s.Before(ctx); err != nil {
			return nil, err
		}
	}
	if s.Err != nil {
		return nil, s.Err
	}
	return s, s.keep(events, blobs, d)
}

// Wait is that of a ticket.
func (s *Sink) Wait(context.Context) (string, error) {
	if s.OnWait != nil {
		s.OnWait()
	}
	return "events/x.parquet", nil
}

// Key is that of a ticket.
func (s *Sink) Key(context.Context) string { return "events/x.parquet" }

func (s *Sink) keep(events []pipeline.Event, blobs []pipeline.Blob, d pipeline.Durability) error {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	s.Appends++
	s.Durability = d
	at := len(s.Events)
	for _, e := range events {
		for _, b := range []*[]byte{&e.Project, &e.Name, &e.SessionID, &e.UserID, &e.Properties, &e.Context} {
			*b = bytes.Clone(*b)
		}
		s.Events = append(s.Events, e)
	}
	for _, b := range blobs {
		var data bytes.Buffer
		if err := b.Write(&data); err != nil {
			return err
		}
		if int64(data.Len()) > b.Size {
			return fmt.Errorf("a blob has %d bytes, %d were foreseen", data.Len(), b.Size)
		}
		b.Event += at
		s.Blobs = append(s.Blobs, Blob{b, data.Bytes()})
	}
	return nil
}

// Drop counts a failure record that is not kept.
func (s *Sink) Drop(reason string) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	s.Dropped = append(s.Dropped, reason)
}

// Report keeps a copy of a failure record.
func (s *Sink) Report(f pipeline.Failure) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	f.Raw = bytes.Clone(f.Raw)
	s.Failures = append(s.Failures, f)
}

// Forget drops what was kept.
func (s *Sink) Forget() {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	s.Events, s.Blobs, s.Failures, s.Dropped, s.Appends = nil, nil, nil, nil, 0
}

// Names lists the names of the events.
func (s *Sink) Names() string {
	var all []string
	for _, e := range s.Events {
		all = append(all, string(e.Name))
	}
	return strings.Join(all, " ")
}

// Codes lists the codes of the failure records, each with the index of its event; -1 stands for the whole request.
func (s *Sink) Codes() string {
	var all []string
	for _, f := range s.Failures {
		all = append(all, fmt.Sprintf("%d:%s", f.Index, f.Code))
	}
	return strings.Join(all, " ")
}

// Raws lists the raw payloads of the failure records.
func (s *Sink) Raws() string {
	var all []string
	for _, f := range s.Failures {
		all = append(all, string(f.Raw))
	}
	return strings.Join(all, "|")
}

// Whole puts the blobs of event i back into its properties.
func (s *Sink) Whole(t testing.TB, i int) []byte {
	t.Helper()
	row := s.Events[i].Properties
	var out []byte
	from := 0
	for _, b := range s.Blobs {
		if b.Event != i {
			continue
		}
		if b.At < from || string(row[b.At:b.At+len(pipeline.BlobHole)]) != pipeline.BlobHole {
			t.Fatalf("a blob at %d, behind %d, in %s", b.At, from, row)
		}
		out = append(out, row[from:b.At]...)
		from = b.At + len(pipeline.BlobHole)
		switch b.Kind {
		case pipeline.BlobText:
			out = jsonscan.AppendQuoted(out, b.Data)
		case pipeline.BlobJSON:
			out = append(out, b.Data...)
		case pipeline.BlobDataURL:
			out = append(out, `"data:`+b.ContentType+`;base64,`+base64.StdEncoding.EncodeToString(b.Data)+`"`...)
		case pipeline.BlobFile:
			out = append(out, `"a file"`...)
		default:
			t.Fatalf("a blob of kind %q", b.Kind)
		}
	}
	return append(out, row[from:]...)
}

// CheckSound checks what holds of all that was stored, whatever was sent: the rows are lines of JSON that the scanner
// accepts, and failure records have a code and a message.
func (s *Sink) CheckSound(t testing.TB) {
	t.Helper()
	for _, e := range s.Events {
		if bytes.ContainsAny(e.Properties, "\n\r") || !json.Valid(e.Properties) || !json.Valid(e.Context) ||
			!utf8.Valid(e.Context) {
			t.Fatalf("properties %q, context %q", e.Properties, e.Context)
		}
		var scan jsonscan.Scanner
		if _, n, err := scan.Object(e.Properties); err != nil || n != len(e.Properties) {
			t.Fatalf("properties %q: %v", e.Properties, err)
		}
		if len(e.Name) == 0 || len(e.Name) > 256 || e.ID == (pipeline.UUID{}) || !utf8.Valid(e.Name) ||
			!utf8.Valid(e.UserID) || !utf8.Valid(e.SessionID) {
			t.Fatalf("event %+v", e)
		}
	}
	last := -1
	for _, f := range s.Failures {
		if f.Index >= 0 && f.Index <= last || f.Code == "" || f.Message == "" || !utf8.ValidString(f.Message) {
			t.Fatalf("failure record %+v behind index %d", f, last)
		}
		last = f.Index
	}
}

// Parsed is what a JSON text says, with numbers as they were sent.
func Parsed(t testing.TB, text []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %.300s", err, text)
	}
	return v
}
