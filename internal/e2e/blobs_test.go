package e2e

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// llmCall is a typical event of an LLM product: a prompt, an image, an answer; 1.5 MB.
func llmCall(i int) (id string, properties string) {
	r := rand.New(rand.NewPCG(uint64(i), 7))
	image := make([]byte, 700<<10)
	for k := range image {
		image[k] = byte(r.Uint32())
	}
	words := func(n int) string {
		var b strings.Builder
		for b.Len() < n {
			fmt.Fprintf(&b, `word%d \"quoted\" é\n\ud83d\ude00 `, r.IntN(1000))
		}
		return b.String()
	}
	return fmt.Sprintf("call-%d", i),
		fmt.Sprintf(`{"n":%d,"model":"m-1","input":{"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"%s"},{"role":"user","content":"data:image/png;base64,%s"}]},"output":"%s","usage":{"input":17,"output":%d}}`,
			i, words(200<<10), base64.StdEncoding.EncodeToString(image), words(300<<10), r.IntN(1000))
}

// The bodies of LLM calls leave their rows, survive a receiver that is killed in
// the middle, and come back as they were.
func TestBlobs(t *testing.T) {
	t.Parallel()
	const total, clients = 24, 4
	s := newStack(t)
	r := s.start("r1", "receive", "PENSTOCK_ADMIN_TOKEN=operators", "PENSTOCK_RECEIVER_MAX_MEMORY=64MiB")
	s.start("l1", "load")
	sent := make([]string, total) // properties
	var g sync.WaitGroup
	for c := range clients {
		g.Go(func() {
			for i := c; i < total; i += clients {
				id, properties := llmCall(i)
				sent[i] = properties
				body := fmt.Sprintf(`{"name":"llm","event_id":%q,"timestamp":1795320000000,"properties":%s}`, id, properties)
				for try := 0; ; try++ {
					if resp, err := http.Post(r.URL+"/v1/events?key="+key, "application/json", strings.NewReader(body)); err == nil {
						resp.Body.Close()
						if resp.StatusCode == 202 {
							break
						}
					}
					if try > 300 {
						t.Errorf("event %d is not taken", i)
						return
					}
					time.Sleep(100 * time.Millisecond) // the receiver is killed meanwhile
				}
			}
		})
	}
	eventually(t, 60*time.Second, "some of the events", func() error {
		if n := one[uint64](s, "SELECT count() FROM events"); n < 5 {
			return fmt.Errorf("%d rows", n)
		}
		return nil
	})
	r.Kill()
	r.again()
	g.Wait()
	r.term()
	eventually(t, 60*time.Second, "all rows", func() error {
		if n := one[uint64](s, "SELECT count() FROM events FINAL"); n != total {
			return fmt.Errorf("%d rows", n)
		}
		return nil
	})
	if n := one[uint64](s, "SELECT max(length(toJSONString(properties))) FROM events"); n > 4000 {
		t.Errorf("a row has properties of %d bytes", n)
	}
	out, err := s.run("verify", "--since", "1h")
	if err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
	seen := map[int]bool{}
	for _, object := range one[[]string](s, "SELECT groupUniqArray(object) FROM events") {
		out, err := s.run("objects", "show", "--resolve", object)
		if err != nil {
			t.Fatalf("objects show: %v\n%.2000s", err, out)
		}
		for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
			var e struct{ Properties map[string]any }
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%v in %.300s", err, line)
			}
			i := int(e.Properties["n"].(float64))
			var want map[string]any
			if err := json.Unmarshal([]byte(sent[i]), &want); err != nil {
				t.Fatal(err)
			}
			want["event_id"] = fmt.Sprintf("call-%d", i)
			if !reflect.DeepEqual(e.Properties, want) {
				t.Errorf("event %d came back as something else", i)
			}
			seen[i] = true
		}
	}
	if len(seen) != total {
		t.Errorf("%d events are in objects", len(seen))
	}
	r.again()
	s.checkServed(r)
	s.checkForged(r)
}

