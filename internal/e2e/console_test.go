package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/penstock/penstock/internal/testing/npm"
)

// tab is a browser at the console of a receiver.
type tab struct {
	*stack
	t   *testing.T // the subtest that uses it
	ctx context.Context
	url string
	axe string // the source of axe-core
}

// newTab opens the console in the browser that the tests of clients use, and logs in.
func newTab(t *testing.T, s *stack, admin string) *tab {
	t.Helper()
	dir := npm.Install(t, "clients/browser/package.json")
	cmd := exec.CommandContext(t.Context(), "node", "clients/browser/path.js")
	temp := t.TempDir()
	cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(dir, "node_modules"), "TMPDIR="+temp,
		"AWS_EXECUTION_ENV=AWS_Lambda_nodejs20.x", "AWS_LAMBDA_JS_RUNTIME=nodejs20.x")
	text, err := cmd.Output()
	var browser struct {
		Path string
		Env  []string
	}
	if err == nil {
		err = json.Unmarshal(text, &browser)
	}
	if err != nil {
		t.Fatalf("unpack the browser: %v\n%s", err, text)
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(browser.Path), chromedp.NoSandbox,
		chromedp.Flag("no-zygote", true), chromedp.Flag("disable-gpu", true),
		chromedp.Env(append(browser.Env, "TMPDIR="+temp)...))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // the browser lives as long as the context of its first use
		t.Fatal(err)
	}
	b := &tab{s, t, ctx, admin, axe(t)}
	b.logIn()
	return b
}

// adminToken is the operators' token.
const adminToken = "operators"

func (b *tab) logIn() {
	b.t.Helper()
	b.do("log in", chromedp.Navigate(b.url+"/"), chromedp.SendKeys("input[name=token]", adminToken),
		chromedp.Submit("input[name=token]"), chromedp.WaitVisible("main:not(.login)"))
}

type step = chromedp.Action[chromedp.Void]

// do takes steps. If one fails, the test fails with the page's text.
func (b *tab) do(what string, steps ...step) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	err := chromedp.Do(ctx, steps...)
	if err != nil && strings.Contains(err.Error(), "Could not find node") { // the page replaced it between two commands
		err = chromedp.Do(ctx, steps...)
	}
	if err != nil {
		text, _ := chromedp.Run(b.ctx, chromedp.Text("body"))
		b.t.Fatalf("%s: %v; the page shows\n%s", what, err, text)
	}
}

func (b *tab) open(path string) step { return chromedp.Navigate(b.url + "/console/" + path) }

// button is a button or a link with a text, also below what chooses a part of the page.
func button(text string) string {
	return "//*[self::button or self::a][normalize-space()=" + literal(text) + "]"
}

// literal is a text in XPath, which has no escapes.
func literal(text string) string {
	if strings.Contains(text, `"`) {
		return "'" + text + "'"
	}
	return `"` + text + `"`
}

func click(text string) step { return chromedp.Click(button(text)) }

func shows(text string) step {
	return chromedp.WaitVisible("//main[contains(., " + literal(text) + ")]")
}

// sure confirms an action, and waits for the text of its task.
func (b *tab) sure(what, want string) {
	b.t.Helper()
	b.do(what, chromedp.WaitVisible(".command"), chromedp.Click("#sure"), shows(want))
}

// text returns the text of a part of the page.
func (b *tab) text(selector string) string {
	b.t.Helper()
	text, err := chromedp.Run(b.ctx, chromedp.TextContent(selector))
	if err != nil {
		b.t.Fatal(err)
	}
	return text
}

// clean runs verify by the page, until nothing differs.
func (b *tab) clean() {
	b.t.Helper()
	eventually(b.t, 20*time.Second, "verify by the console", func() error {
		b.do("verify", b.open("verify"), chromedp.SetValue("input[name=grace]", "0s"), click("Run"),
			chromedp.WaitVisible(`//h1[.="Task"]`), shows("verify --grace 0s"), chromedp.WaitVisible(".output"),
			chromedp.WaitNotPresent("progress"))
		text := b.text(".output")
		if strings.Count(text, "0 differences") != 2 || strings.Contains(text, " 1 waiting") {
			return fmt.Errorf("%s", text)
		}
		return nil
	})
}

