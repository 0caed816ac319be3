package codec

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/rle"

	"github.com/penstock/penstock/internal/pipeline"
)

// readColumn reads a column chunk with parquet-go: the values, and the number of nulls.
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

// boundedEvents returns events for several row groups, in which dictionaries grow too large and pages fill up.
func boundedEvents(n int) []pipeline.Event {
	rnd := rand.New(rand.NewPCG(1, 2))
	events := make([]pipeline.Event, n)
	for i := range events {
		e := pipeline.Event{Project: []byte("p"), Name: fmt.Appendf(nil, "name %d", i%5), Timestamp: pipeline.NoTime,
			ReceivedAt: int64(rnd.IntN(1 << 40)), Seq: rnd.Uint64(), Properties: []byte("{}"), Context: []byte("{}")}
		binary.BigEndian.PutUint64(e.ID[:], rnd.Uint64()>>(8*rnd.IntN(8)))
		text := "few"
		if i > sampleRows { // more distinct values than a dictionary may have
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

// What the footer says about a column is true: parquet-go's reader, which shares no code with the writer, finds the
// same.
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
	plain := map[string]bool{} // columns without a dictionary in some row group
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
			plain[name] = plain[name] || meta.DictionaryPageOffset == 0
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
		if diff := gocmp.Diff(bounded, found); diff != "" {
			t.Errorf("columns with bounds (-want +got):\n%s", diff)
		}
	}
	if !plain["name"] || !plain["typed.text"] || plain["typed.few"] {
		t.Errorf("without a dictionary: %v, want name and typed.text, whose dictionaries became too large", plain)
	}
	got, _, err := decode(object, pipeline.Parquet, Limit{Rows: 10_000, Bytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, events)
}

// Readers expect -0 to be less than +0.
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

// A row group is sorted by project and name, whatever the columns contain. Events of one name stay as they came.
func TestRowsAreSorted(t *testing.T) {
	events := boundedEvents(groupRows + 20_000)
	for i := range events {
		events[i].Seq = uint64(i)
		events[i].Project = fmt.Append(nil, "project ", i%3)
	}
	object := encode(t, pipeline.Parquet, events, 1000)
	got, _, err := decode(object, pipeline.Parquet, noLimit)
	if err != nil {
		t.Fatal(err)
	}
	f, err := parquet.OpenFile(bytes.NewReader(object), int64(len(object)))
	if err != nil || len(f.RowGroups()) < 2 {
		t.Fatalf("%d row groups, %v", len(f.RowGroups()), err)
	}
	from := 0
	for _, group := range f.RowGroups() {
		rows := int(group.NumRows())
		for i := from + 1; i < from+rows; i++ {
			a, b := &got[i-1], &got[i]
			if order := cmp.Or(bytes.Compare(a.Project, b.Project), bytes.Compare(a.Name, b.Name),
				cmp.Compare(a.Seq, b.Seq)); order >= 0 {
				t.Fatalf("row %d (%s, %s, %d) is before (%s, %s, %d)", i-1, a.Project, a.Name, a.Seq, b.Project, b.Name, b.Seq)
			}
		}
		for _, e := range got[from : from+rows] {
			if e.Seq < uint64(from) || e.Seq >= uint64(from+rows) {
				t.Fatalf("event %d is in the row group that begins at %d", e.Seq, from)
			}
		}
		from += rows
	}
}

// Large events keep the order of arrival.
func TestLargeEventsAreNotSorted(t *testing.T) {
	events := gameEvents(100)
	for i := range events {
		events[i].Seq = uint64(i)
		events[i].Name = fmt.Append(nil, "name ", i%7)
		events[i].Properties = fmt.Appendf(nil, `{"text":"%0*d"}`, largeEvent, i)
	}
	got, _, err := decode(encode(t, pipeline.Parquet, events, 10), pipeline.Parquet, noLimit)
	if err != nil || len(got) != len(events) {
		t.Fatalf("%d events, %v", len(got), err)
	}
	for i := range got {
		if got[i].Seq != uint64(i) {
			t.Fatalf("event %d is in row %d", got[i].Seq, i)
		}
	}
}

// A sample has events of all names, although rows are sorted by name.
func TestSample(t *testing.T) {
	events := gameEvents(30_000)
	names := map[string]bool{}
	for i := range events {
		events[i].Name = fmt.Append(nil, "name ", i%10)
	}
	for _, f := range formats {
		clear(names)
		object := encode(t, f, events, 1000)
		sample, err := Sample(bytes.NewReader(object), int64(len(object)), f, Limit{Rows: 4096, Bytes: 16 << 20})
		if err != nil || len(sample) != 4096 {
			t.Fatalf("%s: %d events, %v", f, len(sample), err)
		}
		for _, e := range sample {
			names[string(e.Name)] = true
		}
		if len(names) < 8 {
			t.Errorf("%s: a sample of the names %v", f, names)
		}
		whole, err := Sample(bytes.NewReader(object), int64(len(object)), f, noLimit)
		if err != nil || len(whole) != len(events) {
			t.Errorf("%s: %d events of %d, %v", f, len(whole), len(events), err)
		}
	}
}

// Levels match parquet-go's decoder.
func TestLevels(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		rows := 1 + rnd.IntN(300)
		b, want := make(bitmap, (rows+63)/64), make([]byte, rows)
		run := 1 + rnd.IntN(40)
		for i := range rows {
			if level := byte(rnd.IntN(2)); i == 0 || i%run == 0 {
				want[i] = level
			} else {
				want[i] = want[i-1]
			}
			b[i/64] |= uint64(want[i]) << (i % 64)
		}
		first := rnd.IntN(rows)
		end := first + 1 + rnd.IntN(rows-first)
		got, err := (&rle.Encoding{BitWidth: 1}).DecodeLevels(nil, b.appendLevels(nil, first, end))
		if err != nil || len(got) < end-first || !bytes.Equal(got[:end-first], want[first:end]) {
			t.Fatalf("rows %d to %d of %v: got %v, %v", first, end, want, got, err)
		}
	}
}

// An object does not depend on earlier uses of its encoder.
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

// A dictionary maps values to the order of their first appearance.
func TestDictionary(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, text := range []bool{true, false} {
		d, want := newDictionary(text), map[string]int{}
		for range 3 {
			for range 20_000 {
				v := make([]byte, 8)
				if text {
					v = make([]byte, rnd.IntN(40))
				}
				for i := range v {
					v[i] = byte(rnd.IntN(2)) // so that values differ in few bytes
				}
				if !text && rnd.IntN(2) == 0 {
					binary.LittleEndian.PutUint64(v, rnd.Uint64N(5000))
				}
				if _, ok := want[string(v)]; !ok {
					want[string(v)] = len(want)
				}
				got := 0
				if text {
					got = d.indexOf(v)
				} else {
					got = d.indexOfBits(binary.LittleEndian.Uint64(v))
				}
				if got != want[string(v)] {
					t.Fatalf("%x is %d, want %d", v, got, want[string(v)])
				}
			}
			for v, i := range want {
				plain := []byte(v)
				if text {
					plain = append(binary.LittleEndian.AppendUint32(nil, uint32(len(v))), v...)
				}
				if got := d.appendPlain(nil, i); !bytes.Equal(got, plain) {
					t.Fatalf("entry %d is %x, want %x", i, got, plain)
				}
			}
			d.reset()
			clear(want)
		}
	}
}

// The table of a dictionary that was used before may be larger than it needs to be. That must not end row groups early.
func TestSizeForgetsEarlierObjects(t *testing.T) {
	fill := func(c *chunk, n int) {
		for i := range n {
			c.addBits(i, uint64(i))
		}
	}
	column := func() *chunk { return &chunk{form: formInt, dict: newDictionary(false)} }
	old, reused := column(), column()
	fill(old, 30_000)
	old.reset()
	reused.reuse(old)
	for _, n := range []int{0, 1, 100, 10_000, 50_000} {
		fresh := column()
		fill(fresh, n)
		fill(reused, n)
		if got, want := reused.size(), fresh.size(); got != want {
			t.Errorf("%d values take %d bytes after an earlier object, %d without", n, got, want)
		}
		if reused.dict.n != n {
			t.Errorf("%d entries, want %d", reused.dict.n, n)
		}
		reused.reset()
	}
}
