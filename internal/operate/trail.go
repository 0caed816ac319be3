package operate

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/tokenbucket"
)

// Actor is the person or program that runs an operation.
type Actor struct {
	Name, Role, Address, Via string
}

// Ways to run an operation.
const (
	viaAPI     = "api"
	viaCommand = "command"
	ViaConsole = "console"
)

type actorKey struct{}

// WithActor sets the actor of a context's operations.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// maxRecord is the largest size of an action's parameters in the trail, in bytes.
const maxRecord = 32 << 10

// carryOut runs the operation. If it changes something, it writes a record before and after; of a dry run, only after.
func (op Operation) carryOut(ctx context.Context, o *Operator, params any, out sink) error {
	if err := op.check(o, params); err != nil {
		return err
	}
	if op.method == http.MethodGet || o.Trail == nil {
		return op.run(ctx, o, params, out)
	}
	a := op.action(ctx, o, params)
	// The client may disconnect before the action is recorded.
	record := context.WithoutCancel(ctx)
	if _, dry := dryRun(params); !dry {
		o.Trail.Record(record, a)
	}
	item := out.item
	out.item = func(v any) error { a.Items++; return item(v) }
	err := op.run(ctx, o, params, out)
	a.Ended, a.Result = time.Now().UTC().Truncate(time.Millisecond), "done"
	if err != nil {
		a.Result, a.Error = "failed", err.Error()
	}
	o.Trail.Record(record, a)
	return err
}

// action is the record of an operation that begins.
func (op Operation) action(ctx context.Context, o *Operator, params any) clickhouse.Action {
	actor, ok := ctx.Value(actorKey{}).(Actor)
	if !ok {
		actor = Actor{Name: userName(), Role: RoleOperator, Via: viaCommand}
	}
	began := time.Now().UTC().Truncate(time.Millisecond)
	if p, ok := params.(*reingestParams); ok {
		p.began = began
	}
	return clickhouse.Action{ID: uuid.New(), Began: began, Who: actor.Name, Role: actor.Role, Address: actor.Address,
		Via: actor.Via, Process: o.Name, Operation: op.Name, Params: recordable(params), Result: "begun"}
}

// viewerRate limits what viewers write into the trail, so that they cannot fill the table: the records of denied
// actions, of which the log has all, and each viewer's dry runs.
var viewerRate = tokenbucket.Rate{PerSecond: 1.0 / 10, Burst: 100}

// Permit rejects an operation that the identity may not run, and records the attempt. If params are nil, they are not
// known yet, and an operation that has a dry run passes. With params, a viewer's dry run is counted.
func (op Operation) Permit(ctx context.Context, o *Operator, id Identity, params any) error {
	err := id.may(op, params)
	if o.Trail == nil {
		return err
	}
	if err == nil && params != nil && op.Changes() && id.Role != RoleOperator {
		err = o.Trail.limit(id)
	}
	if err == nil {
		return nil
	}
	a := op.action(ctx, o, struct{}{})
	a.Ended, a.Result, a.Error = a.Began, "denied", err.Error()
	o.Trail.deny(context.WithoutCancel(ctx), a)
	return err
}

// recordable returns the trail's form of parameters: only the ids of edited payloads, and the times of a re-ingest, by
// which it can be continued.
func recordable(params any) string {
	if p, ok := params.(*reingestParams); ok {
		params, _ = p.fixed(p.began)
	}
	if p, ok := params.(*errorRedrive); ok && len(p.Bodies) > 0 {
		redrive := *p
		redrive.Bodies = map[string][]byte{}
		for id := range p.Bodies {
			redrive.Bodies[id] = nil
		}
		params = &redrive
	}
	text, err := json.Marshal(params)
	switch {
	case err != nil:
		return fmt.Sprintf("%q", err.Error())
	case len(text) > maxRecord:
		return fmt.Sprintf(`{"cut":%q}`, text[:maxRecord/2])
	}
	return string(text)
}