// checkForged sends references that clients wrote themselves: they resolve to no
// more than they say, and those behind them are read all the same.
func (s *stack) checkForged(r *role) {
	s.t.Helper()
	send := func(body string) (object string) {
		resp, err := http.Post(r.URL+"/v1/events?durability=object&key="+key, "application/x-ndjson", strings.NewReader(body))
		if err != nil {
			s.t.Fatal(err)
		}
		defer resp.Body.Close()
		var a struct{ Object string }
		if err := json.NewDecoder(resp.Body).Decode(&a); err != nil || a.Object == "" {
			s.t.Fatalf("%s: %v, object %q", resp.Status, err, a.Object)
		}
		return a.Object
	}
	text := `1},"project":"another","x":{"y":1` + strings.Repeat(" ", 1<<20)
	quoted, _ := json.Marshal(text)
	object := send(`{"name":"own","v":` + string(quoted) + `}`)
	ref := func(object, kind string, last int) string {
		return fmt.Sprintf(`{"$blob":{"object":%q,"range":[0,%d],"bytes":%d,"sha256":"%x","content_type":"a\"b","kind":%q}}`,
			object, last, len(text), sha256.Sum256([]byte(text)), kind)
	}
	parsed, err := pipeline.ParseKey(object)
	if err != nil {
		s.t.Fatal(err)
	}
	blobs := pipeline.BlobKey(parsed)
	last := len(text) - 1
	events := []string{
		ref("blobs/events/dt=2026-11-22/hr=03/none.blobs", "text", last),
		ref(blobs, "json", last),
		ref(blobs, "text", last+1),
		ref(blobs, "text", 1<<50),
		`{"$blob":` + ref(blobs, "text", last)[len(`{"$blob":`):len(ref(blobs, "text", last))-1] + `,"more":1}`,
		ref(blobs, "text", last),
		ref(blobs, "data_url", last),
		"[" + strings.Repeat(ref(blobs, "text", last)+",", 120) + "0]",
		`"the last"`,
	}
	var body strings.Builder
	for _, v := range events {
		fmt.Fprintf(&body, `{"name":"forged","v":%s}`+"\n", v)
	}
	out, err := s.run("objects", "show", "--resolve", send(body.String()))
	if err == nil || !strings.Contains(out, "references could not be resolved") {
		s.t.Errorf("%v, %d bytes, the end is %.500s", err, len(out), out[max(0, len(out)-500):])
	}
	n := 0
	for line := range strings.Lines(out) {
		var e struct {
			Project    string
			Properties struct{ V json.RawMessage }
		}
		if json.Unmarshal([]byte(line), &e) != nil {
			continue // the command's last words
		}
		want := events[n]
		switch n {
		case 5:
			want = string(quoted)
		case 6:
			want = `"data:a\"b;base64,` + base64.StdEncoding.EncodeToString([]byte(text)) + `"`
		case 7: // as many as an event can have
			if v := string(e.Properties.V); !strings.Contains(v, `{"$blob":`) || !strings.Contains(v, `1},\"project`) ||
				len(v) > 130<<20 {
				s.t.Errorf("of many references: %d bytes", len(v))
			}
			want = string(e.Properties.V)
		}
		if e.Project != "test" || string(e.Properties.V) != want {
			s.t.Errorf("event %d: project %s, %.200s; want %.200s", n, e.Project, e.Properties.V, want)
		}
		n++
	}
	if n != len(events) {
		s.t.Errorf("%d events, want %d", n, len(events))
	}
}

