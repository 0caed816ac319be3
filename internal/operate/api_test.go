package operate

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/batcher"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// get sends a request to a handler. The token is sent unless it is empty.
func get(t *testing.T, h http.Handler, method, path, token, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Host = "localhost"
	if token != "" {
		r.Header.Set("Authorization", token)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// The paths of every role, and which of them need the token.
func TestAPI(t *testing.T) {
	api := newWorld().api()
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "penstock_test"}))
	api.Metrics = reg
	for _, tt := range []struct {
		path, token string
		status      int
		body        string
	}{
		{"/livez", "", 200, "ok\n"},
		{"/readyz", "", 200, "ok\n"},
		{"/metrics", "", 200, "penstock_test 0"},
		{"/version", "", 200, `"platform"`},
		{"/status", "", 200, `{"role":"test","version":""}`},
		{"/v1/openapi.json", "", 200, `"openapi":"3.1.0"`},
		{"/nothing", "", 404, ""},
		{"/v1/dlq", "", 401, "send the admin token as Authorization: Bearer TOKEN"},
		{"/v1/dlq", "Bearer wrong", 401, "send the admin token"},
		{"/v1/dlq", "Basic secret", 401, "send the admin token"},
		{"/v1/dlq", "secret", 401, "send the admin token"},
		{"/v1/dlq", "Bearer secret", 200, `{"done":true}`},
		{"/v1/dlq", "bearer secret", 200, `{"done":true}`},
		{"/debug/pprof/", "", 401, "send the admin token"},
		{"/debug/pprof/", "Bearer secret", 200, "goroutine"},
		{"/debug/pprof/profile", "", 401, ""},
		{"/v1/blobs/x", "", 401, ""},
	} {
		w := get(t, api.Handler(), http.MethodGet, tt.path, tt.token, "")
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.body) {
			t.Errorf("%s with %q: got %d %.200s, want %d %s", tt.path, tt.token, w.Code, w.Body, tt.status, tt.body)
		}
		if challenge := w.Header().Get("WWW-Authenticate"); (challenge != "") != (tt.status == 401) {
			t.Errorf("%s with %q: WWW-Authenticate %q", tt.path, tt.token, challenge)
		}
	}
	api.Access = NewAccess(func() string { return "" }, nil)
	w := get(t, api.Handler(), http.MethodGet, "/v1/dlq", "Bearer ", "")
	if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "the operators' API is off: set admin.token") {
		t.Errorf("without a token of its own: %d %s", w.Code, w.Body)
	}
}

func TestReadyz(t *testing.T) {
	api := newWorld().api()
	api.Status = func() RoleStatus {
		return RoleStatus{Projects: "projects.yaml: line 3", Batchers: []batcher.Stats{
			{Pipeline: "events", Refused: 2, Error: "no right s3:PutObject"}, {Pipeline: "errors", SetAside: 1}}}
	}
	want := "ok\nevents: batches wait on disk: no right s3:PutObject\nprojects.yaml: line 3\n" +
		"errors: 1 file of the write-ahead log set aside as *.corrupt or *.unreadable; see the log and docs/operate/runbook.md\n"
	if w := get(t, api.Handler(), http.MethodGet, "/readyz", "", ""); w.Code != 200 || w.Body.String() != want {
		t.Errorf("got %d\n%s, want\n%s", w.Code, w.Body, want)
	}
	api.Ready = func() error { return errors.New("the disk is full") }
	if w := get(t, api.Handler(), http.MethodGet, "/readyz", "", ""); w.Code != 503 ||
		w.Body.String() != "the disk is full\n" {
		t.Errorf("got %d\n%s", w.Code, w.Body)
	}
}

