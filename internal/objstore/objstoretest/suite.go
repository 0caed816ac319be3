// Package objstoretest is the conformance suite for object stores. A store that passes it can hold Penstock's objects,
// blobs and claims.
package objstoretest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// Test runs the suite. open returns how to reach a bucket that does not exist yet, a different one for each call.
func Test(t *testing.T, open func(t *testing.T) objstore.Options) {
	for _, c := range []struct {
		name string
		test func(*testing.T, objstore.Options, *objstore.Bucket)
	}{
		{"PutGet", testPutGet},
		{"Keys", testKeys},
		{"PutIsOnce", testPutIsOnce},
		{"OnePutWins", testOnePutWins},
		{"LargeObject", testLargeObject},
		{"GetRange", testGetRange},
		{"NotFound", testNotFound},
		{"List", testList},
		{"ListPages", testListPages},
		{"Claim", testClaim},
		{"ClaimNote", testClaimNote},
		{"WrongETag", testWrongETag},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // claims wait for their expiry
			opts := open(t)
			b := objstore.Open(opts)
			for i := range 2 {
				if err := b.Create(t.Context()); err != nil {
					t.Fatalf("create the bucket, call %d: %v", i, err)
				}
			}
			c.test(t, opts, b)
		})
	}
}

// meta is the metadata of an object with this body.
func meta(body string) pipeline.Meta {
	sum := sha256.Sum256([]byte(body))
	return pipeline.Meta{Schema: 1, Rows: 3, FirstSeq: 7, FirstReceived: 1795348800123, LastReceived: 1795348800456,
		SHA256: hex.EncodeToString(sum[:])}
}

func put(t *testing.T, b *objstore.Bucket, key, body string) pipeline.Object {
	t.Helper()
	o, err := b.Put(t.Context(), key, strings.NewReader(body), int64(len(body)), meta(body))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func get(t *testing.T, b *objstore.Bucket, key string) (pipeline.Object, string) {
	t.Helper()
	o, r, err := b.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	body, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read %s: %v", key, err)
	}
	return o, string(body)
}

func testPutGet(t *testing.T, _ objstore.Options, b *objstore.Bucket) {
	const key, body = "events/dt=2026-11-22/hr=03/x.parquet", "some bytes"
	written := put(t, b, key, body)
	read, text := get(t, b, key)
	if text != body {
		t.Errorf("got the body %q, want %q", text, body)
	}
	if read.ETag == "" || strings.Contains(read.ETag, `"`) {
		t.Errorf("got the ETag %q, want one without quotes", read.ETag)
	}
	head, err := b.Head(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]pipeline.Object{"Put": written, "Get": read, "Head": head} {
		if o.Key != key || o.Meta != meta(body) || o.Size != int64(len(body)) || o.ETag != read.ETag {
			t.Errorf("%s: got %+v, want key %s, size %d, ETag %s, %+v", name, o, key, len(body), read.ETag, meta(body))
		}
		if age := time.Since(o.Modified).Abs(); age > time.Minute {
			t.Errorf("%s: the object is %s old", name, age)
		}
	}
}

// TestControlCharacters checks keys that XML has no place for. A store has to know encoding-type=url for them: S3, R2
// and MinIO do, fakes do not.
func TestControlCharacters(t *testing.T, open func(t *testing.T) objstore.Options) {
	b := objstore.Open(open(t))
	if err := b.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	testStoredKeys(t, b, []string{"events/\x01\x1b]0;x\x07.ndjson.zst", "events/a.ndjson.zst"})
}

func testKeys(t *testing.T, _ objstore.Options, b *objstore.Bucket) {
	testStoredKeys(t, b, []string{
		"events/dt=2026-11-22/hr=03/a b+ü%.parquet",
		"events/" + strings.Repeat("x", 200) + "/" + strings.Repeat("y", 200) + ".parquet",
		"events/a%2Fb&c=d,e;f:g@h$.ndjson.zst",
		"events/a+b c.ndjson.zst",
	})
}

