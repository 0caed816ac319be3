package peers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"

	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/traffic"
	"github.com/penstock/penstock/tools/devstack"
)

// The collector's release: the newest with all parts below as Go modules. Its stable modules have a separate version.
const (
	collectorVersion       = "v0.161.0"
	collectorStableVersion = "v1.67.0"

	contrib = "github.com/open-telemetry/opentelemetry-collector-contrib"
)

// manifest is the input of the collector's builder.
const manifest = `dist:
  module: github.com/penstock/penstock/tools/bench/otelcol
  name: otelcol
  description: OpenTelemetry Collector with the parts that the benchmark needs
  version: ` + collectorVersion + `
  output_path: .
receivers:
  - gomod: go.opentelemetry.io/collector/receiver/otlpreceiver ` + collectorVersion + `
processors:
  - gomod: go.opentelemetry.io/collector/processor/batchprocessor ` + collectorVersion + `
  - gomod: go.opentelemetry.io/collector/processor/memorylimiterprocessor ` + collectorVersion + `
exporters:
  - gomod: ` + contrib + `/exporter/clickhouseexporter ` + collectorVersion + `
  - gomod: go.opentelemetry.io/collector/exporter/nopexporter ` + collectorVersion + `
providers:
  - gomod: go.opentelemetry.io/collector/confmap/provider/envprovider ` + collectorStableVersion + `
  - gomod: go.opentelemetry.io/collector/confmap/provider/fileprovider ` + collectorStableVersion + `
`

// collector returns the program's path. If it is not cached, the builder creates it.
func (b *bench) collector(ctx context.Context) (string, error) {
	dir, err := b.fetcher.Build(ctx, devstack.GoBuild{
		Name:  "otelcol-" + collectorVersion,
		Files: map[string]string{"builder.yaml": manifest},
		Steps: []devstack.GoStep{
			{What: "generate OpenTelemetry Collector " + collectorVersion, Hint: "half a minute, once",
				Args: []string{"run", "-v", "go.opentelemetry.io/collector/cmd/builder@" + collectorVersion, "--config",
					"builder.yaml", "--skip-compilation"}},
			{What: "build OpenTelemetry Collector " + collectorVersion,
				Hint: "2 to 4 minutes on two cores, once; about 900 packages",
				Args: []string{"build", "-v", "-trimpath", "-ldflags=-s -w", "-o", "otelcol", "."}},
		},
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "otelcol"), nil
}

const (
	postRecords = 100 // log records in a POST

	// The exporter's batch size. Its documentation recommends "at least 5000 rows"; ClickHouse prefers more.
	batchRecords = 10_000
	batchTimeout = time.Second

	// exportTimeout limits one insert. The exporter's default of 5 s can be too short on a single core.
	exportTimeout = 30 * time.Second

	// lostAfter is how long the number of rows may stay the same before missing rows count as lost. The exporter retries a
	// batch after at most 45 s (30 s and jitter).
	lostAfter = time.Minute
)

// otelSetup is one configuration of the collector.
type otelSetup struct {
	json  bool // attributes are JSON columns, as in Penstock's table; false: maps of strings, the exporter's default
	batch bool // use the batch processor; false: the exporter's sending queue, as its documentation recommends
	nop   bool // export nothing
}

// config returns the collector's configuration. It keeps the exporter's default queue, retries and consumers.
func (s otelSetup) config(listen string, e *engine) string {
	var c strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&c, format+"\n", args...) }
	line("receivers: {otlp: {protocols: {http: {endpoint: %q}}}}", listen)
	processors, exporter := "memory_limiter", "nop"
	line("processors:")
	line("  memory_limiter: {check_interval: 1s, limit_mib: 1024, spike_limit_mib: 256}")
	if s.batch {
		processors += ", batch"
		line("  batch: {send_batch_size: %d, timeout: %s}", batchRecords, batchTimeout)
	}
	line("exporters:")
	if s.nop {
		line("  nop: {}")
	} else {
		exporter = "clickhouse"
		line("  clickhouse:")
		line("    endpoint: tcp://%s", e.Addr())
		line("    username: %s", e.User())
		line("    password: %s", e.Password())
		line("    database: otel")
		line("    async_insert: false") // the batches are already large
		line("    timeout: %s", exportTimeout)
		line("    json: %t", s.json)
		if !s.batch {
			line("    sending_queue: {batch: {min_size: %d, flush_timeout: %s}}", batchRecords, batchTimeout)
		}
	}
	line("service:")
	line("  telemetry: {metrics: {level: none}, logs: {level: warn}}")
	line("  pipelines: {logs: {receivers: [otlp], processors: [%s], exporters: [%s]}}", processors, exporter)
	return c.String()
}

