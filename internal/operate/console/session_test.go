package console

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}

// The cookie is only for this console: no script can read it, and no other site can send it.
func TestLogin(t *testing.T) {
	b := newBrowser(t)
	for token, status := range map[string]int{"": 401, "wrong": 401, "secret": 303, "look": 303} {
		w := b.ask("POST", "/console/login", url.Values{"token": {token}})
		if w.Code != status {
			t.Errorf("%q: %d, want %d", token, w.Code, status)
		}
		if strings.Contains(w.Header().Get("Location")+w.Body.String(), "secret") {
			t.Errorf("%q: the token is in the answer", token)
		}
		for _, c := range w.Result().Cookies() {
			if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/console" || c.Secure ||
				c.Name != "penstock_console_8081" || len(c.Value) < 40 {
				t.Errorf("cookie %+v", c)
			}
		}
	}
	w := b.ask("POST", "/console/login", url.Values{"token": {"secret"}}, func(r *http.Request) { r.TLS = &tls.ConnectionState{} })
	if c := w.Result().Cookies(); len(c) != 1 || !c[0].Secure {
		t.Errorf("by TLS: %v", c)
	}
	// A token in a URL does not count: it would be in logs and histories.
	if w := b.ask("POST", "/console/login?token=secret", url.Values{}); w.Code != 401 {
		t.Errorf("a token in the URL: %d", w.Code)
	}
}

// A login leads to the page that was asked for, and to no other site.
func TestLoginReturns(t *testing.T) {
	for next, want := range map[string]string{
		"":                              "/console/",
		"/console/live?name=a%20b":      "/console/live?name=a%20b",
		"/console/errors?code=x#y":      "/console/errors?code=x#y",
		"/console/login?next=/console":  "/console/",
		"/console/part/errors":          "/console/",
		"/v1/status":                    "/console/",
		"//evil.example/console/":       "/console/",
		"https://evil.example/console/": "/console/",
		`/\\evil.example/console/`:      "/console/",
		`/console/\\evil`:               "/console/",
		"javascript:alert(1)":           "/console/",
		"/console/\r\nSet-Cookie: a=b":  "/console/",
	} {
		w := newBrowser(t).ask("POST", "/console/login", url.Values{"token": {"secret"}, "next": {next}})
		if got := w.Header().Get("Location"); w.Code != http.StatusSeeOther || got != want {
			t.Errorf("next %q: %d to %q, want %q", next, w.Code, got, want)
		}
	}
	b := newBrowser(t).login("secret")
	if w := b.get("/console/login?next=/console/live"); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/console/live" {
		t.Errorf("with a session: %d to %q", w.Code, w.Header().Get("Location"))
	}
	b = newBrowser(t)
	w := b.ask("POST", "/console/login", url.Values{"token": {"wrong"}, "next": {"/console/live?x=" + evil}})
	if text := w.Body.String(); !strings.Contains(text, `name="next" value="/console/live?x=&#34;`) || strings.Contains(text, "<script>alert") {
		t.Errorf("after a wrong token: %s", text)
	}
}

// Wrong tokens are limited together with those of the API.
func TestGuessing(t *testing.T) {
	b := newBrowser(t)
	for i := range 12 {
		want := http.StatusUnauthorized
		if i >= 10 {
			want = http.StatusTooManyRequests
		}
		if w := b.ask("POST", "/console/login", url.Values{"token": {"wrong"}}); w.Code != want {
			t.Errorf("guess %d: %d, want %d", i, w.Code, want)
		}
	}
	w := b.ask("POST", "/console/login", url.Values{"token": {"secret"}})
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" || len(w.Result().Cookies()) > 0 {
		t.Errorf("the right token among guesses: %d %v", w.Code, w.Header())
	}
	bearer := func(r *http.Request) { r.Header.Set("Authorization", "Bearer secret") }
	if w := b.ask("GET", "/v1/dlq", nil, bearer); w.Code != http.StatusTooManyRequests {
		t.Errorf("the API: %d", w.Code)
	}
	other := func(r *http.Request) { r.RemoteAddr = "10.0.0.2:5" }
	if w := b.ask("POST", "/console/login", url.Values{"token": {"secret"}}, other); w.Code != http.StatusSeeOther {
		t.Errorf("somebody else: %d", w.Code)
	}
}

// A session ends at logout, and when its token is replaced.
func TestSessionEnds(t *testing.T) {
	b := newBrowser(t).login("secret")
	if w := b.post("/console/logout"); w.Code != http.StatusSeeOther || w.Result().Cookies()[0].MaxAge >= 0 {
		t.Errorf("log out: %d %v", w.Code, w.Header())
	}
	if w := b.get("/console/errors"); w.Code != http.StatusSeeOther {
		t.Errorf("after it: %d", w.Code)
	}
	b.login("secret")
	*b.token = "another"
	if w := b.get("/console/errors"); w.Code != http.StatusSeeOther {
		t.Errorf("after the token was replaced: %d", w.Code)
	}
	if w := b.get("/console/part/errors"); w.Code != http.StatusSeeOther {
		t.Errorf("a part: %d", w.Code)
	}
	fetch := func(r *http.Request) { r.Header.Set("Sec-Fetch-Dest", "empty") }
	if w := b.ask("GET", "/console/part/errors", nil, fetch); w.Code != http.StatusUnauthorized {
		t.Errorf("a part that the script loads: %d", w.Code)
	}
}

// Sessions are bounded: beyond the limit, the least recently used one ends.
func TestSessionsAreBounded(t *testing.T) {
	b := newBrowser(t).login("secret")
	mine := b.cookie
	for i := range maxSessions + 10 {
		b.cookie = mine
		if i%100 == 0 {
			b.get("/console/live") // uses it
		}
		b.ask("POST", "/console/login", url.Values{"token": {"look"}})
	}
	if w := b.get("/console/live"); w.Code != http.StatusOK {
		t.Errorf("a session in use: %d", w.Code)
	}
}

// Without a configured token, nobody can log in.
func TestConsoleIsOff(t *testing.T) {
	b := newBrowser(t)
	c := New(nil, offAccess(), nil)
	b.handler = c.Handler()
	if w := b.get("/console/login"); !strings.Contains(w.Body.String(), "The console is off: set admin.token") {
		t.Errorf("got %s", w.Body)
	}
	if w := b.ask("POST", "/console/login", url.Values{"token": {""}}); w.Code != http.StatusForbidden {
		t.Errorf("an empty token: %d", w.Code)
	}
}