// If an operation fails before its first line, the status says so. If it fails later, the last line does.
func TestAnswersOfOperations(t *testing.T) {
	var items []string
	var fail error
	op := Operation{Name: "test op", method: http.MethodGet, path: "/v1/test", params: &letterFilter{},
		item: pipeline.DeadLetter{},
		run: func(_ context.Context, _ *Operator, params any, out sink) error {
			for _, key := range append(items, params.(*letterFilter).Keys...) {
				if err := out.item(pipeline.DeadLetter{Key: key}); err != nil {
					return err
				}
			}
			if len(items) > 0 {
				out.progress(progress{Objects: 1})
			}
			return fail
		}}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		op.serve(w, r, &Operator{}, Identity{Role: RoleOperator})
	})
	for _, tt := range []struct {
		name, query string
		items       []string
		fail        error
		status      int
		want        []string // beginnings of the lines
	}{
		{"nothing", "", nil, nil, 200, []string{`{"done":true}`}},
		{"items", "?key=b", []string{"a"}, nil, 200, []string{`{"item":{"key":"a"`, `{"item":{"key":"b"`,
			`{"progress":{"objects":1`, `{"done":true}`}},
		{"a wrong parameter", "?nokey=b", nil, nil, 400, []string{`{"error":"there is no parameter \"nokey\""}`}},
		{"a wrong value", "?all=perhaps", nil, nil, 400, []string{`{"error":"all: \"perhaps\" is neither true nor false"}`}},
		{"fails at once", "", nil, errors.New("no"), 422, []string{`{"error":"no"}`}},
		{"an outage at once", "", nil, retry.As(retry.Outage, errors.New("away")), 503, []string{`{"error":"away"}`}},
		{"fails later", "", []string{"a"}, errors.New("no"), 200, []string{`{"item":`, `{"progress":`, `{"error":"no"}`}},
	} {
		items, fail = tt.items, tt.fail
		w := get(t, h, http.MethodGet, "/"+tt.query, "", "")
		lines := strings.Split(strings.TrimSpace(w.Body.String()), "\n")
		if w.Code != tt.status || len(lines) != len(tt.want) {
			t.Errorf("%s: got %d %q, want %d %q", tt.name, w.Code, lines, tt.status, tt.want)
			continue
		}
		for i, want := range tt.want {
			if !strings.HasPrefix(lines[i], want) {
				t.Errorf("%s: line %d is %s, want %s", tt.name, i, lines[i], want)
			}
		}
	}
	// A POST has its parameters in the body.
	op.method = http.MethodPost
	items, fail = nil, nil
	for body, want := range map[string]string{
		`{"keys":["a"]}`:            `{"item":{"key":"a"`,
		``:                          `{"done":true}`,
		`{"keys":["a"]} {"all":1}`:  "something follows the object",
		`{"key":["a"]}`:             `unknown field \"key\"`,
		`[]`:                        "the body is no JSON object",
		`{"keys":["a"],"all":"no"}`: "the body is no JSON object",
	} {
		if w := get(t, h, http.MethodPost, "/", "", body); !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: got %d %s, want %s", body, w.Code, w.Body, want)
		}
	}
}

// Errors about a server's wrong answers have its address.
func TestRemote(t *testing.T) {
	var answer func(w http.ResponseWriter)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("the token is %q", r.Header.Get("Authorization"))
		}
		answer(w)
	}))
	defer server.Close()
	said := func(status int, text string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { w.WriteHeader(status); io.WriteString(w, text) }
	}
	for _, tt := range []struct {
		answer func(http.ResponseWriter)
		keys   []string
		want   string
	}{
		{said(200, `{"item":{"key":"a"}}`+"\n"+`{"progress":{"seconds":1}}`+"\n"+`{"done":true}`), []string{"a"}, ""},
		{said(200, `{"item":{"key":"a"}}`+"\n"), []string{"a"}, server.URL + ": the answer was cut off: EOF"},
		{said(200, `{"item":{"key":"a"}}`+"\n"+`{"error":"no"}`), []string{"a"}, "no"},
		{said(422, `{"error":"choose"}`), nil, "choose"},
		{said(401, `{"error":"who are you"}`), nil, server.URL + " rejects the token: set --token or PENSTOCK_ADMIN_TOKEN"},
		{said(502, "<html>"), nil, server.URL + "/v1/dlq?"},
	} {
		answer = tt.answer
		var keys []string
		told := 0
		op := Find("dlq list")
		err := Remote(server.URL, "secret", http.DefaultClient)(t.Context(), op, op.NewParams(), sink{
			item:     func(item any) error { keys = append(keys, item.(*pipeline.DeadLetter).Key); return nil },
			progress: func(progress) { told++ },
		})
		wantError(t, err, tt.want, "%q", tt.keys)
		if !slices.Equal(keys, tt.keys) {
			t.Errorf("got %q, want %q", keys, tt.keys)
		}
	}
	op := Find("dlq list")
	err := Remote("http://127.0.0.1:1", "", http.DefaultClient)(t.Context(), op, op.NewParams(), sink{})
	wantError(t, err, "http://127.0.0.1:1 does not answer", "a server that is not there")
	err = Remote(":", "", http.DefaultClient)(t.Context(), op, op.NewParams(), sink{})
	wantError(t, err, "--server: ", "no URL")
	stop := errors.New("enough")
	answer = said(200, `{"item":{"key":"a"}}`)
	err = Remote(server.URL, "secret", http.DefaultClient)(t.Context(), op, op.NewParams(),
		sink{item: func(any) error { return stop }})
	if !errors.Is(err, stop) {
		t.Errorf("got %v, want %v", err, stop)
	}
}

