package codec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// mixedDocs are documents with the same paths and different types.
func mixedDocs(n int) []string {
	rnd := rand.New(rand.NewPCG(5, 7))
	odd := []string{
		`{}`, `{"a":1}`, `{"a":-0}`, `{"a":0}`, `{"a":1.0}`, `{"a":"1"}`, `{"a":true}`, `{"a":null}`, `{"a":{}}`, `{"a":[1]}`,
		`{"a":{"b":1}}`, `{"a":{"b":null}}`, `{"a":{"b":1,"c":[]}}`,
		`{"a":{"b":"x","c":{"d":1.5}},"z":1}`, `{"a.b":1}`, `{"a":{"b.c":1}}`, `{"":1}`, `{"a":{"":1}}`, `{"a:int64":1}`,
		`{"a:string":"x","a":2}`,
		`{"f":0.1234567890123456789}`, `{"f":0.30000000000000004}`, `{"f":1e300}`, `{"f":-0.0}`, `{"f":1E-7}`,
		`{"f":100000000000000000000000.0}`, `{"f":18446744073709551615}`, `{"f":-9223372036854775808}`,
		`{"s":""}`, `{"s":"ü \u0000 \n \" \\ 😀 \ud83d\ude00"}`, `{"\u0061":"escaped key"}`,
		` { "a" : 1 , "b" : { "c" : true } } `, `{"b":{"c":true,"d":"x"},"e":[{"f":1}]}`,
	}
	docs := odd
	for len(docs) < n {
		docs = append(docs, odd[rnd.IntN(len(odd))],
			fmt.Sprintf(`{"a":%d,"b":{"c":%t,"d":%q},"f":%g,"s":"text %d"}`, rnd.IntN(9), rnd.IntN(2) == 0, "x",
				rnd.NormFloat64(), rnd.IntN(1000)))
	}
	return docs
}

func docEvents(docs []string) []pipeline.Event {
	var events []pipeline.Event
	for i, d := range docs {
		events = append(events, pipeline.Event{ID: pipeline.UUID{15: byte(i), 14: byte(i >> 8)}, Project: []byte("p"),
			Name: []byte("n"), Timestamp: 1, ReceivedAt: 2,
			Seq: uint64(i), Properties: []byte(d), Context: []byte("{}")})
	}
	return events
}

// Every document can be restored, whether its values are in columns or in the rest.
func TestShredHoldsWhatWasSent(t *testing.T) {
	for _, n := range []int{40, 20_000} { // all of it is the sample, or a part
		docs := mixedDocs(n)
		object := encode(t, pipeline.Parquet, docEvents(docs), 1000)
		got, _, err := decode(object, pipeline.Parquet, noLimit)
		if err != nil || len(got) != len(docs) {
			t.Fatalf("%d events, %v", len(got), err)
		}
		for i := range got {
			if want := canonical([]byte(docs[i])); canonical(got[i].Properties) != want {
				t.Errorf("sent %s\n got %s", docs[i], got[i].Properties)
			}
			if _, _, err := new(jsonscan.Scanner).Object(got[i].Properties); err != nil {
				t.Errorf("sent %s\n got %s: %v", docs[i], got[i].Properties, err)
			}
		}
		file, err := parquet.OpenFile(bytes.NewReader(object), int64(len(object)))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range [][]string{{"typed", "a"}, {"typed", "a:string"}, {"typed", "a:bool"}, {"typed", "a:float64"},
			{"typed", "b.c"}, {"typed", "f"}, {"typed", "s"}} {
			if _, ok := file.Schema().Lookup(path...); !ok {
				t.Errorf("no column %q", path)
			}
		}
	}
}

// DecodeTyped's columns and rest together equal Decode's documents, wherever they are cut.
func TestDecodeTyped(t *testing.T) {
	docs := mixedDocs(6000)
	object := encode(t, pipeline.Parquet, docEvents(docs), 500)
	for _, limit := range []Limit{noLimit, {Rows: 1, Bytes: 1 << 30}, {Rows: 7, Bytes: 1 << 30},
		{Rows: 100, Bytes: 3000}} {
		dec, err := newParquetDecoder(bytes.NewReader(object), int64(len(object)))
		if err != nil {
			t.Fatal(err)
		}
		at := 0
		for {
			events, typed, size, err := dec.DecodeTyped(nil, limit)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil || len(events) == 0 || len(events) > limit.Rows || size <= 0 {
				t.Fatalf("%d events of %d bytes, %v", len(events), size, err)
			}
			m := newMerger(typed)
			next := make([]int, len(typed))
			for i := range events {
				doc := m.merge(nil, events[i].Properties, typed, next, uint32(i)+first(typed))
				if int(events[i].Row) != at || canonical(doc) != canonical([]byte(docs[at])) {
					t.Fatalf("row %d is %d:\nsent %s\n got %s", at, events[i].Row, docs[at], doc)
				}
				at++
			}
		}
		if at != len(docs) {
			t.Errorf("%v: %d events, want %d", limit, at, len(docs))
		}
		dec.Close()
	}
}

