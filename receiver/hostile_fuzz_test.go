package receiver

import (
	"bytes"
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/penstock/penstock/internal/testing/intake"
)

// allocated is how many bytes f takes from the heap, whether it gives them back or not.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// windowed is a frame whose head names a window, and not how large the content is.
func windowed(t testing.TB, size int, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, zstd.WithWindowSize(size), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	for len(data) > 0 {
		n := min(len(data), 1+len(data)/2)
		if _, err := z.Write(data[:n]); err != nil {
			t.Fatal(err)
		}
		if err := z.Flush(); err != nil {
			t.Fatal(err)
		}
		data = data[n:]
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A frame may request a window of gigabytes. The receiver allows zstdMaxWindow and charges that.
func TestZstdWindowIsBounded(t *testing.T) {
	for _, c := range []struct{ window, status int }{{zstdMaxWindow / 2, 202}, {zstdMaxWindow, 202},
		{2 * zstdMaxWindow, 400}, {512 << 20, 400}} {
		body := windowed(t, c.window, []byte(one))
		r, s := newTest(nil)
		var a answer
		used := allocated(func() {
			a = serve(t, r, withKey(intake.PostReader("/v1/events", bytes.NewReader(body), "Content-Encoding", "zstd")))
		})
		if a.Status != c.status || c.status == 400 && (a.Error.Code != "invalid_encoding" || len(s.Events) != 0) {
			t.Errorf("window of %d bytes: %+v, want %d", c.window, a, c.status)
		}
		if used > 4*zstdMaxWindow {
			t.Errorf("window of %d bytes: %d bytes were taken for a body of %d", c.window, used, len(body))
		}
	}
}

// FuzzDecompress passes any bytes to the decompressors. Output and memory are bounded, however little was sent.
func FuzzDecompress(f *testing.F) {
	const limit = 64 << 10
	bomb := bytes.Repeat([]byte("x"), 4*limit)
	for _, e := range encoders[:5] {
		f.Add(e.encode([]byte(one)), uint8(0))
		f.Add(e.encode(bomb), uint8(0))
	}
	for i := range uint8(4) {
		f.Add([]byte(one), i)
	}
	f.Add(windowed(f, 512<<20, []byte(one)), uint8(2))
	r, _ := newTest(func(o *Options) { o.MaxDecoded = limit })
	names := []string{"gzip", "zstd", "deflate", "x-gzip"}
	f.Fuzz(func(t *testing.T, sent []byte, how uint8) {
		if how&4 != 0 { // or the fuzzer would hardly ever get through the checksum
			sent = encoders[how%5].encode(sent)
		}
		for _, name := range names {
			q := newRequest(r)
			q.reset(1795319112345)
			q.encoding = name
			q.sent = append(q.sent, sent...)
			var err error
			used := allocated(func() { err = q.decompress() })
			if len(q.body) > limit+1 || err == nil && len(q.body) > limit {
				t.Fatalf("%s: %d bytes out of %d, error %v; the limit is %d", name, len(q.body), len(sent), err, limit)
			}
			if most := uint64(3*zstdMaxWindow + 8*limit); used > most {
				t.Fatalf("%s: %d bytes of memory for %d, want at most %d", name, used, len(sent), most)
			}
			q.lease.Resize(0)
		}
	})
}

// FuzzCut cuts values out of events: what stays is JSON with a null at each hole,
// and no blob is larger than it says.
func FuzzCut(f *testing.F) {
	big := strings.Repeat("y", 90)
	f.Add([]byte(`{"name":"a","properties":{"a":[[["` + big + `"],"\u00e9\ud83d\ude00` + big + `"],{"b":{"c":"` + big +
		`"}} , 1 ]}}`))
	f.Add([]byte(`{"name":"a","p":"data:image/png;base64,` + strings.Repeat("QUJD", 30) + `"}`))
	f.Add([]byte(`[{"name":"a","p":{"q":["` + big + `","` + big + `"]}},{"name":"b","properties":{"\u0061":"` + big +
		`"}}]`))
	r, _ := newTest(func(o *Options) { o.BlobThreshold, o.MaxEvent, o.MaxDepth, o.MaxEvents = 48, 20000, 30, 20 })
	f.Fuzz(func(t *testing.T, b []byte) {
		q := newRequest(r)
		q.reset(1795319112345)
		q.project = append(q.project, "game"...)
		q.body = append(q.body, b...)
		if used := allocated(func() { q.decode(q.body) }); used > 4<<20+200*uint64(len(b)) {
			t.Errorf("%d bytes of memory for %d", used, len(b))
		}
		defer q.lease.Resize(0)
		for _, e := range q.events {
			if !json.Valid(e.Properties) {
				t.Fatalf("%q -> %q", b, e.Properties)
			}
		}
		for _, blob := range q.rows.Blobs {
			var out bytes.Buffer
			if err := blob.Write(&out); err != nil || int64(out.Len()) > blob.Size {
				t.Fatalf("a blob of %d bytes, %d were foreseen: %v", out.Len(), blob.Size, err)
			}
			if p := q.events[blob.Event].Properties; blob.At+4 > len(p) || string(p[blob.At:blob.At+4]) != "null" {
				t.Fatalf("hole at %d of %q", blob.At, p)
			}
		}
	})
}

// FuzzRedact redacts events: no dropped path is left, however it was written, and the rest is JSON.
func FuzzRedact(f *testing.F) {
	for _, doc := range []string{
		`{"email":"x","a":{"b":1,"c":[{"b":2}]}}`, `{"a.b":1,"a":{"b.x":2,"c":3},"\u0065mail":[1]}`,
		`{"h":["x",null,{"y":1}],"h.z":1}`,
		`{"x":"` + strings.Repeat("y", 200) + `","email":{"v":"` + strings.Repeat("z", 200) + `"}}`,
	} {
		f.Add([]byte(`{"name":"n","properties":`+doc+`}`), false)
		f.Add([]byte(`{"name":"n","user_id":"u",`+doc[1:]), true)
	}
	project := Project{Drop: []string{"properties.email", "properties.a.b", "user_id"}, Hash: []string{"properties.h"},
		Salt: salt}
	rows, _ := withProjects(f, nil, project)
	cut, _ := withProjects(f, func(o *Options) { o.BlobThreshold = 48 }, project)
	f.Fuzz(func(t *testing.T, b []byte, blobs bool) {
		r := rows
		if blobs {
			r = cut
		}
		q := newRequest(r)
		q.reset(1795319112345)
		q.key, q.tenant = Key{Project: "file"}, r.tenants.Project("file")
		q.project = append(q.project, "file"...)
		q.body = append(q.body, b...)
		if used := allocated(func() { q.decode(q.body) }); used > 4<<20+400*uint64(len(b)) {
			t.Errorf("%d bytes of memory for %d", used, len(b))
		}
		defer q.lease.Resize(0)
		for i := range q.events {
			e := &q.events[i]
			if len(e.UserID) > 0 {
				t.Errorf("%q: the user is %q", b, e.UserID)
			}
			var properties map[string]any
			if err := json.Unmarshal(e.Properties, &properties); err != nil {
				t.Fatalf("%q -> %q: %v", b, e.Properties, err)
			}
			for _, path := range []string{"email", "a.b"} {
				if holds(properties, path) {
					t.Errorf("%q: %s is left in %q", b, path, e.Properties)
				}
			}
		}
	})
}

// holds reports whether a path leads to a value, through keys with dots and through arrays.
func holds(v any, path string) bool {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if holds(e, path) {
				return true
			}
		}
	case map[string]any:
		for key, e := range v {
			if key == path || strings.HasPrefix(key, path+".") {
				return true
			}
			if rest, below := strings.CutPrefix(path, key+"."); below && holds(e, rest) {
				return true
			}
		}
	}
	return false
}