// id is the SQL expression for an event's id.
func (s otelSetup) id() string {
	if s.json {
		return "LogAttributes.event_id.:String"
	}
	return "LogAttributes['event_id']"
}

// otel measures a collector from the first POST until its rows are in ClickHouse.
func (b *bench) otel(ctx context.Context, s otelSetup) (figures, error) {
	f := figures{Events: b.events}
	program, err := b.collector(ctx)
	if err != nil {
		return f, err
	}
	if b.posts == nil {
		if b.posts, err = makePosts(b.events); err != nil {
			return f, err
		}
	}
	var e *engine
	if !s.nop {
		if e, err = b.startEngine(ctx, false); err != nil {
			return f, err
		}
		defer e.close()
	}
	listen, err := freeAddress()
	if err != nil {
		return f, err
	}
	config := filepath.Join(b.dir, "otelcol.yaml")
	if err := os.WriteFile(config, []byte(s.config(listen, e)), 0o600); err != nil {
		return f, err
	}
	c, err := devstack.Start(ctx, devstack.Command{Name: "otelcol", Path: program,
		Args: []string{"--config", "file:" + config}, LogPath: b.logs("otelcol")})
	if err != nil {
		return f, err
	}
	defer c.Kill()
	// It listens last, after the exporter has created its tables.
	if err := await(ctx, c, func() error { return dial(listen) }); err != nil {
		return f, err
	}
	before, err := groupUsage(c.Pid)
	if err != nil {
		return f, err
	}
	if e != nil {
		if err := e.begin(); err != nil {
			return f, err
		}
	}

	p := poster{url: "http://" + listen + "/v1/logs", conns: b.conns}
	begin := time.Now()
	if err := p.send(ctx, b.posts); err != nil {
		return f, errors.Join(err, c.Err())
	}
	f.Seconds, f.Retries = time.Since(begin).Seconds(), p.retries.Load()
	if e != nil {
		if f.Seconds, err = awaitRows(ctx, e, "otel.otel_logs", b.events, begin); err != nil {
			return f, err
		}
	}
	after, err := groupUsage(c.Pid)
	if err != nil {
		return f, errors.Join(err, c.Err())
	}
	f.PeerCPU, f.PeerRSS = new(after.cpu-before.cpu), after.peak
	if rejected := p.rejected.Load(); rejected > 0 {
		b.say("the collector's answers say that it rejected %d records", rejected)
	}
	if log := c.LogTail(); log != "" {
		b.say("the collector's log ends:\n%s", log)
	}
	if e == nil {
		return f, nil
	}
	return f, e.finish(ctx, "otel.otel_logs", s.id(), &f)
}

// awaitRows waits until the table has all rows or stops growing. It returns the seconds from begin until the last row.
func awaitRows(ctx context.Context, e *engine, table string, want int, begin time.Time) (float64, error) {
	had, since := uint64(0), time.Now()
	for {
		rows, err := e.one(ctx, "SELECT count() FROM "+table)
		if err != nil {
			return 0, err
		}
		if rows != had {
			had, since = rows, time.Now()
		}
		if rows >= uint64(want) || time.Since(since) > lostAfter {
			return since.Sub(begin).Seconds(), nil
		}
		if err := sleep(ctx, poll); err != nil {
			return 0, err
		}
	}
}

func dial(address string) error {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}

// poster sends requests like a correct OTLP client.
type poster struct {
	url      string
	conns    int
	retries  atomic.Int64 // requests without an answer, or with "later", that were sent again
	rejected atomic.Int64 // records that an answer reports as rejected
}

