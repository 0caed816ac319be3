package batcher

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
)

type metrics struct {
	events, bytes, full, writeErrors, corrupt, replayed            prometheus.Counter
	blobBytes, objects, objectBytes, rows, putErrors, encodeErrors prometheus.Counter
	rolls, refusals                                                *prometheus.CounterVec
	fsync, encode, put                                             prometheus.Histogram
	lastPut                                                        prometheus.Gauge
}

func newMetrics(spec pipeline.Spec, reg prometheus.Registerer, b *Batcher) *metrics {
	reg = prometheus.WrapRegistererWith(prometheus.Labels{"pipeline": spec.Name}, reg)
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "penstock_batcher_" + name, Help: help})
		reg.MustRegister(c)
		return c
	}
	histogram := func(name, help string, buckets ...float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "penstock_batcher_" + name, Help: help,
			Buckets: buckets})
		reg.MustRegister(h)
		return h
	}
	gauge := func(name, help string, value func(Stats) float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "penstock_batcher_" + name, Help: help},
			func() float64 { return value(b.Stats()) }))
	}
	gauge("active_rows", "Events in the active batch.", func(s Stats) float64 { return float64(s.ActiveRows) })
	gauge("active_age_seconds", "Age of the active batch.", func(s Stats) float64 { return s.ActiveSeconds })
	gauge("sealed_batches", "Batches waiting for the bucket or on their way to it.",
		func(s Stats) float64 { return float64(s.Sealed) })
	gauge("oldest_sealed_age_seconds", "Age of the oldest batch that waits for the bucket; 0: none waits.",
		func(s Stats) float64 { return s.OldestSeconds })
	gauge("newest_event_timestamp_seconds", "Unix time at which the newest event was received; 0: none since the start.",
		func(s Stats) float64 { return float64(s.Newest) / 1000 })
	gauge("wal_bytes", "Size of the write-ahead log.", func(s Stats) float64 { return float64(s.Disk) })
	gauge("wal_limit_bytes", "Limit of the write-ahead log.", func(s Stats) float64 { return float64(s.MaxDisk) })
	gauge("wal_used_ratio", "Part of the write-ahead log's limit that is in use, from 0 to 1.",
		func(s Stats) float64 { return float64(s.Disk) / float64(s.MaxDisk) })
	gauge("refused_batches", "Batches that the store refuses, for a right or a feature that is missing.",
		func(s Stats) float64 { return float64(s.Refused) })
	gauge("wal_set_aside_files", "Files kept as *.corrupt or *.unreadable.",
		func(s Stats) float64 { return float64(s.SetAside) })
	m := &metrics{
		events:       counter("events_total", "Events taken into a batch."),
		bytes:        counter("wal_written_bytes_total", "Bytes taken into the write-ahead log."),
		full:         counter("rejected_appends_total", "Appends rejected at the limit of the write-ahead log."),
		writeErrors:  counter("wal_errors_total", "Writes and fsyncs of the write-ahead log that failed."),
		corrupt:      counter("wal_corrupt_total", "Segments and files of blobs found damaged or unreadable."),
		replayed:     counter("replayed_events_total", "Events taken over from an earlier process's log."),
		blobBytes:    counter("blob_bytes_total", "Bytes of large values taken out of events."),
		objects:      counter("objects_total", "Objects stored."),
		objectBytes:  counter("object_bytes_total", "Bytes of the objects stored."),
		rows:         counter("object_rows_total", "Events in the objects stored."),
		putErrors:    counter("put_errors_total", "PUTs that failed and are tried again."),
		encodeErrors: counter("encode_errors_total", "Batches that could not be encoded."),
		rolls: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_batcher_rolls_total",
			Help: "Batches closed, by reason."}, []string{"reason"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_batcher_refusals_total",
			Help: "PUTs that the store refuses, by the right or the feature that is missing."}, []string{"missing"}),
		fsync: histogram("fsync_duration_seconds", "Time of an fsync of the write-ahead log.",
			0.001, 0.004, 0.016, 0.064, 0.25, 1, 4),
		encode: histogram("encode_duration_seconds", "Time to encode an object.", 0.05, 0.2, 1, 5, 20),
		put:    histogram("put_duration_seconds", "Time of a PUT.", 0.01, 0.05, 0.2, 1, 5, 20, 60),
		lastPut: prometheus.NewGauge(prometheus.GaugeOpts{Name: "penstock_batcher_last_put_timestamp_seconds",
			Help: "Unix time of the last PUT that succeeded; 0: none since the start."}),
	}
	for _, reason := range []string{"age", "rows", "bytes", "asked", "stop", "error"} {
		m.rolls.WithLabelValues(reason)
	}
	for _, missing := range []string{pipeline.MissingGet, pipeline.MissingPut, pipeline.MissingConditional,
		pipeline.MissingOther} {
		m.refusals.WithLabelValues(missing)
	}
	reg.MustRegister(m.rolls, m.refusals, m.lastPut)
	return m
}