// A large value is served with its type, also in parts, and never runs in a browser.
func TestServeBlob(t *testing.T) {
	w := newWorld()
	value := []byte("0123456789")
	w.objects[blobObject] = pipeline.Object{Key: blobObject, ETag: "etag", Size: int64(len(value))}
	w.bytes[blobObject] = value
	h := w.api().Handler()
	for _, tt := range []struct {
		path, header string
		status       int
		body         string
	}{
		{"/v1/" + blobObject, "", 200, "0123456789"},
		{"/v1/blobs/" + blobObject, "", 200, "0123456789"},
		{"/v1/" + blobObject + "?range=2-5", "", 200, "2345"},
		{"/v1/" + blobObject + "?range=2-5&content_type=text/plain", "bytes=1-2", 206, "34"},
		{"/v1/" + blobObject, "bytes=-3", 206, "789"},
		{"/v1/" + blobObject + "?range=2-10", "", 416, "the range ends at byte 10, and " + blobObject + " has 10 bytes"},
		{"/v1/" + blobObject + "?range=5-2", "", 400, "want FIRST-LAST"},
		{"/v1/" + blobObject + "?range=a-b", "", 400, "want FIRST-LAST"},
		{"/v1/" + blobObject + "?range=7", "", 400, "want FIRST-LAST"},
		{"/v1/" + blobObject + "?from=7", "", 400, `unknown parameter \"from\": want range, content_type`},
		{"/v1/blobs/events/other.blobs", "", 404, "no such object"},
		{"/v1/blobs/secrets.txt", "", 404, "is no object of blobs"},
	} {
		r := httptest.NewRequest(http.MethodGet, tt.path, nil)
		r.Host = "localhost"
		r.Header.Set("Authorization", "Bearer secret")
		if tt.header != "" {
			r.Header.Set("Range", tt.header)
		}
		got := httptest.NewRecorder()
		h.ServeHTTP(got, r)
		if got.Code != tt.status || !strings.Contains(got.Body.String(), tt.body) || tt.status < 300 &&
			got.Body.String() != tt.body {
			t.Errorf("%s %s: got %d %s, want %d %s", tt.path, tt.header, got.Code, got.Body, tt.status, tt.body)
		}
		if tt.status < 300 && (!strings.HasPrefix(got.Header().Get("Content-Security-Policy"), "sandbox") ||
			got.Header().Get("X-Content-Type-Options") != "nosniff" || got.Header().Get("ETag") == "") {
			t.Errorf("%s: headers %v", tt.path, got.Header())
		}
	}
	w.away["bucket"] = errAway
	if got := get(t, h, http.MethodGet, "/v1/"+blobObject, "Bearer secret", ""); got.Code != 503 {
		t.Errorf("the bucket is away: got %d %s", got.Code, got.Body)
	}
}

// A schema matches what encoding/json makes of a type.
func TestSchema(t *testing.T) {
	type inner struct {
		N uint32 `json:"n"`
	}
	type all struct {
		inner
		Text   string            `json:"text,omitempty"`
		Yes    bool              `json:"yes"`
		Float  *float64          `json:"float"`
		Bytes  []byte            `json:"bytes"`
		List   []inner           `json:"list"`
		Map    map[string]string `json:"map"`
		Time   time.Time         `json:"time"`
		Raw    json.RawMessage   `json:"raw"`
		Hidden int               `json:"-"`
	}
	got, err := json.Marshal(schemaOf[all]())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"properties":{"bytes":{"contentEncoding":"base64","type":"string"},"float":{"type":"number"},` +
		`"list":{"items":{"properties":{"n":{"type":"integer"}},"type":"object"},"type":"array"},` +
		`"map":{"additionalProperties":{"type":"string"},"type":"object"},"n":{"type":"integer"},"raw":{},` +
		`"text":{"type":"string"},"time":{"format":"date-time","type":"string"},"yes":{"type":"boolean"}},"type":"object"}`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func schemaOf[T any]() object { return schema(reflect.TypeFor[T]()) }