func testStoredKeys(t *testing.T, b *objstore.Bucket, keys []string) {
	t.Helper()
	for _, key := range keys {
		put(t, b, key, key)
		if _, body := get(t, b, key); body != key {
			t.Errorf("under %q: got %q", key, body)
		}
	}
	slices.Sort(keys)
	if got := list(t, b, "events/", "", ""); !slices.Equal(got, keys) {
		t.Errorf("listed %q, want %q", got, keys)
	}
	if got := list(t, b, "events/", keys[0], ""); !slices.Equal(got, keys[1:]) {
		t.Errorf("listed %q after %q, want %q", got, keys[0], keys[1:])
	}
}

// A key is written once. The same object again succeeds, a different one is a conflict and changes nothing.
func testPutIsOnce(t *testing.T, _ objstore.Options, b *objstore.Bucket) {
	const key = "events/k.parquet"
	for i, body := range []string{"one", "one", "two"} {
		_, err := b.Put(t.Context(), key, strings.NewReader(body), 3, meta(body))
		c, conflict := errors.AsType[pipeline.ConflictError](err)
		if want := body != "one"; conflict != want || (err != nil) != want {
			t.Errorf("put %d of %q: got %v, want a conflict: %v", i, body, err, want)
		}
		if conflict && c.Found.Meta != meta("one") {
			t.Errorf("put %d of %q: the conflict is with %+v, want %+v", i, body, c.Found.Meta, meta("one"))
		}
	}
	if _, body := get(t, b, key); body != "one" {
		t.Errorf("got the body %q, want the first", body)
	}
}

