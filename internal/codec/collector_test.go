package codec

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"github.com/penstock/penstock/internal/pipeline"
)

// crowd returns events of tens of thousands of users, places and prices, and of 1 event in 40 with other properties.
func crowd(n int) []pipeline.Event {
	rnd := rand.New(rand.NewPCG(3, 4))
	events := make([]pipeline.Event, n)
	for i := range events {
		e := &events[i]
		*e = pipeline.Event{Project: []byte("p"), Name: []byte("move"), ReceivedAt: 1795319112345 + int64(i)/100,
			Timestamp: 1795319112345 - int64(rnd.IntN(3000)), Seq: uint64(i), Context: []byte("{}"),
			UserID:     fmt.Appendf(nil, "u%d", rnd.IntN(30_000)),
			SessionID:  fmt.Appendf(nil, "a session whose id is longer than a hash %x", rnd.IntN(20_000)),
			Properties: fmt.Appendf(nil, `{"x":%d.%02d,"level":%d,"n":%d}`, rnd.IntN(400)-200, rnd.IntN(100), rnd.IntN(80), rnd.Int64())}
		if i%40 == 0 {
			e.Name, e.Properties = []byte("call"), fmt.Appendf(nil, `{"model":"m%d","tokens":%d}`, rnd.IntN(4), rnd.IntN(700))
		}
	}
	return events
}

// Times get a dictionary if there are few milliseconds for many events, whatever the first events look like.
func TestDictionaryOfTimes(t *testing.T) {
	for name, repeat := range map[string]bool{"many in a millisecond": true, "few in a second": false} {
		events := crowd(100_000)
		for i := range events {
			if !repeat {
				events[i].Timestamp += int64(i) / 3
			}
		}
		object := encode(t, pipeline.Parquet, events, 1000)
		f, err := parquet.OpenFile(bytes.NewReader(object), int64(len(object)))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range f.Metadata().RowGroups[0].Columns {
			if has := c.MetaData.DictionaryPageOffset != 0; c.MetaData.PathInSchema[0] == "timestamp" && has != repeat {
				t.Errorf("%s: dictionary %v, want %v", name, has, repeat)
			}
		}
		got, _, err := decode(object, pipeline.Parquet, Limit{Rows: 10_000, Bytes: 8 << 20})
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, events)
	}
}

// Columns with many values that repeat get a dictionary, columns without repetition get none. Its entries are sorted.
func TestDictionariesThatPay(t *testing.T) {
	events := crowd(150_000)
	object := encode(t, pipeline.Parquet, events, 1000)
	f, err := parquet.OpenFile(bytes.NewReader(object), int64(len(object)))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"user_id": true, "session_id": true, "event_id": false, "typed.x": true, "typed.level": true,
		"typed.n": false, "typed.model": true, "typed.tokens": true, "seq": false}
	group := f.RowGroups()[0]
	for i, c := range f.Metadata().RowGroups[0].Columns {
		name := strings.Join(c.MetaData.PathInSchema, ".")
		if has, ok := want[name], c.MetaData.DictionaryPageOffset != 0; name != "" && has != ok {
			if _, named := want[name]; named {
				t.Errorf("%s: dictionary %v, want %v", name, ok, has)
			}
		}
		pages := group.ColumnChunks()[i].Pages()
		page, err := pages.ReadPage()
		if err != nil {
			t.Fatal(err)
		}
		if d := page.Dictionary(); d != nil {
			for j := int32(1); j < int32(d.Len()); j++ {
				if d.Type().Compare(d.Index(j-1), d.Index(j)) >= 0 {
					t.Errorf("%s: entry %v is before %v", name, d.Index(j-1), d.Index(j))
					break
				}
			}
		}
		parquet.Release(page)
		pages.Close()
	}
	got, _, err := decode(object, pipeline.Parquet, Limit{Rows: 10_000, Bytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, events)
}

