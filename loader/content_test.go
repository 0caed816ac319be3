package loader

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/codec/foreign"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/bubble"
)

func TestForeignFile(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		key := w.putFile("events/in.ndjson", strings.Repeat(`{"event_id":1,"name":"n"}`+"\n", 25)+"no json\n{}\n")
		runUntilSettled(t, w.loader(t, "a"), w)
		if e := w.ledger[key]; e.State != pipeline.Loaded || e.Rows != 26 || len(e.Refused) != 1 || e.Refused[0] != 25 {
			t.Errorf("ledger: %+v", e)
		}
		for row := range 27 {
			if n := w.count(key, row); n != 1 && row != 25 {
				t.Errorf("row %d is there %d times", row, n)
			}
		}
		if len(w.kept) != 1 || w.kept[0].Code != "invalid_json" || string(w.kept[0].Raw) != "no json" || w.kept[0].Row != 25 {
			t.Errorf("kept %+v", w.kept)
		}
	})
}

// A file that is not data is settled, and leaves no entry in the ledger.
func TestNotData(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		for _, key := range []string{"events/_SUCCESS", "events/_temporary/part-0.ndjson", "events/.x", "events/a_$folder$",
			"events/a/"} {
			w.putFile(key, "{}")
		}
		runUntilSettled(t, w.loader(t, "a"), w)
		if len(w.ledger) > 0 || len(w.rows) > 0 || len(w.kept) > 0 {
			t.Errorf("%d in the ledger, %d rows, %d failures", len(w.ledger), len(w.rows), len(w.kept))
		}
	})
}

// If a retry cannot succeed, an object is given up at once.
func TestGivenUpAtOnce(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		for key, want := range map[string]struct{ text, code string }{
			"events/notes.txt":    {"hello", "unknown_format"},
			"events/words.ndjson": {strings.Repeat("hello\n", 50), "no_valid_rows"},
			"events/many.ndjson":  {strings.Repeat("hello\n", 5000), "no_valid_rows"},
			"events/a.zip":        {"PK\x03\x04", "unsupported_compression"},
		} {
			w.putFile(key, want.text)
			runUntilSettled(t, w.loader(t, "a"), w)
			if e := w.ledger[key]; e.State != pipeline.Dead || e.Code != want.code || e.Failures != 1 {
				t.Errorf("%s: %s %s after %d failures, want dead after one: %s", key, e.State, e.Code, e.Failures, want.code)
			}
		}
		if len(w.letters) != 4 || len(w.kept) != 4 {
			t.Errorf("%d letters and %d failures, want one each", len(w.letters), len(w.kept))
		}
	})
}

// A file whose rows the table all rejects is not a file without rows: its rows are in errors.
func TestForeignFileAllRefusedByTheTable(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		w.bad = map[string]bool{"bad": true}
		key := w.putFile("events/in.ndjson", "{\"name\":\"bad\",\"a\":1}\n{\"name\":\"bad\",\"a\":2}\n")
		runUntilSettled(t, w.loader(t, "a"), w)
		if e := w.ledger[key]; e.State != pipeline.Dead || e.Code != "no_valid_rows" {
			t.Errorf("ledger: %s %s", e.State, e.Code)
		}
	})
}

// A loader is killed midway, and the next one reads the file differently. The chunks end elsewhere, yet every row is
// there once.
func TestReadingChanges(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		for kill := range 8 {
			w := newWorld()
			key := w.putFile("events/in.ndjson", strings.Repeat(`{"event_id":1,"name":"n","v":"x"}`+"\n", 55))
			first := w.loader(t, "a")
			calls := 0
			w.fault = func(call string) (error, bool) {
				if call == "insert" {
					if calls++; calls > kill {
						return retry.As(retry.Outage, errors.New("killed")), false
					}
				}
				return nil, false
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			first.Run(ctx)
			cancel()
			w.fault = nil
			second := w.loader(t, "b")
			second.opts.ChunkRows = 7
			second.parts.Source.Imports = foreign.Mappings{{Prefix: "events/", Project: "p"}}
			runUntilSettled(t, second, w)
			if e := w.ledger[key]; e.State != pipeline.Loaded || e.Rows != 55 {
				t.Fatalf("killed in insert %d: %+v", kill, e)
			}
			for row := range 55 {
				if n := w.count(key, row); n != 1 {
					t.Fatalf("killed in insert %d: row %d is there %d times", kill, row, n)
				}
			}
		}
	})
}