func testOnePutWins(t *testing.T, _ objstore.Options, b *objstore.Bucket) {
	const key, writers = "events/race.parquet", 8
	var mu sync.Mutex
	var winners []string
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			body := fmt.Sprint("body ", i)
			for { // a store may answer 409 while another PUT runs
				_, err := b.Put(t.Context(), key, strings.NewReader(body), int64(len(body)), meta(body))
				if _, conflict := errors.AsType[pipeline.ConflictError](err); conflict {
					return
				}
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					winners = append(winners, body)
					return
				}
				if retry.ClassOf(err) != retry.Outage || retry.Sleep(t.Context(), 10*time.Millisecond) != nil {
					t.Errorf("put of %q: %v", body, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if _, body := get(t, b, key); len(winners) != 1 || winners[0] != body {
		t.Errorf("PUTs that succeeded: %q; the object is %q", winners, body)
	}
}

func testLargeObject(t *testing.T, _ objstore.Options, b *objstore.Bucket) {
	body := strings.Repeat("0123456789abcdef", 2<<20) // 32 MiB
	put(t, b, "events/large.parquet", body)
	o, got := get(t, b, "events/large.parquet")
	if o.Size != int64(len(body)) || !bytes.Equal([]byte(got), []byte(body)) {
		t.Errorf("got size %d and %d bytes, want %d", o.Size, len(got), len(body))
	}
	r, err := b.GetRange(t.Context(), "events/large.parquet", 16<<20+3, 16<<20+6)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if text, err := io.ReadAll(r); err != nil || string(text) != "3456" {
		t.Errorf("a range in the middle: got %q, %v; want 3456", text, err)
	}
}

func testGetRange(t *testing.T, _ objstore.Options, b *objstore.Bucket) {
	const key, body = "blobs/events/dt=2026-11-22/hr=03/x.blobs", "0123456789"
	put(t, b, key, body)
	for _, c := range []struct {
		first, last int64
		want        string // empty: an error
	}{{0, 9, body}, {3, 3, "3"}, {8, 9, "89"}, {8, 10, ""}, {10, 11, ""}} {
		r, err := b.GetRange(t.Context(), key, c.first, c.last)
		if c.want == "" {
			if err == nil {
				r.Close()
			}
			if err == nil || retry.ClassOf(err) != retry.Permanent {
				t.Errorf("bytes %d-%d of 10: got %v, want a permanent error", c.first, c.last, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("bytes %d-%d: %v", c.first, c.last, err)
		}
		text, err := io.ReadAll(r)
		if r.Close(); err != nil || string(text) != c.want {
			t.Errorf("bytes %d-%d: got %q, %v; want %q", c.first, c.last, text, err, c.want)
		}
	}
}

func testNotFound(t *testing.T, opts objstore.Options, b *objstore.Bucket) {
	put(t, b, "events/x.parquet", "x")
	for name, ask := range map[string]func() error{
		"Get":      func() error { _, _, err := b.Get(t.Context(), "events/x.parquetx"); return err },
		"GetRange": func() error { _, err := b.GetRange(t.Context(), "events/y", 0, 1); return err },
		"Head":     func() error { _, err := b.Head(t.Context(), "events/y"); return err },
	} {
		if err := ask(); !errors.Is(err, objstore.ErrNotFound) || retry.ClassOf(err) != retry.Permanent {
			t.Errorf("%s of an object that does not exist: got %v, class %s; want ErrNotFound, permanent",
				name, err, retry.ClassOf(err))
		}
	}
	if err := b.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
	opts.Bucket += "-missing"
	if err := objstore.Open(opts).Ping(t.Context()); err == nil {
		t.Error("ping of a bucket that does not exist: no error")
	}
}

func list(t *testing.T, b *objstore.Bucket, prefix, after, before string) (keys []string) {
	t.Helper()
	err := b.List(t.Context(), prefix, after, before, func(page []pipeline.Object) error {
		for _, o := range page {
			keys = append(keys, o.Key)
			if o.Size == 0 || o.ETag == "" || strings.Contains(o.ETag, `"`) || time.Since(o.Modified).Abs() > time.Minute {
				t.Errorf("listed %+v, want size, ETag without quotes, and a time within the last minute", o)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func testList(t *testing.T, _ objstore.Options, b *objstore.Bucket) {
	for _, key := range []string{"e/1", "e/2", "e/2=/x", "e/2x", "e/3", "f/1", "d/1"} {
		put(t, b, key, key)
	}
	for _, c := range []struct{ prefix, after, before, want string }{
		{"e/", "", "", "e/1 e/2 e/2=/x e/2x e/3"},
		{"", "", "", "d/1 e/1 e/2 e/2=/x e/2x e/3 f/1"},
		{"e/2", "", "", "e/2 e/2=/x e/2x"},
		{"e/", "e/2", "", "e/2=/x e/2x e/3"},
		{"e/", "e/20", "", "e/2=/x e/2x e/3"},
		{"e/", "", "e/2x", "e/1 e/2 e/2=/x"},
		{"e/", "e/1", "e/3", "e/2 e/2=/x e/2x"},
		{"e/", "e/3", "", ""},
		{"g/", "", "", ""},
	} {
		if got := strings.Join(list(t, b, c.prefix, c.after, c.before), " "); got != c.want {
			t.Errorf("prefix %q, after %q, before %q: got %q, want %q", c.prefix, c.after, c.before, got, c.want)
		}
	}
	enough := errors.New("enough")
	err := b.List(t.Context(), "e/", "", "", func([]pipeline.Object) error { return enough })
	if !errors.Is(err, enough) {
		t.Errorf("the callback's error: got %v", err)
	}
}

func testListPages(t *testing.T, _ objstore.Options, b *objstore.Bucket) {
	const n = 1100 // a page has 1000 at most
	var wg sync.WaitGroup
	for from := range 4 {
		wg.Go(func() {
			for i := from; i < n; i += 4 {
				key := fmt.Sprintf("events/%04d", i)
				if _, err := b.Put(t.Context(), key, strings.NewReader("x"), 1, meta("x")); err != nil {
					t.Errorf("put %s: %v", key, err)
					return
				}
			}
		})
	}
	wg.Wait()
	keys := list(t, b, "events/", "events/0009", "")
	for i, key := range keys {
		if want := fmt.Sprintf("events/%04d", i+10); key != want {
			t.Fatalf("key %d is %s, want %s", i, key, want)
		}
	}
	if len(keys) != n-10 {
		t.Errorf("listed %d keys, want %d", len(keys), n-10)
	}
}

// take waits until the claim can be had.
func take(t *testing.T, b *objstore.Bucket, name, owner string, ttl time.Duration) *objstore.Claim {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	for {
		c, ok, err := b.Claim(ctx, name, owner, ttl)
		if err != nil {
			t.Fatalf("claim for %s: %v", owner, err)
		}
		if ok {
			return c
		}
		if retry.Sleep(ctx, 100*time.Millisecond) != nil {
			t.Fatalf("%s cannot have the claim", owner)
		}
	}
}

func testClaim(t *testing.T, _ objstore.Options, b *objstore.Bucket) {
	var mu sync.Mutex
	var held []*objstore.Claim
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			c, ok, err := b.Claim(t.Context(), "sweep", fmt.Sprint(i), 2*time.Second)
			if err != nil {
				t.Error(err)
			}
			if ok {
				mu.Lock()
				defer mu.Unlock()
				held = append(held, c)
			}
		})
	}
	wg.Wait()
	if len(held) != 1 {
		t.Fatalf("%d hold the claim, want 1", len(held))
	}
	if ok, err := held[0].Renew(t.Context()); !ok || err != nil {
		t.Errorf("renew: %v, %v", ok, err)
	}
	if err := held[0].Release(t.Context()); err != nil {
		t.Error(err)
	}
	first, ok, err := b.Claim(t.Context(), "sweep", "first", time.Second)
	if !ok || err != nil {
		t.Fatalf("claim after a release: %v, %v", ok, err)
	}
	take(t, b, "sweep", "second", time.Minute) // when the first has expired
	other, ok, err := b.Claim(t.Context(), "sweep", "third", time.Minute)
	if ok || err != nil {
		t.Fatalf("a claim that another holds: %v, %v", ok, err)
	}
	if got := other.Holder(); !strings.HasPrefix(got, "second, since 20") ||
		!strings.Contains(got, "; if it was killed, its claim expires at 20") {
		t.Errorf("holder %q, want the second's name and times", got)
	}
	if ok, err := first.Renew(t.Context()); ok || err != nil {
		t.Errorf("renew of a claim that was lost: %v, %v; want false", ok, err)
	}
	if err := first.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if _, ok, _ := b.Claim(t.Context(), "sweep", "third", time.Minute); ok {
		t.Error("the former holder has released a claim that another holds")
	}
}

// The note outlives its writer: released, expired, or killed before it could write more.
func testClaimNote(t *testing.T, _ objstore.Options, b *objstore.Bucket) {
	c := take(t, b, "pass", "first", time.Second)
	if c.Note() != "" {
		t.Errorf("a new claim has the note %q", c.Note())
	}
	long := strings.Repeat("\x01<é", 300) // as long as a key, and longer in JSON
	c.SetNote(long)
	if err := c.Expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	c = take(t, b, "pass", "second", time.Second)
	if c.Note() != long {
		t.Errorf("after expiry: got the note %q, want %q", c.Note(), long)
	}
	c.SetNote("progress")
	if ok, err := c.Renew(t.Context()); !ok || err != nil {
		t.Fatalf("renew: %v, %v", ok, err)
	}
	c.SetNote("never written") // its holder is killed
	lost := c
	c = take(t, b, "pass", "third", time.Minute)
	if c.Note() != "progress" {
		t.Errorf("after the holder was killed: got the note %q, want progress", c.Note())
	}
	if err := lost.Expire(t.Context()); err != nil {
		t.Error(err)
	}
	if ok, err := c.Renew(t.Context()); !ok || err != nil || c.Note() != "progress" {
		t.Errorf("after the former holder tried to expire the claim: %v, %v, note %q", ok, err, c.Note())
	}
}
