package clickhouse

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/wild"
)

// Rows hold what random events had, after the way through an object and columns, with few and with many paths, also
// after a merge.
func TestWildEvents(t *testing.T) {
	db, _, _ := open(t)
	first, last, sizes := 0, 8, []int{100_000}
	if s := os.Getenv("PENSTOCK_TEST_WILD"); s != "" { // as "100 140": the sets from 100 to 139, some of them large
		if _, err := fmt.Sscan(s, &first, &last); err != nil {
			t.Fatal(err)
		}
		sizes = []int{300, 20_000, 300_000, 2_000_000, 5_000_000}
	}
	encoders := codec.NewEncoders()
	for seed := first; seed < last; seed++ {
		r := rand.New(rand.NewPCG(uint64(seed), 10))
		events := wild.NewShape(r).Events(r, 1+r.IntN(20_000), sizes[r.IntN(len(sizes))])
		table := fmt.Sprint("wild_", seed)
		if err := db.exec(t.Context(), "create a table", "CREATE TABLE "+table+
			" AS events ENGINE = MergeTree PARTITION BY tuple() ORDER BY (project, name, identity_time, event_id)"); err != nil {
			t.Fatal(err)
		}
		if limit := []string{"", "0", "2", "30"}[r.IntN(4)]; limit != "" {
			if err := db.exec(t.Context(), "alter", "ALTER TABLE "+table+
				" MODIFY COLUMN properties JSON(max_dynamic_paths = "+limit+")"); err != nil {
				t.Fatal(err)
			}
		}
		var object bytes.Buffer
		enc, err := encoders.New(&object, pipeline.Parquet, "r")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(enc.Encode(events), enc.Close()); err != nil {
			t.Fatal(err)
		}
		columnar := loadObject(t, db, table, object.Bytes(), 1+len(events)/(1+r.IntN(9)))
		t.Logf("set %d: %d events, %d KB, columnar %v", seed, len(events), object.Len()/1024, columnar)
		for _, merge := range []bool{false, true} {
			if merge {
				if err := db.exec(t.Context(), "merge", "OPTIMIZE TABLE "+table+" FINAL"); err != nil {
					t.Fatal(err)
				}
			}
			sameRows(t, db, fmt.Sprintf("set %d, merged %v", seed, merge), table, events, columnar, merge)
		}
		if t.Failed() {
			return
		}
		if err := db.exec(t.Context(), "drop", "DROP TABLE "+table); err != nil {
			t.Fatal(err)
		}
	}
}

