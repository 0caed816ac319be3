// Package cloudflare tests the edge receiver against the receiver.
package cloudflare

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	errorspipeline "github.com/penstock/penstock/errors-pipeline"
	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/edge"
	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver/receivertest"
	"github.com/penstock/penstock/receiver/tenant"
)

// Keys in the projects file below.
const (
	largeKey   = "large-key"
	smallKey   = "small-key"
	expiredKey = "expired-key"
	readKey    = "read-only-key"
	diskKey    = "disk-key"
)

const smallBody, maxBody, maxEvent, maxEvents = 1 << 20, 8 << 20, 2 << 20, 1000

func keys() []tenant.Key {
	expired := time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC)
	return []tenant.Key{
		{Project: "game", Name: "large", Hash: tenant.HashKey(largeKey)},
		{Project: "game", Name: "small", Hash: tenant.HashKey(smallKey), Small: true},
		{Project: "game", Name: "expired", Hash: tenant.HashKey(expiredKey), Expires: expired},
		{Project: "shop", Name: "read", Hash: tenant.HashKey(readKey), ReadOnly: true},
		{Project: "shop", Name: "disk", Hash: tenant.HashKey(diskKey), MinDurability: pipeline.Disk},
	}
}

// projectsFile writes a projects file in JSON with these keys.
func projectsFile(t *testing.T) string {
	t.Helper()
	type project struct {
		Keys []map[string]any `json:"keys"`
	}
	projects := map[string]*project{}
	for _, k := range keys() {
		p := projects[k.Project]
		if p == nil {
			p = &project{}
			projects[k.Project] = p
		}
		key := map[string]any{"name": k.Name, "sha256": hex.EncodeToString(k.Hash[:]), "large": !k.Small}
		if k.ReadOnly {
			key["scopes"] = []string{}
		}
		if k.MinDurability > 0 {
			key["min_durability"] = k.MinDurability.String()
		}
		if !k.Expires.IsZero() {
			key["expires"] = k.Expires.Format(time.DateOnly)
		}
		p.Keys = append(p.Keys, key)
	}
	text, err := json.Marshal(map[string]any{"projects": projects})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// pair is a receiver and an edge with the same keys and limits.
type pair struct {
	sink     *intake.Sink
	receiver string // URLs
	edge     *edge.Edge
}

func newPair(t *testing.T, p edge.Project) *pair {
	t.Helper()
	o := receivertest.Options(keys()...)
	o.MaxBody, o.MaxDecoded, o.SmallBody, o.MaxEvent, o.MaxEvents = maxBody, maxBody, smallBody, maxEvent, maxEvents
	o.BlobThreshold, o.Origins, o.RetryAfter, o.AnonymousRate = 64<<10, []string{"*"}, 5*time.Second, 64<<20
	s := &intake.Sink{}
	server := httptest.NewServer(receivertest.New(t, o, s))
	t.Cleanup(server.Close)
	return &pair{s, server.URL, p.Start(t, edge.Options{Persist: t.TempDir(), Bindings: map[string]string{
		"PROJECTS": projectsFile(t), "SHARDS": "1", "GATHER": "0", "ROLL_AGE": "1", "MAX_BODY": fmt.Sprint(maxBody),
		"SMALL_BODY": fmt.Sprint(smallBody), "MAX_EVENT": fmt.Sprint(maxEvent), "MAX_EVENTS": fmt.Sprint(maxEvents),
		"ANONYMOUS_RATE": fmt.Sprint(64 << 20)}})}
}

// exchange is a request without its body.
type exchange struct {
	method, target string
	header         []string
}

func (x exchange) send(t *testing.T, base, body string) (status int, header http.Header, answer map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), x.method, base+x.target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(x.header); i += 2 {
		if req.Header.Set(x.header[i], x.header[i+1]); x.header[i+1] == "" {
			req.Header.Del(x.header[i])
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", x.method, x.target, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > 0 && json.Unmarshal(text, &answer) != nil {
		t.Fatalf("%s answers %q", x.target, text)
	}
	return resp.StatusCode, resp.Header, answer
}

// compared are the headers that both answers must share.
var compared = []string{"Content-Type", "Retry-After", "Www-Authenticate", "Allow", "Access-Control-Allow-Origin",
	"Access-Control-Allow-Headers", "Access-Control-Allow-Methods", "Access-Control-Allow-Credentials"}

// compare sends a request to both and compares the answers. Of messages it compares only the numbers, which are
// positions and limits.
func (p *pair) compare(t *testing.T, what string, x exchange, body string) {
	t.Helper()
	wantStatus, wantHeader, want := x.send(t, p.receiver, body)
	gotStatus, gotHeader, got := x.send(t, p.edge.URL, body)
	delete(want, "request_id")
	if id, _ := got["request_id"].(string); want != nil && id == "" {
		t.Errorf("%s: the edge's answer has no request_id: %v", what, got)
	}
	delete(got, "request_id")
	numbersOnly(want)
	numbersOnly(got)
	if diff := cmp.Diff(want, got); diff != "" || wantStatus != gotStatus {
		t.Errorf("%.300s: %.300q\nreceiver %d, edge %d (-receiver +edge):\n%.3000s", what, body, wantStatus, gotStatus, diff)
	}
	for _, name := range compared {
		if want, got := wantHeader.Get(name), gotHeader.Get(name); want != got {
			t.Errorf("%.300s: header %s: receiver %q, edge %q", what, name, want, got)
		}
	}
}

var numbers = regexp.MustCompile(`[0-9]+`)

// numbersOnly replaces messages by their numbers. Libraries write some of the messages.
func numbersOnly(answer map[string]any) {
	all, _ := answer["errors"].([]any)
	for _, e := range append(all, answer["error"]) {
		if e, ok := e.(map[string]any); ok {
			if e["message"] = numbersIn(e["message"]); e["code"] == "invalid_encoding" || e["code"] == "unsupported_media_type" {
				delete(e, "message")
			}
		}
	}
}

func numbersIn(message any) []string {
	text, _ := message.(string)
	return append(numbers.FindAllString(text, -1), fmt.Sprint(text != ""))
}

func bearer(key string, more ...string) []string {
	return append([]string{"Authorization", "Bearer " + key}, more...)
}

func TestEdge(t *testing.T) {
	t.Parallel()
	project := edge.Copy(t)
	t.Run("npm test", func(t *testing.T) { project.Run(t, "npm", "test") })
	t.Run("deploy", func(t *testing.T) { // bundles the Worker and reads wrangler.jsonc
		out := project.Run(t, "wrangler", "deploy", "--dry-run", "--outdir", "dist")
		for _, want := range []string{"env.SHARD (Shard)", "env.BUCKET (penstock)", `env.MODE ("store")`} {
			if !strings.Contains(out, want) {
				t.Errorf("wrangler deploy --dry-run does not print %s:\n%s", want, out)
			}
		}
	})
	project.Build(t)
	p := newPair(t, project)
	t.Run("requests", p.requests)
	t.Run("bodies", p.bodies)
	t.Run("times", p.times)
	t.Run("large", p.large)
	t.Run("mutated", p.mutated)
	t.Run("stored", p.stored)
	t.Run("object", p.object)
	t.Run("key namespace", p.keyNamespace)
}

// requests are decided by the head, or by the body as a whole.
func (p *pair) requests(t *testing.T) {
	const one = `{"name":"a","x":1}`
	packed := func(text string) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write([]byte(text))
		z.Close()
		return b.String()
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	squeezed := string(z.EncodeAll([]byte(one), nil))
	noise := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	random := `{"name":"a","noise":"` + base64.StdEncoding.EncodeToString(noise)[:maxEvent-100] + `"}`
	const path = "/v1/events"
	for _, c := range []struct {
		name, method, target string
		header               []string
		body                 string
	}{
		{"bearer, lower case", "POST", path, []string{"Authorization", "bearer  " + largeKey}, one},
		{"basic", "POST", path, []string{"Authorization", "Basic bGFyZ2Uta2V5OnB3"}, one},
		{"header", "POST", path, []string{"X-API-Key", largeKey}, one},
		{"query", "POST", path + "?key=" + largeKey, nil, one},
		{"other scheme, then header", "POST", path, []string{"Authorization", "Token x", "X-API-Key", largeKey}, one},
		{"no key", "POST", path, nil, one},
		{"other scheme", "POST", path, []string{"Authorization", "Token " + largeKey}, one},
		{"unknown key", "POST", path, bearer("x"), one},
		{"unknown basic", "POST", path, []string{"Authorization", "Basic eDo="}, one},
		{"expired", "POST", path, bearer(expiredKey), one},
		{"read only", "POST", path, bearer(readKey), one},
		{"durability disk", "POST", path + "?durability=disk", bearer(diskKey), one},
		{"durability below the key's", "POST", path + "?durability=memory", bearer(diskKey), one},
		{"unknown durability", "POST", path + "?durability=tape", bearer(largeKey), one},
		{"not found", "POST", "/v2/events", bearer(largeKey), one},
		{"method", "GET", path, bearer(largeKey), ""},
		{"put", "PUT", path, bearer(largeKey), one},
		{"preflight", "OPTIONS", path, []string{"Origin", "https://a.example", "Access-Control-Request-Method", "POST"}, ""},
		{"preflight, headers", "OPTIONS", path, []string{"Origin", "https://a.example", "Access-Control-Request-Headers",
			"x-a, x-b"}, ""},
		{"origin", "POST", path, bearer(largeKey, "Origin", "https://a.example"), one},
		{"empty", "POST", path, bearer(largeKey), ""},
		{"space", "POST", path, bearer(largeKey), " \r\n\t"},
		{"byte order mark", "POST", path, bearer(largeKey), "\xef\xbb\xbf\n"},
		{"type text", "POST", path, bearer(largeKey, "Content-Type", "text/plain;charset=UTF-8"), one},
		{"type form", "POST", path, bearer(largeKey, "Content-Type", "application/x-www-form-urlencoded"), one},
		{"type none", "POST", path, bearer(largeKey, "Content-Type", ""), one},
		{"type xml", "POST", path, bearer(largeKey, "Content-Type", "application/xml"), one},
		{"charset", "POST", path, bearer(largeKey, "Content-Type", "application/json; charset=latin1"), one},
		{"charset, quoted", "POST", path, bearer(largeKey, "Content-Type", `application/json; charset="utf-8"`), one},
		{"gzip", "POST", path, bearer(largeKey, "Content-Encoding", "gzip"), packed(one)},
		{"x-gzip", "POST", path, bearer(largeKey, "Content-Encoding", "X-GZIP"), packed(one)},
		{"gzip, two members", "POST", path, bearer(largeKey, "Content-Encoding", "gzip"), packed(one) + packed(one)},
		{"gzip, something behind", "POST", path, bearer(largeKey, "Content-Encoding", "gzip"), packed(one) + "junk"},
		{"gzip, cut", "POST", path, bearer(largeKey, "Content-Encoding", "gzip"), packed(one)[:20]},
		{"gzip, damaged", "POST", path, bearer(largeKey, "Content-Encoding", "gzip"), packed(one)[:30] + "\x00\x00\x00\x00\x00\x00\x00\x00"},
		{"gzip, not", "POST", path, bearer(largeKey, "Content-Encoding", "gzip"), one},
		{"gzip, empty", "POST", path, bearer(largeKey, "Content-Encoding", "gzip"), ""},
		{"gzip, a bomb", "POST", path, bearer(largeKey, "Content-Encoding", "gzip"), packed(strings.Repeat(" ", maxBody+1))},
		{"gzip, a bomb of a small key", "POST", path, bearer(smallKey, "Content-Encoding", "gzip"),
			packed(strings.Repeat(" ", smallBody+1))},
		{"zstd", "POST", path, bearer(largeKey, "Content-Encoding", "zstd"), squeezed},
		{"zstd, large", "POST", path, bearer(largeKey, "Content-Encoding", "zstd"), string(z.EncodeAll([]byte(random), nil))},
		{"gzip, large", "POST", path, bearer(largeKey, "Content-Encoding", "gzip"), packed(random)},
		{"zstd, something behind", "POST", path, bearer(largeKey, "Content-Encoding", "zstd"), squeezed + "junk"},
		{"zstd, cut", "POST", path, bearer(largeKey, "Content-Encoding", "zstd"), squeezed[:len(squeezed)-2]},
		{"deflate, not", "POST", path, bearer(largeKey, "Content-Encoding", "deflate"), one},
		{"brotli", "POST", path, bearer(largeKey, "Content-Encoding", "br"), one},
		{"identity", "POST", path, bearer(largeKey, "Content-Encoding", "identity"), one},
		{"too large for a small key", "POST", path, bearer(smallKey), `{"name":"` + strings.Repeat("x", smallBody) + `"}`},
		{"too large", "POST", path, bearer(largeKey), `{"name":"` + strings.Repeat("x", maxBody) + `"}`},
		{"too many events", "POST", path, bearer(largeKey), strings.Repeat(`{"name":"a"}`, maxEvents+1)},
		{"many bad events", "POST", path, bearer(largeKey), strings.Repeat(`{}1`, maxEvents/2)},
	} {
		p.compare(t, c.name, exchange{c.method, c.target, c.header}, c.body)
	}
}

const ndjson = "application/x-ndjson"

// bodies of all layouts, valid and invalid.
func (p *pair) bodies(t *testing.T) {
	for _, body := range seeds() {
		for _, kind := range []string{"application/json", ndjson} {
			p.compare(t, kind, exchange{"POST", "/v1/events", bearer(largeKey, "Content-Type", kind)}, body)
		}
	}
	for _, one := range events() {
		if len(one) < 1<<10 {
			body := `[{"name":"before"},` + one + `,{"name":"after"}]`
			p.compare(t, "between", exchange{"POST", "/v1/events", bearer(largeKey)}, body)
		}
	}
}

// times: valid and almost valid forms of a time.
func (p *pair) times(t *testing.T) {
	var b strings.Builder
	for _, text := range timeTexts() {
		quoted, _ := json.Marshal(text)
		fmt.Fprintf(&b, `{"name":"t","event_id":%s,"timestamp":%[1]s}`+"\n", quoted)
	}
	for _, text := range strings.Fields("1795514400 1795514400123 1795514400.1234 1.5e9 -1 -0.0004 0 1e300 1e-5 true {} [] null") {
		fmt.Fprintf(&b, `{"name":"t","event_id":"n%s","timestamp":%[1]s}`+"\n", strings.Trim(text, "{}[]"))
	}
	p.compare(t, "times", exchange{"POST", "/v1/events", bearer(largeKey, "Content-Type", ndjson)}, b.String())
}

// large values become blobs.
func (p *pair) large(t *testing.T) {
	text := func(n int) string { return strings.Repeat("0123456789abcdef", n/16) }
	image := "data:image/png;base64," + strings.Repeat("AAECAwQFBgcICQoL", 5000)
	for _, body := range []string{
		`{"name":"a","text":"` + text(70<<10) + `","x":1}`,
		`{"name":"a","x":1,"text":"` + strings.Repeat(`é\n\u00e9\ud83d\ude00`, 10_000) + `"}`,
		`{"name":"a","properties":{"image":"` + image + `","y":[1,2]}}`,
		`{"name":"a","properties":{"image":"` + image + `=","y":"` + image + `"},"z":"` + text(66<<10) + `"}`,
		`{"name":"a","list":[` + strings.Repeat(`{"k":"`+text(1<<10)+`"},`, 100) + `1]}`,
		`{"name":"a","list":[{"k":"` + text(70<<10) + `"},` + strings.Repeat(`"v",`, 1000) + `1]}`,
		`{"name":"a","list":["` + text(70<<10) + `",` + strings.Repeat(`"v",`, 30_000) + `1]}`,
		"{\"name\":\"a\",\n \"list\" : [" + strings.Repeat("1,\n", 40_000) + "1]}",
		`[{"name":"a","text":"` + text(70<<10) + `"},{"name":"b"},{"name":"c","t":"` + text(80<<10) + `"}]`,
		`{"name":"a",` + manyKeys(300, text(6<<10)) + `}`, noisy(300),
		`{"name":"x","a":"` + strings.Repeat("\\\"}]{[", maxEvent/6) + `"}`,
		`{"name":"x","l":[` + strings.Repeat(`{"k":"v"},`, maxEvent/8) + `1]}`,
		`"` + strings.Repeat("x", maxEvent) + `"`,
		strings.Repeat("1", maxEvent+1),
		`{"a":` + strings.Repeat("[", 1<<20),
		`{"name":"x","a":` + strings.Repeat("[", 1<<19) + strings.Repeat("]", 1<<19) + "}",
		strings.Repeat("{}", 5), strings.Repeat("\x00", 2<<20), // raw bytes larger than errors.blob_threshold
	} {
		p.compare(t, "large", exchange{"POST", "/v1/events", bearer(largeKey)}, body)
	}
}

// noisy is an event that compresses badly.
func noisy(n int) string {
	rnd := rand.New(rand.NewPCG(3, 4))
	var b strings.Builder
	for i := range n {
		noise := make([]byte, 3<<10)
		for i := range noise {
			noise[i] = byte(rnd.UintN(256))
		}
		fmt.Fprintf(&b, `,"k%d":"%s"`, i, base64.StdEncoding.EncodeToString(noise))
	}
	return `{"name":"a"` + b.String() + "}"
}

func manyKeys(n int, value string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"k%d":"%s"`, i, value)
	}
	return b.String()[1:]
}

// mutated bodies are valid ones with a few bytes changed.
func (p *pair) mutated(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	all := slices.DeleteFunc(append(seeds(), events()...), func(s string) bool { return len(s) > 1<<10 })
	const bytes = "{}[]\",:\\\n\r\t 0123456789eE+-.truefalsn\x00\x1f\x7f\xff\xed\xa0\x80\xc3\xa9u"
	for range 600 {
		body := []byte(all[rnd.IntN(len(all))] + []string{"", "\n", ",", " "}[rnd.IntN(4)] + all[rnd.IntN(len(all))])
		for range 1 + rnd.IntN(4) {
			if len(body) == 0 {
				break
			}
			at := rnd.IntN(len(body))
			switch c := bytes[rnd.IntN(len(bytes))]; rnd.IntN(4) {
			case 0:
				body[at] = c
			case 1:
				body = slices.Insert(body, at, c)
			case 2:
				body = slices.Delete(body, at, min(len(body), at+1+rnd.IntN(3)))
			case 3:
				body = body[:at]
			}
		}
		kind := []string{"application/json", ndjson}[rnd.IntN(2)]
		p.compare(t, kind, exchange{"POST", "/v1/events", bearer(largeKey, "Content-Type", kind)}, string(body))
	}
}

// stored compares the rows of the edge's objects with what the receiver appended and reported.
func (p *pair) stored(t *testing.T) {
	var failures []pipeline.Event
	var blobs []intake.Blob
	for i := range p.sink.Failures {
		e, more := errorspipeline.Event(&p.sink.Failures[i], 1<<20)
		for _, b := range more {
			var data bytes.Buffer
			b.Event = i
			b.Write(&data)
			blobs = append(blobs, intake.Blob{Blob: b, Data: data.Bytes()})
		}
		failures = append(failures, e)
	}
	p.compareRows(t, "events/", p.sink)
	p.compareRows(t, "errors/", &intake.Sink{Events: failures, Blobs: blobs})
}

// compareRows compares the rows of a pipeline, in order.
func (p *pair) compareRows(t *testing.T, prefix string, want *intake.Sink) {
	got := p.await(t, prefix, len(want.Events))
	differ := 0
	for i := range min(len(got), len(want.Events)) {
		w, g := want.Events[i], got[i]
		if made(w) && made(g) {
			if g.ID = w.ID; g.Timestamp == g.ReceivedAt {
				g.Timestamp += w.ReceivedAt - g.ReceivedAt
			}
		}
		row := func(e pipeline.Event, properties []byte) map[string]any {
			m := map[string]any{"id": e.ID.String(), "project": string(e.Project), "name": string(e.Name),
				"session": string(e.SessionID), "user": string(e.UserID), "time": e.Timestamp,
				"properties": string(properties), "context": string(e.Context)}
			if prefix == "errors/" {
				props := intake.Parsed(t, properties).(map[string]any)
				delete(props, "request_id")
				if head, ok := props["headers"].(map[string]any); ok {
					delete(head, "Host")
				}
				props["message"] = numbersIn(props["message"])
				if name := string(e.Name); name == "invalid_encoding" || name == "unsupported_media_type" {
					delete(props, "message")
				}
				m["properties"] = props
			}
			return m
		}
		if diff := cmp.Diff(row(w, want.Whole(t, i)), row(g, p.whole(t, g.Properties))); diff != "" {
			t.Errorf("%s row %d (-receiver +edge):\n%.2000s", prefix, i, diff)
			if differ++; differ == 3 {
				t.Fatal("no more rows are compared")
			}
		}
	}
}

// made reports whether the id was created at receipt.
func made(e pipeline.Event) bool {
	return e.ID[6]>>4 == 7 && int64(binary.BigEndian.Uint64(e.ID[:8])>>16) == e.ReceivedAt
}

// await waits until the edge's objects have that many rows, and returns them sorted by number.
func (p *pair) await(t *testing.T, prefix string, want int) (all []pipeline.Event) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		all = p.rows(t, prefix)
		if len(all) >= want || time.Now().After(end) {
			break
		}
	}
	if len(all) != want {
		t.Errorf("%s: the edge has %d rows, the receiver %d", prefix, len(all), want)
	}
	slices.SortFunc(all, func(a, b pipeline.Event) int { return int(int64(a.Seq) - int64(b.Seq)) })
	return all
}

// rows reads all objects of a pipeline, and checks their keys and metadata.
func (p *pair) rows(t *testing.T, prefix string) (all []pipeline.Event) {
	t.Helper()
	objects, err := p.edge.Objects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if strings.HasPrefix(o.Key, prefix) {
			all = append(all, readObject(t, p.edge, o)...)
		}
	}
	return all
}

// readObject decodes an object as the loader does.
func readObject(t *testing.T, e *edge.Edge, o edge.Object) (all []pipeline.Event) {
	t.Helper()
	data, err := e.Get(t.Context(), o.Key)
	if err != nil {
		t.Fatal(err)
	}
	key, err := pipeline.ParseKey(o.Key)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := pipeline.ParseMeta(o.CustomMetadata)
	if err != nil {
		t.Fatalf("%s: %v", o.Key, err)
	}
	dec, err := codec.NewDecoder(bytes.NewReader(data), int64(len(data)), key.Format)
	if err != nil {
		t.Fatalf("%s: %v", o.Key, err)
	}
	defer dec.Close()
	for err == nil {
		all, err = dec.Decode(all, codec.Limit{Rows: 1 << 20, Bytes: 1 << 30})
	}
	if !errors.Is(err, io.EOF) || len(all) == 0 {
		t.Fatalf("%s: %d events, %v", o.Key, len(all), err)
	}
	want := pipeline.Meta{Schema: pipeline.SchemaVersion, Rows: int64(len(all)), FirstSeq: key.Seq,
		FirstReceived: all[0].ReceivedAt, LastReceived: all[0].ReceivedAt, SHA256: fmt.Sprintf("%x", sum(data))}
	for i, e := range all {
		want.FirstReceived, want.LastReceived = min(want.FirstReceived, e.ReceivedAt), max(want.LastReceived, e.ReceivedAt)
		if e.Seq != key.Seq+uint64(i) || string(e.Receiver) != key.Receiver {
			t.Fatalf("%s: row %d has the number %d of %s", o.Key, i, e.Seq, e.Receiver)
		}
	}
	if diff := cmp.Diff(want, meta); diff != "" {
		t.Errorf("%s: metadata (-want +got):\n%s", o.Key, diff)
	}
	return all
}

// whole puts blobs back into the properties, and checks their references.
func (p *pair) whole(t *testing.T, row []byte) []byte {
	t.Helper()
	var out []byte
	for {
		at := bytes.Index(row, []byte(`{"$blob":{"object":"blobs/`))
		if at < 0 {
			return append(out, row...)
		}
		d := json.NewDecoder(bytes.NewReader(row[at:]))
		d.DisallowUnknownFields()
		var value struct {
			Ref pipeline.BlobRef `json:"$blob"`
		}
		if err := d.Decode(&value); err != nil {
			t.Fatal(err)
		}
		r := value.Ref
		object, err := p.edge.Get(t.Context(), r.Object)
		if err != nil || !pipeline.IsBlobKey(r.Object) || r.Range[1] >= int64(len(object)) ||
			r.Bytes != r.Range[1]-r.Range[0]+1 {
			t.Fatalf("reference %+v: %v", r, err)
		}
		data := object[r.Range[0] : r.Range[1]+1]
		if fmt.Sprintf("%x", sum(data)) != r.SHA256 {
			t.Fatalf("reference %+v: wrong sum", r)
		}
		one := intake.Sink{Events: []pipeline.Event{{Properties: []byte("null")}},
			Blobs: []intake.Blob{{Blob: pipeline.Blob{Kind: r.Kind, ContentType: r.ContentType}, Data: data}}}
		out = append(append(out, row[:at]...), one.Whole(t, 0)...)
		row = row[at+int(d.InputOffset()):]
	}
}

// object waits until the events are in the bucket.
func (p *pair) object(t *testing.T) {
	x := exchange{"POST", "/v1/events?durability=object", bearer(largeKey)}
	status, _, answer := x.send(t, p.edge.URL, `{"name":"at once","event_id":"o1"}`)
	key, _ := answer["object"].(string)
	if status != 200 || key == "" {
		t.Fatalf("got %d %v, want 200 with the object", status, answer)
	}
	objects, err := p.edge.Objects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(objects, func(o edge.Object) bool { return o.Key == key })
	if i < 0 {
		t.Fatalf("no object %s", key)
	}
	if all := readObject(t, p.edge, objects[i]); string(all[len(all)-1].Name) != "at once" {
		t.Errorf("the object has %d events, the last is %q", len(all), all[len(all)-1].Name)
	}
}

// keyNamespace returns the keys for KV, as scripts/keys.mjs writes them.
func (p *pair) keyNamespace(t *testing.T) {
	ctx := context.WithoutCancel(t.Context())
	put := func(key, value string) {
		hash := tenant.HashKey(key)
		if err := p.edge.PutKey(ctx, hex.EncodeToString(hash[:]), value); err != nil {
			t.Fatal(err)
		}
	}
	put("kv-key", `{"project":"kv","large":true}`)
	put("kv-dropping", `{"project":"private","settings":["drop","salt"]}`)
	for key, want := range map[string]int{"kv-key": 202, "kv-dropping": 503, "kv-unknown": 401} {
		x := exchange{"POST", "/v1/events", bearer(key)}
		if status, _, answer := x.send(t, p.edge.URL, `{"name":"a"}`); status != want {
			t.Errorf("%s: got %d %v, want %d", key, status, answer, want)
		}
	}
}
