package protocol_test

import (
	"encoding/base64"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
	"github.com/penstock/penstock/receiver/protocol/protocoltest"
	"github.com/penstock/penstock/receiver/tenant"
)

func host() *protocoltest.Host { return &protocoltest.Host{} }

// limited answers as if a limit rejected the request.
func limited(t *testing.T, per string) http.Handler {
	t.Helper()
	l := &tenant.Limit{Of: "events", Limit: 10, Burst: 20, Left: 3, Wait: 1100 * time.Millisecond}
	code := errcode.RateLimited
	if per == "day" {
		l, code = &tenant.Limit{Of: "bytes", PerDay: true, Limit: 1000, Wait: time.Hour}, errcode.QuotaExceeded
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		o := &protocol.Outcome{Status: code.Status(), RequestID: "r", Refused: code.Errorf("no more"), Limit: l}
		o.SetHeader(w.Header(), time.Second)
		reply := (protocol.Base{}).Reply(o, nil)
		w.WriteHeader(reply.Status)
		w.Write(reply.Body)
	})
}

// named maps the member "n" to the event's name.
var named = protocol.MapperFunc(func(d *protocol.Draft, members []jsonscan.Member) {
	for i := range members {
		if string(members[i].Key) == "n" {
			d.SetName(&members[i])
		}
	}
})

func TestValuesAndElements(t *testing.T) {
	for _, c := range []struct {
		body, member, want string // the names
		code               errcode.Code
	}{
		{`{"n":"a"}`, "", "a", 0},
		{"\xef\xbb\xbf \n[{\"n\":\"a\"},{\"n\":\"b\"}] {\"n\":\"c\"}\n", "", "a b c", 0},
		{"", "", "", errcode.EmptyBody},
		{"\xef\xbb\xbf \r\n", "", "", errcode.EmptyBody},

		{`{"batch":[{"n":"a"},{"n":"b"}],"more":{}}`, "batch", "a b", 0},
		{` {"more":"]}","batch" : [ ] } `, "batch", "", 0},
		{`{"batch":{"n":"a"}}`, "batch", "", errcode.MissingEvents},
		{`{"batch":null}`, "batch", "", errcode.MissingEvents},
		{`{"other":[]}`, "batch", "", errcode.MissingEvents},
		{`{"batch":[{"n":"a"}],"batch":[{"n":"b"}]}`, "batch", "", errcode.DuplicateKey},
		{`{"batch":[{"n":"a"}],"events":[]}`, "batch", "", errcode.DuplicateKey},
		{`[{"batch":[]}]`, "batch", "", errcode.InvalidJSON},
		{`{"batch":[{"n":"a"}]`, "batch", "", errcode.InvalidJSON},
		{`{"batch":[{"n":"a"}]} x`, "batch", "", errcode.InvalidJSON},
		{``, "batch", "", errcode.EmptyBody},
	} {
		r := host().Request()
		s := &protocoltest.Sink{Request: r}
		var err *errcode.Error
		if c.member == "" {
			r.Lines = len(c.body)%2 == 0
			err = protocol.Values(named, r, []byte(c.body), s)
		} else {
			err = protocol.Elements(named, []byte(c.body), c.member, s)
		}
		var names []string
		for _, g := range s.Given {
			names = append(names, g.Name)
		}
		code := errcode.None
		if err != nil {
			code = err.Code
		}
		lines := r.Lines && code != errcode.EmptyBody
		if got := strings.Join(names, " "); got != c.want || code != c.code || s.Lines != lines {
			t.Errorf("%q: got %q and %v, want %q and %s", c.body, got, err, c.want, c.code)
		}
	}
}

