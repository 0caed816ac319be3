package pipeline

import (
	"testing"
	"time"
)

func TestPartition(t *testing.T) {
	ms := func(text string) int64 {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		return at.UnixMilli()
	}
	for from, want := range map[string]string{
		"2026-11-22T12:00:00Z":     "2026-11-16", // a Sunday
		"2026-11-22T23:59:59.999Z": "2026-11-16",
		"2026-11-23T00:00:00Z":     "2026-11-23",
		"2010-01-01T00:00:00Z":     "2009-12-28",
		"2059-12-31T23:59:59.999Z": "2059-12-29",
		"2009-12-31T23:59:59.999Z": "1970-01-01",
		"2060-01-01T00:00:00Z":     "1970-01-01",
		"1970-01-01T00:00:00Z":     "1970-01-01",
		"1900-01-01T00:00:00Z":     "1970-01-01",
		"2299-12-31T23:59:59.999Z": "1970-01-01",
	} {
		if got := Millis(Partition(ms(from))).Format(time.DateOnly); got != want {
			t.Errorf("%s: partition %s, want %s", from, got, want)
		}
	}
	// Not only in these weeks: each begins on a Monday, and holds its own times.
	for at := int64(minPartitioned); at < maxPartitioned; at += 13 * 3_600_001 {
		p := Partition(at)
		if Millis(p).Weekday() != time.Monday || p > at || at-p >= weekMillis || p%dayMillis != 0 {
			t.Fatalf("%s: partition %s", Millis(at), Millis(p))
		}
	}
}

// A resend has the same identity, whenever it is received.
func TestIdentityTime(t *testing.T) {
	const noon, received = int64(1795348800000), int64(1795348900000)
	wrong := NewUUIDv7(noon)
	wrong[8] ^= 0x80 // its variant is none of RFC 9562
	for name, tt := range map[string]struct {
		id             UUID
		time           int64
		identity, atMs int64
	}{
		"a client's time":                  {NewUUIDv7(noon - 5), noon, noon, noon},
		"the year 1970":                    {NewUUIDv7(noon), 0, 0, 0},
		"before 1970":                      {UUID{}, -7, -7, -7},
		"a UUIDv7 without a time":          {NewUUIDv7(noon), NoTime, noon, noon},
		"another id without a time":        {UUIDv5(nil, nil), NoTime, 0, received},
		"a UUIDv7 of the year 10889":       {NewUUIDv7(1<<48 - 1), NoTime, 0, received},
		"a UUIDv7 of the year 2009":        {NewUUIDv7(minPartitioned - 1), NoTime, 0, received},
		"a UUIDv7 of the first partition":  {NewUUIDv7(minPartitioned), NoTime, minPartitioned, minPartitioned},
		"what only looks like one, partly": {wrong, NoTime, 0, received},
	} {
		e := Event{ID: tt.id, Timestamp: tt.time, ReceivedAt: received}
		if got := e.IdentityTime(); got != tt.identity || e.Identity().Time != tt.identity {
			t.Errorf("%s: the identity has %d, want %d", name, got, tt.identity)
		}
		if got := e.Time(); got != tt.atMs {
			t.Errorf("%s: time %d, want %d", name, got, tt.atMs)
		}
	}
}
