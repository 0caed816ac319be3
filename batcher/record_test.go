package batcher

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/penstock/penstock/batcher/wal"
	"github.com/penstock/penstock/internal/pipeline"
)

// someEvents are random in every field, repeating the one before now and then.
func someEvents(r *rand.Rand, n int) []pipeline.Event {
	events := make([]pipeline.Event, n)
	field := func(before []byte) []byte {
		switch r.IntN(4) {
		case 0:
			return before
		case 1:
			return nil
		}
		b := make([]byte, r.IntN(1<<r.IntN(12))+1)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	var before pipeline.Event
	for i := range events {
		e := &events[i]
		for j := range e.ID {
			e.ID[j] = byte(r.Uint32())
		}
		e.Project, e.Name, e.SessionID = field(before.Project), field(before.Name), field(before.SessionID)
		e.UserID, e.Context, e.Properties = field(before.UserID), field(before.Context), field(before.Properties)
		e.Timestamp = int64(r.Uint64())
		e.ReceivedAt = pipeline.MinReceived + r.Int64N(pipeline.MaxReceived-pipeline.MinReceived)
		if r.IntN(4) == 0 {
			e.Timestamp = pipeline.NoTime
		}
		before = *e
	}
	return events
}

// plain is e with nil for every empty field and its seq set.
func plain(e pipeline.Event, seq uint64) pipeline.Event {
	for _, f := range []*[]byte{&e.Project, &e.Name, &e.SessionID, &e.UserID, &e.Properties, &e.Context} {
		*f = append([]byte(nil), *f...)
	}
	e.Seq, e.Receiver = seq, nil
	return e
}

// A record of a time at which nothing was received is damaged, or a clock was wrong: it goes to the errors pipeline.
func TestRecordReceivedAt(t *testing.T) {
	for ms, want := range map[int64]error{0: pipeline.ErrReceived,
		pipeline.MinReceived - 1: pipeline.ErrReceived, pipeline.MinReceived: nil,
		pipeline.MaxReceived - 1: nil, pipeline.MaxReceived: pipeline.ErrReceived} {
		events := someEvents(rand.New(rand.NewPCG(1, 1)), 3)
		events[1].ReceivedAt = ms
		if _, err := parseRecord(nil, 1, appendRecord(nil, events)); !errors.Is(err, want) {
			t.Errorf("received at %d: got %v, want %v", ms, err, want)
		}
	}
}

func TestRecordRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 500 {
		want := someEvents(r, r.IntN(20))
		b := appendRecord([]byte("before"), want)[len("before"):]
		got, err := parseRecord(nil, 1000, b)
		if err != nil || len(got) != len(want) {
			t.Fatalf("got %d events, %v; want %d", len(got), err, len(want))
		}
		for i := range want {
			if g, w := plain(got[i], got[i].Seq), plain(want[i], 1000+uint64(i)); !reflect.DeepEqual(g, w) {
				t.Fatalf("event %d: got %v, want %v", i, g, w)
			}
		}
		if len(b) > 1 {
			if _, err := parseRecord(nil, 0, b[:r.IntN(len(b))]); err == nil {
				t.Fatal("no error for a cut record")
			}
		}
		if _, err := parseRecord(nil, 0, append(b, 0)); err == nil {
			t.Fatal("no error for what follows a record")
		}
	}
}

// Who reads the log has one record in memory, however much came at once.
func TestRecordsAreSplit(t *testing.T) {
	var want []pipeline.Event
	for i := range 5000 {
		want = append(want, event(uint64(i), 1000))
	}
	want[7] = event(7, 3*maxRecord)
	var rs records
	rs.set(want, nil)
	rs.number(100)
	rest, i := rs.buf, 0
	for _, p := range rs.parts {
		head := wal.RecordSize(0)
		got, err := parseRecord(nil, 100+uint64(i), rest[head:p.bytes])
		if err != nil || len(got) != p.events {
			t.Fatalf("got %d events, %v; want %d", len(got), err, p.events)
		}
		if again := wal.AppendRecord(nil, 100+uint64(i), rest[head:p.bytes]); !bytes.Equal(again, rest[:p.bytes]) {
			t.Fatalf("record at event %d: head %x, want %x", i, rest[:head], again[:head])
		}
		if p.bytes > maxRecord+2000 && (i > 7 || i+p.events <= 7) {
			t.Errorf("the record at event %d has %d bytes, the limit is %d", i, p.bytes, maxRecord)
		}
		for _, e := range got {
			if !reflect.DeepEqual(plain(e, e.Seq), plain(want[i], 100+uint64(i))) {
				t.Fatalf("event %d differs", i)
			}
			i++
		}
		rest = rest[p.bytes:]
	}
	if i != len(want) || len(rest) > 0 || len(rs.parts) < 6 {
		t.Errorf("%d events in %d records, want %d; %d bytes left", i, len(rs.parts), len(want), len(rest))
	}
}

