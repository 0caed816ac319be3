package console

import (
	"html"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/tap"
)

// pages maps all pages to a text on each.
var pages = map[string]string{
	"": "The path of events", "live": "Live events", "errors": "Rejected events", "error?id=x": "Failure record",
	"objects": "load ledger", "object?key=events/x": "events/x", "letters": "Dead letters", "projects": "Projects", "verify": "Verify",
	"tasks": "Tasks", "task?id=x": "Task", "audit": "Audit",
}

// parts maps all parts to a text in each.
var parts = map[string]string{
	"now": "could not be loaded", "errors?code=x": "Redrive", "record?id=" + id.String(): "Edit and resend",
	"objects": "Re-ingest a time range", "object?key=events/x": "Contents", "find?what=" + id.String(): "events/o",
	"letters": "again &#34;&gt;", "projects": "of 10", "verify": "1 difference", "tasks": "dlq drop", "audit": "dlq drop",
}

// Every page and part needs a login.
func TestPages(t *testing.T) {
	b := newBrowser(t)
	for path := range pages {
		login := "/console/login?next=" + url.QueryEscape("/console/"+path)
		if w := b.get("/console/" + path); w.Code != http.StatusSeeOther || w.Header().Get("Location") != login {
			t.Errorf("%s without a login: %d %s", path, w.Code, w.Body)
		}
	}
	if w := b.get("/"); w.Code != http.StatusFound || w.Header().Get("Location") != "/console/" {
		t.Errorf("/: %d %s", w.Code, w.Header())
	}
	b.login("secret")
	for path, want := range pages {
		if w := b.get("/console/" + path); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d, no %q in %s", path, w.Code, want, w.Body)
		}
	}
	for path, want := range parts {
		w := b.get("/console/part/" + path)
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
			t.Errorf("part %s: %d, no %q in %s", path, w.Code, want, w.Body)
		}
	}
	if w := b.get("/console/nothing"); w.Code != http.StatusNotFound {
		t.Errorf("no page: %d", w.Code)
	}
}

// If a part cannot be read, the reason is shown in its place.
func TestErrorState(t *testing.T) {
	b := newBrowser(t).login("secret")
	b.away = errAway
	for _, path := range []string{"errors", "objects", "record?id=" + id.String(), "letters"} {
		w := b.get("/console/part/" + path)
		if !strings.Contains(w.Body.String(), `role="alert"`) || !strings.Contains(w.Body.String(), "unexpected EOF") {
			t.Errorf("%s: %s", path, w.Body)
		}
	}
	if w := b.get("/console/part/now"); !strings.Contains(w.Body.String(), "unexpected EOF") ||
		!strings.Contains(w.Body.String(), "Start the part that does not answer") {
		t.Errorf("now: %s", w.Body)
	}
}

// Links have the names of their targets.
func TestLinks(t *testing.T) {
	b := newBrowser(t).login("secret")
	for part, want := range map[string]string{
		"objects":       `href="/console/object?key=events%2F`,
		"letters":       `href="/console/object?key=events%2Fdead`,
		"errors?code=x": `href="/console/errors?code=code%22%3E`,
	} {
		if text := b.get("/console/part/" + part).Body.String(); !strings.Contains(text, want) {
			t.Errorf("%s has no %s:\n%s", part, want, text)
		}
	}
}

// The page of an object shows each of its events.
func TestObjectEvents(t *testing.T) {
	text := newBrowser(t).login("secret").get("/console/part/object?key=events/o").Body.String()
	if strings.Count(text, "&#34;first&#34;") != 1 || strings.Count(text, "<pre") != 2 {
		t.Errorf("the page has not each event once:\n%s", text)
	}
}

// The last hour shows its last minute and its largest value, each with the unit.
func TestLastHour(t *testing.T) {
	const want = "last minute 10 rows, most 10 rows"
	if text := newBrowser(t).login("secret").get("/console/part/now").Body.String(); !strings.Contains(text, want) {
		t.Errorf("now has no %q:\n%s", want, text)
	}
}