// The runbook's cases, by clicking. Each ends with a verify that finds no difference.
func TestConsole(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.projects(t, "projects: {}\n")
	s.environ = append(s.environ, "PENSTOCK_ADMIN_TOKEN="+adminToken, "PENSTOCK_BATCHER_ROLL_AGE=500ms")
	key := s.newKey("add", "game", "--name", "ci")
	r, l := s.prepare("r1", "receive"), s.prepare("l1", "load")
	r.env = append(r.env, "PENSTOCK_FAULTPOINT=loader.begun:2") // of the first re-ingest
	for _, role := range []*role{r, l} {
		role.env = append(role.env, "PENSTOCK_STATUS_ADMINS="+r.Admin+","+l.Admin)
		role.spawn()
	}
	r.awaitReady()
	l.awaitReady()
	b := newTab(t, s, r.Admin)
	for _, c := range []struct {
		name  string
		run   func(t *testing.T, b *tab, r *role, key string)
		looks bool // it changes nothing that verify compares
	}{
		{"bad release", consoleBadRelease, false}, {"damaged object", consoleDamagedObject, false},
		{"re-ingest the last hour", consoleReingest, false}, {"rotate a key", consoleRotate, false},
		{"live", consoleLive, true}, {"pages", consolePages, true}, {"servers away", consoleAway, true},
	} {
		if !t.Run(c.name, func(t *testing.T) {
			tab := *b
			tab.t = t
			c.run(t, &tab, r, key)
			if !c.looks {
				tab.clean()
			}
		}) {
			return
		}
	}
	b.do("the audit table", b.open("audit"), shows("keys rotate"), shows("errors redrive"), shows("dlq redrive"))
}

// A release sends events without a name. It is found, one event is edited and resent, and the rest is redriven through
// a filter.
func consoleBadRelease(t *testing.T, b *tab, r *role, key string) {
	const bad = 12
	for i := range bad {
		postAs(t, r, key, fmt.Sprintf(`[{"name":"good","app_version":"2.4.1"},{"evt":"level_start","app_version":"2.4.0","level":%d}]`, i))
	}
	b.rows("errors", bad)
	b.do("find the release", b.open("errors"), shows("2.4.0"), click("missing_name"), shows("Sends the payloads of all records of this filter"),
		chromedp.Click("//td/a[contains(@href, 'error?id=')]"), shows("Edit and resend"))
	if where, _ := chromedp.Run(b.ctx, chromedp.Location()); !strings.Contains(where, "error?id=") {
		t.Fatalf("at %s", where)
	}
	b.do("edit", chromedp.SetValue("textarea", `{"name":"mended","app_version":"2.4.0"}`), click("Resend…"))
	b.sure("resend", "1 accepted")
	watch := b.another("live?name=level_start")
	watch.do("watch", live("live"))
	rest := "errors?code=missing_name&release=2.4.0&project=game"
	const edit = `s/"evt":/"name":/`
	b.do("dry run", b.open(rest), shows("Redrive these"), chromedp.SetValue("input[name=edit]", edit), click("Dry run"),
		shows(`would be sent as {"name":"level_start"`))
	b.do("redrive", b.open(rest), shows("Redrive these"), chromedp.SetValue("input[name=edit]", edit), click("Redrive…"),
		shows("--release 2.4.0"))
	b.sure("redrive", fmt.Sprintf("%d failures: %d accepted", bad-1, bad-1))
	b.rows("events FINAL", 2*bad)
	watch.do("they are live events, and become rows", chromedp.WaitVisible(item("redriven", "row")))
	if n := one[uint64](b.stack, "SELECT countIf(name = 'level_start') * 100 + countIf(name = 'mended') FROM events FINAL"); n != (bad-1)*100+1 {
		t.Errorf("%d rows: want %d of level_start, 1 of mended", n, bad-1)
	}
}

// A damaged object is found, fixed in the bucket, and redriven.
func consoleDamagedObject(t *testing.T, b *tab, _ *role, _ string) {
	const object, second = "events/handmade.ndjson", "events/second.ndjson"
	b.put(object, []byte("garbage"), nil)
	b.do("what is wrong", b.open(""), shows("1 object in the bucket could not be loaded"), click("Look at it"), shows(object),
		shows("no_valid_rows"))
	b.put(object, []byte(`{"project":"game","name":"restored","event_id":"r1","timestamp":"2026-11-22T03:45:00Z"}`+"\n"), nil)
	b.put(second, []byte("garbage"), nil)
	b.accessible("letters")
	b.do("redrive", click("Redrive…"), shows("penstock dlq redrive "+object))
	b.sure("redrive", "1 dead letter redriven")
	b.rows("events FINAL WHERE name = 'restored'", 1)
	b.rows("loads FINAL WHERE status = 'dead'", 1)
	b.put(second, []byte(`{"project":"game","name":"restored","event_id":"r2","timestamp":"2026-11-22T03:45:00Z"}`+"\n"), nil)
	b.byKeyboard()
	b.rows("events FINAL WHERE name = 'restored'", 2)
	b.do("it is well", b.open("letters"), shows("There is no dead letter"))
}

