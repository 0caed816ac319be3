package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/npm"
	"github.com/penstock/penstock/receiver/receivertest"
	"github.com/penstock/penstock/receiver/tenant"
)

// trouble stands between a client and a receiver: its first two requests with a
// body are answered as by a receiver that cannot store anything, the third reaches
// the real one, and then the connection is cut before the answer.
type trouble struct {
	*httptest.Server
	mu   sync.Mutex
	seen int
}

func newTrouble(t *testing.T, target string) *trouble {
	t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(to)
	o := receivertest.Options(tenant.Key{Project: "test", Hash: tenant.HashKey(key)},
		tenant.Key{Project: "test", Hash: tenant.HashKey(gameKey), Secret: gameSecret})
	o.RetryAfter, o.Origins = time.Second, []string{"*"}
	full := receivertest.New(t, o, away{})
	p := &trouble{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.ContentLength == 0 || strings.HasPrefix(req.URL.Path, "/flags") { // no events
			forward.ServeHTTP(w, req)
			return
		}
		p.mu.Lock()
		p.seen++
		n := p.seen
		p.mu.Unlock()
		switch {
		case n <= 2:
			full.ServeHTTP(w, req)
		case n == 3:
			forward.ServeHTTP(httptest.NewRecorder(), req)
			panic(http.ErrAbortHandler)
		default:
			forward.ServeHTTP(w, req)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

// away is the batcher of a receiver that cannot store anything.
type away struct{}

func (away) Append(context.Context, []pipeline.Event, []pipeline.Blob, pipeline.Durability) (pipeline.Ticket, error) {
	return nil, errors.New("away")
}
func (away) Report(pipeline.Failure) {}
func (away) Drop(string)             {}

// want is a row as a client's script says it is to be.
type want struct {
	Name       string         `json:"name"`
	UserID     string         `json:"user_id"`
	SessionID  string         `json:"session_id"`
	ID         string         `json:"event_id"`  // empty: any
	Time       string         `json:"timestamp"` // empty: any
	Properties map[string]any `json:"properties"`
	Blobs      bool           `json:"blobs"`
}

// TestRealClients runs each client, as it is published, against a receiver that
// fails three times; then there is one row for each event that it was given.
func TestRealClients(t *testing.T) {
	t.Parallel()
	dir := npm.Install(t, "clients/package.json")
	s := newStack(t)
	r := s.start("r1", "receive")
	s.start("l1", "load")
	for _, client := range []string{"segment", "rudderstack", "posthog", "amplitude", "gameanalytics", "langfuse",
		"otlp-http", "otlp-proto", "cloudevents"} {
		t.Run(client, func(t *testing.T) {
			p := newTrouble(t, r.URL)
			runClient(t, s, dir, client, p.URL)
			if p.seen < 4 {
				t.Errorf("%d requests came: the client did not send again", p.seen)
			}
		})
	}
	if n := one[uint64](s, "SELECT count() FROM errors WHERE code != 'incomplete_body'"); n != 0 {
		t.Errorf("%d failures, as %s", n, one[string](s, "SELECT concat(code, ': ', message) FROM errors LIMIT 1"))
	}
}

// runClient runs a client's script, and wants the rows that it prints, and no others.
func runClient(t *testing.T, s *stack, dir, client, target string, env ...string) {
	t.Helper()
	script, err := filepath.Abs(filepath.Join("clients", client+".js"))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now().UTC().Add(-time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", script, target, key, gameKey, gameSecret)
	cmd.Env = append(append(os.Environ(), "NODE_PATH="+filepath.Join(dir, "node_modules")), env...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, said.Bytes())
	}
	var wants []want
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var w want
		if err := json.Unmarshal(lines.Bytes(), &w); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		wants = append(wants, w)
	}
	rows := clientRows(t, s, began, len(wants))
	for _, w := range wants {
		at := -1
		for i, row := range rows {
			if w.Name == row.Name && w.UserID == row.UserID && w.SessionID == row.SessionID && (w.ID == "" || w.ID == row.ID) &&
				(w.Time == "" || w.Time == row.Time) && contains(row.Properties, w.Properties) {
				at = i
				break
			}
		}
		if at < 0 {
			t.Errorf("no row is %+v", w)
			continue
		}
		rows = append(rows[:at], rows[at+1:]...)
	}
	for _, row := range rows {
		t.Errorf("nobody sent %+v", row)
	}
	if t.Failed() {
		t.Logf("%s", said.Bytes())
	}
}

// clientRows waits for the rows received since, and then a while longer, because there may be too many.
func clientRows(t *testing.T, s *stack, since time.Time, count int) (rows []want) {
	t.Helper()
	// The number of a recording's chunks is not known in advance.
	const all = "FROM events FINAL WHERE received_at >= {since:DateTime64(3)} AND name != '$snapshot'"
	param := named("since", since.Format("2006-01-02 15:04:05.000"))
	eventually(t, 30*time.Second, "rows of a client", func() error {
		if n := one[uint64](s, "SELECT count() "+all, param); n < uint64(count) {
			return fmt.Errorf("%d of %d", n, count)
		}
		return nil
	})
	time.Sleep(1500 * time.Millisecond) // a roll and a load
	got, err := s.db.Query(t.Context(),
		"SELECT name, user_id, session_id, toString(event_id), concat(replaceOne(toString(timestamp), ' ', 'T'), 'Z'), "+
			"toJSONString(properties) "+all, param)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	for got.Next() {
		var w want
		var properties string
		if err := got.Scan(&w.Name, &w.UserID, &w.SessionID, &w.ID, &w.Time, &properties); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(properties), &w.Properties); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, w)
	}
	return rows
}

