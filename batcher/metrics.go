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
}

func newMetrics(spec pipeline.Spec, reg prometheus.Registerer, b *Batcher) *metrics {
	reg = prometheus.WrapRegistererWith(prometheus.Labels{"pipeline": spec.Name}, reg)
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "penstock_batcher_" + name, Help: help})
		reg.MustRegister(c)
		return c
	}
	histogram := func(name, help string) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "penstock_batcher_" + name, Help: help,
			Buckets: prometheus.ExponentialBuckets(0.0002, 2, 18)})
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
	gauge("disk_bytes", "Bytes of the write-ahead log.", func(s Stats) float64 { return float64(s.Disk) })
	gauge("disk_limit_bytes", "Limit of the write-ahead log.", func(s Stats) float64 { return float64(s.MaxDisk) })
	gauge("refused_batches", "Batches that the store refuses, for a right or a feature that is missing.",
		func(s Stats) float64 { return float64(s.Refused) })
	gauge("wal_set_aside", "Files kept as *.corrupt or *.unreadable.",
		func(s Stats) float64 { return float64(s.SetAside) })
	m := &metrics{
		events:       counter("events_total", "Events taken into a batch."),
		bytes:        counter("wal_bytes_total", "Bytes taken into the write-ahead log."),
		full:         counter("full_total", "Appends refused at the disk limit."),
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
		fsync:  histogram("fsync_seconds", "Time of an fsync of the write-ahead log."),
		encode: histogram("encode_seconds", "Time to encode an object."),
		put:    histogram("put_seconds", "Time of a PUT."),
	}
	reg.MustRegister(m.rolls, m.refusals)
	return m
}
