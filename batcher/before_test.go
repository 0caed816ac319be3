package batcher

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/pipeline"
)

// before is a folder written by the first version of the log and its blobs: by a receiver without a bucket that was
// killed. Two of its three segments are sealed and one is active; two have blob files. "carried" has segments of failed
// writes: the blobs of a record are beside an earlier segment, once beside one without records.
const before = "testdata/before"

// sentEvent is an event as a client sent it.
type sentEvent struct {
	ID         string          `json:"event_id"`
	Name       string          `json:"name"`
	User       string          `json:"user_id"`
	Properties json.RawMessage `json:"properties"`
}

func (e sentEvent) String() string {
	return e.ID + " " + e.Name + " " + e.User + " " + string(e.Properties)
}

func sentBefore(t *testing.T) map[string]sentEvent {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(before, "events.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []sentEvent
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	sent := map[string]sentEvent{}
	for _, e := range all {
		e.Properties = canonical(t, e.Properties, nil)
		sent[e.ID] = e
	}
	return sent
}

// difference lists the events that two sets do not share.
func difference(want, got map[string]sentEvent) string {
	var out strings.Builder
	for id, w := range want {
		if g, ok := got[id]; !ok {
			fmt.Fprintf(&out, "- %s\n", id)
		} else if fmt.Sprint(g) != fmt.Sprint(w) {
			fmt.Fprintf(&out, "- %.300s\n+ %.300s\n", fmt.Sprint(w), fmt.Sprint(g))
		}
	}
	for id := range got {
		if _, ok := want[id]; !ok {
			fmt.Fprintf(&out, "+ %s\n", id)
		}
	}
	return out.String()
}

// canonical writes JSON again, with the values of blobs in place of their references.
func canonical(t *testing.T, doc []byte, objects map[string][]byte) []byte {
	t.Helper()
	var props map[string]any
	if err := json.Unmarshal(doc, &props); err != nil {
		t.Fatalf("%v in %s", err, doc)
	}
	for name, value := range props {
		held, _ := value.(map[string]any)
		if held["$blob"] == nil {
			continue
		}
		text, _ := json.Marshal(held["$blob"])
		var ref pipeline.BlobRef
		if err := json.Unmarshal(text, &ref); err != nil {
			t.Fatal(err)
		}
		object := objects[ref.Object]
		if ref.Range[1] >= int64(len(object)) {
			t.Fatalf("%s refers to bytes %v of %s, which has %d", name, ref.Range, ref.Object, len(object))
		}
		data := object[ref.Range[0] : ref.Range[1]+1]
		switch ref.Kind {
		case pipeline.BlobText:
			props[name] = string(data)
		case pipeline.BlobJSON:
			var v any
			if err := json.Unmarshal(data, &v); err != nil {
				t.Fatal(err)
			}
			props[name] = v
		}
	}
	text, _ := json.Marshal(props)
	return text
}

// readObjects is the events of objects, as their clients sent them.
func readObjects(t *testing.T, objects map[string][]byte) map[string]sentEvent {
	t.Helper()
	got := map[string]sentEvent{}
	for key, object := range objects {
		format, ok := pipeline.FormatOf(key)
		if !ok {
			continue // blobs
		}
		dec, err := codec.NewDecoder(bytes.NewReader(object), int64(len(object)), format)
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		events, err := dec.Decode(nil, codec.Limit{Rows: 1 << 20, Bytes: 1 << 30})
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		for _, e := range events {
			id := e.ID.String()
			if _, twice := got[id]; twice {
				t.Errorf("event %s is stored twice", id)
			}
			props := canonical(t, e.Properties, objects)
			got[id] = sentEvent{id, string(e.Name), string(e.UserID), props}
		}
	}
	return got
}

// replayFolder runs a batcher over a folder until nothing waits in it.
func replayFolder(t *testing.T, dir string) *fakeStore {
	t.Helper()
	opts, store := options(), newStore()
	opts.Dir = dir
	b := New(pipeline.Events, opts, store, slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry())
	if err := b.Open(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Run(ctx); err != nil {
		t.Fatal(err)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range names {
		if f.Name() != "SEQ" {
			t.Errorf("%s is left", f.Name())
		}
	}
	if s := b.Stats(); s.Disk != 0 {
		t.Errorf("stats %+v at the end", s)
	}
	return store
}

// copyBefore copies a folder, for a batcher to work in.
func copyBefore(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(before, name))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Folders that an earlier version has left are replayed completely, with their blobs.
func TestFoldersOfBefore(t *testing.T) {
	want := sentBefore(t)
	for _, name := range []string{"parquet", "ndjson"} {
		store := replayFolder(t, copyBefore(t, name))
		if diff := difference(want, readObjects(t, store.objects)); diff != "" {
			t.Errorf("%s (-sent +stored):\n%s", name, diff)
		}
		// The process may have died behind a PUT: then the object is there, byte by byte.
		for key, object := range store.objects {
			stored, err := os.ReadFile(filepath.Join(before, "objects", filepath.Base(key)))
			if err != nil || !bytes.Equal(stored, object) && name == "ndjson" {
				t.Errorf("%s is not the object that the earlier version would have stored: %v", key, err)
			}
		}
	}
}

// A torn tail is the last write's and costs nothing else.
func TestTornFolderOfBefore(t *testing.T) {
	for _, cut := range []int64{1, 37, 200} {
		dir := copyBefore(t, "parquet")
		path := filepath.Join(dir, "0000000000000003.wal")
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, st.Size()-cut); err != nil {
			t.Fatal(err)
		}
		want := sentBefore(t)
		for _, last := range []string{"16", "17", "18"} { // one request
			delete(want, "01930000-0000-7000-8000-0000000000"+last)
		}
		if diff := difference(want, readObjects(t, replayFolder(t, dir).objects)); diff != "" {
			t.Errorf("%d bytes cut (-sent +stored):\n%s", cut, diff)
		}
	}
}

// An earlier version wrote some records into a later segment than their blobs.
func TestCarriedRecordsOfBefore(t *testing.T) {
	store := replayFolder(t, copyBefore(t, "carried"))
	store.want(t, 4)
	if len(store.broken) > 0 {
		t.Errorf("broken references: %v", store.broken)
	}
}

// Objects that an earlier version has stored are read.
func TestObjectsOfBefore(t *testing.T) {
	want := sentBefore(t)
	names, err := os.ReadDir(filepath.Join(before, "objects"))
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{".parquet", ".ndjson.zst"} {
		objects := map[string][]byte{}
		for _, f := range names {
			b, err := os.ReadFile(filepath.Join(before, "objects", f.Name()))
			if err != nil {
				t.Fatal(err)
			}
			stamp, _, _ := strings.Cut(f.Name(), "-")
			switch {
			case strings.HasSuffix(f.Name(), format):
				objects[f.Name()] = b
			case strings.HasSuffix(f.Name(), ".blobs"):
				at, err := time.Parse("20060102T150405.000Z", stamp)
				if err != nil {
					t.Fatal(err)
				}
				objects[path.Join(path.Dir(pipeline.BlobKey(pipeline.Key{Prefix: "events/", Time: at})), f.Name())] = b
			}
		}
		got := readObjects(t, objects)
		if diff := difference(want, got); diff != "" {
			t.Errorf("%s (-sent +decoded):\n%s", format, diff)
		}
		if len(got) != 18 {
			t.Errorf("%s: %d events, want 18", format, len(got))
		}
	}
}