// wrap wraps a text as clients wrap JSON. The outermost layer must be recognizable by its first bytes, so base64 then
// wraps an object, an array or gzip.
func wrap(rnd *rand.Rand, text string, outermost bool) string {
	switch n := rnd.IntN(6); {
	case n == 0:
		return intake.Gzip(text)
	case n == 1 && (!outermost || strings.ContainsAny(text[:1], "{[\x1f")):
		return base64.StdEncoding.EncodeToString([]byte(text))
	case n == 2 && (!outermost || strings.ContainsAny(text[:1], "{[\x1f")):
		return base64.RawURLEncoding.EncodeToString([]byte(text))
	case n == 3 && utf8.ValidString(text):
		quoted, _ := json.Marshal(text)
		return string(quoted)
	case n == 4 && outermost || outermost && !strings.ContainsAny(text[:1], "{[\x1f\""):
		return "ip=1&data=" + url.QueryEscape(text) + "&_=7"
	}
	return text
}

// Wrapped JSON is found in any layers, and each layer is charged before it is allocated.
func TestUnwrappedAtRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(8, 9))
	for range 1000 {
		want := []string{`{"event":"a?>"}`, `[{"event":"é\n"},{}]`, `{"a":"` + strings.Repeat("x", rnd.IntN(5000)) + `"}`}[rnd.IntN(3)]
		text := want
		for layer := range 3 {
			text = wrap(rnd, text, layer == 2)
		}
		h := host()
		r := h.Request()
		got, err := r.Unwrapped([]byte(text))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Fatalf("%.300q (-want +got):\n%s", text, diff)
		}
		again, _ := r.Unwrapped([]byte("something else"))
		if string(again) != want {
			t.Fatalf("it is unwrapped twice: %q", again)
		}
		if plain := text == want; r.Copied() == 0 != plain || h.Charged == 0 != plain {
			t.Fatalf("%q: %d bytes are copied, %d counted", text, r.Copied(), h.Charged)
		}
		if r.Forget(); r.Copied() != 0 {
			t.Fatal("what was forgotten is counted")
		}
		if h.Charged > 1 {
			full := &protocoltest.Host{Limit: 1}
			if _, err := full.Request().Unwrapped([]byte(text)); err == nil || err.Code != errcode.Busy {
				t.Fatalf("%q without memory: %v, want %s", text, err, errcode.Busy)
			}
		}
	}
}

// Wrapped data never causes a panic, uncharged memory, or an error that makes clients retry.
func FuzzUnwrapped(f *testing.F) {
	for _, s := range []string{`{"a":1}`, "data=eyJhIjoxfQ", "data=%7B%7D&compression=base64", `"{\"a\":1}"`, "eyJhIjoxfQ==",
		"\x1f\x8b\x08", intake.Gzip(`{}`), "data=" + intake.Gzip(`{}`), "data=", "H4sI", "data=%25%37B", `"\ud800"`, "W10"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		h := host()
		r := h.Request()
		sent := string(body)
		got, err := r.Unwrapped(body)
		switch {
		case string(body) != sent:
			t.Fatalf("%q was changed to %q", sent, body)
		case err != nil && (err.Code.Retryable() || got != nil):
			t.Fatalf("%q: got %q, %v", body, got, err)
		case err == nil && int64(len(got)) > max(int64(len(body)), 8<<20):
			t.Fatalf("%d bytes became %d", len(body), len(got))
		case err == nil && r.Copied() > 0 && h.Charged == 0:
			t.Fatalf("%q: a copy of %d bytes is not counted", body, r.Copied())
		}
	})
}

// Different pairs of texts never join to the same text.
func FuzzJoined(f *testing.F) {
	f.Add("a", "b", "ab", "")
	f.Add("1 a", "", "", "1 a")
	f.Add("a ", "b", "a", " b")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		one, other := protocol.Joined([]byte(a), []byte(b)), protocol.Joined([]byte(c), []byte(d))
		if same := a == c && b == d; same != (string(one) == string(other)) {
			t.Errorf("%q and %q, %q and %q: %q and %q", a, b, c, d, one, other)
		}
	})
}
