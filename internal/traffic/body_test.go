package traffic

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

type event struct {
	ID         string `json:"event_id"`
	Timestamp  int64
	Session    string `json:"session_id"`
	Name       string
	Properties map[string]any
}

func decode(t *testing.T, body []byte) []event {
	t.Helper()
	var all []event
	for line := range bytes.Lines(body) {
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, e)
	}
	return all
}

// A body that is sent again has the same events under other ids and times.
func TestBody(t *testing.T) {
	b := NewBody(New("run", 1), 60)
	now := time.UnixMilli(1795319112345)
	ids := map[string]bool{}
	var buf []byte
	for sent := range 3 {
		buf = b.Append([]byte("head"), uint64(sent*b.Events()), now)
		if got := string(buf[:4]); got != "head" || len(buf) != 4+b.Len() {
			t.Fatalf("%d bytes behind %q, want %d", len(buf)-4, got, b.Len())
		}
		events := decode(t, buf[4:])
		if len(events) != 60 {
			t.Fatalf("%d events, want 60", len(events))
		}
		for i, e := range events {
			ids[e.ID] = true
			if want := fmt.Sprintf("%012x", uint64(sent*60+i)*oddNumber&(1<<48-1)); e.ID[24:] != want || len(e.ID) != 36 {
				t.Errorf("id %s of event %d, want it to end in %s", e.ID, i, want)
			}
			if lag := now.UnixMilli() - e.Timestamp; lag < 0 || lag >= maxLag {
				t.Errorf("timestamp %d ms before its request", lag)
			}
			if e.Name == "" || len(e.Properties) < 5 || e.Session[:4] != "run-" {
				t.Errorf("event %+v", e)
			}
		}
	}
	if len(ids) != 180 {
		t.Errorf("%d different ids of 180", len(ids))
	}
}

func TestWideEvents(t *testing.T) {
	for _, c := range []struct{ properties, paths, wantKeys int }{{1, 1, 1}, {1000, 1000, 1000}, {10, 500, 500}} {
		g := New("run", 1)
		g.Properties, g.Paths = c.properties, c.paths
		keys := map[string]bool{}
		for _, e := range decode(t, NewBody(g, 2000).text) {
			if len(e.Properties) != c.properties {
				t.Fatalf("%+v: %d properties", c, len(e.Properties))
			}
			for k := range e.Properties {
				keys[k] = true
			}
		}
		if len(keys) != c.wantKeys {
			t.Errorf("%+v: %d keys", c, len(keys))
		}
	}
}