func TestFilesByServer(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		l := w.loader(t, "a")
		s := &server{lines: 25, version: "26.7"}
		l.parts.Source.Files = s
		key := w.putFile("events/a.parquet", "PAR1\x00...PAR1")
		runUntilSettled(t, l, w)
		if e := w.ledger[key]; e.State != pipeline.Loaded || e.Rows != 25 || s.asked != 1 ||
			!strings.Contains(e.Reading, "26.7") {
			t.Errorf("%d times decoded, ledger: %+v", s.asked, e)
		}
		for row := range 25 {
			if n := w.count(key, row); n != 1 {
				t.Errorf("row %d is there %d times", row, n)
			}
		}
	})
}

// The file's own fault counts; an unreachable server only pauses the loader.
func TestFilesByServerFail(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		for code, want := range map[string]struct {
			final    bool
			failures uint32
		}{"unsupported_key": {true, 1}, "unreadable_object": {false, 3}, "store_unreachable": {false, 3}} {
			w := newWorld()
			l := w.loader(t, "a")
			l.opts.Attempts = 3
			l.parts.Source.Files = &server{lines: 5,
				err: &pipeline.FileError{Code: code, Final: want.final, Err: retry.As(retry.Permanent, io.ErrUnexpectedEOF)}}
			key := w.putFile("events/a.parquet", "PAR1\x00...PAR1")
			runUntilSettled(t, l, w)
			if e := w.ledger[key]; e.State != pipeline.Dead || e.Code != code || e.Failures != want.failures || len(w.rows) > 0 {
				t.Errorf("%s: ledger %+v, %d rows", code, e, len(w.rows))
			}
		}
		w := newWorld()
		l := w.loader(t, "a")
		s := &server{lines: 5, err: retry.As(retry.Outage, io.ErrUnexpectedEOF)}
		s.during = func() {
			if s.asked == 4 {
				s.err = nil
			}
		}
		l.parts.Source.Files = s
		key := w.putFile("events/a.parquet", "PAR1\x00...PAR1")
		runUntilSettled(t, l, w)
		if e := w.ledger[key]; e.State != pipeline.Loaded || e.Failures != 0 {
			t.Errorf("ledger %+v", e)
		}
	})
}

// If a file is overwritten while the server reads it, neither content is loaded.
func TestFileOverwrittenWhileDecoded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		l := w.loader(t, "a")
		l.opts.Attempts = 1
		l.parts.Source.Files = &server{lines: 5, during: func() { w.mu.Lock(); w.etag = "f"; w.mu.Unlock() }}
		key := w.putFile("events/a.parquet", "PAR1\x00...PAR1")
		runUntilSettled(t, l, w)
		if e := w.ledger[key]; e.Code != "object_overwritten" || len(w.rows) > 0 {
			t.Errorf("ledger %+v, %d rows", e, len(w.rows))
		}
	})
}

// The server may fail because it read parts of two files. The new one is loaded.
func TestErrorOfOverwrittenFile(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		l := w.loader(t, "a")
		s := &server{lines: 5, err: &pipeline.FileError{Code: "unreadable_object", Final: true, Err: io.ErrUnexpectedEOF}}
		s.during = func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.etag = "f"; s.asked > 1 {
				s.err = nil
			}
		}
		l.parts.Source.Files = s
		key := w.putFile("events/a.parquet", "PAR1\x00...PAR1")
		runUntilSettled(t, l, w)
		if e := w.ledger[key]; e.State != pipeline.Loaded || e.Rows != 5 || e.Failures != 1 {
			t.Errorf("ledger %+v, want it loaded after one failure", e)
		}
	})
}