// The objects of the last hour are loaded again, and their rows replaced. The receiver is killed meanwhile: the pages
// say so, and the task is continued.
func consoleReingest(t *testing.T, b *tab, r *role, _ string) {
	before := one[uint64](b.stack, "SELECT count() FROM events FINAL")
	watch := b.another("live")
	watch.do("watch", live("live"))
	b.do("plan", b.open("objects"), shows("Re-ingest a time range"), chromedp.Click("input[name=replace]"), click("Plan (dry run)"),
		shows("to replace"))
	b.do("re-ingest", b.open("objects"), shows("Re-ingest a time range"), chromedp.Click("input[name=replace]"), click("Re-ingest…"),
		shows("penstock reingest --since 1h --replace"))
	b.do("re-ingest", chromedp.Click("#sure"))
	select {
	case <-r.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the receiver goes on")
	}
	watch.do("the process is away", live("disconnected"))
	r.env = append(r.env, "PENSTOCK_FAULTPOINT=")
	r.again()
	watch.do("the process has restarted", live("ended"), shows("The process has restarted, or your session has ended."))
	b.do("what was interrupted", b.open("tasks"), chromedp.WaitVisible("main.login"), chromedp.SendKeys("input[name=token]", adminToken),
		chromedp.Submit("input[name=token]"), shows("Its process ended before the task did."), shows("it continues where it stopped"))
	b.accessible("tasks, one interrupted")
	b.do("now", b.open(""), shows("A task was interrupted."), b.open("tasks"), click("Start again…"), shows("penstock reingest --since 2"))
	b.sure("continue", "0 failed")
	if text := b.text(".output"); !strings.Contains(text, "continuing the interrupted run") {
		t.Errorf("it began anew: %s", text)
	}
	b.rows("events FINAL", before)
	if n := one[uint64](b.stack, "SELECT countIf(generation > 0) FROM events"); n == 0 {
		t.Error("no row was replaced")
	}
	b.do("it is done again", b.open("tasks"), shows("done again"))
	b.do("the last result of verify survives", b.open("verify"), shows("agree"))
	watch.do("log in again", chromedp.Click(`//*[@id="why"]/a`), live("live")) // the session is new already
}

// A key is rotated: the new one is shown once, and both are valid.
func consoleRotate(t *testing.T, b *tab, r *role, key string) {
	b.do("rotate", b.open("projects"), shows("Create a key"), click("Rotate…"), shows("penstock keys rotate game ci"))
	b.sure("rotate", "old key")
	found := regexp.MustCompile(`ps_\S+`).FindString(b.text("#made"))
	if found == "" || found == key {
		t.Fatalf("the new key is %q", found)
	}
	eventually(t, 5*time.Second, "the new key", func() error {
		if code, answer, _ := postAs(t, r, found, `{"name":"rotated"}`); code >= 300 {
			return fmt.Errorf("%d %v", code, answer)
		}
		return nil
	})
	if code, answer, _ := postAs(t, r, key, `{"name":"rotated"}`); code >= 300 {
		t.Errorf("the old key: %d %v", code, answer)
	}
	b.do("both are listed", b.open("projects"), shows("ci.old"))
	if page, _ := chromedp.Run(b.ctx, chromedp.Text("body")); strings.Contains(page, found) {
		t.Error("the page of projects shows the key")
	}
	b.rows("events FINAL WHERE name = 'rotated'", 2)
	// Events are shown as they come, as text.
	evil := url.QueryEscape("<img src=x onerror=document.title=1>")
	b.do("live", b.open("live?name="+evil), chromedp.WaitVisible(`//*[@id="state"][.="live"]`))
	postAs(t, r, found, `{"name":"<img src=x onerror=document.title=1>","level":1}`)
	b.do("the event", chromedp.WaitVisible(`//ol[@id="live"]/li[contains(., "<img src=x onerror=")]`))
	if title, _ := chromedp.Run(b.ctx, chromedp.Title()); title != "Live events – Penstock" {
		t.Errorf("a script of a client ran: the title is %q", title)
	}
	b.rows("events FINAL WHERE startsWith(name, '<img')", 1)
}
