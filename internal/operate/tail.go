package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/receiver/tap"
)

// tailParams select live events.
type tailParams struct {
	Project  string `json:"project,omitempty" param:"project" usage:"only events of this project"`
	Name     string `json:"name,omitempty" param:"name" usage:"only events with this name"`
	User     string `json:"user,omitempty" param:"user" usage:"only events of this user_id"`
	Session  string `json:"session,omitempty" param:"session" usage:"only events of this session_id"`
	Accepted bool   `json:"accepted,omitempty" param:"accepted" usage:"only accepted events"`
	Rejected bool   `json:"rejected,omitempty" param:"rejected" usage:"only rejected events and requests"`
	Stored   bool   `json:"stored,omitempty" param:"stored" usage:"also show objects as they are stored, with the seqs of their events"`
	Limit    int    `json:"limit,omitempty" param:"limit" usage:"end after this number of events; 0: go on"`
}

func (p *tailParams) filter() (tap.Filter, error) {
	if p.Accepted && p.Rejected {
		return tap.Filter{}, Usagef("--accepted and --rejected: set one, or none for both")
	}
	return tap.Filter{Project: p.Project, Name: p.Name, User: p.User, Session: p.Session, NoAccepted: p.Rejected,
		NoRejected: p.Accepted, Stored: p.Stored}, nil
}

func tailOperation() Operation {
	return Operation{
		Name: "tail", method: http.MethodGet, path: "/v1/tail", params: &tailParams{}, item: tap.Event{},
		Short: "show events as receivers accept and reject them",
		About: "Asks the receivers in status.admins, with admin.token. It shows at most 1000 events a second\n" +
			"from each receiver, and counts the others. A rejected event has only its raw payload, so the payload\n" +
			"must contain the texts of --name, --user and --session.",
		print: prints(printLive), run: runs(tail),
	}
}

func printLive(w io.Writer, e *tap.Event) error {
	if s := e.Stored; s != nil {
		return show.Print(w, show.Green, fmt.Sprintf("%s stored    %s  seqs %d to %d of %s\n",
			e.Time.Format("15:04:05.000"), s.Object, s.First, s.Last, s.Receiver))
	}
	style, what := show.Green, "accepted"
	if !e.Accepted {
		style, what = show.Red, "rejected"
	}
	if err := show.Print(w, style, fmt.Sprintf("%s %s", e.Time.Format("15:04:05.000"), what)); err != nil {
		return err
	}
	text := strings.Join(strings.Fields(e.Text), " ")
	if e.Cut {
		text += "…"
	}
	var err error
	if e.Accepted {
		_, err = fmt.Fprintf(w, "  %s  %s  user=%s session=%s %s  %s\n", dash(e.Project), e.Name, dash(e.User),
			dash(e.Session), e.ID, text)
	} else {
		_, err = fmt.Fprintf(w, "  %s  %s: %s  %s\n", dash(e.Project), e.Code, e.Message, text)
	}
	return err
}

// tailFlush is how long an event may wait for others before it is shown. The receiver wakes a watcher no more often.
const tailFlush = 200 * time.Millisecond

// tail shows the events of the receiver in this process, or of the configured receivers.
func tail(ctx context.Context, o *Operator, p *tailParams, out sink) error {
	if _, err := p.filter(); err != nil {
		return err
	}
	if o.Receives {
		return o.tailOwn(ctx, p, out)
	}
	return o.tailOthers(ctx, p, out)
}

// tailOwn shows the events of this process.
func (o *Operator) tailOwn(ctx context.Context, p *tailParams, out sink) error {
	f, err := p.filter()
	if err != nil {
		return err
	}
	w, err := o.Tap.Watch(f)
	if err != nil {
		return err
	}
	defer w.Close()
	tick := time.NewTicker(tailFlush)
	defer tick.Stop()
	began, n := time.Now(), 0
	report := func() {
		seen, missed := w.Counts()
		out.progress(progress{Seconds: time.Since(began).Seconds(),
			Text: fmt.Sprintf("%s, %d not shown", show.Plural(seen, "event"), missed)})
	}
	report() // shows that it works, even without events
	for events := []tap.Event(nil); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		events = w.Take(events)
		for _, e := range events {
			if err := out.item(e); err != nil {
				return err
			}
			if n++; n == p.Limit {
				return nil
			}
		}
		report()
	}
}

// tailOthers queries all receivers at once, and shows the redrives of this process. A command ends when the last
// receiver ends. In a role, which has a tap, a receiver that ends is queried again.
func (o *Operator) tailOthers(asked context.Context, p *tailParams, out sink) error {
	if o.Config.Admin.Token == "" && o.Config.Admin.TokenFile == "" {
		return errors.New("admin.token is empty: it is needed to ask the receivers in status.admins")
	}
	admins := o.admins()
	ctx, stop := context.WithCancel(asked)
	defer stop()
	m := &merged{out: out, limit: p.Limit, stop: stop, texts: make([]string, len(admins))}
	errs := make([]error, len(admins))
	var own, all sync.WaitGroup
	if o.Tap != nil {
		own.Go(func() { o.tailOwn(ctx, p, sink{item: m.item, progress: func(progress) {}}) })
	}
	for i, url := range admins {
		all.Go(func() {
			to := sink{item: m.item, progress: func(p progress) { m.progress(i, p) }}
			errs[i] = o.tailOther(ctx, url, p, to)
			for o.Tap != nil && errs[i] != nil && ctx.Err() == nil {
				m.progress(i, progress{Text: errs[i].Error()})
				if retry.Sleep(ctx, tailAgain) == nil {
					errs[i] = o.tailOther(ctx, url, p, to)
				}
			}
		})
	}
	all.Wait()
	if asked.Err() == nil && !m.full() && !slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
		errs = []error{errors.New("no receiver answers: list the admin URLs of all receivers in status.admins")}
	}
	stop()
	own.Wait()
	if asked.Err() != nil || m.full() {
		return nil
	}
	return errors.Join(errs...)
}

// tailAgain is the pause before a receiver is queried again.
const tailAgain = 2 * time.Second

// merged merges the events of several receivers.
type merged struct {
	mu    sync.Mutex
	out   sink
	n     int
	limit int // 0: none
	stop  context.CancelFunc
	texts []string // progress of each receiver
}

func (m *merged) full() bool { return m.limit > 0 && m.n == m.limit }

func (m *merged) item(item any) error {
	if e, ok := item.(*tap.Event); ok {
		item = *e
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full() {
		return errEnough
	}
	m.n++
	if m.full() {
		m.stop()
	}
	return m.out.item(item)
}

func (m *merged) progress(i int, p progress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.texts[i] = p.Text
	p.Text = strings.Join(slices.DeleteFunc(slices.Clone(m.texts), func(s string) bool { return s == "" }), "; ")
	m.out.progress(p)
}

// tailOther queries the role at url. A role that is not a receiver has no events.
func (o *Operator) tailOther(ctx context.Context, url string, p *tailParams, out sink) error {
	client := o.Config.Status.TLS.HTTPClient()
	role, err := AskRole(ctx, client, url)
	if err != nil || role.Role != "receive" {
		return err
	}
	token, err := o.Config.Admin.Secret(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	return Remote(url, token(), client)(ctx, tailOperation(), p, out)
}