// userName is the user who runs a command: the one who called sudo, or else the name of the process's user. Processes
// without a login have no USER, and anybody can set it, so it counts only if the system has no name for the user.
func userName() string {
	uid := os.Getuid()
	if name := os.Getenv("SUDO_USER"); name != "" && uid == 0 {
		return name
	}
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil && u.Username != "" {
		return u.Username
	}
	return cmp.Or(os.Getenv("USER"), os.Getenv("LOGNAME"), fmt.Sprintf("uid %d", uid))
}

// Trail records operators' actions in a table. While the table is unreachable, records wait in a file. So no action
// waits for ClickHouse: most actions happen in an outage.
type Trail struct {
	table  ActionTable
	path   string
	log    *slog.Logger
	mu     sync.Mutex
	away   time.Time // when the table was last unreachable
	denied tokenbucket.Bucket
	dry    map[string]*tokenbucket.Bucket // dry runs, by the name of the viewer's token
}

// ActionTable stores actions.
type ActionTable interface {
	SaveActions(ctx context.Context, all []clickhouse.Action) error
	Actions(ctx context.Context, f clickhouse.ActionFilter, each func(clickhouse.Action) error) error
}

// NewTrail returns a trail into a table. Records that it cannot write wait in the file path, which processes may share.
func NewTrail(table ActionTable, path string, log *slog.Logger) *Trail {
	return &Trail{table: table, path: path, log: log, dry: map[string]*tokenbucket.Bucket{}}
}

const (
	trailWait  = 3 * time.Second  // for the table
	trailEvery = 15 * time.Second // between reads of the file
	trailFile  = 16 << 20         // largest file, bytes
)

// Record writes a record to the log, and to the table or else the file.
func (t *Trail) Record(ctx context.Context, a clickhouse.Action) {
	t.logs(a)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.save(ctx, a)
}

// deny records a denied action. The table gets a limited number of them.
func (t *Trail) deny(ctx context.Context, a clickhouse.Action) {
	t.logs(a)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.denied.TakeDownTo(viewerRate, 1, 0, time.Now()) {
		t.save(ctx, a)
	}
}

// limit counts a dry run of a viewer, and rejects it if there are too many.
func (t *Trail) limit(id Identity) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dry[id.Name] == nil {
		t.dry[id.Name] = &tokenbucket.Bucket{}
	}
	wait := t.dry[id.Name].Wait(viewerRate, 1, time.Now())
	if wait == 0 {
		t.dry[id.Name].Take(1)
		return nil
	}
	wait = wait.Round(time.Second) + time.Second
	return &DeniedError{Status: http.StatusTooManyRequests, Wait: wait, text: fmt.Sprintf(
		"the token %s has the role %s and made too many dry runs: try again in %s", id.Name, id.Role, wait)}
}

func (t *Trail) logs(a clickhouse.Action) {
	t.log.Info("operator action", "result", a.Result, "operation", a.Operation, "who", a.Who, "via", a.Via,
		"address", a.Address, "params", a.Params, "items", a.Items, "error", a.Error, "id", a.ID)
}

// save writes a record to the table or else the file. The caller holds mu.
func (t *Trail) save(ctx context.Context, a clickhouse.Action) {
	err := errors.New("ClickHouse could not be reached a moment ago")
	if time.Since(t.away) > trailEvery {
		quick, cancel := context.WithTimeout(ctx, trailWait)
		defer cancel()
		if err = t.table.SaveActions(quick, []clickhouse.Action{a}); err == nil {
			t.Flush(quick) // for commands' records, if no receiver or loader runs here
			return
		}
		t.away = time.Now()
	}
	if lost := t.keep(a); lost != nil {
		t.log.Error("an operator's action is recorded in this log only", "id", a.ID, "error", errors.Join(err, lost))
	}
}

