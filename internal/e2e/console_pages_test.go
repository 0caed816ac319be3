package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/penstock/penstock/internal/testing/npm"
)

// axe returns the source of axe-core, which checks a page against the rules of WCAG.
func axe(t *testing.T) string {
	t.Helper()
	dir := npm.Install(t, "clients/axe/package.json")
	text, err := os.ReadFile(filepath.Join(dir, "node_modules/axe-core/axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// prefers sets what the user of the browser prefers.
func prefers(what, choice string) step {
	return func(ctx context.Context, target *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-" + what, Value: choice}}})
		return chromedp.Void{}, err
	}
}

// eval evaluates JavaScript on the page.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%.80s: %v", expression, err)
	}
	return v
}

// accessible checks the open page, in light and in dark.
func (b *tab) accessible(page string) {
	b.t.Helper()
	for _, name := range []string{"dark", "light"} {
		b.do("theme", prefers("color-scheme", name))
		if eval[string](b, "typeof axe") == "undefined" {
			eval[bool](b, b.axe+"; true")
		}
		const run = `axe.run(document, {resultTypes: ['violations']}).then(r => JSON.stringify({rules: r.passes.length,
			violations: r.violations.map(v => v.id + ': ' + v.nodes.map(n => n.html.slice(0, 200) + ' ' + n.failureSummary).join('; '))}))`
		var found struct {
			Rules      int
			Violations []string
		}
		if err := json.Unmarshal([]byte(eval[string](b, run)), &found); err != nil {
			b.t.Fatal(err)
		}
		if found.Rules < 10 || len(found.Violations) > 0 {
			b.t.Errorf("%s, %s: %d rules passed, violated:\n%s", page, name, found.Rules, strings.Join(found.Violations, "\n"))
		}
	}
}

// consolePages checks every page. The cases before have left something to see on each.
func consolePages(t *testing.T, b *tab, _ *role, _ string) {
	record := eval[string](b, `fetch('/console/part/errors').then(a => a.text()).then(t => t.match(/error\?id=[0-9a-f-]+/)[0])`)
	object := eval[string](b, `fetch('/console/part/objects').then(a => a.text()).then(t => t.match(/object\?key=[^"]+/)[0])`)
	for _, page := range []struct{ path, text string }{
		{"", "The last hour"}, {"live", "No event yet"}, {"errors?code=missing_name", "Redrive these"}, {record, "Raw payload"},
		{"objects", "Re-ingest a time range"}, {object, "Contents"}, {"letters", "There is no dead letter"},
		{"projects", "Create a key"}, {"verify", "Last result"}, {"tasks", "reingest"}, {"audit", "keys rotate"},
		{"nothing", "There is no such page"},
	} {
		b.do(page.path, b.open(page.path), shows(page.text))
		b.accessible(page.path)
	}
	b.do("log out", click("Log out"), shows("Admin token"))
	b.accessible("login")
	// The check finds what is wrong.
	eval[bool](b, `document.querySelector('label').remove(); document.querySelector('p').style.color = '#999'; true`)
	found := eval[string](b, `axe.run(document).then(r => r.violations.map(v => v.id).join(' '))`)
	if !strings.Contains(found, "label") || !strings.Contains(found, "color-contrast") {
		t.Errorf("a page without a label and contrast violates only: %s", found)
	}
	b.logIn()
	moves := func() string {
		return eval[string](b, `(() => { const p = document.createElement('p'); p.className = 'loading'; document.body.append(p);
			return getComputedStyle(p, '::before').animationName; })()`)
	}
	if got := moves(); got != "turn" {
		t.Errorf("what loads moves by %q", got)
	}
	b.do("reduced motion", prefers("reduced-motion", "reduce"))
	if got := moves(); got != "none" {
		t.Errorf("with reduced motion, what loads moves by %q", got)
	}
	b.do("reduced motion", b.open("verify"))
}

// focus is the element that the keyboard is at.
type focus struct {
	Text    string
	Visible bool // it has an outline, and is in the window
	Dialog  bool // it is in a dialog
	Body    bool // it is none
}

func (b *tab) focus() focus {
	b.t.Helper()
	var f focus
	text := eval[string](b, `(() => { const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();
		return JSON.stringify({Text: e.textContent.trim(), Dialog: !!e.closest('dialog'), Body: e === document.body,
			Visible: s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2 && r.bottom > 0 && r.top < innerHeight}); })()`)
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		b.t.Fatal(err)
	}
	return f
}

func press(keys string) step { return chromedp.KeyEvent(keys) }

// tabTo presses Tab until an element with this text has the focus. Every element on the way shows that it has it.
func (b *tab) tabTo(text string) {
	b.t.Helper()
	var passed []string
	for range 60 {
		b.do("Tab", press(kb.Tab))
		f := b.focus()
		if !f.Visible && !f.Body {
			b.t.Errorf("%q does not show the focus", f.Text)
		}
		if f.Text == text {
			return
		}
		passed = append(passed, f.Text)
	}
	b.t.Fatalf("Tab does not reach %q; it reached %q", text, passed)
}