// A proxy may answer with a page of its own and status 200. That says nothing about our object.
func TestPageOfProxy(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		key := w.put(t, 5, noon, 1)
		object, meta := w.objects[key], w.metas[key]
		w.objects[key], w.metas[key] = []byte("<html>Bad Gateway</html>"), pipeline.Meta{}
		gets := 0
		w.fault = func(call string) (error, bool) {
			if call == "get" {
				if gets++; gets == 3 {
					w.objects[key], w.metas[key] = object, meta
				}
			}
			return nil, false
		}
		runUntilSettled(t, w.loader(t, "a"), w)
		if e := w.ledger[key]; e.State != pipeline.Loaded || e.Rows != 5 || e.Failures != 2 {
			t.Errorf("ledger %+v, want it loaded after two failures", e)
		}
	})
}

// An object that no attempt can load is given up at once: its metadata is wrong, or its bytes are not what was written.
func TestPermanentFaults(t *testing.T) {
	sumOf := func(b []byte) string {
		sum := sha256.Sum256(b)
		return hex.EncodeToString(sum[:])
	}
	for name, c := range map[string]struct {
		change func(w *world, key string, m *pipeline.Meta)
		want   string // code
	}{
		"sha256": {func(_ *world, _ string, m *pipeline.Meta) { m.SHA256 = sumOf(nil) }, "object_damaged"},
		"bytes":  {func(w *world, key string, _ *pipeline.Meta) { w.objects[key][20] ^= 1 }, "object_damaged"},
		"later schema": {func(_ *world, _ string, m *pipeline.Meta) { m.Schema = pipeline.SchemaVersion + 1 },
			"unsupported_schema"},
		"no schema": {func(_ *world, _ string, m *pipeline.Meta) { m.Schema = 0 }, "unsupported_schema"},
		"rows":      {func(_ *world, _ string, m *pipeline.Meta) { m.Rows++ }, "row_count"},
		"written damaged": {func(w *world, key string, m *pipeline.Meta) {
			w.objects[key] = w.objects[key][:len(w.objects[key])-9]
			m.SHA256 = sumOf(w.objects[key])
		}, "unreadable_object"},
		"empty": {func(w *world, key string, m *pipeline.Meta) {
			w.objects[key], m.SHA256 = nil, sumOf(nil)
		}, "unreadable_object"},
		"metadata": {func(w *world, key string, _ *pipeline.Meta) {
			w.fault = func(call string) (error, bool) {
				if call != "get" {
					return nil, false
				}
				return &pipeline.FileError{Code: "invalid_metadata", Final: true,
					Err: retry.As(retry.Permanent, errors.New("metadata rows"))}, false
			}
		}, "invalid_metadata"},
	} {
		bubble.Test(t, func(t *testing.T) {
			w := newWorld()
			key := w.put(t, 5, noon, 1)
			meta := w.metas[key]
			c.change(w, key, &meta)
			w.metas[key] = meta
			runUntilSettled(t, w.loader(t, "a"), w)
			if e := w.ledger[key]; e.State != pipeline.Dead || e.Failures != 1 || e.Code != c.want || len(w.letters) != 1 {
				t.Errorf("%s: %s after %d failures, %s %q, %d letters; want dead after one, %s", name, e.State, e.Failures,
					e.Code, e.Error, len(w.letters), c.want)
			}
		})
	}
}

// Bytes that were damaged on their way are read again. A cut connection counts nothing.
func TestDamagedOnTheWay(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		for name, damage := range map[string]func(b []byte, nth int) []byte{
			"once":       func(b []byte, nth int) []byte { b[20] ^= byte(nth & 1); return b },
			"thrice":     func(b []byte, nth int) []byte { b[20] ^= byte(max(0, 4-nth)); return b },
			"cut at 100": func(b []byte, nth int) []byte { return b[:len(b)-100*(nth&1)] },
		} {
			w := newWorld()
			key := w.put(t, 50, noon, 1)
			gets := 0
			w.received = func(_ string, b []byte) []byte { gets++; return damage(b, gets) }
			runUntilSettled(t, w.loader(t, "a"), w)
			if e := w.ledger[key]; e.State != pipeline.Loaded || gets < 2 {
				t.Errorf("%s: read %d times, ledger %+v", name, gets, e)
			}
		}
	})
}

