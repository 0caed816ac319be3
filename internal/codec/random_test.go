package codec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/wild"
)

// Objects of random events hold what was sent, in both formats and by both ways of reading. Encoders pass their memory
// on from one object to the next.
func TestRandomEvents(t *testing.T) {
	sets, sizes := 30, []int{300, 20_000, 200_000}
	switch {
	case os.Getenv("PENSTOCK_TEST_ALL") != "":
		sets, sizes = 300, []int{300, 20_000, 200_000, 2_000_000, 5_000_000, 30_000_000} // two minutes
	case testing.Short():
		sets = 10
	}
	encoders := NewEncoders()
	for seed := range sets {
		r := rand.New(rand.NewPCG(uint64(seed), 9))
		shape := wild.NewShape(r)
		events := shape.Events(r, r.IntN(50_000), sizes[r.IntN(len(sizes))])
		for i := range events {
			if _, n, err := new(jsonscan.Scanner).Object(events[i].Properties); err != nil || n != len(events[i].Properties) {
				t.Fatalf("set %d: %s is no event: %v", seed, events[i].Properties, err)
			}
		}
		for _, format := range formats {
			var object bytes.Buffer
			enc, err := encoders.New(&object, format, "recv-1")
			if err != nil {
				t.Fatal(err)
			}
			for left := events; len(left) > 0; {
				part := left[:min(len(left), 1+r.IntN(3000))]
				if err := enc.Encode(part); err != nil {
					t.Fatal(err)
				}
				left = left[len(part):]
			}
			if err := enc.Close(); err != nil {
				t.Fatal(err)
			}
			limit := Limit{Rows: 1 + r.IntN(2000), Bytes: 1 << r.IntN(25)}
			got, _, err := decode(object.Bytes(), format, limit)
			if err != nil {
				t.Fatalf("set %d, %s: %v", seed, format, err)
			}
			sameDocuments(t, fmt.Sprintf("set %d, %s", seed, format), got, events)
			if format == pipeline.Parquet {
				sameDocuments(t, fmt.Sprintf("set %d, typed", seed), decodeTyped(t, object.Bytes(), limit), events)
			}
		}
	}
}

// decodeTyped reads an object by DecodeTyped, and joins columns and rest.
func decodeTyped(t *testing.T, object []byte, limit Limit) (events []pipeline.Event) {
	t.Helper()
	dec, err := newParquetDecoder(bytes.NewReader(object), int64(len(object)))
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	for {
		part, typed, _, err := dec.DecodeTyped(nil, limit)
		if errors.Is(err, io.EOF) {
			return events
		}
		if err != nil {
			t.Fatal(err)
		}
		m, next := newMerger(typed), make([]int, len(typed))
		for i := range part {
			e := clone(part[i])
			e.Properties = m.merge(nil, Document(e.Properties), typed, next, uint32(i)+first(typed))
			events = append(events, e)
		}
	}
}

// sameDocuments compares all events, also of large objects, regardless of order.
func sameDocuments(t *testing.T, set string, got, want []pipeline.Event) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d events, want %d", set, len(got), len(want))
	}
	base := uint64(0)
	if len(want) > 0 {
		base = want[0].Seq
	}
	seen := make([]bool, len(want))
	for i := range got {
		g := got[i]
		at := g.Seq - base
		if at >= uint64(len(want)) || seen[at] {
			t.Fatalf("%s: seq %d was not written, or is read twice", set, g.Seq)
		}
		seen[at] = true
		w := want[at]
		if !bytes.Equal(g.Properties, w.Properties) && canonical(g.Properties) == canonical(w.Properties) {
			g.Properties = w.Properties
		}
		if !equal(&g, &w) || string(g.Receiver) != "recv-1" {
			t.Fatalf("%s, event %d:\n got %+v\n%.3000q\nwant %+v\n%.3000q", set, at, g, g.Properties, w, w.Properties)
		}
		if _, n, err := new(jsonscan.Scanner).Object(g.Properties); err != nil || n != len(g.Properties) {
			t.Fatalf("%s, event %d: %.300q: %v", set, at, g.Properties, err)
		}
	}
}
