package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// A client goes offline before it gets the answer, and sends its queue again
// after midnight: events_once has each event once, and so has `events` when it is merged.
func TestResendOnAnotherDay(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.start("l1", "load")
	now := time.Now().UTC()
	midnight := now.Truncate(24 * time.Hour).Add(24 * time.Hour)
	at := func(when time.Time) string {
		return fmt.Sprintf("PENSTOCK_TEST_CLOCK_SHIFT=%d", int(time.Until(when).Seconds()))
	}
	var queue []map[string]any
	for i := range 50 {
		e := map[string]any{"event_id": fmt.Sprintf("offline-%d", i), "name": "offline", "user_id": "u1", "i": i}
		if i%2 == 0 {
			e["timestamp"] = now.Add(time.Duration(i) * time.Second).Format(pipeline.TimeFormat)
		} // the others have an id and no time
		queue = append(queue, e)
	}
	body, err := json.Marshal(queue)
	if err != nil {
		t.Fatal(err)
	}
	before := s.start("r1", "receive", at(midnight.Add(-5*time.Minute)))
	// The client gives up before the answer, so it keeps its queue. The receiver may have everything by then.
	client := http.Client{Timeout: 20 * time.Millisecond}
	eventually(t, 20*time.Second, "the events of the first day", func() error {
		if n := one[uint64](s, "SELECT count() FROM events_once"); n == 50 {
			return nil
		}
		resp, err := client.Post(before.URL+"/v1/events?durability=object&key="+key, "application/json",
			strings.NewReader(string(body)))
		if err == nil {
			resp.Body.Close()
		}
		return fmt.Errorf("not yet all, the client's last attempt: %v", err)
	})
	before.term()
	after := s.start("r1", "receive", at(midnight.Add(5*time.Minute)))
	if status, a := post(t, after.URL+"/v1/events?durability=object", string(body)); status != 200 ||
		a.Accepted != 50 {
		t.Fatalf("answer %d %+v", status, a)
	}
	eventually(t, 20*time.Second, "the rows of the second day", func() error {
		if n := one[uint64](s, "SELECT countIf(toUnixTimestamp(received_at) >= "+strconv.FormatInt(midnight.Unix(), 10)+
			") FROM events_once"); n != 50 {
			return fmt.Errorf("%d rows", n)
		}
		return nil
	})
	after.term()
	if err := s.db.Exec(t.Context(), "OPTIMIZE TABLE events FINAL"); err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]uint64{
		"SELECT count() FROM events":      50,
		"SELECT count() FROM events_once": 50,
		"SELECT count() FROM events_once SETTINGS do_not_merge_across_partitions_select_final = 1":         50,
		"SELECT count() FROM events FINAL SETTINGS do_not_merge_across_partitions_select_final = 1":        50,
		"SELECT uniqExact(properties.i.:Int64) FROM events_once WHERE name = 'offline' AND user_id = 'u1'": 50,
		fmt.Sprintf("SELECT count() FROM events_once WHERE received_at < toDateTime(%d)",
			midnight.Unix()): 0,
		fmt.Sprintf("SELECT count() FROM events_once WHERE received_at >= toDateTime(%d)",
			midnight.Unix()): 50,
		fmt.Sprintf("SELECT count() FROM events_once WHERE timestamp >= toDateTime(%d)",
			midnight.Unix()): 25,
		fmt.Sprintf("SELECT count() FROM events_once WHERE identity_time >= toDateTime(%d)",
			now.Unix()-1): 25,
		"SELECT count() FROM (SELECT i FROM (SELECT properties.i.:Int64 AS i FROM events_once) GROUP BY i HAVING count() > 1)": 0,
	} {
		if n := one[uint64](s, query); n != want {
			t.Errorf("%s: %d, want %d", query, n, want)
		}
	}
	s.mustVerify()
}
