package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"github.com/penstock/penstock/internal/pipeline"
)

// readColumn is what parquet-go reads of a column chunk: its values, and how many are null.
func readColumn(t *testing.T, c parquet.ColumnChunk) (values []parquet.Value, nulls int64) {
	t.Helper()
	pages := c.Pages()
	defer pages.Close()
	for {
		page, err := pages.ReadPage()
		if errors.Is(err, io.EOF) {
			return values, nulls
		}
		if err != nil {
			t.Fatal(err)
		}
		read := make([]parquet.Value, page.NumValues())
		if n, err := page.Values().ReadValues(read); n < len(read) && err != nil {
			t.Fatal(err)
		}
		for _, v := range read {
			if v.IsNull() {
				nulls++
			} else {
				values = append(values, v.Clone())
			}
		}
		parquet.Release(page)
	}
}

// boundedEvents are events of two row groups, in which dictionaries become too large and pages full.
func boundedEvents(n int) []pipeline.Event {
	rnd := rand.New(rand.NewPCG(1, 2))
	events := make([]pipeline.Event, n)
	for i := range events {
		e := pipeline.Event{Project: []byte("p"), Name: fmt.Appendf(nil, "name %d", i%5), Timestamp: pipeline.NoTime,
			ReceivedAt: int64(rnd.IntN(1 << 40)), Seq: rnd.Uint64(), Properties: []byte("{}"), Context: []byte("{}")}
		binary.BigEndian.PutUint64(e.ID[:], rnd.Uint64()>>(8*rnd.IntN(8)))
		text := "few"
		if i > sampleRows { // more than a dictionary takes
			e.Name = fmt.Appendf(nil, "name %060d", rnd.IntN(1<<40))
			text = fmt.Sprintf("text %0100d", i)
		}
		if i%7 > 0 {
			e.Timestamp = int64(rnd.IntN(1<<40)) - 1<<39
		}
		switch i % 3 {
		case 0:
			e.Properties = fmt.Appendf(nil, `{"int":%d,"float":%g,"rest":[%q]}`, rnd.Int64()-1<<62, rnd.NormFloat64(), text)
		case 1:
			e.Properties = fmt.Appendf(nil, `{"bool":%t,"text":%q,"few":%d.5}`, i%2 == 0, text, rnd.IntN(9)-4)
		}
		events[i] = e
	}
	return events
}

// What the footer says of a column is so: parquet-go's reader, which had no part in the writing, finds the same.
func TestFooter(t *testing.T) {
	events := boundedEvents(groupRows + 20_000)
	object := encode(t, pipeline.Parquet, events, 1000)
	f, err := parquet.OpenFile(bytes.NewReader(object), int64(len(object)))
	if err != nil {
		t.Fatal(err)
	}
	bounded := []string{"event_id", "name", "project", "received_at", "seq", "timestamp", "typed.bool", "typed.few",
		"typed.float", "typed.int"}
	var found []string
	spilled := map[string]bool{}
	for g, group := range f.RowGroups() {
		if g > 0 {
			found = nil
		}
		for i, chunk := range group.ColumnChunks() {
			meta := &f.Metadata().RowGroups[g].Columns[i].MetaData
			name := strings.Join(meta.PathInSchema, ".")
			values, nulls := readColumn(t, chunk)
			if n := int64(len(values)) + nulls; n != group.NumRows() || meta.NumValues != n ||
				meta.Statistics.NullCount != nulls {
				t.Errorf("%s: %d values and %d nulls in %d rows, the footer counts %d with %d nulls", name, len(values), nulls,
					group.NumRows(), meta.NumValues, meta.Statistics.NullCount)
			}
			encodings := 0
			for _, s := range meta.EncodingStats {
				if s.PageType == format.DataPageV2 {
					encodings++
				}
			}
			spilled[name] = spilled[name] || encodings > 1
			if meta.Statistics.MinValue == nil {
				continue
			}
			found = append(found, name)
			compare := chunk.Type().Compare
			least, most := slices.MinFunc(values, compare), slices.MaxFunc(values, compare)
			if !bytes.Equal(least.Bytes(), meta.Statistics.MinValue) || !bytes.Equal(most.Bytes(), meta.Statistics.MaxValue) {
				t.Errorf("%s: from %v to %v, the footer has %x to %x", name, least, most, meta.Statistics.MinValue,
					meta.Statistics.MaxValue)
			}
		}
		if diff := cmp.Diff(bounded, found); diff != "" {
			t.Errorf("columns with bounds (-want +got):\n%s", diff)
		}
	}
	if !spilled["name"] || !spilled["typed.text"] || spilled["typed.few"] {
		t.Errorf("dictionaries that became too large: %v, want those of name and typed.text", spilled)
	}
	got, _, err := decode(object, pipeline.Parquet, Limit{Rows: 10_000, Bytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, events)
}

// Zeros have a sign, and readers expect the negative one below the other.
func TestBoundsOfZeros(t *testing.T) {
	object := encode(t, pipeline.Parquet, docEvents([]string{`{"f":0.0}`, `{"f":-0.0}`, `{"f":0.0}`}), 3)
	f, err := parquet.OpenFile(bytes.NewReader(object), int64(len(object)))
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := f.Schema().Lookup("typed", "f")
	s := f.Metadata().RowGroups[0].Columns[leaf.ColumnIndex].MetaData.Statistics
	if s.MinValue[7] != 0x80 || s.MaxValue[7] != 0 {
		t.Errorf("bounds %x and %x", s.MinValue, s.MaxValue)
	}
}

// An object is the same whatever the encoder before it has left behind.
func TestBuffersAreEmptyAgain(t *testing.T) {
	var docs []string
	for i := range 9000 {
		docs = append(docs, fmt.Sprintf(`{"a":%d,"b":{"c":%t},"z":"text %d","f":%g}`, i, i%2 == 0, i%100, float64(i)/8))
	}
	sets := [][]pipeline.Event{gameEvents(6000), docEvents(docs), nil, manyEvents(5000), gameEvents(3)}
	var want [][]byte
	for _, events := range sets {
		want = append(want, encode(t, pipeline.Parquet, events, 500))
	}
	encoders := NewEncoders()
	for _, i := range []int{0, 1, 2, 3, 1, 4, 0, 3, 1} {
		var out bytes.Buffer
		enc, err := encoders.New(&out, pipeline.Parquet, "recv-1")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(enc.Encode(sets[i]), enc.Close()); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), want[i]) {
			t.Errorf("set %d: %d bytes, %d in an encoder of its own, or other ones", i, out.Len(), len(want[i]))
		}
	}
}

// A dictionary is a map from values to the order in which they came.
func TestDictionary(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, text := range []bool{true, false} {
		d, want := newDictionary(text), map[string]int32{}
		for range 3 {
			for range 20_000 {
				v := make([]byte, 8)
				if text {
					v = make([]byte, rnd.IntN(40))
				}
				for i := range v {
					v[i] = byte(rnd.IntN(2)) // values that differ in little
				}
				if !text && rnd.IntN(2) == 0 {
					binary.LittleEndian.PutUint64(v, rnd.Uint64N(5000))
				}
				if _, ok := want[string(v)]; !ok {
					want[string(v)] = int32(len(want))
				}
				if got := d.index(v); got != want[string(v)] {
					t.Fatalf("%x is %d, want %d", v, got, want[string(v)])
				}
			}
			for v, i := range want {
				if got := d.entry(int(i)); string(got) != v {
					t.Fatalf("entry %d is %x, want %x", i, got, v)
				}
			}
			d.reset()
			clear(want)
		}
	}
}
