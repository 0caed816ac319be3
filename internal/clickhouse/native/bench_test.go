package native

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/traffic"
)

// The loader's cost to read, sort, count and write a block, with JSON text (NDJSON objects) and typed columns
// (Parquet).
func BenchmarkBlock(b *testing.B) {
	for _, format := range []pipeline.Format{pipeline.Parquet, pipeline.NDJSON} {
		b.Run(string(format), func(b *testing.B) { benchmarkBlock(b, format, 200_000, 0, 0) })
		b.Run(string(format)+"/1000 of 1000", func(b *testing.B) { benchmarkBlock(b, format, 5000, 1000, 1000) })
		b.Run(string(format)+"/1000 of 10000", func(b *testing.B) { benchmarkBlock(b, format, 3000, 1000, 10_000) })
	}
}

func benchmarkBlock(b *testing.B, format pipeline.Format, rows, properties, keys int) {
	g := traffic.New("bench", 1)
	g.Properties, g.Paths = properties, keys
	{
		var object bytes.Buffer
		enc, err := codec.NewEncoders().New(&object, format, "r")
		if err != nil {
			b.Fatal(err)
		}
		var line []byte
		for i := range rows {
			line = g.Append(line[:0])
			at := bytes.Index(line, []byte(`"properties":`)) + len(`"properties":`)
			name := line[bytes.Index(line, []byte(`"name":"`))+len(`"name":"`):]
			e := pipeline.Event{ID: pipeline.NewUUIDv7(int64(i)), Project: []byte("game"),
				Name: name[:bytes.IndexByte(name, '"')], Timestamp: int64(1e12) + int64(i/20) + int64(line[15])*100,
				ReceivedAt: 1795348800000, Seq: uint64(i), UserID: line[16:24], SessionID: line[20:30],
				Properties: line[at : len(line)-1], Context: []byte(`{"ip":"203.0.113.9"}`)}
			if err := enc.Encode([]pipeline.Event{e}); err != nil {
				b.Fatal(err)
			}
		}
		if err := enc.Close(); err != nil {
			b.Fatal(err)
		}
		func() {
			b.ReportAllocs()
			b.ResetTimer()
			var c Block
			var written int64
			var survey time.Duration
			for range b.N {
				c.Reset()
				dec, err := codec.NewDecoder(bytes.NewReader(object.Bytes()), int64(object.Len()), format)
				if err != nil {
					b.Fatal(err)
				}
				for {
					var events []pipeline.Event
					var typed []*pipeline.Typed
					if d, ok := dec.(codec.TypedDecoder); ok {
						events, typed, _, err = d.DecodeTyped(events, codec.Limit{Rows: 4096, Bytes: 1 << 20})
					} else {
						events, err = dec.Decode(events, codec.Limit{Rows: 4096, Bytes: 1 << 20})
					}
					if errors.Is(err, io.EOF) {
						break
					}
					if err == nil {
						err = c.Append(events, typed, nil)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
				dec.Close()
				counted, began := 0, time.Now()
				c.Survey(func(string, string) bool { return false }, func(n Count) { counted += n.Rows })
				if counted < rows {
					b.Fatalf("%d values of %d events were counted", counted, rows)
				}
				survey += time.Since(began)
				var n counter
				w := proto.NewWriter(&n, new(proto.Buffer))
				for _, column := range c.Columns("o", 0) {
					(&chColumn{Column: column}).WriteColumn(w)
				}
				if _, err := w.Flush(); err != nil {
					b.Fatal(err)
				}
				written = int64(n)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows), "ns/event")
			b.ReportMetric(float64(survey.Nanoseconds())/float64(b.N*rows), "survey-ns/event")
			b.ReportMetric(float64(written)/float64(rows), "B/event")
		}()
	}
}

type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}
