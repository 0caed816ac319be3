package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/operate"
)

// task is an operation that runs in the background, or has run.
type task struct {
	ID, Operation, Command, Who string
	Began                       time.Time

	cancel context.CancelFunc
	mu     sync.Mutex
	ended  time.Time
	out    bytes.Buffer
	cut    bool
	done   operate.Progress
	err    error
}

// Limits of tasks.
const (
	maxTasks  = 100     // beyond it, the oldest finished one is dropped
	maxOutput = 1 << 20 // of a task's output, bytes
)

type tasks struct {
	mu  sync.Mutex
	all []*task
}

// Write keeps only the beginning of the output.
func (t *task) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	left := max(0, maxOutput-t.out.Len())
	t.cut = t.cut || len(p) > left
	t.out.Write(p[:min(len(p), left)])
	return len(p), nil
}

// snapshot is a task for a page.
type snapshot struct {
	ID, Operation, Command, Who string
	Began, Ended                time.Time
	Running, Cut                bool
	Output, Error, Progress     string
	Percent                     int
}

func (t *task) snapshot() snapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := snapshot{ID: t.ID, Operation: t.Operation, Command: t.Command, Who: t.Who, Began: t.Began, Ended: t.ended,
		Running: t.ended.IsZero(), Cut: t.cut, Output: t.out.String(), Percent: int(100 * t.done.Fraction())}
	if s.Running {
		s.Progress = t.done.String()
	}
	if t.err != nil {
		s.Error = t.err.Error()
	}
	return s
}

// start runs an operation in the background. It continues if the browser leaves.
func (c *Console) start(ctx context.Context, op operate.Operation, params any, s *session) *task {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t := &task{ID: random()[:16], Operation: op.Name, Command: op.CommandLine(params), Who: s.id.Name, Began: time.Now(),
		cancel: cancel}
	c.tasks.mu.Lock()
	c.tasks.all = append(c.tasks.all, t)
	if len(c.tasks.all) > maxTasks {
		if i := slices.IndexFunc(c.tasks.all, func(t *task) bool { return !t.snapshot().Running }); i >= 0 {
			c.tasks.all = slices.Delete(c.tasks.all, i, i+1)
		}
	}
	c.tasks.mu.Unlock()
	go func() {
		defer cancel()
		err := op.Run(ctx, c.operator, params, t, func(p operate.Progress) {
			t.mu.Lock()
			t.done = p
			t.mu.Unlock()
		})
		t.mu.Lock()
		defer t.mu.Unlock()
		t.ended, t.err = time.Now(), err
	}()
	return t
}

func (c *Console) task(id string) *task {
	c.tasks.mu.Lock()
	defer c.tasks.mu.Unlock()
	for _, t := range c.tasks.all {
		if t.ID == id {
			return t
		}
	}
	return nil
}

// snapshots returns the tasks, newest first.
func (c *Console) snapshots(operation string) (all []snapshot) {
	c.tasks.mu.Lock()
	defer c.tasks.mu.Unlock()
	for _, t := range slices.Backward(c.tasks.all) {
		if operation == "" || t.Operation == operation {
			all = append(all, t.snapshot())
		}
	}
	return all
}

func (c *Console) cancel(w http.ResponseWriter, r *http.Request, s *session) {
	t := c.task(r.PostForm.Get("id"))
	switch {
	case t == nil:
		c.fail(w, r, s, http.StatusNotFound, "There is no such task: this process may have started again since.")
	case s.id.Role != operate.RoleOperator && t.Who != s.id.Name:
		c.fail(w, r, s, http.StatusForbidden, "Only an operator may cancel the task of somebody else.")
	default:
		t.cancel()
		http.Redirect(w, r, root+"/task?id="+t.ID, http.StatusSeeOther)
	}
}

// question is a page's confirmation of a change.
type question struct {
	Title                            string
	Operation, Path, Command, Effect string
	Destroys                         bool
	Fields                           [][2]string
	Back                             string
}

// effects describe operations to the person who confirms them.
var effects = map[string]string{
	"errors redrive": "The raw payloads of the chosen failure records are sent through the receiver again, each once.",
	"dlq redrive":    "The chosen dead letters are tried again.",
	"dlq drop":       "The chosen objects will never be loaded. They stay in the bucket.",
	"dlq rebuild":    "The queue's stream of dead letters is made anew from the load ledger.",
	"reingest":       "The chosen objects are loaded again.",
	"keys add":       "A new key is made. It is shown once.",
	"keys rotate":    "A new key is made, and shown once. The old one stays valid for a while.",
	"keys revoke":    "Clients with this key are rejected within two seconds. Their events are not accepted any more.",
	"sweep":          "Objects that were never loaded are enqueued.",
}

// act is a form for one object.
type act struct{ CSRF, Key, Text string }

func newAct(v view, key, text string) act { return act{v.CSRF, key, text} }

