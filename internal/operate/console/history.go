package console

import (
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/operate"
)

// past is an action of the audit table. It was started by a console or by the API, maybe in an earlier process.
type past struct {
	*clickhouse.Action
	Interrupted bool       // its process ended before it did
	Redone      *time.Time // when the same action was done later; nil: it was not
	Command     string     // empty: not known
	Next        string     // what to do about an interrupted one
	Path        string     // to start it again; empty: that is no use
	Fields      [][2]string
}

// historySpan is how far back the page of tasks looks.
const historySpan = "168h"

// history returns the tasks of the audit table that are not in this console's memory, newest first.
func (c *Console) history(r *http.Request) (all []past, err error) {
	items, err := c.list(r, "audit", url.Values{"since": {historySpan}, "limit": {"200"}})
	done := map[string]time.Time{} // by operation and parameters
	for _, item := range items {
		a := item.(*clickhouse.Action)
		p := past{Action: a, Interrupted: a.Result == "begun" && c.ended(a)}
		same := a.Operation + "\n" + a.Params
		if at, ok := done[same]; ok && p.Interrupted {
			p.Redone = &at
		}
		if a.Result == "done" {
			done[same] = a.Began
		}
		if a.Via == viaCommand || strings.HasPrefix(a.Operation, "keys ") || c.remembers(a) {
			continue
		}
		p.describe()
		all = append(all, p)
	}
	return all, err
}

const viaCommand = "command"

// interrupted counts the interrupted tasks that nobody has started again.
func (c *Console) interrupted(r *http.Request) (n uint64, err error) {
	all, err := c.history(r)
	for _, p := range all {
		if p.Interrupted && p.Redone == nil {
			n++
		}
	}
	return n, err
}

// remembers reports whether an action is one of this console's tasks.
func (c *Console) remembers(a *clickhouse.Action) bool {
	c.tasks.mu.Lock()
	defer c.tasks.mu.Unlock()
	return slices.ContainsFunc(c.tasks.all, func(t *task) bool {
		return a.Process == c.operator.Name && a.Via == operate.ViaConsole && a.Operation == t.Operation && a.Who == t.Who &&
			a.Began.Sub(t.Began).Abs() < time.Second
	})
}

// ended reports whether the process of an action has ended: an earlier one of this name, or one of this machine.
func (c *Console) ended(a *clickhouse.Action) bool {
	if a.Process == c.operator.Name {
		return a.Began.Before(c.began)
	}
	host, _ := os.Hostname()
	pid, err := strconv.Atoi(strings.TrimPrefix(a.Process, host+"-"))
	if err != nil || pid <= 0 {
		return false
	}
	return syscall.Kill(pid, 0) == syscall.ESRCH
}

// describe adds the command, and what to do.
func (p *past) describe() {
	if effects[p.Operation] == "" && p.Operation != "rollups refresh" {
		return
	}
	op := operate.Find(p.Operation)
	params, err := op.ParamsJSON(strings.NewReader(p.Params))
	if err != nil {
		return // of another version
	}
	p.Command = op.CommandLine(params)
	if !p.Interrupted || p.Redone != nil {
		return
	}
	p.Next = again[p.Operation]
	if strings.Contains(p.Params, `"bodies_base64"`) {
		p.Next = "Edit and resend the failure record again. If it was sent already, that gives the same row."
		return
	}
	if p.Next == "" {
		p.Next = "Start it again: it may be repeated."
	}
	p.Path = operationPath(p.Operation)
	for name, values := range op.Form(params) {
		for _, v := range values {
			p.Fields = append(p.Fields, [2]string{name, v})
		}
	}
	slices.SortFunc(p.Fields, func(a, b [2]string) int { return strings.Compare(a[0]+a[1], b[0]+b[1]) })
}

// Took is the action's duration; a dash: not known.
func (p past) Took() string {
	if p.Ended.IsZero() {
		return "–"
	}
	return tookText(p.Ended.Sub(p.Began))
}

// again says what starting an interrupted operation again does.
var again = map[string]string{
	"errors redrive": "Start it again: it leaves out what was redriven, and sends the rest. No row is lost or double.",
	"reingest":       "Start it again: it continues where it stopped. No row is lost or double.",
	"sweep":          "Start it again: it leaves out the objects that were enqueued.",
}