// Clients' content is always shown as text.
func TestNoScriptOfClients(t *testing.T) {
	b := newBrowser(t).login("secret")
	all := map[string]string{"/console/live?name=" + "%22%3E%3Cscript%3Ealert(%27evil%27)%3C/script%3E": "",
		"/console/error?id=%22%3E%3Cscript%3Ealert(%27evil%27)%3C/script%3E": ""}
	for path := range parts {
		all["/console/part/"+path] = ""
	}
	escaped := 0
	for path := range all {
		body := b.get(path).Body.String()
		for _, bad := range []string{"<script>alert", "<img src=x", "<SCRIPT"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s has %q", path, bad)
			}
		}
		if strings.Contains(body, html.EscapeString("<script>alert")) {
			escaped++
		}
	}
	if escaped < 8 {
		t.Errorf("only %d pages show the text at all", escaped)
	}
	w := b.post("/console/run/errors-redrive", "id", id.String(), "body", evil)
	if w.Code != 200 || strings.Contains(w.Body.String(), "<script>alert") || !strings.Contains(w.Body.String(), "&lt;script&gt;alert") {
		t.Errorf("confirm: %d %s", w.Code, w.Body)
	}
}

// Every answer prevents other sites from framing it, and foreign scripts from running.
func TestHeaders(t *testing.T) {
	b := newBrowser(t).login("secret")
	for _, path := range []string{"/console/", "/console/login", "/console/part/now", "/console/assets/console.js", "/console/nothing"} {
		w := b.get(path)
		csp := w.Header().Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self';", "style-src 'self';", "frame-ancestors 'none'",
			"form-action 'self'", "base-uri 'none'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: the policy has no %q: %s", path, want, csp)
			}
		}
		if strings.Contains(csp, "unsafe") || w.Header().Get("X-Frame-Options") != "DENY" ||
			w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", path, w.Header())
		}
		body := w.Body.String()
		for _, bad := range []string{" style=", " onclick=", "<script>", "//cdn", `src="http`, `href="http`} {
			if strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") && strings.Contains(body, bad) {
				t.Errorf("%s has %q, which the policy forbids", path, bad)
			}
		}
	}
}

// A page of another site, or of a name that points here, gets nothing.
func TestOtherSites(t *testing.T) {
	b := newBrowser(t).login("secret")
	for name, change := range map[string]func(*http.Request){
		"another name":   func(r *http.Request) { r.Host = "evil.example:8081" },
		"another origin": func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") },
		"another port":   func(r *http.Request) { r.Header.Set("Origin", "http://localhost:9999") },
		"no origin":      func(r *http.Request) { r.Header.Set("Origin", "null") },
	} {
		for _, method := range []string{"GET", "POST"} {
			form := map[string][]string{"csrf": {b.csrf}, "key": {"events/x"}, "sure": {"yes"}}
			if w := b.ask(method, "/console/run/dlq-redrive", form, change); w.Code != http.StatusForbidden {
				t.Errorf("%s by %s: %d %s", method, name, w.Code, w.Body)
			}
		}
	}
	if len(b.saved)+len(b.recorded()) > 0 {
		t.Errorf("it did %+v", b.recorded())
	}
}

// The page of live events needs the watcher's filter, and its texts are JSON.
func TestLiveEvents(t *testing.T) {
	b := newBrowser(t).login("secret")
	done := make(chan string)
	go func() {
		w := b.get("/console/events?name=start&rejected=maybe")
		done <- w.Body.String()
	}()
	if text := <-done; !strings.Contains(text, "neither true nor false") {
		t.Errorf("a wrong filter: %s", text)
	}
	stream := make(chan string, 1)
	ctx, stop := contextOf(t)
	go func() {
		w := b.ask("GET", "/console/events?name=start", nil, func(r *http.Request) { *r = *r.WithContext(ctx) })
		stream <- w.Header().Get("Content-Type") + "\n" + w.Body.String()
	}()
	for end := time.Now().Add(5 * time.Second); !b.tap.Watched() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	for _, name := range []string{"start", "end"} {
		e := pipeline.Event{Name: []byte(name), Properties: []byte("{\"a\":\"\n\ndata: x\"}")}
		b.tap.Copy(tap.Event{RequestID: "r"}, []pipeline.Event{e}).Show("")
	}
	time.Sleep(500 * time.Millisecond)
	stop()
	text := <-stream
	if !strings.HasPrefix(text, "text/event-stream\n") || !strings.Contains(text, "event: event\ndata: {") ||
		!strings.Contains(text, `"name":"start"`) || strings.Contains(text, `"name":"end"`) || strings.Contains(text, "\ndata: x") ||
		!strings.Contains(text, "event: count\ndata: \"1 event, 0 not shown\"") {
		t.Errorf("got %s", text)
	}
	if b.tap.Watched() {
		t.Error("the tap still watches for a browser that has gone")
	}
}