// contains reports whether all that is in part is in whole, at whatever depth.
func contains(whole, part any) bool {
	p, ok := part.(map[string]any)
	if !ok {
		if a, ok := part.(float64); ok {
			b, ok := whole.(float64)
			return ok && math.Abs(a-b) < 1e-9
		}
		return reflect.DeepEqual(whole, part)
	}
	w, ok := whole.(map[string]any)
	if !ok && p != nil {
		return false
	}
	for k, v := range p {
		if !contains(w[k], v) {
			return false
		}
	}
	return true
}

// Rejected requests of each protocol are redriven as sent, including headers. A kept span can be fixed.
func TestDialectsAreRedriven(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	r := s.start("r1", "receive")
	s.start("l1", "load")
	span := &tracepb.Span{TraceId: []byte("0123456789abcdef"), SpanId: []byte("01234567"), Name: "span",
		StartTimeUnixNano: 1795319112345678901}
	traces := func(spans ...*tracepb.Span) string {
		wire, err := proto.Marshal(
			&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: spans}}}}})
		if err != nil {
			t.Fatal(err)
		}
		return string(wire)
	}
	const otlp = "application/x-protobuf"
	for _, c := range []struct {
		method, target, body string
		status               int
		header               []string
	}{
		{"POST", "/v1/traces", gzipped(traces(span)), 401, []string{"Content-Type", otlp, "Content-Encoding", "gzip"}},
		{"POST", "/v1/events", `{"n":1}`, 401,
			[]string{"Content-Type", "application/json", "ce-specversion", "1.0", "ce-type", "cloud", "ce-source", "/a", "ce-id",
				"1", "ce-time", "2026-11-22T03:45:12.345Z", "ce-subject", "é"}},
		{"GET", "/v1/pixel.gif?name=pixel&a=1&key=wrong", "", 401, nil},
		{"POST", "/v1/traces", traces(span, &tracepb.Span{Name: "mended"}), 200,
			[]string{"Content-Type", otlp, "Authorization", "Bearer " + key}},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, r.URL+c.target, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(c.header); i += 2 {
			req.Header.Set(c.header[i], c.header[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.status {
			t.Errorf("%s: got %d", c.target, resp.StatusCode)
		}
	}
	s.rows("errors", 4)
	s.must("errors", "redrive", "--code", "invalid_id", "--through",
		`sed 's/"spans": *\[{/&"traceId":"5b8aa5a2d2c872e8321cf37308d69df2","spanId":"5fb397be34d26b51",/'`)
	s.must("errors", "redrive", "--all", "--as", "test")
	s.rows("events FINAL", 4) // the span was sent twice
	for _, want := range []string{
		"name = 'span' AND properties.trace_id.:String = '30313233343536373839616263646566' AND timestamp = '2026-11-22 " +
			"03:45:12.345'",
		"name = 'cloud' AND properties.n = 1 AND properties.`$envelope`.subject.:String = 'é' AND timestamp = '2026-11-22 " +
			"03:45:12.345'",
		"name = 'pixel' AND properties.a.:String = '1'",
		"name = 'mended' AND properties.span_id.:String = '5fb397be34d26b51'",
	} {
		if n := one[uint64](s, "SELECT count() FROM events FINAL WHERE "+want); n != 1 {
			t.Errorf("%d rows where %s", n, want)
		}
	}
}
