package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// An object that no attempt can load is a dead letter at once, and status names it. Fixed and redriven, each has its
// rows once, also if rows of the damaged content were there.
func TestPermanentFaults(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	r := s.start("r1", "receive")
	sum := func(b []byte) string {
		hash := sha256.Sum256(b)
		return hex.EncodeToString(hash[:])
	}
	type object struct {
		key  string
		data []byte
		meta map[string]string
	}
	stored := func(events string) (o object) {
		_, a := post(t, r.URL+"/v1/events?durability=object", events)
		o.key = a.Object
		o.data, o.meta = s.get(o.key)
		return o
	}
	other := stored(`[{"name":"other"}]`)
	faults := []struct {
		code   string
		damage func(o *object)
	}{
		{"object_damaged", func(o *object) { o.meta["penstock-sha256"] = sum(nil) }},
		{"invalid_metadata", func(o *object) { o.meta["penstock-sha256"] = "none" }},
		{"unsupported_schema", func(o *object) { o.meta["penstock-schema"] = "9" }},
		{"unreadable_object", func(o *object) {
			o.data = bytes.Clone(o.data)
			o.data[len(o.data)-6] ^= 0x40 // the length of the footer
			o.meta["penstock-sha256"] = sum(o.data)
		}},
		{"row_count", func(o *object) { o.data = other.data; o.meta["penstock-sha256"] = sum(o.data) }},
	}
	var good []object
	codes := map[string]string{}
	for i, f := range faults {
		o := stored(fmt.Sprintf(`[{"name":"a","i":%d},{"name":"b"}]`, i))
		good = append(good, o)
		codes[o.key] = f.code
		o.meta = maps.Clone(o.meta)
		f.damage(&o)
		s.put(o.key, o.data, o.meta)
	}
	renamed := strings.TrimSuffix(other.key, ".parquet") + ".orc"
	s.put(renamed, other.data, other.meta)
	codes[renamed] = "unknown_format"
	foreign := parquetFile(t)
	for name, data := range map[string][]byte{"cut": foreign[:len(foreign)/2], "footer": slices.Concat(
		foreign[:len(foreign)-30], bytes.Repeat([]byte{7}, 22), foreign[len(foreign)-8:]),
		"page": slices.Concat(foreign[:4], bytes.Repeat([]byte{7}, 40), foreign[44:])} {
		key := "events/" + name + ".parquet"
		s.put(key, data, nil)
		codes[key] = "unreadable_object"
	}
	l := s.start("l1", "load")
	for key, code := range codes {
		s.dead(key, code)
	}
	status, _ := s.run("status") // it fails, because nothing listens at the default admin.listen
	if n := strings.Count(status, " is a dead letter since "); n != 3 || !strings.Contains(status, "6 more such objects of events") {
		t.Errorf("status names %d dead letters, want 3, and that there are 6 more:\n%s", n, status)
	}
	for _, list := range []string{"objects list", "dlq show --all"} {
		if out := s.must(strings.Fields(list)...); !strings.Contains(out, good[1].key) {
			t.Errorf("%s: %s\nwant the object with broken metadata", list, out)
		}
	}
	for _, o := range good {
		s.put(o.key, o.data, o.meta)
	}
	s.must("dlq", "drop", "--yes", renamed, "events/cut.parquet", "events/footer.parquet", "events/page.parquet")
	s.must("dlq", "redrive", "--all")
	s.rows("events", uint64(1+2*len(good)))
	eventually(t, time.Minute, "no dead letter", func() error {
		if left := items[letter](s, "dlq", "list"); len(left) > 0 {
			return fmt.Errorf("left: %+v", left)
		}
		if failing := items[letter](s, "dlq", "list", "--failing"); len(failing) > 0 {
			return fmt.Errorf("failing: %+v", failing)
		}
		return nil
	})
	if n := one[uint64](s, "SELECT uniqExact(event_id) FROM events"); int(n) != 1+2*len(good) {
		t.Errorf("%d distinct events, want %d", n, 1+2*len(good))
	}
	s.mustVerify()
	log, err := os.ReadFile(l.log)
	if err != nil || strings.Contains(string(log), "overwritten") {
		t.Error(errors.Join(err, fmt.Errorf("the loader's log speaks of overwritten objects:\n%s", log)))
	}
}
