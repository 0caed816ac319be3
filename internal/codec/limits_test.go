package codec

import (
	"bytes"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"

	"github.com/penstock/penstock/internal/pipeline"
)

// handmade writes a Parquet object of our layout. text returns a row's value of a text column.
func handmade(t *testing.T, rows int, dictionary bool, text func(column string, row int) []byte) []byte {
	t.Helper()
	g := parquet.Group{}
	cols := columns()
	for _, c := range cols {
		node := c.node
		if node.Type().Kind() == parquet.ByteArray {
			if node = parquet.Encoded(node, &parquet.Plain); dictionary {
				node = parquet.Encoded(node, &parquet.RLEDictionary)
			}
		}
		g[c.name] = parquet.Compressed(node, &parquet.Zstd)
	}
	var out bytes.Buffer
	options := []parquet.WriterOption{parquet.NewSchema("event", g), parquet.DataPageStatistics(false),
		parquet.PageBufferSize(1 << 20)}
	for _, c := range cols {
		options = append(options, parquet.SkipPageBounds(c.name))
	}
	w := parquet.NewGenericWriter[any](&out, options...)
	for i, c := range cols {
		for row := range rows {
			v := parquet.ZeroValue(c.node.Type().Kind())
			switch {
			case c.node.Type().Kind() == parquet.ByteArray:
				v = parquet.ByteArrayValue(text(c.name, row))
			case c.name == "event_id":
				v = parquet.FixedLenByteArrayValue(make([]byte, 16))
			case c.node.Optional():
				v = parquet.NullValue().Level(0, 0, 0)
			}
			if _, err := w.ColumnWriters()[i].WriteRowValues([]parquet.Value{v}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// peakHeap returns how much the heap grows while f runs, in bytes.
func peakHeap(f func()) uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before := m.HeapAlloc
	var peak atomic.Uint64
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak.Store(max(peak.Load(), m.HeapAlloc))
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	f()
	close(done)
	<-ended
	return peak.Load() - min(before, peak.Load())
}

// Pages that are each within the limit are too large together.
func TestOpenPagesAreBounded(t *testing.T) {
	large := bytes.Repeat([]byte("x"), 100<<20)
	object := handmade(t, 1, false, func(column string, _ int) []byte {
		switch column {
		case "name", "session_id", "user_id", "project":
			return large
		}
		return []byte("{}")
	})
	large = nil
	var err error
	grown := peakHeap(func() { _, _, err = decode(object, pipeline.Parquet, Limit{Rows: 100, Bytes: 1 << 20}) })
	if err == nil || !strings.Contains(err.Error(), "at once") {
		t.Errorf("error %v, want one that names the memory", err)
	}
	if grown > 64<<20 {
		t.Errorf("%d bytes of heap for an object of %d bytes that is refused", grown, len(object))
	}
}

// A few bytes of a dictionary stand for many large values.
func TestDictionaryDoesNotGrow(t *testing.T) {
	entries := [][]byte{bytes.Repeat([]byte("x"), 2<<20), bytes.Repeat([]byte("y"), 2<<20)}
	object := handmade(t, maxPeek, true, func(column string, row int) []byte {
		switch column {
		case "session_id", "user_id":
			return entries[row%2]
		}
		return []byte("{}")
	})
	var err error
	grown := peakHeap(func() { _, _, err = decode(object, pipeline.Parquet, Limit{Rows: 100, Bytes: 1 << 20}) })
	if err == nil || !strings.Contains(err.Error(), errTooLarge.Error()) {
		t.Errorf("error %v, want %v", err, errTooLarge)
	}
	if grown > 2*maxOpen {
		t.Errorf("%d bytes of heap for an object of %d bytes, want at most %d", grown, len(object), int64(2*maxOpen))
	}
}

// A handmade object within the limits is readable.
func TestHandmadeIsRead(t *testing.T) {
	for _, dictionary := range []bool{false, true} {
		object := handmade(t, 3, dictionary, func(string, int) []byte { return []byte("{}") })
		events, _, err := decode(object, pipeline.Parquet, Limit{Rows: 100, Bytes: 1 << 20})
		if err != nil || len(events) != 3 {
			t.Errorf("dictionary %v: %d events, error %v", dictionary, len(events), err)
		}
	}
}

// A frame may name any window, and a naive reader allocates it.
func TestZstdWindowIsBounded(t *testing.T) {
	var object bytes.Buffer
	z, err := zstd.NewWriter(&object, zstd.WithWindowSize(4*maxZstdWindow))
	if err != nil {
		t.Fatal(err)
	}
	line := appendLine(nil, &gameEvents(1)[0], "r", new(clock))
	for range 2 {
		if _, err := z.Write(line); err != nil {
			t.Fatal(err)
		}
		z.Flush() // leaves the frame's size unknown, so the header has the window
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	var decoded error
	grown := peakHeap(func() {
		_, _, decoded = decode(object.Bytes(), pipeline.NDJSON, Limit{Rows: 100, Bytes: 1 << 20})
	})
	if decoded == nil || !strings.Contains(decoded.Error(), "window") {
		t.Errorf("error %v, want one that names the window", decoded)
	}
	if grown > maxZstdWindow {
		t.Errorf("%d bytes of heap", grown)
	}
}

// A schema nested deeper than a stack is rejected before anything descends into it.
func TestFooterIsCheckedFirst(t *testing.T) {
	node := parquet.String()
	for range maxNesting + 10 {
		node = parquet.Group{"g": node}
	}
	var out bytes.Buffer
	w := parquet.NewGenericWriter[any](&out, parquet.NewSchema("event", parquet.Group{"properties": node}))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := decode(out.Bytes(), pipeline.Parquet, Limit{Rows: 1, Bytes: 1}); err == nil ||
		!strings.Contains(err.Error(), "nested deeper") {
		t.Errorf("error %v, want one that names the nesting", err)
	}
}
