package e2e

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/testing/npm"
)

// TestBrowser has a page of another origin send, in a browser, straight to the
// receiver: beacons are not sent again. Then product analytics' clients do, through
// receivers that fail.
func TestBrowser(t *testing.T) {
	t.Parallel()
	dir := npm.Install(t, "clients/browser/package.json")
	s := newStack(t)
	r := s.start("r1", "receive", "PENSTOCK_RECEIVER_SESSION_REPLAY=true")
	s.start("l1", "load")
	// The package unpacks the browser into the folder for temporary files. On AWS Lambda, where these variables are
	// set, it unpacks the libraries too.
	env := []string{"TMPDIR=" + t.TempDir(), "AWS_EXECUTION_ENV=AWS_Lambda_nodejs20.x", "AWS_LAMBDA_JS_RUNTIME=nodejs20.x"}
	t.Run("page", func(t *testing.T) {
		runClient(t, s, dir, "browser/browser", r.URL, env...)
		s.rows("errors", 1) // the wrong key
	})
	t.Run("analytics", func(t *testing.T) { testAnalytics(t, s, r, dir, env) })
}

func testAnalytics(t *testing.T, s *stack, r *role, dir string, env []string) {
	recorded := newReplay(t, r.URL)
	proxies := map[string]*trouble{"posthog": newTrouble(t, recorded.URL)}
	addresses := map[string]string{"posthog": proxies["posthog"].URL, "beacons": r.URL}
	for _, name := range []string{"segment", "batches", "rudderstack"} { // a beacon is not sent again
		proxies[name] = newTrouble(t, r.URL)
		addresses[name] = proxies[name].URL
	}
	to, err := json.Marshal(addresses)
	if err != nil {
		t.Fatal(err)
	}
	runClient(t, s, dir, "browser/analytics", r.URL, append(env, "ANALYTICS="+string(to))...)
	for name, p := range proxies {
		if p.seen < 4 {
			t.Errorf("%s: %d requests came: the client did not send again", name, p.seen)
		}
	}
	if n := one[uint64](s, "SELECT count() FROM events WHERE position(toJSONString(properties), {key:String}) > 0",
		named("key", key)); n != 0 {
		t.Errorf("the key is in %d rows", n)
	}
	// The connections that were cut are no failures of the clients.
	if n := one[uint64](s, "SELECT count() FROM errors WHERE code NOT IN ('incomplete_body', 'unknown_key')"); n != 0 {
		t.Errorf("%d failures, as %s", n,
			one[string](s, "SELECT concat(code, ': ', message) FROM errors WHERE code != 'unknown_key' LIMIT 1"))
	}
	recorded.check(t, s)
}

// replay forwards what posthog-js sends, and keeps the chunks of its recordings.
type replay struct {
	*httptest.Server
	mu     sync.Mutex
	chunks map[string]chunk // by their ids: some come twice
}

type chunk struct {
	UUID       string    `json:"uuid"`
	Time       time.Time `json:"timestamp"`
	Properties struct {
		Session string            `json:"$session_id"`
		Steps   []json.RawMessage `json:"$snapshot_data"`
	} `json:"properties"`
}

func newReplay(t *testing.T, target string) *replay {
	t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	p := &replay{chunks: map[string]chunk{}}
	forward := httputil.NewSingleHostReverseProxy(to)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if body, err := io.ReadAll(req.Body); err != nil {
			t.Errorf("%s: %v", req.URL, err)
		} else {
			req.Body = io.NopCloser(bytes.NewReader(body))
			if req.URL.Path == "/s/" && len(body) > 0 {
				if err := p.keep(body); err != nil {
					t.Errorf("%s %.100q: %v", req.URL, body, err)
				}
			}
		}
		forward.ServeHTTP(w, req)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *replay) keep(body []byte) error {
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return err
	}
	text, err := io.ReadAll(z)
	if err != nil {
		return err
	}
	if text[0] == '{' {
		text = slices.Concat([]byte{'['}, text, []byte{']'})
	}
	var chunks []chunk
	if err := json.Unmarshal(text, &chunks); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range chunks {
		p.chunks[c.UUID] = c
	}
	return nil
}

// check runs the query of docs/guides/sdks.md, and wants all steps that were sent, in
// the order in which they were recorded.
func (p *replay) check(t *testing.T, s *stack) {
	t.Helper()
	var sent []chunk
	for _, c := range p.chunks {
		sent = append(sent, c)
	}
	slices.SortFunc(sent, func(a, b chunk) int { return cmp.Or(a.Time.Compare(b.Time), strings.Compare(a.UUID, b.UUID)) })
	if len(sent) < 2 {
		t.Fatalf("%d chunks were sent", len(sent))
	}
	var want []any
	session := sent[0].Properties.Session
	for _, c := range sent {
		if c.Properties.Session == session {
			for _, step := range c.Properties.Steps {
				want = append(want, value(t, step))
			}
		}
	}
	s.rows("events FINAL WHERE name = '$snapshot'", uint64(len(sent)))
	if one[uint64](s,
		"SELECT countIf(properties.`$snapshot_data`.`$blob`.bytes.:Int64 > 0) FROM events WHERE name = '$snapshot'") == 0 {
		t.Error("no chunk was large")
	}
	query := documented(t, "## Session recordings",
		map[string]string{"http://127.0.0.1:9100": s.minio.Endpoint(), "KEY": s.minio.AccessKey(),
			"SECRET": s.minio.SecretKey(), "SESSION": session, "2026-11-22": "*"})
	rows, err := s.db.Query(t.Context(), query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	var got []any
	for rows.Next() {
		var step string
		if err := rows.Scan(&step); err != nil {
			t.Fatal(err)
		}
		got = append(got, value(t, []byte(step)))
	}
	if err := rows.Err(); err != nil || len(got) != len(want) {
		t.Fatalf("%d steps, want %d: %v", len(got), len(want), err)
	}
	for i := range got {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Fatalf("step %d is %.300s\nwant %.300s", i, fmt.Sprint(got[i]), fmt.Sprint(want[i]))
		}
	}
	if page := rebuilt(t, got); !strings.Contains(page, "a heading") {
		t.Errorf("the page that was recorded is %.500s", page)
	}
}

func value(t *testing.T, text []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%.100q: %v", text, err)
	}
	return v
}

// rebuilt is the JSON of the page in a recording: posthog-js compresses it to bytes
// that it writes as characters.
func rebuilt(t *testing.T, steps []any) string {
	t.Helper()
	for _, s := range steps {
		step := s.(map[string]any)
		data, packed := step["data"].(string)
		if step["type"] != 2.0 || !packed {
			continue
		}
		var b []byte
		for _, c := range data {
			b = append(b, byte(c))
		}
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		page, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		return string(page)
	}
	t.Fatalf("none of %d steps is a whole page", len(steps))
	return ""
}

// documented is the first SQL below a heading of docs/guides/sdks.md, with what stands
// there for an installation's own replaced.
func documented(t *testing.T, heading string, own map[string]string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/guides/sdks.md")
	if err != nil {
		t.Fatal(err)
	}
	_, below, found := strings.Cut(string(text), heading+"\n")
	_, query, open := strings.Cut(below, "```sql\n")
	query, _, closed := strings.Cut(query, "```")
	if !found || !open || !closed {
		t.Fatalf("docs/guides/sdks.md has no SQL below %q", heading)
	}
	for name, value := range own {
		if !strings.Contains(query, name) {
			t.Errorf("the query has no %q: %s", name, query)
		}
		query = strings.ReplaceAll(query, name, value)
	}
	return query
}
