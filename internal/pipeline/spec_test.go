package pipeline

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSpecs(t *testing.T) {
	if got := Specs(); len(got) != 2 || got[0] != Events || got[1] != Errors {
		t.Errorf("got %v, want events first", got)
	}
	for _, s := range Specs() {
		if got, err := SpecNamed(s.Name); got != s || err != nil {
			t.Errorf("named %s: %v, %v", s.Name, got, err)
		}
		for _, key := range []string{s.Prefix, s.Prefix + "x", s.Prefix + "dt=2026-11-22/"} {
			if got, err := SpecOf(key); got != s || err != nil {
				t.Errorf("of %s: %v, %v", key, got, err)
			}
		}
	}
	for _, key := range []string{"", "events", "x/events/y", "blobs/events/x", "Events/x"} {
		if got, err := SpecOf(key); err == nil || !strings.Contains(err.Error(), "events/ or errors/") {
			t.Errorf("%q: %v, %v", key, got, err)
		}
	}
	if got, err := SpecNamed("event"); err == nil || !strings.Contains(err.Error(), `"event"`) {
		t.Errorf("got %v, %v", got, err)
	}
}

// An identity is what the table's order has: a time that is not given is none that a resend could change.
func TestIdentity(t *testing.T) {
	id := NewUUIDv7(1)
	e := Event{ID: id, Project: []byte("p"), Name: []byte("n"), Timestamp: 5, ReceivedAt: 7, Seq: 3,
		UserID: []byte("u")}
	if diff := cmp.Diff(Identity{"p", "n", 5, id}, e.Identity()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	e.Timestamp = NoTime
	if got := e.Identity().Time; got != 0 {
		t.Errorf("without a time: %d, want 0", got)
	}
}

func TestLoadStates(t *testing.T) {
	for s := Loading; s <= Loaded; s++ {
		if got, err := ParseLoadState(s.String()); got != s || err != nil {
			t.Errorf("%s: got %s, %v", s, got, err)
		}
	}
	for _, name := range []string{"", "Loaded", "new", "loaded "} {
		if got, err := ParseLoadState(name); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: got %s, %v", name, got, err)
		}
	}
}

// Chunks go by their token: another generation, content or pipeline must not have the same.
func TestToken(t *testing.T) {
	l := Load{Key: "events/a", ETag: "e", Pipeline: "events", Generation: 2, Attempts: 7}
	if got, want := l.Token(), "events/a@e/events/2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	seen := map[string]Load{l.Token(): l}
	for _, change := range []func(*Load){func(l *Load) { l.Generation++ }, func(l *Load) { l.ETag = "f" },
		func(l *Load) { l.Pipeline = "errors" }, func(l *Load) { l.Key = "events/b" }} {
		other := l
		change(&other)
		if before, ok := seen[other.Token()]; ok {
			t.Errorf("%+v has the token of %+v", other, before)
		}
		seen[other.Token()] = other
	}
	l.Attempts, l.Failures, l.Loader = 8, 3, "x"
	if got, want := l.Token(), "events/a@e/events/2"; got != want {
		t.Errorf("another attempt: got %s, want %s", got, want)
	}
}

func TestDeadLetterOfALoad(t *testing.T) {
	first, last := time.Unix(1, 0), time.Unix(2, 0)
	l := Load{Key: "events/a", ETag: "e", Pipeline: "events", Generation: 2, State: Dead, Attempts: 7, Failures: 5,
		Code: "object_damaged", Error: "why", FirstFail: first, Finished: last, Rows: 9}
	want := DeadLetter{Key: "events/a", ETag: "e", Pipeline: "events", State: "dead", Code: "object_damaged", Reason: "why",
		Attempts: 7,
		Failures: 5, First: first, Last: last, Token: "events/a@e/events/2"}
	if diff := cmp.Diff(want, l.DeadLetter()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Errors say what is wrong, and callers find in them what they need.
func TestErrors(t *testing.T) {
	cause := errors.New("cause")
	for _, tt := range []struct {
		err  error
		want string
		is   error // nil: nothing in it
	}{
		{&FileError{Code: "unknown_format", Err: cause}, "cause", cause},
		{RefusedError{Missing: MissingPut, Err: cause}, "cause", cause},
		{ConflictError{Found: Object{Key: "events/a", Size: 5, Meta: Meta{SHA256: "ab"}}},
			"another object has the key events/a (5 bytes, sha256 ab)", nil},
	} {
		if tt.err.Error() != tt.want || tt.is != nil && !errors.Is(tt.err, tt.is) {
			t.Errorf("%T: %v, want %s", tt.err, tt.err, tt.want)
		}
	}
}

func TestCheckReceived(t *testing.T) {
	for year, want := range map[int]error{1969: ErrReceived, 2019: ErrReceived, 2020: nil, 2026: nil, 2099: nil,
		2100: ErrReceived, 2150: ErrReceived, 9999: ErrReceived} {
		ms := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
		if got := CheckReceived(ms); !errors.Is(got, want) {
			t.Errorf("%d: got %v, want %v", year, got, want)
		}
	}
	for ms, want := range map[int64]error{MinReceived - 1: ErrReceived, MinReceived: nil, MaxReceived - 1: nil,
		MaxReceived: ErrReceived, 0: ErrReceived, NoTime: ErrReceived, 1 << 62: ErrReceived} {
		if got := CheckReceived(ms); !errors.Is(got, want) {
			t.Errorf("%d ms: got %v, want %v", ms, got, want)
		}
	}
}

// Objects with blobs have one header more.
func TestMetaOfBlobs(t *testing.T) {
	want := Meta{Schema: 3, Rows: 1, SHA256: strings.Repeat("a", 64), BlobBytes: 1 << 40}
	got, err := ParseMeta(want.Map())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, bad := range []string{"-1", "x", "1.5", "99999999999999999999"} {
		h := want.Map()
		h[metaPrefix+"blob-bytes"] = bad
		if got, err := ParseMeta(h); err == nil || got != (Meta{}) || !strings.Contains(err.Error(), "blob-bytes") {
			t.Errorf("blob-bytes %s: %+v, %v", bad, got, err)
		}
	}
	for _, rows := range []string{"-1", "1e3"} {
		h := want.Map()
		h[metaPrefix+"rows"] = rows
		if got, err := ParseMeta(h); err == nil {
			t.Errorf("rows %s: %+v", rows, got)
		}
	}
}

// Whatever headers a store gives back, they are our metadata, which is written unchanged, none, or an error.
func FuzzParseMeta(f *testing.F) {
	f.Add("3", "7", "1", "2026-11-22T03:45:12.345Z", strings.Repeat("a", 64), "5")
	f.Add("0", "0", "18446744073709551615", "1970-01-01T00:00:00.000Z", strings.Repeat("0", 64), "")
	f.Fuzz(func(t *testing.T, schema, rows, seq, received, sum, blobs string) {
		in := map[string]string{metaPrefix + "schema": schema, metaPrefix + "rows": rows, metaPrefix + "first-seq": seq,
			metaPrefix + "first-received": received, metaPrefix + "last-received": received, metaPrefix + "sha256": sum}
		if blobs != "" {
			in[metaPrefix+"blob-bytes"] = blobs
		}
		m, err := ParseMeta(in)
		if err != nil {
			if m != (Meta{}) {
				t.Errorf("%v comes with %+v", err, m)
			}
			return
		}
		if again, err := ParseMeta(m.Map()); err != nil || again != m {
			t.Errorf("%+v is read back as %+v, %v", m, again, err)
		}
	})
}
