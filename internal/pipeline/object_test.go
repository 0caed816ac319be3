package pipeline

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestKey(t *testing.T) {
	at := time.Date(2026, 11, 22, 3, 45, 12, 345e6, time.UTC)
	for _, c := range []struct {
		key  Key
		want string
	}{
		{Key{"events/", at, "game1", 17, Parquet}, "events/dt=2026-11-22/hr=03/20261122T034512.345Z-game1-17.parquet"},
		{Key{"errors/", at, "a-b-1", 0, NDJSON}, "errors/dt=2026-11-22/hr=03/20261122T034512.345Z-a-b-1-0.ndjson.zst"},
		{Key{"x/dt=y/", at, "r.1_Z-2", 1<<64 - 1, Parquet},
			"x/dt=y/dt=2026-11-22/hr=03/20261122T034512.345Z-r.1_Z-2-18446744073709551615.parquet"},
	} {
		if got := c.key.String(); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
		if got, err := ParseKey(c.want); err != nil || got != c.key {
			t.Errorf("%s: got %+v, %v", c.want, got, err)
		}
	}
	// Day and hour are of UTC, wherever the time was taken.
	east := Key{"events/", at.In(time.FixedZone("", 14*3600)), "r", 1, Parquet}.String()
	if want := (Key{"events/", at, "r", 1, Parquet}).String(); east != want {
		t.Errorf("got %s, want %s", east, want)
	}
}

func TestKeysSortByTime(t *testing.T) {
	at := time.Date(2026, 12, 31, 23, 59, 59, 999e6, time.UTC)
	var keys []string
	for _, d := range []time.Duration{-24 * time.Hour, -time.Hour, -time.Millisecond, 0, time.Millisecond, time.Hour,
		10 * time.Hour, 24 * time.Hour} {
		keys = append(keys, Key{"events/", at.Add(d), "r", 1, Parquet}.String())
	}
	if !slices.IsSorted(keys) {
		t.Errorf("got %q", keys)
	}
}

func TestParseKeyRefuses(t *testing.T) {
	const good = "events/dt=2026-11-22/hr=03/20261122T034512.345Z-game1-17.parquet"
	for _, r := range [][2]string{
		{good, ""}, {"events/", ""}, {"events/", "/events"}, {"dt=", "dt:"}, {"dt=2026-11-22", "dt=2026-11-23"},
		{"hr=03", "hr=04"}, {"hr=03", "hr=3"},
		{"hr=03/", ""}, {"/hr=03/", "/hr=03/x/"}, {"20261122T034512.345Z", "20261122T034512Z"},
		{"20261122T034512.345Z", "20261122T034512.3450Z"},
		{"20261122T034512", "20261122T254512"}, {"-game1-17", "-17"}, {"-game1-17", "--17"}, {"-game1", ""}, {"-17", "-017"},
		{"-17", "-+17"}, {"-17", "-"},
		{"-17", "--1"}, {"-17", "-18446744073709551616"}, {".parquet", ""}, {".parquet", ".csv"}, {".parquet", ".parquet.gz"},
		{".parquet", ".PARQUET"},
		{".parquet", ".ndjson"}, {".parquet", ".ndjson.gz"}, {".parquet", ".jsonl"}, {".parquet", ".jsonl.gz"},
		{".parquet", ".jsonl.zst"},
	} {
		s := strings.Replace(good, r[0], r[1], 1)
		if k, err := ParseKey(s); err == nil && k.String() != s {
			t.Errorf("%q: got %+v", s, k)
		} else if err == nil {
			t.Logf("%q is taken: %+v", s, k)
			if !strings.Contains(r[1], "--") && r[1] != "/events" {
				t.Errorf("%q is taken", s)
			}
		}
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add("events/dt=2026-11-22/hr=03/20261122T034512.345Z-game1-17.parquet")
	f.Add("errors/dt=2026-11-22/hr=03/20261122T034512.345Z-a-b-1-0.ndjson.zst")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParseKey(s)
		if err == nil && k.String() != s {
			t.Errorf("%q becomes %q", s, k.String())
		}
	})
}

