package pipeline

import (
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestUUID(t *testing.T) {
	for _, s := range []string{"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
		"0193b3f0-7b5a-7cde-8f01-23456789abcd"} {
		for _, in := range []string{s, strings.ToUpper(s)} {
			u, err := ParseUUID([]byte(in))
			if err != nil || u.String() != s || string(u.Append([]byte("x"))) != "x"+s {
				t.Errorf("%s: got %s, %v", in, u, err)
			}
			if got := hex.EncodeToString(u[:]); got != strings.ReplaceAll(s, "-", "") {
				t.Errorf("%s: bytes %s", in, got)
			}
		}
	}
	const good = "0193b3f0-7b5a-7cde-8f01-23456789abcd"
	bad := []string{"", "x", good + " ", good[1:], "{" + good + "}", "urn:uuid:" + good, strings.ReplaceAll(good, "-", ""),
		strings.ReplaceAll(good, "-", ":")}
	for i := range good { // any one byte wrong
		for _, c := range []string{"g", " ", "\x00", "/", ":", "@", "`", "G"} {
			if s := good[:i] + c + good[i+1:]; s != good {
				bad = append(bad, s)
			}
		}
	}
	for _, s := range bad {
		if u, err := ParseUUID([]byte(s)); !errors.Is(err, ErrNotUUID) || u != (UUID{}) {
			t.Errorf("%q: got %s, %v", s, u, err)
		}
	}
}

// A dash too many must not shift what follows beyond the text's end.
func TestUUIDWithADashTooMany(t *testing.T) {
	const good = "0193b3f0-7b5a-7cde-8f01-23456789abcd"
	for i := range good {
		s := good[:i] + "-" + good[i+1:]
		if _, err := ParseUUID([]byte(s)); s != good && err == nil {
			t.Errorf("ParseUUID(%q): no error", s)
		}
	}
}

func TestUUIDv7(t *testing.T) {
	ms := time.Date(2026, 11, 22, 3, 45, 12, 345e6, time.UTC).UnixMilli()
	seen := map[UUID]bool{}
	for range 1000 {
		u := NewUUIDv7(ms)
		if !strings.HasPrefix(u.String(), hexMillis(ms)) || u[6]>>4 != 7 || u[8]>>6 != 2 {
			t.Fatalf("got %s", u)
		}
		if seen[u] {
			t.Fatalf("%s came twice", u)
		}
		seen[u] = true
	}
	if a, b := NewUUIDv7(ms).String(), NewUUIDv7(ms+1).String(); a >= b {
		t.Errorf("%s sorts behind %s", a, b)
	}
}

func hexMillis(ms int64) string {
	s := hex.EncodeToString([]byte{byte(ms >> 40), byte(ms >> 32), byte(ms >> 24), byte(ms >> 16), byte(ms >> 8),
		byte(ms)})
	return s[:8] + "-" + s[8:]
}

func TestUUIDv5(t *testing.T) {
	// The name space is what its comment says.
	url, _ := ParseUUID([]byte("6ba7b811-9dad-11d1-80b4-00c04fd430c8"))
	sum := sha1.Sum(append(url[:], "penstock.events"...))
	sum[6], sum[8] = sum[6]&0x0f|0x50, sum[8]&0x3f|0x80
	if got := eventNamespace.String(); got != UUID(sum[:16]).String() {
		t.Errorf("name space %s, want %s", got, UUID(sum[:16]))
	}
	// Ids are kept forever: this must never change.
	u := UUIDv5([]byte("game"), []byte("order-7"))
	if got, want := u.String(), "56cd4780-640c-5ed6-8a6f-41803a148ce5"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if u[6]>>4 != 5 || u[8]>>6 != 2 {
		t.Errorf("got %s", u)
	}
	seen := map[UUID]string{u: "game order-7"}
	for _, c := range [][2]string{{"bank", "order-7"}, {"game", "order-8"}, {"gam", "eorder-7"}, {"gameo", "rder-7"},
		{"", "gameorder-7"}, {"game", ""}} {
		u := UUIDv5([]byte(c[0]), []byte(c[1]))
		if before, ok := seen[u]; ok {
			t.Errorf("%v has the id of %s", c, before)
		}
		seen[u] = c[0] + " " + c[1]
	}
}

func TestEventSize(t *testing.T) {
	e := Event{Project: []byte("p"), Name: []byte("nn"), SessionID: []byte("s"), UserID: []byte("u"),
		Properties: []byte("{}"), Context: []byte("{}")}
	if got := e.Size(); got != 64+9 {
		t.Errorf("got %d", got)
	}
}
