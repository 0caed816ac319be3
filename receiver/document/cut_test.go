package document_test

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/document"
	"github.com/penstock/penstock/receiver/receivertest"
)

const key = receivertest.Key

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
		{`{"image":"data:image/png;base64,` + image[1:] + `"}`, "text"},                       // the length is none of base64
		{`{"image":"data:image/png;base64,` + strings.Repeat("AB==", 400) + `"}`, "text"},     // padding in the middle
		{`{"image":"data:image/png;base64,` + strings.Repeat("ABCD", 400) + `AB=="}`, "text"}, // bits that are lost
		{`{"image":"data:image\/png;base64,` + image + `"}`, "text"},                          // an escape
		{`{"image":"data:` + strings.Repeat("a", 200) + `;base64,` + image + `"}`, "text"},    // hardly a type
		{`{"n":` + strings.Repeat("1", 10) + `,"\u0061\"":"` + big + `"}`, "text"},
		{`{ "a" : [ "` + big + `" , [ ] , { } ] , "b" : { } }`, "text"},
		{`{"many":{` + strings.TrimSuffix(strings.Repeat(`"k":1,`, 1), ",") + manyKeys(300) + `}}`, "json"},
	} {
		for _, native := range []bool{true, false} {
			r, s := receivertest.Start(func(o *receiver.Options) { o.BlobThreshold = 1000 })
			if native {
				if a := receivertest.Events(t, r, `{"name":"a","properties":`+c.props+`}`); a.Accepted != 1 {
					t.Fatalf("%.100s: %+v", c.props, a)
				}
			} else if code, a := receivertest.Send(r, "/v1/track", `{"event":"a","properties":`+c.props+`}`, "X-API-Key", key); code != 200 {
				t.Fatalf("%.100s: %v", c.props, a)
			}
			var kinds []string
			for _, b := range s.Blobs {
				kinds = append(kinds, b.Kind)
			}
			if got := strings.Join(kinds, " "); got != c.kinds {
				t.Errorf("%.100s: cut %s, want %s", c.props, got, c.kinds)
			}
			if got, want := intake.Parsed(t, s.Whole(t, 0)), intake.Parsed(t, []byte(c.props)); !reflect.DeepEqual(got, want) {
				t.Errorf("%.100s: came back as %.300s", c.props, s.Whole(t, 0))
			}
			if n := len(s.Events[0].Properties); n > 1000 {
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

// Members next to "properties" become blobs too. A rejected event stays whole.
func TestCutInCompany(t *testing.T) {
	big := strings.Repeat("y", 3000)
	r, s := receivertest.Start(func(o *receiver.Options) { o.BlobThreshold = 1000 })
	body := `{"name":"a","x":"` + big + `","properties":{"z":"` + big + `"}}
{"x":"` + big + `"}
{"name":"b","x":"` + big + `","timestamp":"x"}
{"name":"c","x":"` + big + `","properties":{"x":1}}
{"name":"d","x":["` + big + `"]}`
	a := receivertest.Events(t, r, body, "Content-Type", "application/x-ndjson")
	if a.Accepted != 2 || a.Codes() != "1:missing_name 2:invalid_timestamp 3:duplicate_key" {
		t.Fatalf("%+v %s", a, a.Codes())
	}
	if len(s.Blobs) != 3 {
		t.Errorf("%d blobs", len(s.Blobs))
	}
	for i, want := range []string{`{"x":"` + big + `","z":"` + big + `"}`, `{"x":["` + big + `"]}`} {
		if got := string(s.Whole(t, i)); got != want {
			t.Errorf("event %d: %.200s", i, got)
		}
	}
}

// Where very much is left, smaller values leave as well.
func TestCutFurther(t *testing.T) {
	r, s := receivertest.Start(func(o *receiver.Options) {
		o.BlobThreshold, o.MaxBody, o.MaxDecoded, o.MaxEvent = 64<<10, 32<<20, 32<<20, 32<<20
	})
	var b strings.Builder
	b.WriteString(`{"name":"a","first":"` + strings.Repeat("f", 70<<10) + `"`)
	for i := range 200 {
		fmt.Fprintf(&b, `,"v%d":"%s"`, i, strings.Repeat("v", 60<<10))
	}
	body := b.String() + "}"
	if a := receivertest.Events(t, r, body); a.Accepted != 1 {
		t.Fatalf("%+v", a)
	}
	if n := len(s.Events[0].Properties); n > document.MaxRow || len(s.Blobs) != 201 {
		t.Errorf("%d bytes are left, %d blobs", n, len(s.Blobs))
	}
	want := intake.Parsed(t, []byte(body)).(map[string]any)
	delete(want, "name")
	if !reflect.DeepEqual(intake.Parsed(t, s.Whole(t, 0)), any(want)) {
		t.Error("something else came back")
	}
	// If nothing helps, the event is rejected.
	r, _ = receivertest.Start(func(o *receiver.Options) {
		o.BlobThreshold, o.MaxBody, o.MaxDecoded, o.MaxEvent = 64<<10, 32<<20, 32<<20, 32<<20
	})
	body = `{"name":"a","first":"` + strings.Repeat("f", 70<<10) + `"` + manyKeys(600_000) + "}"
	if a := receivertest.Events(t, r, body); a.Codes() != "0:event_too_large" {
		t.Errorf("%s %+v", a.Codes(), a.Errors)
	}
}

// Random documents can be restored from their blobs.
func TestCutAtRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		r, s := receivertest.Start(func(o *receiver.Options) { o.BlobThreshold = 50 + rnd.IntN(500) })
		props := document.RandomObject(rnd, 4)
		if a := receivertest.Events(t, r, `{"name":"a","properties":`+props+`}`); a.Accepted != 1 {
			t.Fatalf("%s: %+v", props, a)
		}
		if !reflect.DeepEqual(intake.Parsed(t, s.Whole(t, 0)), intake.Parsed(t, []byte(props))) {
			t.Fatalf("%s came back as %s", props, s.Whole(t, 0))
		}
	}
}