func FuzzRecord(f *testing.F) {
	r := rand.New(rand.NewPCG(2, 2))
	for range 5 {
		f.Add(appendRecord(nil, someEvents(r, 4)))
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		events, err := parseRecord(nil, 7, b)
		if len(events) > len(b)/32 {
			t.Fatalf("%d events in %d bytes", len(events), len(b))
		}
		if err != nil {
			return
		}
		// Encoded again it says the same; other bytes may (a repeated field in full, a long uvarint).
		again, err := parseRecord(nil, 7, appendRecord(nil, events))
		if err != nil || len(again) != len(events) {
			t.Fatalf("encoded again: %d events, %v; want %d", len(again), err, len(events))
		}
		for i := range events {
			if !bytes.Equal(again[i].Properties, events[i].Properties) ||
				!bytes.Equal(again[i].Context, events[i].Context) || again[i].ID != events[i].ID {
				t.Fatalf("event %d: %v, then %v", i, events[i], again[i])
			}
		}
	})
}

func BenchmarkAppendRecord(b *testing.B) {
	events := make([]pipeline.Event, 100)
	for i := range events {
		events[i] = pipeline.Event{Project: []byte("game"), Name: []byte("level_up"),
			SessionID: []byte("s-81723"), UserID: []byte("u-1827381"),
			Properties: bytes.Repeat([]byte("x"), 300), Context: []byte(`{"ip":"203.0.113.7"}`)}
	}
	dst := appendRecord(nil, events)
	b.ReportAllocs()
	b.SetBytes(int64(len(dst)))
	for b.Loop() {
		dst = appendRecord(dst[:0], events)
	}
}

// Blobs are in the record of their event, counted from its first event.
func TestRecordsWithBlobs(t *testing.T) {
	var events []pipeline.Event
	var blobs []storedBlob
	for i := range 3000 {
		events = append(events, event(uint64(i), 1000))
		if i%7 == 0 {
			ref := pipeline.BlobRef{Range: [2]int64{int64(i), int64(i)}, Bytes: 1, Name: "ä"}
			blobs = append(blobs, storedBlob{i, i, uint64(i), ref})
		}
	}
	want := slices.Clone(blobs)
	var rs records
	rs.set(events, blobs)
	rest, first := rs.buf, 0
	for _, p := range rs.parts {
		payload := rest[wal.RecordSize(0):p.bytes]
		got, plainRecord, err := parseBlobs(payload)
		if err != nil {
			t.Fatal(err)
		}
		if parsed, err := parseRecord(nil, 1, plainRecord); err != nil || len(parsed) != p.events {
			t.Fatalf("got %d events, %v; want %d", len(parsed), err, p.events)
		}
		for _, b := range got {
			if b.Event += first; b != want[0] {
				t.Fatalf("got %+v, want %+v", b, want[0])
			}
			want = want[1:]
		}
		for n := range min(100, len(payload)) {
			if _, rest, err := parseBlobs(payload[:n]); err == nil && n > 0 {
				if _, err := parseRecord(nil, 1, rest); err == nil {
					t.Fatalf("no error for %d bytes", n)
				}
			}
		}
		rest, first = rest[p.bytes:], first+p.events
	}
	if len(want) > 0 || len(rs.parts) < 3 || rs.blobs != int64(len(blobs)) {
		t.Errorf("%d blobs are missing, %d records, %d bytes", len(want), len(rs.parts), rs.blobs)
	}
}

// A record whose blobs are not in its events is not a batcher's, whatever the numbers are.
func FuzzBlobs(f *testing.F) {
	for _, blobs := range []string{`[{"event":1,"at":5,"ref":{"range":[0,3],"bytes":4}}]`, `[{"event":-1}]`,
		`[{"at":1000}]`, `[{"ref":{"bytes":-5}}]`, `null`} {
		f.Add([]byte(blobs))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		record := binary.AppendUvarint([]byte{0}, uint64(len(text)))
		record = append(record, text...)
		blobs, _, err := parseBlobs(record)
		if err != nil {
			return
		}
		events := []pipeline.Event{{Properties: []byte(`{"a":null}`)}, {Properties: []byte(`{"b":null,"c":null}`)}}
		o := &blobObject{key: "k"}
		if err := o.resolve(events, blobs); err != nil {
			return
		}
		if o.size < 0 {
			t.Fatalf("%d bytes", o.size)
		}
		for _, e := range events {
			if !json.Valid(e.Properties) {
				t.Fatalf("%s", e.Properties)
			}
		}
	})
}
