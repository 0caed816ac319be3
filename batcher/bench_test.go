package batcher

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
)

// takes is a bucket that keeps nothing.
type takes struct{}

func (takes) Put(_ context.Context, key string, body io.ReadSeeker, size int64,
	meta pipeline.Meta) (pipeline.Object, error) {
	_, err := io.Copy(io.Discard, body)
	return pipeline.Object{Key: key, Size: size, Meta: meta}, err
}

// BenchmarkAppend measures requests of many clients at once, up to the last object.
func BenchmarkAppend(b *testing.B) {
	props := append(append([]byte(`{"level":3,"text":"`), bytes.Repeat([]byte("x"), 250)...), `","b":null}`...)
	blob := bytes.Repeat([]byte("0123456789abcdef"), 4096) // 64 KiB
	for _, c := range []struct {
		name       string
		durability pipeline.Durability
		events     int
		blobs      int
	}{
		{"memory-100", pipeline.Memory, 100, 0},
		{"disk-100", pipeline.Disk, 100, 0},
		{"disk-1", pipeline.Disk, 1, 0},
		{"disk-blob", pipeline.Disk, 1, 1},
	} {
		b.Run(c.name, func(b *testing.B) {
			opts := options()
			opts.Dir, opts.MaxDisk, opts.RollAge = b.TempDir(), 64<<30, 2*time.Second
			log := slog.New(slog.NewTextHandler(io.Discard, nil))
			t := New(pipeline.Events, opts, takes{}, log, prometheus.NewRegistry())
			if err := t.Open(); err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error, 1)
			go func() { done <- t.Run(ctx) }()
			var ids atomic.Uint64
			b.ReportAllocs()
			b.SetParallelism(8)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				events := make([]pipeline.Event, c.events)
				for i := range events {
					events[i] = event(ids.Add(1), 1)
				}
				for pb.Next() {
					var blobs []pipeline.Blob
					for i := range events {
						events[i].Properties = props
					}
					for i := range c.blobs {
						blobs = append(blobs, pipeline.Blob{Event: i, At: len(props) - 5, Kind: pipeline.BlobText,
							ContentType: "text/plain", Size: int64(len(blob)),
							Write: func(w io.Writer) error { _, err := w.Write(blob); return err }})
					}
					if _, err := appendWait(b.Context(), t, events, blobs, c.durability); err != nil {
						b.Error(err)
						return
					}
				}
			})
			cancel()
			if err := <-done; err != nil {
				b.Error(err)
			}
		})
	}
}