// One of our objects whose key has another suffix is given up at once.
func TestUnknownFormat(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		key := w.put(t, 5, noon, 1)
		renamed := strings.TrimSuffix(key, ".ndjson.zst") + ".orc"
		w.objects[renamed], w.metas[renamed] = w.objects[key], w.metas[key]
		w.notify(renamed)
		runUntilSettled(t, w.loader(t, "a"), w)
		if e := w.ledger[renamed]; e.State != pipeline.Dead || e.Code != "unknown_format" {
			t.Errorf("ledger %+v", e)
		}
	})
}

// A Source reads an object's events in order, and reports what it cannot read.
func TestSourceRead(t *testing.T) {
	w := newWorld()
	key := w.put(t, 25, noon, 1)
	w.putFile("events/a.orc", "ORC\x00...")
	w.putFile("events/notes.txt", "hello")
	broken := w.put(t, 25, noon+1, 1)
	w.objects[broken] = w.objects[broken][:len(w.objects[broken])/2]
	w.metas[broken] = pipeline.Meta{Rows: 25, SHA256: fmt.Sprintf("%x", sha256.Sum256(w.objects[broken]))}
	s := Source{Store: w, Dir: t.TempDir()}
	var rows []uint32
	o, err := s.Read(t.Context(), key, func(e *pipeline.Event) error { rows = append(rows, e.Row); return nil })
	if err != nil || o.Key != key || len(rows) != 25 || !slices.IsSorted(rows) {
		t.Errorf("object %+v, rows %v, error %v", o, rows, err)
	}
	stop := errors.New("enough")
	if _, err := s.Read(t.Context(), key, func(*pipeline.Event) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error %v, want that of the callback", err)
	}
	for key, want := range map[string]string{"events/gone.parquet": "no such object",
		"events/a.orc":     "decoded by ClickHouse",
		"events/notes.txt": "notes.txt", broken: broken} {
		if _, err := s.Read(t.Context(), key, func(*pipeline.Event) error { return nil }); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q in it", key, err, want)
		}
	}
	s.Dir = "/nowhere/at/all"
	if _, err := s.Read(t.Context(), key, func(*pipeline.Event) error { return nil }); retry.ClassOf(err) != retry.Outage {
		t.Errorf("without a folder: %v is %s, want an outage", err, retry.ClassOf(err))
	}
}

// Rows of a file that are not valid events are passed on, not silently dropped.
func TestSourceReadRows(t *testing.T) {
	w := newWorld()
	key := w.putFile("events/in.ndjson", `{"name":"n"}`+"\nno json\n"+`{"name":"m"}`+"\n{}\n{\"name\":}\n")
	s := Source{Store: w, Dir: t.TempDir()}
	var rows []uint32
	rejected := map[uint32]string{}
	_, err := s.ReadRows(t.Context(), key,
		func(e *pipeline.Event) error { rows = append(rows, e.Row); return nil },
		func(r foreign.Rejected) error { rejected[r.Row] = r.Code + " " + string(r.Raw); return nil })
	want := map[uint32]string{1: "invalid_json no json", 4: `invalid_json {"name":}`}
	if err != nil || !slices.Equal(rows, []uint32{0, 2, 3}) || !maps.Equal(rejected, want) {
		t.Errorf("rows %v, rejected %v, want %v; error %v", rows, rejected, want, err)
	}
	stop := errors.New("enough")
	if _, err := s.ReadRows(t.Context(), key, func(*pipeline.Event) error { return nil },
		func(foreign.Rejected) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error %v, want that of the callback", err)
	}
}
