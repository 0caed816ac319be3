package document

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// row writes an event's row. All members are properties; with spread, those of its member "properties" are.
func row(t testing.TB, w *Writer, scan *jsonscan.Scanner, text []byte, spread bool, rules *Redaction) []byte {
	t.Helper()
	scan.LargeFrom, scan.MaxDepth = LargeFrom(w.Threshold), 1000
	members, n, err := scan.Object(text)
	if err != nil || n != len(text) {
		t.Fatalf("%d of %.300s: %v", n, text, err)
	}
	w.Begin(0, text, scan.Large(), !scan.Spaced())
	for i := range members {
		if spread && string(members[i].Key) == "properties" {
			w.Spread(&members[i])
		} else {
			w.Property(&members[i])
		}
	}
	row, left, threshold := w.Row(rules)
	if left > MaxRow {
		t.Fatalf("%d bytes are left at threshold %d", left, threshold)
	}
	return row
}

// restored puts the blobs back into a row.
func restored(t testing.TB, row []byte, blobs []pipeline.Blob) []byte {
	t.Helper()
	var out []byte
	from := 0
	for _, b := range blobs {
		if b.At < from || string(row[b.At:b.At+len(pipeline.BlobHole)]) != pipeline.BlobHole {
			t.Fatalf("a blob at %d, behind %d, in %.300s", b.At, from, row)
		}
		out = append(out, row[from:b.At]...)
		from = b.At + len(pipeline.BlobHole)
		var data bytes.Buffer
		if err := b.Write(&data); err != nil || int64(data.Len()) > b.Size {
			t.Fatalf("a blob has %d bytes, %d were foreseen: %v", data.Len(), b.Size, err)
		}
		switch b.Kind {
		case pipeline.BlobText:
			out = jsonscan.AppendQuoted(out, data.Bytes())
		case pipeline.BlobDataURL:
			out = append(out, `"data:`+b.ContentType+`;base64,`+base64.StdEncoding.EncodeToString(data.Bytes())+`"`...)
		default:
			out = append(out, data.Bytes()...)
		}
	}
	return append(out, row[from:]...)
}

func value(t testing.TB, text []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %.300s", err, text)
	}
	return v
}

// FuzzWriter checks that a row with its blobs put back has the value that encoding/json reads in the event.
func FuzzWriter(f *testing.F) {
	big := strings.Repeat("y", 90)
	f.Add([]byte(`{"a":1, "b" : [ "`+big+`" ,{"c":"`+big+`"}],"properties":{"\u0061\n":"\ud83d\ude00`+big+`"}}`),
		uint16(40), true)
	f.Add([]byte("{\"a\":{\"b\":[\n1,2,3],\"c\":\r{}},\"properties\":{ }}"), uint16(3), false)
	f.Add([]byte(`{"properties":{"x":"data:image/png;base64,`+strings.Repeat("QUJD", 30)+`"}}`), uint16(9), true)
	var w Writer
	var scan jsonscan.Scanner
	f.Fuzz(func(t *testing.T, text []byte, threshold uint16, spread bool) {
		scan.MaxDepth, scan.LargeFrom = 1000, 0
		if members, n, err := scan.Object(text); err != nil || n != len(text) || scan.Dotted() || len(text) == 0 ||
			text[0] != '{' {
			return
		} else if !json.Valid(text) {
			t.Fatalf("%q is no JSON", text)
		} else if spread && len(members) > 1 { // both objects may have a key
			spread = false
		}
		w.Reset(int(threshold))
		got := row(t, &w, &scan, text, spread, nil)
		if bytes.ContainsAny(got, "\n\r") || !json.Valid(got) {
			t.Fatalf("%q became %q", text, got)
		}
		want := value(t, text)
		if p, ok := want.(map[string]any)["properties"]; spread && ok {
			if _, object := p.(map[string]any); object {
				want = p
			} else if p == nil {
				want = map[string]any{}
			}
		}
		if whole := restored(t, got, w.Blobs); !reflect.DeepEqual(value(t, whole), want) {
			t.Fatalf("%q came back as %q, row %q", text, whole, got)
		}
	})
}

