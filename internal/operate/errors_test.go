package operate

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
)

// failures returns three failures: a receiver's, a loader's, and a redriven one.
func failures() (w *world, ids []string) {
	w = newWorld()
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	ids = append(ids, w.keep(1), w.keep(2, func(k *clickhouse.Kept) {
		k.Stage, k.Code, k.Project = "loader", "refused_row", ""
		k.Properties = `{"source_object":"events/x","source_row":2}`
	}), w.keep(3, func(k *clickhouse.Kept) { k.Redriven = &at }))
	return w, ids
}

func TestListErrors(t *testing.T) {
	w, ids := failures()
	for name, ex := range w.ways(t) {
		for _, tt := range []struct {
			filter errorFilter
			want   []string // newest first
			err    string
		}{
			{errorFilter{}, []string{ids[2], ids[1], ids[0]}, ""},
			{errorFilter{Limit: 1}, []string{ids[2]}, ""},
			{errorFilter{Pending: true}, []string{ids[1], ids[0]}, ""},
			{errorFilter{Stage: "loader"}, []string{ids[1]}, ""},
			{errorFilter{Code: "invalid_json", Text: "1"}, []string{ids[0]}, ""},
			{errorFilter{Until: "2026-11-22T03:02:00Z"}, []string{ids[0]}, ""},
			{errorFilter{IDs: ids[:1], Since: "1s"}, ids[:1], ""}, // an id ignores the time
			{errorFilter{Stage: "client"}, nil, `--stage "client": set receiver, batcher or loader`},
			{errorFilter{IDs: []string{"7"}}, nil, `"7" is not an id of a failure record; list them with "penstock errors list"`},
			{errorFilter{Since: "x"}, nil, `--since "x": want`},
		} {
			got, err := do[clickhouse.Kept](t, ex, "errors list", func(p any) {
				f := p.(*errorFilter)
				*f = tt.filter
				if f.Since == "" {
					f.Since = "2026-11-22"
				}
				if f.Until == "" {
					f.Until = "now"
				}
			})
			var found []string
			for _, k := range got {
				found = append(found, k.ID)
			}
			wantError(t, err, tt.err, "%s %+v", name, tt.filter)
			if !slices.Equal(found, tt.want) {
				t.Errorf("%s %+v: got %q, want %q", name, tt.filter, found, tt.want)
			}
		}
	}
}

// The bytes are in the row, or in the bucket with a checksum.
func TestShowErrors(t *testing.T) {
	large := []byte(strings.Repeat("large ", 100))
	sum := sha256.Sum256(large)
	w := newWorld()
	w.objects[blobObject] = pipeline.Object{Key: blobObject}
	w.bytes[blobObject] = append([]byte("other"), large...)
	w.objects["errors/raw/1"], w.bytes["errors/raw/1"] = pipeline.Object{Key: "errors/raw/1"}, large
	ref := string(blobRef(large, len("other")).Append(nil))
	inBucket := func(object, props, sha string) func(*clickhouse.Kept) {
		return func(k *clickhouse.Kept) { k.RawObject, k.Properties, k.RawSHA256, k.Raw = object, props, sha, "" }
	}
	for i, tt := range []struct {
		change func(*clickhouse.Kept)
		raw    string
		err    string
	}{
		{func(*clickhouse.Kept) {}, `{"a":1}`, ""},
		{inBucket(blobObject, `{"raw_blob":`+ref+`}`, hex.EncodeToString(sum[:])), string(large), ""},
		{inBucket("errors/raw/1", `{}`, hex.EncodeToString(sum[:])), string(large), ""},
		{inBucket("errors/raw/1", `{}`, strings.Repeat("0", 64)), "", "the object errors/raw/1 is damaged: its sha256 is"},
		{inBucket("errors/raw/2", `{}`, ""), "", "its bytes cannot be had: head errors/raw/2: no such object"},
		{func(k *clickhouse.Kept) { k.Properties = "[" }, "", "its properties cannot be read"},
	} {
		id := w.keep(i, tt.change)
		got, err := do[errorDetail](t, Local(w.operator()), "errors show",
			func(p any) { p.(*errorFilter).IDs = []string{id} })
		wantError(t, err, tt.err, "failure %d", i)
		if tt.err != "" {
			continue
		}
		if len(got) != 1 || string(got[0].Raw) != tt.raw || got[0].RawBytes != uint64(len(tt.raw)) ||
			bytes.Contains(got[0].Properties, []byte(`"raw"`)) {
			t.Errorf("failure %d: got %+v", i, got)
		}
	}
	_, err := do[errorDetail](t, Local(w.operator()), "errors show", func(p any) {
		p.(*errorFilter).IDs = []string{pipeline.NewUUIDv7(1).String()}
	})
	wantError(t, err, "1 of 1 failure not found in the table", "an id that is not there")
}

func TestPrintError(t *testing.T) {
	d := errorDetail{Kept: clickhouse.Kept{ID: "i", Time: time.Unix(0, 0).UTC(), Stage: "receiver", Code: "c",
		Message: "m",
		Project: "p", Object: "errors/x", Row: 3}, Properties: []byte("{}"), Context: []byte("{}")}
	for raw, want := range map[string]string{
		"text":   "raw         4 bytes:\ntext\n",
		"\xff":   `raw         1 byte, not text (--raw prints them as they are); as quoted text:` + "\n" + `"\xff"`,
		"a\x00b": `"a\x00b"`,
	} {
		d.Raw = []byte(raw)
		var out bytes.Buffer
		if err := printError(&out, &d); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%q: printed\n%s, want\n%s", raw, &out, want)
		}
		if !strings.HasPrefix(out.String(),
			"id          i\ntime        1970-01-01T00:00:00Z\nstage       receiver\ncode        c\n") {
			t.Errorf("printed\n%s", &out)
		}
		out.Reset()
		if err := Raw(Find("errors show")).print(&out, &d); err != nil || out.String() != raw {
			t.Errorf("raw: got %q, %v; want %q", &out, err, raw)
		}
	}
	wantError(t, CheckRaw(&errorFilter{}), "--raw needs the id of a failure record", "no id")
	wantError(t, CheckRaw(&errorFilter{IDs: []string{"x"}}), "", "an id")
}

// A row of the table is one line, whatever the message contains.
func TestErrorRow(t *testing.T) {
	op := Find("errors list")
	row := op.row(&clickhouse.Kept{Message: "a\nb\tc " + strings.Repeat("é", 200), Code: "c"})
	message := row[len(row)-1]
	if !strings.HasPrefix(message, "a b c é") || !strings.HasSuffix(message, "…") || len([]rune(message)) != 101 {
		t.Errorf("got %q", message)
	}
	if row[3] != "-" || row[5] != "-" {
		t.Errorf("without a project, not redriven: %q", row)
	}
	for n, want := range map[int]string{1: "1 failure\n", 100: "100 failures\n(the newest; --limit 0 lists all)\n"} {
		var out bytes.Buffer
		op.sum(&out, nil, map[string]int{"": n})
		if out.String() != want {
			t.Errorf("%d: %q, want %q", n, &out, want)
		}
	}
	sum := Find("errors redrive").sum
	var out bytes.Buffer
	sum(&out, nil, map[string]int{"": 6, "accepted": 1, "partly": 1, "rejected": 1, "skipped": 1, "sampled": 2})
	want := "6 failures: 1 accepted, 1 partly, 1 rejected again, 1 skipped\nleft out by their project's sample: 2\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", &out, want)
	}
}