// byKeyboard redrives a dead letter without a mouse.
func (b *tab) byKeyboard() {
	b.t.Helper()
	b.do("now", b.open(""), shows("could not be loaded"))
	b.tabTo("Skip to the content")
	b.do("skip the navigation", press(kb.Enter))
	b.tabTo("Look at it")
	b.do("look at it", press(kb.Enter), shows("no_valid_rows"))
	b.tabTo("Redrive…")
	dialog := chromedp.WaitVisible("dialog[open] #sure")
	b.do("ask", press(kb.Enter), dialog)
	for range 6 {
		if f := b.focus(); !f.Dialog && !f.Body {
			b.t.Errorf("the focus left the dialog: it is at %q", f.Text)
		}
		b.do("Tab", press(kb.Tab))
	}
	b.accessible("dialog")
	b.do("close", press(kb.Escape), chromedp.WaitNotPresent("dialog"))
	eventually(b.t, 5*time.Second, "the focus returns", func() error {
		if f := b.focus(); f.Text != "Redrive…" {
			return fmt.Errorf("it is at %q", f.Text)
		}
		return nil
	})
	b.do("ask again", press(kb.Enter), dialog)
	eventually(b.t, 5*time.Second, "the focus", func() error {
		if f := b.focus(); f.Text != "Yes, dlq redrive" {
			return fmt.Errorf("it is at %q", f.Text)
		}
		return nil
	})
	b.do("sure", press(kb.Enter), shows("1 dead letter redriven"))
}

// another opens a second tab of the browser.
func (b *tab) another(path string) *tab {
	b.t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	b.t.Cleanup(cancel)
	other := *b
	other.ctx = ctx
	if err := chromedp.Do(ctx); err != nil {
		b.t.Fatal(err)
	}
	other.do("another tab", other.open(path))
	return &other
}

// live waits for the state of the page of live events.
func live(state string) step {
	return chromedp.WaitVisible(`//*[@id="state"][.="` + state + `"]`)
}

// item is a live event that contains a text, in a state.
func item(text, state string) string {
	return `//ol[@id="live"]/li[contains(., "` + text + `")]/span[contains(@class, "badge")][.="` + state + `"]`
}

// consoleLive follows events from the receiver to their rows, in place.
func consoleLive(t *testing.T, b *tab, r *role, key string) {
	b.do("live", b.open("live?project=game"), live("live"))
	postAs(t, r, key, `{"name":"followed","level":1}`)
	b.do("it is accepted", chromedp.WaitVisible(`//ol[@id="live"]/li[contains(., "followed")]`))
	eval[bool](b, `document.querySelector('#live li').dataset.mark = 'same'; true`)
	b.do("its row", chromedp.WaitVisible(item("followed", "row")))
	if mark := eval[string](b, `document.querySelector('#live li').dataset.mark || 'another'`); mark != "same" {
		t.Error("the event is shown anew, not in place")
	}
	b.do("pause", click("Pause"), live("paused"))
	postAs(t, r, key, `{"name":"meanwhile"}`)
	b.do("it is counted", chromedp.WaitVisible(`//*[@id="count"][contains(., "2 events")]`))
	if text := b.text("#live"); strings.Contains(text, "meanwhile") {
		t.Errorf("shown while paused: %s", text)
	}
	b.do("resume", click("Resume"), chromedp.WaitVisible(item("meanwhile", "row")), live("live"))
	b.do("details", chromedp.Click(`//ol[@id="live"]/li[contains(., "followed")]/button`),
		chromedp.WaitVisible(`//ol[@id="live"]/li/pre[contains(., "object events/dt=")]`))
	b.accessible("live")
	b.rows("events FINAL WHERE name IN ('followed', 'meanwhile')", 2)
}

// consoleAway shows every page of a receiver whose servers are all away. The session is a new one, on another port.
func consoleAway(t *testing.T, b *tab, _ *role, _ string) {
	r := b.launch("away", "receive", "PENSTOCK_STORAGE_ENDPOINT=http://127.0.0.1:1", "PENSTOCK_QUEUE_URL=nats://127.0.0.1:1",
		"PENSTOCK_CLICKHOUSE_ADDRESSES=[127.0.0.1:1]")
	other := *b
	other.url = r.Admin
	eventually(t, 20*time.Second, "the listener", func() error {
		resp, err := http.Get(r.Admin + "/livez")
		if err == nil {
			resp.Body.Close()
		}
		return err
	})
	const clickhouse, bucket = "ClickHouse cannot be used.", "The bucket cannot be used."
	other.logIn()
	for _, page := range []struct {
		path string
		want []string
	}{
		{"errors", []string{clickhouse, "Start ClickHouse, or correct the address."}},
		{"error?id=00000000-0000-7000-8000-000000000000", []string{clickhouse}},
		{"objects", []string{bucket, "Start the store, or correct the URL.", "stored when the bucket is back"}},
		{"object?key=events/x.parquet", []string{bucket}},
		{"letters", []string{clickhouse}}, {"verify", []string{clickhouse}}, {"tasks", []string{clickhouse}},
		{"audit", []string{clickhouse}}, {"projects", []string{"Create a key"}},
		{"", []string{clickhouse, bucket, "The queue cannot be used.", "Receivers go on."}},
	} {
		other.do(page.path, other.open(page.path))
		for _, want := range page.want {
			other.do(page.path, shows(want))
		}
	}
	other.accessible("now, without servers")
	r.Kill()
	other.do("without the receiver", shows("This console’s receiver or loader does not answer."))
}