// questions are the titles of confirmations.
var questions = map[string]string{
	"errors redrive": "Redrive failure records?",
	"dlq redrive":    "Redrive dead letters?",
	"dlq drop":       "Drop objects?",
	"dlq rebuild":    "Rebuild the stream of dead letters?",
	"reingest":       "Re-ingest objects?",
	"keys add":       "Create a key?",
	"keys rotate":    "Rotate a key?",
	"keys revoke":    "Revoke a key?",
	"sweep":          "Sweep the bucket?",
}

// operationPath is where a form starts an operation.
func operationPath(name string) string { return root + "/run/" + strings.ReplaceAll(name, " ", "-") }

// run asks for confirmation, then runs an operation.
func (c *Console) run(w http.ResponseWriter, r *http.Request, s *session) {
	name := strings.ReplaceAll(r.PathValue("operation"), "-", " ")
	if name != "verify" && effects[name] == "" {
		c.fail(w, r, s, http.StatusNotFound, "There is no such operation here.")
		return
	}
	op := operate.Find(name)
	if err := op.Permit(r.Context(), c.operator, s.id, nil); err != nil {
		c.deny(w, r, s, err)
		return
	}
	form := r.PostForm
	sure, back, body := form.Get("sure") == "yes", form.Get("back"), form.Get("body")
	for _, own := range []string{"sure", "back", "body"} {
		form.Del(own)
	}
	params, err := op.Params(form)
	if err == nil && body != "" {
		params, err = resend(op, form.Get("id"), body)
	}
	if err != nil {
		c.fail(w, r, s, http.StatusBadRequest, err.Error())
		return
	}
	if err := op.Permit(r.Context(), c.operator, s.id, params); err != nil {
		c.deny(w, r, s, err)
		return
	}
	if op.Changes() && form.Get("dry-run") != "true" && !sure {
		c.ask(w, r, s, op, params, body, back)
		return
	}
	if strings.HasPrefix(name, "keys ") {
		c.keys(w, r, s, op, params)
		return
	}
	http.Redirect(w, r, root+"/task?id="+c.start(r.Context(), op, params, s).ID, http.StatusSeeOther)
}

// deny shows why the session may not run an operation.
func (c *Console) deny(w http.ResponseWriter, r *http.Request, s *session, err error) {
	status := http.StatusForbidden
	if denied, ok := errors.AsType[*operate.DeniedError](err); ok {
		status = denied.Status
	}
	c.fail(w, r, s, status, err.Error())
}

// resend returns the parameters for redriving one failure record with another payload.
func resend(op operate.Operation, id, body string) (any, error) {
	text, err := json.Marshal(map[string]any{"ids": []string{id}, "bodies_base64": map[string][]byte{
		id: []byte(strings.ReplaceAll(body, "\r\n", "\n"))}}) // forms send \r\n
	if err != nil {
		return nil, err
	}
	return op.ParamsJSON(bytes.NewReader(text))
}

// ask shows what an operation would do, and the equivalent command.
func (c *Console) ask(w http.ResponseWriter, r *http.Request, s *session, op operate.Operation, params any, body,
	back string) {
	v := newView(r, s, "confirm")
	q := question{Title: questions[op.Name], Operation: op.Name, Path: operationPath(op.Name),
		Command: op.CommandLine(params), Effect: effects[op.Name]}
	form := r.PostForm
	if form.Get("replace") == "true" {
		q.Effect = "The chosen objects are loaded again, and their rows replaced. Queries see each object's old or new rows."
	}
	q.Destroys = op.Name == "dlq drop" || op.Name == "keys revoke" || form.Get("replace") == "true"
	for name, values := range form {
		for _, value := range values {
			q.Fields = append(q.Fields, [2]string{name, value})
		}
	}
	if op.Name == "dlq drop" {
		q.Fields = append(q.Fields, [2]string{"yes", "true"})
	}
	if body != "" {
		q.Fields = append(q.Fields, [2]string{"body", body})
	}
	if strings.HasPrefix(back, root+"/") {
		q.Back = back
	}
	slices.SortFunc(q.Fields, func(a, b [2]string) int { return strings.Compare(a[0]+a[1], b[0]+b[1]) })
	v.Data = q
	c.render(w, http.StatusOK, "confirm", v)
}

// keys changes keys. A new key is shown only in this answer, so it is not a task that others can see.
func (c *Console) keys(w http.ResponseWriter, r *http.Request, s *session, op operate.Operation, params any) {
	var out bytes.Buffer
	err := op.Run(r.Context(), c.operator, params, &out, func(operate.Progress) {})
	if err != nil {
		c.fail(w, r, s, http.StatusUnprocessableEntity, err.Error())
		return
	}
	v := newView(r, s, "made")
	v.Data = struct{ Command, Output string }{op.CommandLine(params), out.String()}
	c.render(w, http.StatusOK, "made", v)
}

// Took is the task's duration.
func (s snapshot) Took() string {
	end := s.Ended
	if s.Running {
		end = time.Now()
	}
	return tookText(end.Sub(s.Began))
}

func tookText(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