// keep appends a record to the file.
func (t *Trail) keep(a clickhouse.Action) error {
	if err := os.MkdirAll(filepath.Dir(t.path), 0o700); err != nil {
		return err
	}
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	f, err := t.open(os.O_CREATE)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() > trailFile {
		return errors.Join(err, fmt.Errorf("%s has more than %d bytes", t.path, trailFile))
	}
	// The newline before it ends a line that a crash has cut.
	if _, err := fmt.Fprintf(f, "\n%s\n", text); err != nil {
		return err
	}
	return f.Sync()
}

// open opens and locks the file for this process.
func (t *Trail) open(flag int) (*os.File, error) {
	f, err := os.OpenFile(t.path, os.O_RDWR|os.O_APPEND|flag, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Run writes waiting records to the table until ctx ends. A nil trail does nothing.
func (t *Trail) Run(ctx context.Context) {
	for t != nil && ctx.Err() == nil {
		if err := t.Flush(ctx); err != nil && ctx.Err() == nil {
			t.log.Warn("records of operators' actions wait on disk", "file", t.path, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(trailEvery):
		}
	}
}

// Flush writes waiting records to the table once.
func (t *Trail) Flush(ctx context.Context) error {
	if info, err := os.Stat(t.path); err != nil || info.Size() == 0 {
		return nil
	}
	f, err := t.open(0)
	if err != nil {
		return err
	}
	defer f.Close()
	var all []clickhouse.Action
	lines := bufio.NewReader(f)
	for {
		text, err := lines.ReadBytes('\n')
		if err == nil {
			var a clickhouse.Action
			// The log has lines that a crash cut, or that no longer parse.
			if json.Unmarshal(bytes.TrimSpace(text), &a) == nil {
				all = append(all, a)
			}
			continue
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		break
	}
	if len(all) > 0 {
		quick, cancel := context.WithTimeout(ctx, trailWait)
		defer cancel()
		if err := t.table.SaveActions(quick, all); err != nil {
			return err
		}
	}
	return f.Truncate(0)
}

// auditParams select actions.
type auditParams struct {
	Since     string `json:"since" param:"since" default:"168h" usage:"start of the time range: 2026-11-22, 2026-11-22T03:00:00Z, or a duration ago, such as 24h or 7d"`
	Until     string `json:"until" param:"until" default:"now" usage:"end of the time range"`
	Who       string `json:"who,omitempty" param:"who" usage:"only actions of this token or user"`
	Operation string `json:"operation,omitempty" param:"operation" usage:"only actions of this command, such as \"errors redrive\""`
	Limit     int    `json:"limit" param:"limit" default:"100" usage:"at most this number, newest first; 0: all"`
}

func auditOperation() Operation {
	return Operation{
		Name: "audit", method: http.MethodGet, path: "/v1/audit", params: &auditParams{}, item: clickhouse.Action{},
		Short: "list what operators did, newest first",
		About: "Every action of the console, of the operators' API and of a command that changes something is\n" +
			"recorded in the table audit, when it begins and when it ends.",
		header: []string{"BEGAN", "WHO", "VIA", "RESULT", ">ITEMS", "OPERATION", "PARAMETERS"},
		row: rows(func(a *clickhouse.Action) []string {
			params := a.Params
			if a.Error != "" {
				params += " " + a.Error
			}
			return []string{a.Began.Format(time.RFC3339), a.Who, a.Via, a.Result, fmt.Sprint(a.Items), a.Operation, params}
		}),
		run: runs(func(ctx context.Context, o *Operator, p *auditParams, out sink) error {
			span, err := parseSpan(p.Since, p.Until)
			if err != nil {
				return err
			}
			f := clickhouse.ActionFilter{From: span.From, To: span.To, Who: p.Who, Operation: p.Operation, Limit: p.Limit}
			return o.Table.Actions(ctx, f, func(a clickhouse.Action) error { return out.item(a) })
		}),
	}
}