// cutRef is a slow reference implementation of cutting: the size that remains, and the blobs.
func cutRef(value []byte, threshold int, top bool) (left int, blobs []string) {
	left = len(value)
	if len(value) <= threshold && !top || value[0] != '"' && value[0] != '{' && value[0] != '[' {
		return left, nil
	}
	whole := value[0] == '"'
	if !whole {
		p := jsonscan.NewWalker(value)
		object := p.Take('{') || !p.Take('[')
		for {
			p.Space()
			if p.Take(','); p.Peek() == ',' {
				p.Take(',')
			}
			p.Space()
			if p.At() >= len(value)-1 {
				break
			}
			if object {
				p.Key()
				p.Space()
			}
			from := p.At()
			switch p.Peek() {
			case '{', '[':
				p.Skip()
			case 'n':
				p.Word("null")
			default:
				p.Value()
			}
			inner, cut := cutRef(value[from:p.At()], threshold, false)
			left -= p.At() - from - inner
			blobs = append(blobs, cut...)
		}
		whole = left > threshold && !top
	}
	if whole {
		return len(pipeline.BlobHole) + blobRoom, []string{string(value)}
	}
	return left, blobs
}

// The same values are cut out of random documents as by the definition.
func TestCut(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var w Writer
	var scan jsonscan.Scanner
	kinds := map[string]int{}
	for range 4000 {
		doc := []byte("[" + randomJSON(rnd, 3) + strings.Repeat(" ", rnd.IntN(2)*rnd.IntN(900)) + "]")
		for range rnd.IntN(12) {
			doc = fmt.Appendf(nil, "[%s%s,%s%s]", randomSpace(rnd), doc, randomJSON(rnd, 2), randomSpace(rnd))
			if rnd.IntN(2) == 0 {
				doc = fmt.Appendf(nil, `{%s"k" :%s%s}`, randomSpace(rnd), doc, randomSpace(rnd))
			}
		}
		doc = fmt.Appendf(nil, `{"a":%s,"b":%s}`, doc, randomJSON(rnd, 1))
		threshold := 1 + rnd.IntN(900)
		_, want := cutRef(doc, threshold, true)
		w.Reset(threshold)
		got := row(t, &w, &scan, doc, false, nil)
		if len(w.Blobs) != len(want) {
			t.Fatalf("threshold %d: %d blobs, want %q, of %s\nrow %s", threshold, len(w.Blobs), want, doc, got)
		}
		whole := restored(t, got, w.Blobs)
		if !reflect.DeepEqual(value(t, whole), value(t, doc)) {
			t.Fatalf("threshold %d: %s came back as %s", threshold, doc, whole)
		}
		for i, b := range w.Blobs {
			kinds[b.Kind]++
			if b.Kind != pipeline.BlobJSON {
				continue
			}
			var data bytes.Buffer
			if b.Write(&data); data.String() != want[i] {
				t.Fatalf("threshold %d: blob %d is %s, want %s", threshold, i, data.Bytes(), want[i])
			}
		}
	}
	if len(kinds) != 3 {
		t.Errorf("only %v were cut", kinds)
	}
}

// The memory and the list of values stay small, whatever a large event holds.
func TestLargeDocuments(t *testing.T) {
	nested := func(levels int, inner string) string {
		return strings.Repeat("[1,", levels) + inner + strings.Repeat(",2]", levels)
	}
	ints := strings.Repeat("1,", 8<<20) + "8"
	for what, doc := range map[string]string{
		"flat":         "[" + ints + "]",
		"deep":         nested(60, "["+ints+"]"),
		"each deep":    "[" + strings.Repeat(nested(60, "["+ints[:64<<10]+"0]")+",", 100) + "0]",
		"small texts":  "[" + strings.Repeat(`"`+strings.Repeat("x", 1100)+`",`, 10_000) + "0]",
		"deep objects": strings.Repeat(`{"a":1,"b":`, 60) + "[" + ints + "]" + strings.Repeat("}", 60),
	} {
		var w Writer
		var scan jsonscan.Scanner
		w.Reset(64 << 10)
		text := []byte(`{"a":` + doc + `}`)
		got := row(t, &w, &scan, text, false, nil)
		if len(w.Blobs) == 0 || cap(w.Buf) > 8*w.Threshold || len(scan.Large()) > len(text)/8/100 {
			t.Errorf("%s: %d blobs, %d bytes written, %d values listed for %d bytes", what, len(w.Blobs), cap(w.Buf),
				len(scan.Large()), len(text))
		}
		if len(got) > 2*w.Threshold {
			t.Errorf("%s: a row of %d bytes", what, len(got))
		}
	}
}

