package intake

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"

	"github.com/penstock/penstock/internal/pipeline"
)

// Error is an error in an answer of Penstock's own API.
type Error struct {
	Index   *int   `json:"index"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Answer is an answer of Penstock's own API.
type Answer struct {
	Status        int         `json:"-"`
	Header        http.Header `json:"-"`
	Accepted      int         `json:"accepted"`
	Rejected      int         `json:"rejected"`
	Sampled       int         `json:"sampled"`
	RequestID     string      `json:"request_id"`
	Object        string      `json:"object"`
	Error         Error       `json:"error"`
	Errors        []Error
	ErrorsOmitted int `json:"errors_omitted"`
	Limit         struct {
		Of, Per            string
		Limit, Burst, Left int64
		RetryAfter         int64     `json:"retry_after"`
		RetryAt            time.Time `json:"retry_at"`
	} `json:"limit"`
}

// Codes lists index:code of the rejected events, or the code of the request.
func (a Answer) Codes() string {
	var b strings.Builder
	for _, e := range a.Errors {
		b.WriteString(" " + strconv.Itoa(*e.Index) + ":" + e.Code)
	}
	return strings.TrimSpace(b.String() + " " + a.Error.Code)
}

// Post is a POST with a body. header are names and values.
func Post(target, body string, header ...string) *http.Request {
	return PostReader(target, strings.NewReader(body), header...)
}

// PostReader is Post with a body of any kind.
func PostReader(target string, body io.Reader, header ...string) *http.Request {
	req := httptest.NewRequest(http.MethodPost, target, body)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return req
}

// Do serves a request.
func Do(h http.Handler, req *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

// Serve serves a request of Penstock's own API.
func Serve(t testing.TB, h http.Handler, req *http.Request) Answer {
	t.Helper()
	return Read(t, Do(h, req).Result())
}

// Read reads an answer of Penstock's own API. It has no member that is not known here.
func Read(t testing.TB, resp *http.Response) Answer {
	t.Helper()
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := Answer{Status: resp.StatusCode, Header: resp.Header}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		t.Fatalf("answer %q: %v", text, err)
	}
	if a.RequestID == "" {
		t.Errorf("answer %s has no request id", text)
	}
	return a
}

// Gzip compresses a text.
func Gzip(text string) string {
	var packed strings.Builder
	z := gzip.NewWriter(&packed)
	z.Write([]byte(text))
	z.Close()
	return packed.String()
}

// Transparent is the image that pixels answer.
const Transparent = "GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\x00\x00\x00" +
	"!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"

// UUID is an id that clients send.
const UUID = "0192d4b0-7c1e-7a55-9d0e-0242ac120002"

// Event is what a protocol is to make of one event. An empty ID, Time or SDK is not compared.
type Event struct{ Name, User, Session, ID, Time, Properties, SDK string }

// Said is such an event by the order of its fields.
func Said(name, user, session, id, time, properties, sdk string) Event {
	return Event{name, user, session, id, time, properties, sdk}
}

// Check compares the only event that was stored.
func (want Event) Check(t testing.TB, what string, s *Sink) {
	t.Helper()
	if len(s.Events) != 1 {
		t.Errorf("%s: %d events, want 1; failure records %s", what, len(s.Events), s.Codes())
		return
	}
	want.Compare(t, what, s.Events[0])
}

// Compare compares an event.
func (want Event) Compare(t testing.TB, what string, e pipeline.Event) {
	t.Helper()
	got := Event{string(e.Name), string(e.UserID), string(e.SessionID), e.ID.String(),
		pipeline.Millis(e.Timestamp).Format(pipeline.TimeFormat), string(e.Properties), ""}
	if _, sdk, found := strings.Cut(string(e.Context), `"sdk":`); found {
		got.SDK = strings.TrimSuffix(sdk, "}")
	}
	if want.ID == "" {
		got.ID = ""
	}
	if want.Time == "" {
		got.Time = ""
	}
	if want.SDK == "" {
		got.SDK = ""
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%.200s (-want +got):\n%s", what, diff)
	}
}

// CheckRejected compares the status of an answer, the codes in it, and the raw payloads of the failure records, with |
// between them.
func (s *Sink) CheckRejected(t testing.TB, what string, status int, a Answer, wantStatus int, codes, raws string) {
	t.Helper()
	if status != wantStatus || a.Codes() != codes || s.Raws() != raws {
		t.Errorf("%s: got %d %q, kept %q; want %d %q, kept %q", what, status, a.Codes(), s.Raws(), wantStatus, codes, raws)
	}
}
