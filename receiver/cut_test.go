package receiver

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
	"github.com/penstock/penstock/receiver/protocol"
)

// whole puts the blobs of event i back into its properties.
func (s *sink) whole(t *testing.T, i int) []byte {
	t.Helper()
	props := s.events[i].Properties
	var out []byte
	from := 0
	for _, b := range s.blobs {
		if b.Event != i {
			continue
		}
		if b.At < from || string(props[b.At:b.At+len(pipeline.BlobHole)]) != pipeline.BlobHole {
			t.Fatalf("a blob at %d, behind %d, in %s", b.At, from, props)
		}
		out = append(out, props[from:b.At]...)
		from = b.At + len(pipeline.BlobHole)
		switch b.Kind {
		case pipeline.BlobText:
			out = jsonscan.AppendQuoted(out, b.data)
		case pipeline.BlobJSON:
			out = append(out, b.data...)
		case pipeline.BlobDataURL:
			out = append(out, `"data:`+b.ContentType+`;base64,`+base64.StdEncoding.EncodeToString(b.data)+`"`...)
		case pipeline.BlobFile:
			out = append(out, `"a file"`...)
		default:
			t.Fatalf("a blob of kind %q", b.Kind)
		}
	}
	return append(out, props[from:]...)
}

func parsed(t *testing.T, doc []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %.300s", err, doc)
	}
	return v
}