// If too much is left, smaller values leave as well, and only as many sizes as needed.
func TestCutFurther(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"first":"` + strings.Repeat("f", 70<<10) + `"`)
	for i := range 200 {
		fmt.Fprintf(&b, `,"v%d":"%s","w%d":"%s"`, i, strings.Repeat("v", 60<<10), i, strings.Repeat("w", 2<<10))
	}
	var w Writer
	var scan jsonscan.Scanner
	w.Reset(64 << 10)
	text := []byte(b.String() + "}")
	if got := row(t, &w, &scan, text, false, nil); len(w.Blobs) != 201 || len(got) > MaxRow {
		t.Errorf("%d bytes are left, %d blobs", len(got), len(w.Blobs))
	} else if !reflect.DeepEqual(value(t, restored(t, got, w.Blobs)), value(t, text)) {
		t.Error("something else came back")
	}
}

// Events of 100 MB have a bounded list of large values, even if they are made for it.
func TestListIsBounded(t *testing.T) {
	var scan jsonscan.Scanner
	scan.LargeFrom, scan.MaxDepth = 1<<10, 100
	each := strings.Repeat("[", 90) + `"` + strings.Repeat("x", 1<<10) + `"` + strings.Repeat("]", 90)
	doc := []byte(`{"a":[` + strings.Repeat(each+",", 10_000) + "0]}")
	if _, _, err := scan.Object(doc); err != nil {
		t.Fatal(err)
	}
	if n := len(scan.Large()); n == 0 || n > 1<<18 {
		t.Errorf("%d values are listed", n)
	}
}

func randomSpace(rnd *rand.Rand) string { return []string{"", "", "", " ", "\t "}[rnd.IntN(5)] }

func randomObject(rnd *rand.Rand, depth int) string {
	var parts []string
	for i := range rnd.IntN(6) {
		parts = append(parts, fmt.Sprintf(`%s"k%d"%s:%s`, randomSpace(rnd), i, randomSpace(rnd), randomJSON(rnd, depth)))
	}
	return "{" + strings.Join(parts, ",") + randomSpace(rnd) + "}"
}

func randomJSON(rnd *rand.Rand, depth int) string {
	switch n := rnd.IntN(7); {
	case n == 0 && depth > 0:
		return randomObject(rnd, depth-1)
	case n == 1 && depth > 0:
		var parts []string
		for range rnd.IntN(8) {
			parts = append(parts, randomSpace(rnd)+randomJSON(rnd, depth-1))
		}
		return "[" + strings.Join(parts, ",") + randomSpace(rnd) + "]"
	case n == 2:
		return []string{"null", "true", "-0.50", "12345678901234567", "1e300"}[rnd.IntN(5)]
	case n == 3:
		return `"data:x/y;base64,` + base64.StdEncoding.EncodeToString(make([]byte, rnd.IntN(900))) + `"`
	}
	var b strings.Builder
	for range rnd.IntN(200) {
		b.WriteString([]string{"a", "é", `\n`, `\u00e9`, `\ud83d\ude00`, `\"`, `\\`, "🐉", `\/`}[rnd.IntN(9)])
	}
	return `"` + b.String() + `"`
}

func BenchmarkRow(b *testing.B) {
	game := []byte(
		`{"event_id":"0193b3f0-7b5a-7cde-8f01-23456789abcd","level":17,"class":"mage","gold":1827.5,"position":{"x":1.5,"y":22.75}}`)
	llm := fmt.Appendf(nil, `{"model":"m","messages":[{"role":"user","content":"%s"}],"usage":{"input":12}}`,
		strings.Repeat("text ", 20<<10))
	for name, text := range map[string][]byte{"game": game, "llm 100 KB": llm} {
		b.Run(name, func(b *testing.B) {
			var w Writer
			var scan jsonscan.Scanner
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				w.Reset(64 << 10)
				row(b, &w, &scan, text, false, nil)
			}
		})
	}
}