// send sends all bodies over conns connections.
func (p *poster) send(ctx context.Context, bodies [][]byte) error {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost, transport.MaxIdleConns = p.conns, p.conns
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var all sync.WaitGroup
	for range p.conns {
		all.Go(func() {
			for ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= int64(len(bodies)) {
					return
				}
				if err := p.post(ctx, client, bodies[i]); err != nil {
					cancel(err)
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// post sends one body until the answer is final.
func (p *poster) post(ctx context.Context, client *http.Client, body []byte) error {
	for attempt := 1; ; attempt++ {
		wait, err := p.postOnce(ctx, client, body)
		if err == nil || wait < 0 || ctx.Err() != nil {
			return err
		}
		p.retries.Add(1)
		if wait == 0 {
			wait = retry.Backoff{Min: 50 * time.Millisecond, Max: 2 * time.Second}.Delay(attempt)
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// postOnce sends a body. With an error it returns when to retry: 0 soon, negative never.
func (p *poster) postOnce(ctx context.Context, client *http.Client, body []byte) (wait time.Duration, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return -1, err
	}
	request.Header.Set("Content-Type", "application/x-protobuf")
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return 0, err
	}
	switch response.StatusCode {
	case http.StatusOK:
		answer := plogotlp.NewExportResponse()
		if err := answer.UnmarshalProto(text); err != nil {
			return -1, fmt.Errorf("answer %q: %w", text, err)
		}
		p.rejected.Add(answer.PartialSuccess().RejectedLogRecords())
		return 0, nil
	// OTLP's statuses for "retry later".
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
		return time.Duration(seconds) * time.Second, fmt.Errorf("answer %s", response.Status)
	}
	return -1, fmt.Errorf("answer %s: %q", response.Status, text)
}

// makePosts creates all bodies in advance. Encoding them costs the client more than making the events. It would take
// CPU from the collector that no client of Penstock takes.
func makePosts(events int) ([][]byte, error) {
	g := traffic.New("otel", uint64(time.Now().UnixNano()))
	var posts [][]byte
	for first := 0; first < events; first += postRecords {
		logs := plog.NewLogs()
		resource := logs.ResourceLogs().AppendEmpty()
		resource.Resource().Attributes().PutStr("service.name", "bench")
		records := resource.ScopeLogs().AppendEmpty().LogRecords()
		for range min(postRecords, events-first) {
			e, err := cutEvent(g.Append(nil))
			if err != nil {
				return nil, err
			}
			if err := e.record(records.AppendEmpty()); err != nil {
				return nil, err
			}
		}
		body, err := plogotlp.NewExportRequestFromLogs(logs).MarshalProto()
		if err != nil {
			return nil, err
		}
		posts = append(posts, body)
	}
	return posts, nil
}

// record fills a log record. Values that Penstock's table has in separate columns are attributes next to the
// properties.
func (e event) record(r plog.LogRecord) error {
	r.SetTimestamp(pcommon.NewTimestampFromTime(e.timestamp))
	r.SetEventName(e.name)
	attributes := r.Attributes()
	attributes.PutStr("event_id", e.id)
	attributes.PutStr("session.id", e.session)
	attributes.PutStr("user.id", e.user)
	var properties map[string]any
	decoder := json.NewDecoder(strings.NewReader(e.properties))
	decoder.UseNumber()
	if err := decoder.Decode(&properties); err != nil {
		return fmt.Errorf("properties %s: %w", e.properties, err)
	}
	return putAll(attributes, properties)
}

func putAll(to pcommon.Map, members map[string]any) error {
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if err := put(to.PutEmpty(name), members[name]); err != nil {
			return err
		}
	}
	return nil
}

// put sets an attribute to a JSON value. Integers stay integers.
func put(to pcommon.Value, value any) error {
	switch v := value.(type) {
	case string:
		to.SetStr(v)
	case bool:
		to.SetBool(v)
	case json.Number:
		if n, err := v.Int64(); err == nil {
			to.SetInt(n)
			return nil
		}
		f, err := v.Float64()
		to.SetDouble(f)
		return err
	case map[string]any:
		return putAll(to.SetEmptyMap(), v)
	case []any:
		list := to.SetEmptySlice()
		for _, item := range v {
			if err := put(list.AppendEmpty(), item); err != nil {
				return err
			}
		}
	}
	return nil // null is the empty value
}
