package protocol_test

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver/protocol"
)

// The places of a key, in order. If the first present one is empty, there is no key, and later ones are ignored.
func TestKeyInTheHead(t *testing.T) {
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("of-basic:password"))
	for _, c := range []struct {
		target, auth, header, want string
		given                      bool
	}{
		{"/", "", "", "", false},
		{"/", "Bearer of-bearer", "", "of-bearer", true},
		{"/", "bearer  of-bearer ", "", "of-bearer", true},
		{"/", "Bearer ", "", "", true},
		{"/", basic, "", "of-basic", true},
		{"/", "Basic !!", "", "", false},
		{"/", "Digest x", "of-header", "of-header", true},
		{"/", "Bearer", "of-header", "of-header", true}, // without a token
		{"/", "", "of-header", "of-header", true},
		{"/?key=of-query", "", "", "of-query", true},
		{"/?key=of-query", "", "of-header", "of-header", true},
		{"/?key=of-query", "Bearer of-bearer", "of-header", "of-bearer", true},
		{"/?key=", "", "", "", false},
		{"/?key=a&key=b", "", "", "a", true},
		{"/?%6bey=of%2Dquery", "", "", "of-query", true},
		{"/?x=%zz&key=of-query", "", "", "of-query", true}, // the rest of the query may be invalid
		{"/?token=of-token", "", "", "", false},
	} {
		req := httptest.NewRequest(http.MethodPost, "/", nil)
		req.URL.RawQuery = strings.TrimPrefix(strings.TrimPrefix(c.target, "/"), "?")
		req.Header.Set("Authorization", c.auth)
		req.Header.Set("X-API-Key", c.header)
		key, given := (protocol.Base{}).Authenticate(req)
		if key != c.want || given != c.given {
			t.Errorf("%s %q %q: got %q, %v, want %q, %v", c.target, c.auth, c.header, key, given, c.want, c.given)
		}
		key, given = protocol.HeadOrQueryKey(req, "token", "api_key")
		if strings.Contains(c.target, "token") {
			c.want, c.given = "of-token", true
		}
		if key != c.want || given != c.given {
			t.Errorf("%s %q %q, or a parameter: got %q, %v, want %q, %v", c.target, c.auth, c.header, key, given, c.want, c.given)
		}
	}
}

// If a request has no body, its query becomes the body, so a rejected one is kept without its key.
func TestQueryToBody(t *testing.T) {
	for _, c := range []struct{ method, query, body, want string }{
		{"GET", "data=x&ip=1", "", "data=x&ip=1"},
		{"GET", "", "", ""},
		{"GET", "api_key=k&data=x&token=k&writeKey=k&key=k", "", "data=x"},
		{"GET", "api%5Fkey=k&data=x", "", "data=x"},
		{"GET", "api_key&&data=x", "", "data=x"},
		{"GET", "api_key%zz=1&data=x", "", "api_key%zz=1&data=x"}, // no client's parameter has such a name
		{"GET", "data=x", "body", "data=x"},
		{"POST", "data=x&token=k", "", "data=x"},
		{"POST", "data=x", "body", "body"},
		{"POST", "ip=1", "", ""},
		{"POST", "data=", "body", "body"},
	} {
		req := httptest.NewRequest(c.method, "/e?"+c.query, strings.NewReader(c.body))
		req.Header.Set("Content-Encoding", "gzip")
		protocol.QueryToBody(req)
		got, err := io.ReadAll(req.Body)
		if err != nil || string(got) != c.want || req.ContentLength != int64(len(c.want)) {
			t.Errorf("%+v: got %q of %d bytes, %v", c, got, req.ContentLength, err)
		}
		moved := c.want != c.body || c.method == "GET"
		if form := req.Header.Get("Content-Type") == "application/x-www-form-urlencoded"; form != moved ||
			moved == (req.Header.Get("Content-Encoding") != "") {
			t.Errorf("%+v: headers %v", c, req.Header)
		}
	}
}

// A path with any key leads to its route, and the stored path does not contain the key.
func FuzzKeyInPath(f *testing.F) {
	for _, key := range []string{"secret", "", "{}", "..", "v2", "events", "a b", "é", "%2F", "remote_configs"} {
		f.Add(key, false)
	}
	router, err := protocol.NewRouter([]*protocol.Route{{Name: "game", Paths: []string{"/v2/{}/events"}},
		{Name: "settings", Paths: []string{"/v1/projects/{}/settings"}}, {Name: "plain", Paths: []string{"/v1/events"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, key string, slash bool) {
		if strings.Contains(key, "/") {
			return
		}
		for name, around := range map[string][2]string{"game": {"/v2/", "/events"}, "settings": {"/v1/projects/",
			"/settings"}} {
			path := around[0] + key + around[1]
			if slash {
				path += "/"
			}
			if route := router.Find(path, nil); route == nil || route.Name != name {
				t.Fatalf("%q: got route %+v, want %s", path, route, name)
			}
			want := around[0] + "{}" + around[1]
			if got := strings.TrimSuffix(router.Keyless(path), "/"); got != want {
				t.Fatalf("%q: stored as %q, want %q", path, got, want)
			}
		}
	})
}

// A beacon's key may be in a form next to the data, or in the query of a request without a body.
func TestFormKey(t *testing.T) {
	for body, want := range map[string]string{
		`data={"event":"a"}`: "", `api_key=k&data={"event":"a"}`: "k", `data={"event":"a"}&token=k`: "k",
		`data={"event":"a"}&writeKey=k&token=t`: "t", `{"api_key":"k","a":"&data="}`: "",
	} {
		r := host().Request()
		text, err := r.Unwrapped([]byte(body))
		if err != nil || !strings.HasPrefix(string(text), "{") || r.FormKey() != want {
			t.Errorf("%s: got %q, key %q, %v, want key %q", body, text, r.FormKey(), err, want)
		}
	}
}

func TestReplyToALimit(t *testing.T) {
	type limit struct {
		Of, Per            string
		Limit, Burst, Left int
		RetryAfter         int `json:"retry_after"`
	}
	for _, c := range []struct {
		query string
		want  limit
	}{
		{"second", limit{"events", "second", 10, 20, 3, 2}}, {"day", limit{"bytes", "day", 1000, 0, 0, 3600}},
	} {
		w := intake.Do(limited(t, c.query), intake.Post("/v1/events", `{"name":"a"}`))
		got := intake.Read(t, w.Result()).Limit
		if diff := cmp.Diff(c.want, limit{got.Of, got.Per, int(got.Limit), int(got.Burst), int(got.Left),
			int(got.RetryAfter)}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.query, diff)
		}
		if got.RetryAt.IsZero() {
			t.Errorf("%s: no time to send again at", c.query)
		}
	}
	if got := protocol.QueryValue(url.Values{"a": {"x", "y"}}.Encode(), "a"); got != "x" {
		t.Errorf("the first of two values: got %q, want x", got)
	}
}
