package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/app/dev"
	"github.com/penstock/penstock/internal/testing/load"
	"github.com/penstock/penstock/tools/bench/report"
	"github.com/penstock/penstock/tools/devstack"
)

// receive measures a receiver, from its clients to the last object in MinIO.
func (b *benchmark) receive(ctx context.Context, rate int) (report.Run, error) {
	return b.receiveWatched(ctx, rate, unwatched)
}

// receiveWatched does it while somebody looks at the live events.
func (b *benchmark) receiveWatched(ctx context.Context, rate int, how watching) (run report.Run, err error) {
	err = b.onStack(ctx, false, func(ctx context.Context, st *benchStack) error {
		r, err := st.role(ctx, "receive")
		if err != nil {
			return err
		}
		clients := b.clients(r.listen, st.key, "bench", rate)
		t, err := watch(ctx, how, r.admin, st.key)
		if err != nil {
			return err
		}
		defer t.end(&run.Figures)
		before, err := readMeter()
		if err != nil {
			return err
		}
		began := time.Now()
		var sent *load.Sent
		if err := b.besideLarge(ctx, r.listen, st.key, rate, func() (err error) {
			sent, err = b.send(ctx, clients)
			return err
		}); err != nil {
			return err
		}
		if err := b.flush(ctx, r, st.key); err != nil {
			return err
		}
		took := time.Since(began)
		after, err := readMeter()
		if err != nil {
			return err
		}
		f := &run.Figures
		addSent(f, sent)
		f.Add("stored_per_s", float64(sent.Accepted)/took.Seconds())
		perMillion := 1e6 / float64(sent.Accepted)
		f.Add("receiver_cpu_s_per_million", after.cpu(before, r.Process)*perMillion)
		f.Add("minio_cpu_s_per_million", after.cpu(before, st.MinIO.Process)*perMillion)
		f.Add("generator_cpu_s_per_million", after.own(before)*perMillion)
		if err := addMemory(f, "receiver", r.Process, after); err != nil {
			return err
		}
		addLatency(f, sent, rate)
		failed(&run, sent)
		if err := st.addSpans(ctx, f, r); err != nil {
			return err
		}
		return b.addStored(ctx, f, r, sent)
	})
	return run, err
}

// addStored adds the bucket's content and compares it with the accepted events.
func (b *benchmark) addStored(ctx context.Context, f *report.Figures, r *roleProcess, sent *load.Sent) error {
	want := sent.Accepted
	if b.durability != "object" {
		want++ // the event that flush sends
	}
	want += int64(b.beside())
	stats := map[string]float64{}
	read := func(name string) (err error) {
		stats[name], err = r.metric(ctx, "penstock_batcher_"+name+`_total{pipeline="events"}`)
		return err
	}
	// The receiver updates its counters shortly after storing, the rows last.
	err := b.await(ctx, "objects to be counted", 20*time.Millisecond, 5*time.Second, func() (int64, bool, error) {
		err := read("object_rows")
		return int64(stats["object_rows"]), int64(stats["object_rows"]) >= want, err
	})
	if err == nil {
		err = errors.Join(read("objects"), read("object_bytes"))
	}
	if err != nil {
		return fmt.Errorf("%.0f events in objects, want %d: %w", stats["object_rows"], want, err)
	}
	f.Add("objects", stats["objects"])
	f.Add("objects_mib", mib(stats["object_bytes"]))
	stored := int64(stats["object_rows"]) - (want - sent.Accepted)
	if stored > sent.Accepted+sent.Unknown {
		return fmt.Errorf("%d events were accepted (and %d may have been), %d are in objects", sent.Accepted, sent.Unknown,
			stored)
	}
	return nil
}

// floorRun measures the same clients with the baseline server.
func (b *benchmark) floorRun(ctx context.Context, rate int) (run report.Run, err error) {
	self, err := os.Executable()
	if err != nil {
		return run, err
	}
	port, err := dev.FreePort()
	if err != nil {
		return run, err
	}
	dir, err := os.MkdirTemp("", "penstock-bench-")
	if err != nil {
		return run, err
	}
	defer os.RemoveAll(dir)
	addr := dev.Loopback(port)
	// Same length as a receiver's answer.
	answer := fmt.Sprintf(`{"accepted":%d,"rejected":0,"request_id":"%s"}`+"\n", b.batch, strings.Repeat("0", 36))
	p, err := devstack.Start(ctx, devstack.Command{Name: "bench floor", Path: self,
		Args: []string{"floor", "--listen", addr, "--answer", answer}, LogPath: filepath.Join(dir, "floor.log")})
	if err != nil {
		return run, err
	}
	defer p.Kill()
	if err := dev.AwaitReady(ctx, http.DefaultClient, p, "http://"+addr+"/"); err != nil {
		return run, err
	}
	clients := b.clients(addr, "none", "floor", rate)
	before, err := readMeter()
	if err != nil {
		return run, err
	}
	sent, err := b.send(ctx, clients)
	if err != nil {
		return run, err
	}
	after, err := readMeter()
	if err != nil {
		return run, err
	}
	f, perMillion := &run.Figures, 1e6/float64(sent.Accepted)
	addSent(f, sent)
	// Under the receiver's name, for the ratio.
	f.Add("receiver_cpu_s_per_million", after.cpu(before, p)*perMillion)
	f.Add("generator_cpu_s_per_million", after.own(before)*perMillion)
	if err := addMemory(f, "receiver", p, after); err != nil {
		return run, err
	}
	addLatency(f, sent, rate)
	failed(&run, sent)
	return run, nil
}
