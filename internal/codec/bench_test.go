package codec

import (
	"io"
	"slices"
	"syscall"
	"testing"
	"time"

	"bytes"
)

func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

const benchEvents = 1_000_000

// BenchmarkEncode hands events over in the batches that requests make: 100 and one.
func BenchmarkEncode(b *testing.B) {
	events := gameEvents(benchEvents)
	for _, f := range formats {
		for _, batch := range []int{1, 100, 10_000} {
			b.Run(string(f)+"/by"+map[int]string{1: "1", 100: "100", 10_000: "10000"}[batch], func(b *testing.B) {
				b.ReportAllocs()
				var out countWriter
				began := cpu()
				for b.Loop() {
					out = 0
					enc, err := NewEncoder(&out, f, "recv-1")
					if err != nil {
						b.Fatal(err)
					}
					for part := range slices.Chunk(events, batch) {
						if err := enc.Encode(part); err != nil {
							b.Fatal(err)
						}
					}
					if err := enc.Close(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric((cpu()-began).Seconds()/float64(b.N), "cpu-s/M")
				b.ReportMetric(float64(out)/1e6, "MB")
			})
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	events := gameEvents(benchEvents)
	for _, f := range formats {
		object := encode(b, f, events, 100)
		b.Run(string(f), func(b *testing.B) {
			b.ReportAllocs()
			began := cpu()
			for b.Loop() {
				dec, err := NewDecoder(bytes.NewReader(object), int64(len(object)), f)
				if err != nil {
					b.Fatal(err)
				}
				part, n := events[:0:0], 0
				for {
					if part, err = dec.Decode(part[:0], Limit{Rows: 100_000, Bytes: 64 << 20}); err != nil {
						break
					}
					n += len(part)
				}
				if err != io.EOF || n != len(events) {
					b.Fatal(n, err)
				}
				dec.Close()
			}
			b.ReportMetric((cpu()-began).Seconds()/float64(b.N), "cpu-s/M")
		})
	}
}

type countWriter int64

func (c *countWriter) Write(p []byte) (int, error) { *c += countWriter(len(p)); return len(p), nil }
