package codec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/traffic"
)

// trafficEvents returns the benchmarks' events, as the receiver hands them on.
func trafficEvents(n int) []pipeline.Event {
	g := traffic.New("bench", 1)
	var scan jsonscan.Scanner
	events := make([]pipeline.Event, n)
	for i := range events {
		line := g.Append(nil)
		members, _, err := scan.Object(line)
		if err != nil {
			panic(err)
		}
		e := &events[i]
		*e = pipeline.Event{Project: []byte("game"), Timestamp: 1795319112345 + int64(i),
			ReceivedAt: 1795319112345 + int64(i)/100, Seq: uint64(i),
			Context: []byte(`{"ip":"203.0.113.9","user_agent":"x/1.0"}`)}
		for _, m := range members {
			text := bytes.Trim(m.Value, `"`)
			switch string(m.Key) {
			case "event_id":
				e.ID, _ = pipeline.ParseUUID(text)
			case "name":
				e.Name = text
			case "session_id":
				e.SessionID = text
			case "user_id":
				e.UserID = text
			case "properties":
				e.Properties = m.Value
			}
		}
	}
	return events
}

// The cost of encoding an event, and its size, for different numbers of events in a call.
func BenchmarkEncode(b *testing.B) {
	events := trafficEvents(200_000)
	for _, f := range formats {
		for _, n := range []int{1, 20, 100, 500} {
			b.Run(fmt.Sprintf("%s/%d", f, n), func(b *testing.B) {
				b.ReportAllocs()
				size := 0
				encoders := NewEncoders()
				for range b.N {
					var out countingWriter
					enc, err := encoders.New(&out, f, "r")
					if err != nil {
						b.Fatal(err)
					}
					for part := range slices.Chunk(events, n) {
						if err := enc.Encode(part); err != nil {
							b.Fatal(err)
						}
					}
					if err := enc.Close(); err != nil {
						b.Fatal(err)
					}
					size = int(out)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(events)), "ns/event")
				b.ReportMetric(float64(size)/float64(len(events)), "B/event")
			})
		}
	}
}

// The cost of decoding an event, in columns if the object has them.
func BenchmarkDecode(b *testing.B) {
	events := trafficEvents(50_000)
	for _, f := range formats {
		object := encode(b, f, events, 100)
		b.Run(string(f), func(b *testing.B) {
			b.ReportAllocs()
			var dst []pipeline.Event
			for range b.N {
				dec, err := newDecoder(bytes.NewReader(object), int64(len(object)), f)
				if err != nil {
					b.Fatal(err)
				}
				for err == nil {
					limit := Limit{Rows: 4096, Bytes: 1 << 20}
					if d, ok := dec.(TypedDecoder); ok {
						dst, _, _, err = d.DecodeTyped(dst[:0], limit)
					} else {
						dst, err = dec.Decode(dst[:0], limit)
					}
				}
				if !errors.Is(err, io.EOF) {
					b.Fatal(err)
				}
				dec.Close()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(events)), "ns/event")
		})
	}
}

type countingWriter int

func (c *countingWriter) Write(b []byte) (int, error) {
	*c += countingWriter(len(b))
	return len(b), nil
}

// One event as a line of NDJSON, before compression.
func BenchmarkLine(b *testing.B) {
	events := trafficEvents(1000)
	var c clock
	line := appendLine(nil, &events[0], "recv-1", &c)
	b.ReportAllocs()
	b.SetBytes(int64(len(line)))
	for i := 0; b.Loop(); i++ {
		line = appendLine(line[:0], &events[i%len(events)], "recv-1", &c)
	}
}

// Decoding NDJSON makes no allocation for an event.
func TestNoAllocationALine(t *testing.T) {
	events := gameEvents(100)
	enc, err := NewEncoders().New(new(countingWriter), pipeline.NDJSON, "recv-1")
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	if n := testing.AllocsPerRun(200, func() {
		if err := enc.Encode(events); err != nil {
			t.Fatal(err)
		}
	}); n > 10 {
		t.Errorf("%.0f allocations for 100 events", n)
	}
}
