package clickhouse

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Action is an operator's action.
type Action struct {
	ID        uuid.UUID `json:"id"`
	Began     time.Time `json:"began_at"`
	Ended     time.Time `json:"ended_at,omitzero"` // zero: still running
	Who       string    `json:"who"`
	Role      string    `json:"role"`
	Address   string    `json:"address,omitempty"`
	Via       string    `json:"via"`
	Process   string    `json:"process"`
	Operation string    `json:"operation"`
	Params    string    `json:"params"` // JSON
	Result    string    `json:"result"` // begun, done, failed, denied
	Error     string    `json:"error,omitempty"`
	Items     uint64    `json:"items"`
}

// ActionFilter selects actions. Empty fields match all.
type ActionFilter struct {
	From, To       time.Time
	Who, Operation string
	Limit          int // the newest N; 0: all
}

// SaveActions writes records of actions. A repeated record counts once.
func (db *DB) SaveActions(ctx context.Context, all []Action) error {
	return db.insert(ctx, "write audit", `INSERT INTO audit (id, began_at, ended_at, who, role, address, via, process,
		operation, params, result, error, items)`, func(row func(values ...any) error) error {
		for _, a := range all {
			ended := a.Ended
			if ended.IsZero() {
				ended = time.UnixMilli(0)
			}
			if err := row(a.ID, a.Began, ended, a.Who, a.Role, a.Address, a.Via, a.Process, a.Operation, a.Params, a.Result,
				a.Error, a.Items); err != nil {
				return err
			}
		}
		return nil
	})
}

// Actions calls each with the actions of a filter, newest first.
func (db *DB) Actions(ctx context.Context, f ActionFilter, each func(Action) error) error {
	where := []string{"began_at >= fromUnixTimestamp64Milli(?)", "began_at < fromUnixTimestamp64Milli(?)"}
	args := []any{f.From.UnixMilli(), f.To.UnixMilli()}
	if f.Who != "" {
		where, args = append(where, "who = ?"), append(args, f.Who)
	}
	if f.Operation != "" {
		where, args = append(where, "operation = ?"), append(args, f.Operation)
	}
	limit := ""
	if f.Limit > 0 {
		limit = fmt.Sprintf(" LIMIT %d", f.Limit)
	}
	var a Action
	return db.each(ctx, "read audit", []any{&a.ID, &a.Began, &a.Ended, &a.Who, &a.Role, &a.Address, &a.Via, &a.Process,
		&a.Operation, &a.Params, &a.Result, &a.Error, &a.Items}, func() error {
		if a.Ended.UnixMilli() == 0 {
			a.Ended = time.Time{}
		}
		return each(a)
	}, `SELECT id, began_at, ended_at, who, role, address, via, process, operation, params, result, error, items
		FROM audit FINAL WHERE `+strings.Join(where, " AND ")+" ORDER BY began_at DESC, id"+limit, args...)
}
