package console

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/internal/pipeline"
)

func offAccess() *operate.Access { return operate.NewAccess(func() string { return "" }, nil) }

// output waits for an answer's task, and returns its page.
func (b *browser) output(location string) string {
	b.t.Helper()
	path := strings.Replace(location, "/console/task", "/console/part/task", 1)
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		text := b.get(path).Body.String()
		if !strings.Contains(text, "running") || time.Now().After(end) {
			return text
		}
	}
}

// A change needs confirmation, which shows the equivalent command. Then it is done and recorded.
func TestAction(t *testing.T) {
	b := newBrowser(t).login("secret")
	key := "events/dead" + evil
	w := b.post("/console/run/dlq-drop", "key", key, "why", "it's old", "back", "/console/letters")
	text := w.Body.String()
	if w.Code != http.StatusOK || !strings.Contains(text, "will never be loaded") || !strings.Contains(text, `href="/console/letters"`) ||
		!strings.Contains(text, "penstock dlq drop --why &#39;it&#39;\\&#39;&#39;s old&#39;") || len(b.saved) > 0 {
		t.Fatalf("asked %d %s", w.Code, text)
	}
	w = b.post("/console/run/dlq-drop", "key", key, "why", "it's old", "yes", "true", "sure", "yes")
	if w.Code != http.StatusSeeOther {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if text := b.output(w.Header().Get("Location")); !strings.Contains(text, "1 dead letter dropped") {
		t.Errorf("the task shows %s", text)
	}
	if len(b.saved) != 1 || b.saved[0].State != pipeline.Dropped || !strings.Contains(b.saved[0].Error, "it's old") {
		t.Errorf("saved %+v", b.saved)
	}
	var got []string
	for _, a := range b.recorded() {
		got = append(got, fmt.Sprint(a.Who, " ", a.Via, " ", a.Address, " ", a.Operation, " ", a.Result))
	}
	if diff := cmp.Diff([]string{"admin console 10.0.0.1:5 dlq drop begun", "admin console 10.0.0.1:5 dlq drop done"}, got); diff != "" {
		t.Errorf("recorded (-want +got):\n%s", diff)
	}
}

// Every operation that a page offers has a title for its question.
func TestQuestions(t *testing.T) {
	for name := range effects {
		if questions[name] == "" {
			t.Errorf("%s has none", name)
		}
	}
}

// An edited payload replaces the raw one, with its original line ends.
func TestResend(t *testing.T) {
	b := newBrowser(t).login("secret")
	pairs := []string{"id", id.String(), "body", "{\"name\":\r\n\"start\"}"}
	if w := b.post("/console/run/errors-redrive", pairs...); !strings.Contains(w.Body.String(), "penstock errors redrive --through") {
		t.Errorf("asked %s", w.Body)
	}
	w := b.post("/console/run/errors-redrive", append(pairs, "sure", "yes")...)
	if text := b.output(w.Header().Get("Location")); !strings.Contains(text, "1 accepted") {
		t.Errorf("the task shows %s", text)
	}
	if all := b.redrives(); len(all) != 1 || string(all[0].Body) != "{\"name\":\n\"start\"}" || all[0].ID != id {
		t.Errorf("sent %+v", all)
	}
}

// A dry run changes nothing, so it needs no confirmation.
func TestDryRun(t *testing.T) {
	b := newBrowser(t).login("secret")
	w := b.post("/console/run/errors-redrive", "code", "x", "dry-run", "true", "edit", "s/script/b/")
	if text := b.output(w.Header().Get("Location")); !strings.Contains(text, "would be sent as") || len(b.redrives()) > 0 {
		t.Errorf("%d, the task shows %s", w.Code, text)
	}
}

// A form without the session's token changes nothing.
func TestCSRF(t *testing.T) {
	b := newBrowser(t).login("secret")
	for name, csrf := range map[string]string{"none": "", "wrong": strings.Repeat("x", len(b.csrf)), "short": b.csrf[1:]} {
		for _, path := range []string{"/console/run/dlq-redrive", "/console/cancel", "/console/logout"} {
			w := b.ask("POST", path, url.Values{"csrf": {csrf}, "all": {"true"}, "sure": {"yes"}})
			if w.Code != http.StatusForbidden {
				t.Errorf("%s with %s: %d", path, name, w.Code)
			}
		}
	}
	// A token in the URL does not count.
	if w := b.ask("POST", "/console/run/dlq-redrive?csrf="+b.csrf, url.Values{"all": {"true"}, "sure": {"yes"}}); w.Code != 403 {
		t.Errorf("in the URL: %d", w.Code)
	}
	if w := b.get("/console/run/dlq-redrive?all=true&sure=yes&csrf=" + b.csrf); w.Code != http.StatusNotFound {
		t.Errorf("by GET: %d", w.Code)
	}
	if w := b.get("/console/errors"); w.Code != http.StatusOK || len(b.saved)+len(b.recorded()) > 0 {
		t.Errorf("it did %+v, page %d", b.recorded(), w.Code)
	}
}

// A viewer sees everything, and forms for dry runs only. All other requests that change something are rejected.
func TestViewer(t *testing.T) {
	b := newBrowser(t).login("look")
	dry := 0
	for path := range parts {
		text := b.get("/console/part/" + path).Body.String()
		for _, form := range strings.Split(text, "<form ")[1:] {
			form, _, _ = strings.Cut(form, "</form>")
			if strings.Count(form, "<button") != 1 || !strings.Contains(form, `<button name="dry-run" value="true">`) {
				t.Errorf("%s offers to change something: %s", path, form)
			}
			dry++
		}
	}
	if dry != 3 {
		t.Errorf("%d forms for dry runs, want 3: errors, objects, object", dry)
	}
	for name := range effects {
		for _, pairs := range [][]string{{}, {"sure", "yes"}, {"sure", "yes", "dry-run", "false"}} {
			pairs = append(pairs, map[string][]string{"errors redrive": {"code", "x"}, "reingest": {"since", "1h"},
				"dlq redrive": {"key", "events/x"}, "dlq drop": {"key", "events/x", "yes", "true"}}[name]...)
			w := b.post(operationPath(name), pairs...)
			if w.Code != http.StatusForbidden && (len(pairs) < 4 || pairs[2] != "dry-run" || w.Code != http.StatusBadRequest) {
				t.Errorf("%s with %q: %d %s", name, pairs, w.Code, w.Body)
			}
		}
	}
	w := b.post("/console/run/errors-redrive", "code", "x", "dry-run", "true")
	if text := b.output(w.Header().Get("Location")); !strings.Contains(text, "pending") {
		t.Errorf("a dry run: %d, the task shows %s", w.Code, text)
	}
	if len(b.saved)+len(b.redrives()) > 0 {
		t.Errorf("it changed %+v, %+v", b.saved, b.redrives())
	}
	if w := b.post("/console/run/objects-list"); w.Code != http.StatusNotFound {
		t.Errorf("an operation that no page offers: %d", w.Code)
	}
	for _, a := range b.recorded() {
		dry := strings.Contains(a.Params, `"dry_run":true`)
		if dry != (a.Result != "denied") || a.Who != "wall" || a.Role != operate.RoleViewer || a.Via != "console" {
			t.Errorf("it did %+v", a)
		}
	}
}

// A new key is in one answer, and in no task that others could see.
func TestKeyIsShownOnce(t *testing.T) {
	b := newBrowser(t).login("secret")
	w := b.post("/console/run/keys-add", "project", "game", "name", "ci", "sure", "yes")
	_, after, found := strings.Cut(w.Body.String(), "ps_")
	if !found {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	key := "ps_" + after[:10]
	for _, path := range []string{"tasks", "projects", "audit", "verify"} {
		if text := b.get("/console/part/" + path).Body.String(); strings.Contains(text, key) {
			t.Errorf("%s shows it again", path)
		}
	}
	for _, a := range b.recorded() {
		if strings.Contains(fmt.Sprint(a), key) {
			t.Errorf("the audit table has it: %+v", a)
		}
	}
	if text := b.get("/console/part/projects").Body.String(); !strings.Contains(text, "<td>ci</td>") {
		t.Errorf("projects: %s", text)
	}
}

// A task shows its progress, and can be cancelled.
func TestCancel(t *testing.T) {
	b := newBrowser(t)
	b.hold = make(chan struct{})
	b.login("secret")
	w := b.post("/console/run/errors-redrive", "code", "x", "sure", "yes")
	_, task, _ := strings.Cut(w.Header().Get("Location"), "id=")
	if text := b.get("/console/part/task?id=" + task).Body.String(); !strings.Contains(text, "running") || !strings.Contains(text, "Cancel") {
		t.Errorf("the task shows %s", text)
	}
	viewer := *b
	viewer.login("look")
	if w := viewer.post("/console/cancel", "id", task); w.Code != http.StatusForbidden {
		t.Errorf("a viewer: %d", w.Code)
	}
	if w := b.post("/console/cancel", "id", "none"); w.Code != http.StatusNotFound {
		t.Errorf("no task: %d", w.Code)
	}
	b.post("/console/cancel", "id", task)
	if text := b.output("/console/task?id=" + task); !strings.Contains(text, "failed") || len(b.redrives()) > 0 {
		t.Errorf("after it was cancelled: %s", text)
	}
}