func first(typed []*pipeline.Typed) uint32 {
	if len(typed) == 0 {
		return 0
	}
	return typed[0].First
}

// Keys that are ids do not create unlimited columns.
func TestShredIsBounded(t *testing.T) {
	var docs []string
	for i := range 3000 {
		docs = append(docs, fmt.Sprintf(`{"level":%d,"id%d":1,"deep":{"id%d":"x"}}`, i, i, i))
	}
	for i := range 600 { // more than the limit of columns, each frequent
		var b bytes.Buffer
		b.WriteString(`{"k0":0`)
		for k := 1; k < 300; k++ {
			fmt.Fprintf(&b, `,"k%d":%d`, k, i)
		}
		b.WriteString("}")
		docs = append(docs, b.String())
	}
	object := encode(t, pipeline.Parquet, docEvents(docs), 100)
	dec, err := newParquetDecoder(bytes.NewReader(object), int64(len(object)))
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	if n := len(dec.typed); n < 2 || n > maxTyped {
		t.Errorf("%d typed columns", n)
	}
	got, _, err := decode(object, pipeline.Parquet, noLimit)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if canonical(got[i].Properties) != canonical([]byte(docs[i])) {
			t.Fatalf("sent %.200s\n got %.200s", docs[i], got[i].Properties)
		}
	}
}

func FuzzShred(f *testing.F) {
	for _, d := range mixedDocs(0) {
		f.Add([]byte(d), []byte(`{"a":1}`))
	}
	f.Fuzz(func(t *testing.T, doc, like []byte) {
		for _, d := range [][]byte{doc, like} {
			if _, n, err := new(jsonscan.Scanner).Object(d); err != nil || n != len(d) {
				return
			}
		}
		docs := []string{string(doc), string(like), string(doc)}
		got, _, err := decode(encode(t, pipeline.Parquet, docEvents(docs), 2), pipeline.Parquet, noLimit)
		if err != nil || len(got) != len(docs) {
			t.Fatalf("%d events, %v", len(got), err)
		}
		for i := range got {
			if canonical(got[i].Properties) != canonical([]byte(docs[i])) {
				t.Errorf("sent %s\n got %s", docs[i], got[i].Properties)
			}
		}
	})
}

// Numbers too small for a float's full precision stay as they were sent.
func TestShredKeepsTinyNumbers(t *testing.T) {
	docs := []string{`{"f":1e-400}`, `{"f":1.2345678e-320}`, `{"f":-1.23e-323}`, `{"f":0.0}`, `{"f":-0.0}`,
		`{"f":2.5e-308}`, `{"f":1.5}`}
	got, _, err := decode(encode(t, pipeline.Parquet, docEvents(docs), 1000), pipeline.Parquet, noLimit)
	if err != nil || len(got) != len(docs) {
		t.Fatalf("%d events, %v", len(got), err)
	}
	for i := range got {
		if string(got[i].Properties) != docs[i] {
			t.Errorf("sent %s, got %s", docs[i], got[i].Properties)
		}
	}
}

// An object with the most columns, the longest names and many row groups is readable.
func TestFooterOfManyColumnsIsRead(t *testing.T) {
	var out bytes.Buffer
	enc := newParquetEncoder(&out, "r", NewEncoders())
	var docs []string
	for i := range sampleRows {
		doc := []byte(fmt.Sprintf(`{"%0*d":{`, maxTypedPath-10, 0))
		for k := range 4 {
			doc = fmt.Appendf(doc, `"p%d":"%d",`, (4*i+k)%maxTyped, i)
		}
		docs = append(docs, string(doc[:len(doc)-1])+"}}")
	}
	for range 30 {
		if err := enc.Encode(docEvents(docs)); err != nil {
			t.Fatal(err)
		}
		if err := enc.flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	dec, err := newParquetDecoder(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil {
		t.Fatal(err)
	}
	dec.Close()
}
