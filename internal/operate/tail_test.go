package operate

import (
	"bytes"
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/tap"
)

// tapped serves a receiver's admin listener. Its tap repeatedly gets an accepted and a rejected event.
func tapped(t *testing.T, project string) (url string) {
	t.Helper()
	w := newWorld()
	api := w.api()
	api.Operator.Tap, api.Operator.Receives = &tap.Tap{}, true
	api.Status = func() RoleStatus { return RoleStatus{Role: "receive"} }
	s := httptest.NewServer(api.Handler())
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(func() { stop(); s.CloseClientConnections(); s.Close() })
	go func() {
		for ctx.Err() == nil {
			e := pipeline.Event{Project: []byte(project), Name: []byte("start"), UserID: []byte("u1"), Properties: []byte(`{"a":1}`)}
			api.Operator.Tap.Copy(tap.Event{RequestID: "r"}, []pipeline.Event{e}).Show("")
			api.Operator.Tap.Reject(tap.Event{Project: project, Code: "bad", Message: "no name"}, []byte("{\x1b[2J"))
			time.Sleep(time.Millisecond)
		}
	}()
	return s.URL
}

// tail shows the events of all receivers, and ends at its limit.
func TestTail(t *testing.T) {
	t.Parallel()
	o := newWorld().operator()
	o.Config.Admin.Token = "secret"
	o.Config.Status.Admins = []string{tapped(t, "game"), tapped(t, "shop"), role(t, RoleStatus{Role: "load"})}
	for _, tt := range []struct {
		name   string
		params tailParams
		want   []string
	}{
		{"all", tailParams{}, []string{" accepted  game  start  user=u1 session=- 00000000-0000-0000-0000-000000000000  {\"a\":1}\n",
			" rejected  shop  bad: no name  {\x1b[2J\n"}},
		{"one", tailParams{Project: "shop", Accepted: true}, []string{" accepted  shop  start"}},
	} {
		tt.params.Limit = 400
		var out bytes.Buffer
		if err := printed(t, o, "tail", &tt.params, &out); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if n := strings.Count(out.String(), "\n"); n != 400 {
			t.Errorf("%s: %d events, want 400", tt.name, n)
		}
		for _, want := range tt.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: no %q in\n%s", tt.name, want, &out)
			}
		}
		if tt.params.Accepted && strings.Contains(out.String(), "rejected") {
			t.Errorf("%s: shows rejected events\n%s", tt.name, &out)
		}
	}
	for want, p := range map[string]tailParams{"set one, or none": {Accepted: true, Rejected: true}} {
		wantError(t, printed(t, o, "tail", &p, &bytes.Buffer{}), want, "%+v", p)
	}
	o.Config.Admin.Token = ""
	wantError(t, printed(t, o, "tail", &tailParams{}, &bytes.Buffer{}), "admin.token is empty", "without a token")
	o.Config.Admin.Token = "wrong"
	wantError(t, printed(t, o, "tail", &tailParams{}, &bytes.Buffer{}), "rejects the token", "with a wrong token")
}

// An event is shown soon, even if no other follows.
func TestTailShowsEachEventSoon(t *testing.T) {
	t.Parallel()
	w := newWorld()
	api := w.api()
	api.Operator.Tap, api.Operator.Receives = &tap.Tap{}, true
	api.Status = func() RoleStatus { return RoleStatus{Role: "receive"} }
	s := httptest.NewServer(api.Handler())
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	o := newWorld().operator()
	o.Config.Admin.Token, o.Config.Status.Admins = "secret", []string{s.URL}
	ctx, stop := context.WithCancel(t.Context())
	got := make(chan string, 10)
	done := make(chan error)
	go func() {
		done <- Local(o)(ctx, tailOperation(), &tailParams{}, sink{
			item:     func(item any) error { got <- fmt.Sprintf("%T", item); return nil },
			progress: func(p progress) { got <- p.Text }})
	}()
	next := func() string {
		select {
		case text := <-got:
			return text
		case <-time.After(5 * time.Second):
			return "nothing within 5s"
		}
	}
	if text := next(); text != "0 events, 0 not shown" {
		t.Fatalf("at first %q", text)
	}
	api.Operator.Tap.Copy(tap.Event{RequestID: "r"}, []pipeline.Event{{}}).Show("")
	text := next()
	for strings.HasPrefix(text, "0 events") {
		text = next()
	}
	if text != "*tap.Event" {
		t.Errorf("got %q, want the event", text)
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
	if api.Operator.Tap.Watched() {
		time.Sleep(time.Second)
		if api.Operator.Tap.Watched() {
			t.Error("the receiver still watches for somebody who has gone")
		}
	}
}

// status --watch repeats the status, also after errors.
func TestWatch(t *testing.T) {
	t.Parallel()
	o := newWorld().operator()
	o.Config.Status.Admins = []string{"http://127.0.0.1:1"}
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	var out, errs bytes.Buffer
	err := Find("status").Watch(ctx, Local(o), &struct{}{}, Output{Out: &out, Err: &errs}, 50*time.Millisecond)
	if n := strings.Count(out.String(), "PIPELINE"); err != nil || n < 2 ||
		!strings.Contains(errs.String(), "status is incomplete") {
		t.Errorf("%d times, error %v, said %s", n, err, &errs)
	}
}

// In a loader, tail shows the events of all receivers and those of its own redrives. A receiver that is away is named,
// and is asked again, while the others go on.
func TestTailOfALoader(t *testing.T) {
	t.Parallel()
	o := newWorld().operator()
	o.Config.Admin.Token, o.Tap = "secret", &tap.Tap{}
	o.Config.Status.Admins = []string{tapped(t, "game"), "http://127.0.0.1:1"}
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	go func() {
		for ctx.Err() == nil {
			o.Tap.Copy(tap.Event{Redriven: true}, []pipeline.Event{{Project: []byte("own")}}).Show("")
			time.Sleep(time.Millisecond)
		}
	}()
	seen, away := map[string]bool{}, false
	check := func() {
		if seen["game"] && seen["own"] && away {
			stop()
		}
	}
	err := Find("tail").Stream(ctx, o, &tailParams{}, func(item any) error {
		seen[item.(*tap.Event).Project] = true
		check()
		return nil
	}, func(p Progress) {
		away = away || strings.Contains(p.Text, "events, ") && strings.Contains(p.Text, "127.0.0.1:1: connect: connection refused")
		check()
	})
	if err != nil || !seen["game"] || !seen["own"] || !away {
		t.Errorf("%v; saw events of %v; the receiver that is away is named: %v", err, seen, away)
	}
	o.Config.Status.Admins = []string{role(t, RoleStatus{Role: "load"})}
	wantError(t, printed(t, o, "tail", &tailParams{}, &bytes.Buffer{}), "no receiver answers", "without a receiver")
}