// Some readers refuse pages without a value. Only a column without any value may have one.
func TestNoPageIsEmpty(t *testing.T) {
	object := encode(t, pipeline.Parquet, crowd(150_000), 1000)
	f, err := parquet.OpenFile(bytes.NewReader(object), int64(len(object)))
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	for _, c := range f.Metadata().RowGroups[0].Columns {
		name, buf := strings.Join(c.MetaData.PathInSchema, "."), make([]byte, minPageHeader)
		pages := 0
		for at := c.MetaData.DataPageOffset; at < c.MetaData.DataPageOffset+pageBytesOf(&c.MetaData); pages++ {
			h, n, err := pageHeader(bytes.NewReader(object), at, int64(len(object)), &buf)
			if err != nil {
				t.Fatal(err)
			}
			d := h.DataPageHeaderV2.V
			if values := d.NumValues - d.NumNulls; values == 0 || values > pageRows {
				t.Errorf("%s: page %d has %d values", name, pages, values)
			}
			at += n + int64(h.CompressedPageSize)
		}
		most = max(most, pages)
	}
	if most < 3 {
		t.Errorf("at most %d pages in a column, want several", most)
	}
}

// pageBytesOf is the size of a column's data pages.
func pageBytesOf(m *format.ColumnMetaData) int64 {
	if m.DictionaryPageOffset == 0 {
		return m.TotalCompressedSize
	}
	return m.TotalCompressedSize - (m.DataPageOffset - m.DictionaryPageOffset)
}

// Different values with the same hash are different entries.
func TestCollectorComparesValues(t *testing.T) {
	k := newCollector()
	k.hasher.seed[1] = 0 // all numbers have the same hash
	c := &chunk{form: formFloat, repeats: 1}
	var want []uint64
	for i := range 200 {
		want = append(want, uint64(i%7)<<40)
		c.at(i)
		c.addNumber(want[i])
	}
	d := k.collect(c)
	var got []uint64
	for i := range want {
		got = append(got, d.bits[c.numbers.at(uint32(i))])
	}
	if d.n != 7 || !slices.Equal(got, want) {
		t.Errorf("%d entries, values %v, want 7 and %v", d.n, got, want)
	}
}

// The estimate is right for values that come at random.
func TestForeseen(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, values := range []int{1, 3, 80, 5_000, 50_000, 100_000} {
		seen := map[int]bool{}
		for range sampleRows {
			seen[rnd.IntN(values)] = true
		}
		got := foreseen(len(seen), sampleRows, 200_000)
		for range 200_000 - sampleRows {
			seen[rnd.IntN(values)] = true
		}
		if want := len(seen); got < want*2/3 || got > want*3/2 {
			t.Errorf("%d distinct values foreseen of %d, there are %d", got, values, want)
		}
	}
	if got := foreseen(100, 100, 5000); got != 5000 {
		t.Errorf("%d distinct values foreseen, want 5000: none repeats in the sample", got)
	}
}

// The row behind the n-th value, by counting bits.
func TestBehind(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		var b bitmap
		var rows []int
		for row := range 1 + rnd.IntN(400) {
			if rnd.IntN(1+rnd.IntN(20)) == 0 {
				b.set(row)
				rows = append(rows, row)
			}
		}
		if len(rows) == 0 {
			continue
		}
		first := rnd.IntN(len(rows))
		n := 1 + rnd.IntN(len(rows)-first)
		from := rows[first] - rnd.IntN(rows[first]-append([]int{-1}, rows...)[first])
		if got, want := b.behind(from, n), rows[first+n-1]+1; got != want {
			t.Fatalf("row %d is behind %d values from row %d of %v, want %d", got, n, from, rows, want)
		}
	}
}

// Hashes differ between processes, and with them the order in which values come. What an object holds may not.
func TestDecisionDependsOnNoHash(t *testing.T) {
	const n = 140_000 // of 8 bytes each in a dictionary: more than maxDictionary
	c := &chunk{form: formText, repeats: 1}
	short := []byte("abc")
	c.at(0)
	c.addPlain(short)
	for i := range uint32(n - 1) {
		c.at(int(i) + 1)
		c.addPlain(binary.BigEndian.AppendUint32(nil, i))
	}
	for _, late := range []bool{false, true} {
		k := newCollector()
		for k.hasher.text(short)>>59 != map[bool]uint64{false: 0, true: 31}[late] {
			k = newCollector()
		}
		if d := k.collect(c); d != nil {
			t.Errorf("late %v: a dictionary of %d bytes, limit %d", late, d.plainSize(), maxDictionary)
		}
	}
}