// checkServed reads a blob through the operators' API and through SQL.
func (s *stack) checkServed(r *role) {
	s.t.Helper()
	var ref pipeline.BlobRef
	text := one[string](s, "SELECT toJSONString(properties.^output) FROM events LIMIT 1")
	var v struct {
		Ref *pipeline.BlobRef `json:"$blob"`
	}
	if err := json.Unmarshal([]byte(text), &v); err != nil || v.Ref == nil {
		s.t.Fatalf("%v in %s", err, text)
	}
	ref = *v.Ref
	get := func(query string, header ...string) (*http.Response, []byte) {
		req, _ := http.NewRequest("GET", r.Admin+"/v1/"+ref.Object+query, nil)
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			s.t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp, b
	}
	part := fmt.Sprintf("%d-%d", ref.Range[0], ref.Range[1])
	if resp, _ := get("?range=" + part); resp.StatusCode != http.StatusUnauthorized {
		s.t.Errorf("without a token: %s", resp.Status)
	}
	token := []string{"Authorization", "Bearer operators"}
	resp, data := get("?range="+part+"&content_type=text/plain", token...)
	if sum := sha256.Sum256(data); resp.StatusCode != 200 || hex.EncodeToString(sum[:]) != ref.SHA256 ||
		resp.Header.Get("Content-Type") != "text/plain" {
		s.t.Errorf("%s, %s, %d bytes of %d", resp.Status, resp.Header.Get("Content-Type"), len(data), ref.Bytes)
	}
	for _, c := range []struct {
		query, head string
		status      int
		from, to    int64 // of the blob
		header      string
	}{
		{"?range=" + part, "bytes=3-10", 206, 3, 11, fmt.Sprintf("bytes 3-10/%d", ref.Bytes)},
		{"?range=" + part, "bytes=-5", 206, ref.Bytes - 5, ref.Bytes,
			fmt.Sprintf("bytes %d-%d/%d", ref.Bytes-5, ref.Bytes-1, ref.Bytes)},
		{"?range=" + part, fmt.Sprintf("bytes=%d-", ref.Bytes), 416, 0, 0, fmt.Sprintf("bytes */%d", ref.Bytes)},
		{"", "bytes=" + part, 206, 0, ref.Bytes, ""},
	} {
		resp, got := get(c.query, append(token, "Range", c.head)...)
		if resp.StatusCode != c.status || c.status == 206 && string(got) != string(data[c.from:c.to]) ||
			!strings.HasPrefix(resp.Header.Get("Content-Range"), c.header) {
			s.t.Errorf("%s with Range: %s: %s, %s, %d bytes", c.query, c.head, resp.Status, resp.Header.Get("Content-Range"),
				len(got))
		}
	}
	if resp, text := get("?range=0-99999999999", token...); resp.StatusCode != 416 ||
		!strings.Contains(string(text), `{"error":"the range ends at byte 99999999999`) {
		s.t.Errorf("a range beyond the end: %s %s", resp.Status, text)
	}
	if resp, _ := get("?range=5-1", token...); resp.StatusCode != 400 {
		s.t.Errorf("a range that is none: %s", resp.Status)
	}
	// As docs/guides/large-payloads.md has it.
	sql := one[string](s, `SELECT substring(blobs.data, ref.first + 1, ref.bytes)
		FROM (SELECT properties.output.$blob.object.:String AS object, properties.output.$blob.range.:`+"`Array(Nullable(Int64))`"+`[1] AS first, properties.output.$blob.bytes.:Int64 AS bytes
			FROM events WHERE properties.output.$blob.sha256.:String = {sum:String} LIMIT 1) AS ref
		JOIN (SELECT _path, data FROM s3({url:String}, {key:String}, {secret:String}, 'RawBLOB', 'data String')) AS blobs ON endsWith(blobs._path, ref.object)`,
		named("sum", ref.SHA256), named("url", s.minio.Endpoint()+"/penstock/"+ref.Object), named("key", s.minio.AccessKey()),
		named("secret", s.minio.SecretKey()))
	if sql != string(data) {
		s.t.Errorf("SQL gives %d bytes, want %d", len(sql), len(data))
	}
}