func TestFormats(t *testing.T) {
	for _, c := range []struct {
		key  string
		want Format
		ok   bool
	}{
		{"a.parquet", Parquet, true},
		{"a.ndjson.zst", NDJSON, true}, {"a.ndjson", "", false}, {"a.ndjson.gz", "", false},
		{"a.json", "", false}, {"a.json.gz", "", false}, {"a.gz", "", false}, {"a.parquet.gz", "", false},
		{"parquet", "", false}, {"", "", false},
	} {
		if got, ok := FormatOf(c.key); got != c.want || ok != c.ok {
			t.Errorf("%q: got %q, %v", c.key, got, ok)
		}
	}
	for in, want := range map[string]Format{"parquet": Parquet, "ndjson": NDJSON, "ndjson.zst": NDJSON} {
		if got, err := ParseFormat(in); err != nil || got != want {
			t.Errorf("%q: got %q, %v", in, got, err)
		}
	}
	if _, err := ParseFormat("csv"); err == nil {
		t.Error("csv is taken")
	}
}

func TestIsData(t *testing.T) {
	for _, key := range []string{"events/a", "events/dt=2026-11-22/hr=03/a.parquet", "events/x$folder",
		"events/a b/é.json"} {
		if !IsData("events/", key) {
			t.Errorf("%q is no data", key)
		}
	}
	for _, key := range []string{"events/", "events/a/", "errors/a", "events/_SUCCESS",
		"events/a/_temporary/0/part-0.parquet", "events/.hidden", "events/a/.b/c",
		"events/x_$folder$", "event", ""} {
		if IsData("events/", key) {
			t.Errorf("%q is data", key)
		}
	}
}

func TestValidReceiver(t *testing.T) {
	for _, s := range []string{"a", "Game-1", "0.x_y-z", strings.Repeat("a", 64)} {
		if err := ValidReceiver(s); err != nil {
			t.Error(err)
		}
	}
	for _, s := range []string{"", strings.Repeat("a", 65), "-a", ".a", "_a", "a/b", "a b", "a\n", "ä", "a=b"} {
		if ValidReceiver(s) == nil {
			t.Errorf("%q is taken", s)
		}
	}
}

func TestMeta(t *testing.T) {
	want := Meta{Schema: SchemaVersion, Rows: 7, FirstSeq: 1<<64 - 1, FirstReceived: 1795319112345,
		LastReceived: 1795319112999, SHA256: strings.Repeat("ab", 32)}
	got, err := ParseMeta(want.Map())
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	upper := map[string]string{"Content-Type": "x"} // as some stores give it back
	for k, v := range want.Map() {
		upper[strings.ToUpper(k)] = v
	}
	if got, err := ParseMeta(upper); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, foreign := range []map[string]string{nil, {}, {"rows": "5", "x": "y"}} {
		if got, err := ParseMeta(foreign); err != nil || got != (Meta{}) {
			t.Errorf("%v: got %+v, %v", foreign, got, err)
		}
	}
	for k := range want.Map() {
		for _, bad := range []string{"", "x", "-1x"} {
			m := maps.Clone(want.Map())
			m[k] = bad
			if got, err := ParseMeta(m); err == nil || got != (Meta{}) ||
				!strings.Contains(err.Error(), strings.TrimPrefix(k, metaPrefix)) {
				t.Errorf("%s %q: got %+v, %v", k, bad, got, err)
			}
		}
		m := maps.Clone(want.Map())
		delete(m, k)
		if _, err := ParseMeta(m); err == nil {
			t.Errorf("without %s it is taken", k)
		}
	}
}

func TestDurability(t *testing.T) {
	for _, d := range []Durability{Memory, Disk, Bucket} {
		if got, ok := ParseDurability(d.String()); !ok || got != d {
			t.Errorf("%s: got %s, %v", d, got, ok)
		}
	}
	if _, ok := ParseDurability("tape"); ok || !(Memory < Disk && Disk < Bucket) {
		t.Error("tape is taken, or they do not compare")
	}
}
