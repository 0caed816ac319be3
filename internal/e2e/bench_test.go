package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/traffic"
)

// cpuSeconds is what a process has used, by /proc.
func cpuSeconds(t testing.TB, pid int) float64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100 // USER_HZ is 100 on every Linux
}

// BenchmarkDurability measures, side by side, what durability disk costs
// against memory: CPU of the receiver for a million events, to objects in the
// bucket, and the time to the answer at a fixed rate, from when it was due.
//
//	go test -run '^$' -bench Durability -benchtime 1x -count 3 ./internal/e2e
func BenchmarkDurability(b *testing.B) {
	const total, batch, rate = 1_000_000, 100, 50_000
	s := newStack(b)
	for i := range 2 * b.N {
		durability := []string{"memory", "disk"}[i%2]
		b.Run(durability, func(b *testing.B) {
			r := s.start(fmt.Sprintf("%s-%d", durability, time.Now().UnixNano()), "receive", "PENSTOCK_RECEIVER_DURABILITY="+durability, "PENSTOCK_BATCHER_ROLL_AGE=5s")
			before := cpuSeconds(b, r.Pid)
			latencies := s.fixedRate(r, total, batch, rate)
			eventually(b, time.Minute, "all are stored", func() error {
				if n := r.metric("penstock_batcher_object_rows_total{"); n < total {
					return fmt.Errorf("%v rows", n)
				}
				return nil
			})
			cpu := cpuSeconds(b, r.Pid) - before
			r.term()
			slices.Sort(latencies)
			ms := func(part int) float64 { return latencies[(len(latencies)-1)*part/1000].Seconds() * 1000 }
			b.ReportMetric(cpu/total*1e6, "cpu-s/M")
			b.ReportMetric(ms(500), "p50-ms")
			b.ReportMetric(ms(990), "p99-ms")
			b.ReportMetric(ms(1000), "max-ms")
		})
	}
}

// fixedRate sends n events in requests of batch at a rate a second and returns
// each request's time from when it was due to its answer.
func (s *stack) fixedRate(r *role, n, batch, rate int) []time.Duration {
	s.t.Helper()
	const workers = 16
	c := traffic.NewClient(r.URL+"/v1/events", key, workers)
	bodies := make([][]byte, 50)
	g := traffic.New("bench", 1)
	for i := range bodies {
		for range batch {
			bodies[i] = append(g.Append(bodies[i]), '\n')
		}
	}
	var mu sync.Mutex
	var all []time.Duration
	var wg sync.WaitGroup
	start := time.Now()
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n/batch; i += workers {
				due := start.Add(time.Duration(float64(i*batch) / float64(rate) * float64(time.Second)))
				time.Sleep(time.Until(due))
				if _, err := c.Send(s.t.Context(), bodies[i%len(bodies)]); err != nil {
					s.t.Error(err)
					return
				}
				took := time.Since(due)
				mu.Lock()
				all = append(all, took)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return all
}

// groupCPU is what a process and those it started have used.
func groupCPU(t testing.TB, pgid int) (sum float64) {
	t.Helper()
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if fields[2] == strconv.Itoa(pgid) {
			sum += cpuSeconds(t, pid)
		}
	}
	return sum
}

// peakRSS is the most memory that a process has had, in MiB.
func peakRSS(t testing.TB, pid int) float64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var kb float64
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			fmt.Sscan(rest, &kb)
		}
	}
	return kb / 1024
}

// BenchmarkLoad measures what it costs to bring objects into ClickHouse's JSON
// column: CPU of the loader and of the engine, merges included, for a million
// events, and the loader's peak memory.
//
//	go test -run '^$' -bench Load -benchtime 1x ./internal/e2e
func BenchmarkLoad(b *testing.B) {
	const total = 1_000_000
	for _, format := range []string{"parquet", "ndjson"} {
		b.Run(format, func(b *testing.B) {
			s := newStack(b)
			r := s.start("r", "receive", "PENSTOCK_RECEIVER_DURABILITY=memory", "PENSTOCK_BATCHER_ROLL_AGE=1h", "PENSTOCK_BATCHER_FORMAT="+format)
			var sent traffic.Sent
			if err := traffic.Run(b.Context(), traffic.NewClient(r.URL+"/v1/events", key, 4), "load", total, 500, 4, 0, &sent); err != nil {
				b.Fatal(err)
			}
			r.term()
			engine := groupCPU(b, s.clickhouse.Pid)
			began := time.Now()
			l := s.start("l", "load")
			eventually(b, 5*time.Minute, "rows", func() error {
				if n := one[uint64](s, "SELECT sum(rows) FROM loads FINAL WHERE status = 'loaded'"); n != total {
					return fmt.Errorf("%d rows", n)
				}
				return nil
			})
			took := time.Since(began)
			eventually(b, 5*time.Minute, "merges", func() error {
				if n := one[uint64](s, "SELECT count() FROM system.merges"); n != 0 {
					return fmt.Errorf("%d merges", n)
				}
				return nil
			})
			b.ReportMetric(cpuSeconds(b, l.Pid)/total*1e6, "loader-cpu-s/M")
			b.ReportMetric((groupCPU(b, s.clickhouse.Pid)-engine)/total*1e6, "engine-cpu-s/M")
			b.ReportMetric(total/took.Seconds(), "events/s")
			b.ReportMetric(peakRSS(b, l.Pid), "loader-MiB")
			l.term()
		})
	}
}