// loadObject inserts an object in blocks of so many rows. It reports whether all blocks were columns: text loses types.
func loadObject(t *testing.T, db *DB, table string, object []byte, rows int) (columnar bool) {
	t.Helper()
	dec, err := codec.NewDecoder(bytes.NewReader(object), int64(len(object)), pipeline.Parquet)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	columnar = true
	for chunk, end := 0, false; !end; chunk++ {
		b, err := db.NewBlock(t.Context(), table, "o", 0)
		if err != nil {
			t.Fatal(err)
		}
		n, from := 0, -1
		for n < rows {
			part, typed, _, err := dec.(codec.TypedDecoder).DecodeTyped(nil, codec.Limit{Rows: rows - n, Bytes: 1 << 30})
			if errors.Is(err, io.EOF) {
				end = true
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if from < 0 {
				from = int(part[0].Row)
			}
			b.Append(part, typed, nil)
			n += len(part)
		}
		if n == 0 {
			break
		}
		columnar = columnar && !b.text
		if err := b.Insert(t.Context(), fmt.Sprint(table, chunk), textRows(object, from, n)); err != nil {
			t.Fatal(err)
		}
	}
	return columnar
}

// textRows yields n rows of an object, from a row on.
func textRows(object []byte, from, n int) iter.Seq2[[]pipeline.Event, error] {
	return func(yield func([]pipeline.Event, error) bool) {
		dec, err := codec.NewDecoder(bytes.NewReader(object), int64(len(object)), pipeline.Parquet)
		if err != nil {
			yield(nil, err)
			return
		}
		defer dec.Close()
		for row := 0; row < from+n; row++ {
			part, err := dec.Decode(nil, codec.Limit{Rows: 1, Bytes: 1})
			if (err != nil || row >= from) && !yield(part, err) || err != nil {
				return
			}
		}
	}
}

// sameRows compares a table's rows with the events.
func sameRows(t *testing.T, db *DB, set, table string, events []pipeline.Event, columnar, merged bool) {
	t.Helper()
	rows, err := db.conn.Query(t.Context(), "SELECT seq, toString(event_id), project, name, session_id, user_id, "+
		"received_at, toString(properties), toString(context) FROM "+table)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	seen := map[uint64]bool{}
	bad := 0
	for rows.Next() {
		var seq uint64
		var id, project, name, session, user, properties, context string
		var received time.Time
		if err := rows.Scan(&seq, &id, &project, &name, &session, &user, &received, &properties, &context); err != nil {
			t.Fatal(err)
		}
		at := seq - events[0].Seq
		if at >= uint64(len(events)) || seen[seq] {
			t.Fatalf("%s: seq %d", set, seq)
		}
		seen[seq] = true
		e := events[at]
		b := e.ID
		wantID := fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
		got := []string{id, project, name, session, user, fmt.Sprint(received.UnixMilli())}
		want := []string{wantID, string(e.Project), string(e.Name), string(e.SessionID), string(e.UserID),
			fmt.Sprint(e.ReceivedAt)}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s %d: %s", set, at, d)
			bad++
		}
		for _, c := range [][2]string{{string(e.Properties), properties}, {string(e.Context), context}} {
			if !columnar {
				continue
			}
			if want, got := flat(t, c[0]), flat(t, c[1]); !cmp.Equal(want, got) {
				t.Errorf("%s, event %d: %s\nsent %.2000q\ngot %.2000q", set, at, cmp.Diff(want, got), c[0], c[1])
				bad++
			}
		}
		if bad > 3 {
			return // these show what is wrong
		}
	}
	if want := len(events); len(seen) != want {
		t.Errorf("%s: %d rows, want %d", set, len(seen), want)
	}
}

// flat returns the values of a document by path. The server prints some keys twice: {"a":1,"a":{"b":2}}.
func flat(t *testing.T, doc string) map[string]string {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(doc))
	dec.UseNumber()
	out := map[string]string{}
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		t.Fatalf("%.300q: %v", doc, err)
	}
	if err := flatten(dec, out, ""); err != nil {
		t.Fatalf("%.300q: %v", doc, err)
	}
	return out
}

// flatten reads the members of an object.
func flatten(dec *json.Decoder, out map[string]string, prefix string) error {
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		path := prefix + key.(string)
		value, err := dec.Token()
		if err != nil {
			return err
		}
		if value == json.Delim('{') {
			err = flatten(dec, out, path+".")
		} else if value != nil {
			out[path], err = leaf(dec, value)
		}
		if err != nil {
			return err
		}
	}
	_, err := dec.Token()
	return err
}

func leaf(dec *json.Decoder, v json.Token) (string, error) {
	switch v := v.(type) {
	case nil:
		return "null", nil
	case string:
		return strconv.Quote(v), nil
	case json.Delim:
		if v == '{' {
			out := map[string]string{}
			err := flatten(dec, out, "")
			return fmt.Sprint(out), err
		}
		s := "["
		for dec.More() {
			v, err := dec.Token()
			if err != nil {
				return "", err
			}
			element, err := leaf(dec, v)
			if err != nil {
				return "", err
			}
			s += element + ","
		}
		_, err := dec.Token()
		return s + "]", err
	case json.Number:
		if i, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return fmt.Sprint(i), nil
		}
		if u, err := strconv.ParseUint(v.String(), 10, 64); err == nil {
			return fmt.Sprint(u), nil
		}
		f, _ := v.Float64()
		if f == math.Trunc(f) && math.Abs(f) < 1<<63 {
			return fmt.Sprint(int64(f)), nil
		}
		return fmt.Sprint("float ", f), nil
	}
	return fmt.Sprint(v), nil
}