func TestCut(t *testing.T) {
	big := strings.Repeat("x", 2000)
	image := base64.StdEncoding.EncodeToString([]byte(big + "\x00\xff"))
	for _, c := range []struct{ props, kinds string }{
		{`{"a":1,"b":"` + big + `"}`, "text"},
		{`{"a":"` + big + `","b":{"c":["` + big + `",2,{"d":"` + big + `"}]}}`, "text text text"},
		{`{"a":[` + strings.Repeat(`{"k":1.50},`, 200) + `null]}`, "json"},
		{`{"a":{"small":1,"list":[` + strings.Repeat("1234567,", 200) + `1]}}`, "json"},
		{`{"messages":[{"role":"user","content":"` + strings.Repeat(`\u00e9\n\ud83d\ude00\"`, 100) + `"}]}`, "text"},
		{`{"image":"data:image/png;base64,` + image + `"}`, "data_url"},
		{`{"image":"data:text/plain;charset=utf-8;base64,` + image + `"}`, "data_url"},
		{`{"image":"data:;base64,` + image + `"}`, "data_url"},
		{`{"image":"data:image/png;base64,` + image[1:] + `"}`, "text"},                             // the length is none of base64
		{`{"image":"data:image/png;base64,` + strings.Repeat("AB==", 400) + `"}`, "text"},           // padding in the middle
		{`{"image":"data:image/png;base64,` + strings.Repeat("ABCD", 400) + `AB=="}`, "text"},       // bits that are lost
		{`{"image":"data:image\/png;base64,` + image + `"}`, "text"},                                // an escape
		{`{"image":"data:` + strings.Repeat("a", maxMediaType) + `;base64,` + image + `"}`, "text"}, // hardly a type
		{`{"n":` + strings.Repeat("1", 10) + `,"\u0061\"":"` + big + `"}`, "text"},
		{`{ "a" : [ "` + big + `" , [ ] , { } ] , "b" : { } }`, "text"},
		{`{"many":{` + strings.TrimSuffix(strings.Repeat(`"k":1,`, 1), ",") + manyKeys(300) + `}}`, "json"},
	} {
		for _, native := range []bool{true, false} {
			r, s := newTest(func(o *Options) { o.BlobThreshold = 1000 })
			if native {
				if a := serve(t, r, withKey(post("/v1/events", `{"name":"a","properties":`+c.props+`}`))); a.Accepted != 1 {
					t.Fatalf("%.100s: %+v", c.props, a)
				}
			} else if code, a := send(r, "/v1/track", `{"event":"a","properties":`+c.props+`}`, "X-API-Key", key); code != 200 {
				t.Fatalf("%.100s: %v", c.props, a)
			}
			var kinds []string
			for _, b := range s.blobs {
				kinds = append(kinds, b.Kind)
			}
			if got := strings.Join(kinds, " "); got != c.kinds {
				t.Errorf("%.100s: cut %s, want %s", c.props, got, c.kinds)
			}
			if got, want := parsed(t, s.whole(t, 0)), parsed(t, []byte(c.props)); !reflect.DeepEqual(got, want) {
				t.Errorf("%.100s: came back as %.300s", c.props, s.whole(t, 0))
			}
			if n := len(s.events[0].Properties); n > 1000 {
				t.Errorf("%.100s: %d bytes are left in the row", c.props, n)
			}
		}
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"key%d":%d`, i, i)
	}
	return b.String()
}

// Members beside "properties" are cut as well; of a refused event nothing is.
func TestCutInCompany(t *testing.T) {
	big := strings.Repeat("y", 3000)
	r, s := newTest(func(o *Options) { o.BlobThreshold = 1000 })
	body := `{"name":"a","x":"` + big + `","properties":{"z":"` + big + `"}}
{"x":"` + big + `"}
{"name":"b","x":"` + big + `","timestamp":"x"}
{"name":"c","x":"` + big + `","properties":{"x":1}}
{"name":"d","x":["` + big + `"]}`
	a := serve(t, r, withKey(post("/v1/events", body, "Content-Type", "application/x-ndjson")))
	if a.Accepted != 2 || a.codes() != "1:missing_name 2:invalid_timestamp 3:duplicate_key" {
		t.Fatalf("%+v %s", a, a.codes())
	}
	if len(s.blobs) != 3 {
		t.Errorf("%d blobs", len(s.blobs))
	}
	for i, want := range []string{`{"x":"` + big + `","z":"` + big + `"}`, `{"x":["` + big + `"]}`} {
		if got := string(s.whole(t, i)); got != want {
			t.Errorf("event %d: %.200s", i, got)
		}
	}
}

// Where very much is left, smaller values leave as well.
func TestCutFurther(t *testing.T) {
	r, s := newTest(func(o *Options) {
		o.BlobThreshold, o.MaxBody, o.MaxDecoded, o.MaxEvent = 64<<10, 32<<20, 32<<20, 32<<20
	})
	var b strings.Builder
	b.WriteString(`{"name":"a","first":"` + strings.Repeat("f", 70<<10) + `"`)
	for i := range 200 {
		fmt.Fprintf(&b, `,"v%d":"%s"`, i, strings.Repeat("v", 60<<10))
	}
	body := b.String() + "}"
	if a := serve(t, r, withKey(post("/v1/events", body))); a.Accepted != 1 {
		t.Fatalf("%+v", a)
	}
	if n := len(s.events[0].Properties); n > maxRow || len(s.blobs) != 201 {
		t.Errorf("%d bytes are left, %d blobs", n, len(s.blobs))
	}
	want := parsed(t, []byte(body)).(map[string]any)
	delete(want, "name")
	if !reflect.DeepEqual(parsed(t, s.whole(t, 0)), any(want)) {
		t.Error("something else came back")
	}
	// And where nothing helps the event is refused.
	r, _ = newTest(func(o *Options) {
		o.BlobThreshold, o.MaxBody, o.MaxDecoded, o.MaxEvent = 64<<10, 32<<20, 32<<20, 32<<20
	})
	body = `{"name":"a","first":"` + strings.Repeat("f", 70<<10) + `"` + manyKeys(600_000) + "}"
	if a := serve(t, r, withKey(post("/v1/events", body))); a.codes() != "0:event_too_large" {
		t.Errorf("%s %+v", a.codes(), a.Errors)
	}
}

// What is cut out of random documents and put back is what it was.
func TestCutAtRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		r, s := newTest(func(o *Options) { o.BlobThreshold = 50 + rnd.IntN(500) })
		props := randomObject(rnd, 4)
		if a := serve(t, r, withKey(post("/v1/events", `{"name":"a","properties":`+props+`}`))); a.Accepted != 1 {
			t.Fatalf("%s: %+v", props, a)
		}
		if !reflect.DeepEqual(parsed(t, s.whole(t, 0)), parsed(t, []byte(props))) {
			t.Fatalf("%s came back as %s", props, s.whole(t, 0))
		}
	}
}

// cutByLevels is what cut comes to, written down without regard for time and
// memory: each level looks for the ends of all that is in it.
func cutByLevels(q *request, value []byte) {
	line := func(value []byte) {
		if len(value) > q.threshold {
			cutByLevels(q, value)
		} else {
			q.flat(value)
		}
	}
	from, before := len(q.scratch), len(q.blobs)
	switch value[0] {
	case '"':
		q.blob(value)
		return
	case '{':
		q.scratch = append(q.scratch, '{')
		if inner := jsonscan.TrimSpace(value[1 : len(value)-1]); len(inner) <= q.threshold {
			q.flat(inner)
		} else {
			protocol.EachSent(value, func(key, value []byte) {
				q.comma()
				q.scratch = append(append(append(q.scratch, '"'), key...), '"', ':')
				line(value)
			})
		}
		q.scratch = append(q.scratch, '}')
	case '[':
		q.scratch = append(q.scratch, '[')
		for rest := jsonscan.TrimSpace(value[1:]); rest[0] != ']'; {
			if rest[0] == ',' {
				q.scratch = append(q.scratch, ',')
				rest = jsonscan.TrimSpace(rest[1:])
			}
			n := jsonscan.Extent(rest)
			line(rest[:n])
			rest = jsonscan.TrimSpace(rest[n:])
		}
		q.scratch = append(q.scratch, ']')
	default:
		q.flat(value)
		return
	}
	if len(q.scratch)-from+(len(q.blobs)-before)*blobRoom > q.threshold {
		q.scratch, q.blobs = q.scratch[:from], q.blobs[:before]
		q.blob(value)
	}
}

// Of random documents, to the byte, the same is cut as level by level.
func TestCutByLevels(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	r, _ := newTest(nil)
	cuts := map[string]int{}
	for range 4000 {
		doc := []byte("[" + randomJSON(rnd, 3) + strings.Repeat(" ", rnd.IntN(2)*rnd.IntN(900)) + "]")
		for range rnd.IntN(12) {
			doc = fmt.Appendf(nil, "[%s%s,%s%s]", randomSpace(rnd), doc, randomJSON(rnd, 2), randomSpace(rnd))
			if rnd.IntN(2) == 0 {
				doc = fmt.Appendf(nil, `{%s"k" :%s%s}`, randomSpace(rnd), doc, randomSpace(rnd))
			}
		}
		var want, got *request
		for _, q := range []**request{&want, &got} {
			*q = newRequest(r)
			(*q).scratch = append((*q).scratch, "before"...)
		}
		want.threshold = min(len(doc)-1, 1+rnd.IntN(900))
		got.threshold = want.threshold
		cutByLevels(want, doc)
		c := cutter{q: got, text: doc}
		c.begin(rnd.IntN(3000))
		if !bytes.Equal(got.scratch, want.scratch) || len(got.blobs) != len(want.blobs) {
			t.Fatalf("threshold %d: of %s\n%s with %d blobs, want\n%s with %d", got.threshold, doc, got.scratch, len(got.blobs), want.scratch, len(want.blobs))
		}
		for i := range got.blobs {
			var a, b bytes.Buffer
			got.blobs[i].Write(&a)
			want.blobs[i].Write(&b)
			if g, w := got.blobs[i], want.blobs[i]; g.At != w.At || g.Kind != w.Kind || g.ContentType != w.ContentType || g.Size != w.Size || a.String() != b.String() {
				t.Fatalf("threshold %d: of %s\nblob %d is %+v, want %+v", got.threshold, doc, i, g, w)
			}
			cuts[got.blobs[i].Kind]++
		}
		if c.looks > 3*len(doc) {
			t.Fatalf("threshold %d: %d looks at %d bytes", got.threshold, c.looks, len(doc))
		}
	}
	if len(cuts) != 3 {
		t.Errorf("only %v were cut", cuts)
	}
}

// What an array takes of time goes by its size, however deep it is, and what it
// takes of memory by the threshold.
func TestCutIsLinear(t *testing.T) {
	nested := func(levels int, inner string) string {
		return strings.Repeat("[1,", levels) + inner + strings.Repeat(",2]", levels)
	}
	objects := func(levels int, inner string) string {
		return strings.Repeat(`{"a":1,"b":`, levels) + inner + strings.Repeat("}", levels)
	}
	ints := strings.Repeat("1234567,", 400_000) + "8"
	r, _ := newTest(nil)
	for what, doc := range map[string]string{
		"flat":           "[" + ints + "]",
		"deep":           nested(60, "["+ints+"]"),
		"deep objects":   objects(60, "["+ints+"]"),
		"each deep":      "[" + strings.Repeat(nested(60, "["+ints[:64<<10]+"0]")+",", 50) + "0]",
		"each in each":   nested(20, strings.Repeat(nested(20, strings.Repeat(nested(20, "["+ints[:64<<10]+"0]")+",", 8)+"0")+",", 6)+"0"),
		"below as above": "[" + strings.Repeat(nested(60, "["+ints[:30<<10]+"0]")+",", 100) + "0]",
	} {
		q := newRequest(r)
		q.threshold = 64 << 10
		c := cutter{q: q, text: []byte(doc)}
		c.begin(hugeSize)
		if c.looks > 3*len(doc) || cap(q.scratch) > 5*q.threshold || len(q.blobs) == 0 {
			t.Errorf("%s: %d looks at %d bytes, %d of memory, %d blobs", what, c.looks, len(doc), cap(q.scratch), len(q.blobs))
		}
	}
}

func randomObject(rnd *rand.Rand, depth int) string {
	var parts []string
	for i := range rnd.IntN(6) {
		parts = append(parts, fmt.Sprintf(`%s"k%d"%s:%s`, randomSpace(rnd), i, randomSpace(rnd), randomJSON(rnd, depth)))
	}
	return "{" + strings.Join(parts, ",") + randomSpace(rnd) + "}"
}

func randomSpace(rnd *rand.Rand) string { return []string{"", "", "", " ", "\t "}[rnd.IntN(5)] }

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

// Escapes are never torn at the ends of parts.
func TestWriteUnescaped(t *testing.T) {
	for _, piece := range []string{`a\n`, `\u00e9`, `\ud83d\ude00`, `x\ud83d\ude00`, `xy\ud83d\ude00`, `\\\"`, "é\\t"} {
		text := strings.Repeat(piece, 3*decodePart/len(piece))
		var got bytes.Buffer
		if err := writeUnescaped(&got, []byte(text)); err != nil {
			t.Fatal(err)
		}
		var want string
		if err := json.Unmarshal([]byte(`"`+text+`"`), &want); err != nil {
			t.Fatal(err)
		}
		if got.String() != want {
			t.Errorf("%s: something else came out", piece)
		}
	}
}
