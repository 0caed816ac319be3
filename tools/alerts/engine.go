// Package alerts tests the alert rules of infra/prometheus: by the same file that promtool reads, and end to end, with
// real outages and the metrics of real processes. It is a module of its own, for Prometheus' engine is large.
package alerts

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
)

// Engine evaluates rule files over the samples in a storage, at any time that is asked for.
type Engine struct {
	groups []*rules.Group
	query  rules.QueryFunc
}

// NewEngine loads rule files.
func NewEngine(engine *promql.Engine, store storage.Storage, files ...string) (*Engine, error) {
	query := rules.EngineQueryFunc(engine, store)
	m := rules.NewManager(&rules.ManagerOptions{QueryFunc: query, AppendableV2: store,
		Context: context.Background(), NotifyFunc: func(context.Context, string, ...*rules.Alert) {},
		Logger: promslog.NewNopLogger(), Parser: parser.NewParser(parser.Options{})})
	groups, errs := m.LoadGroups(15*time.Second, labels.EmptyLabels(), "", nil, false, files...)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	e := &Engine{query: query}
	for _, g := range groups {
		e.groups = append(e.groups, g)
		for _, r := range g.AlertingRules() {
			r.SetRestored(true) // there is nothing to restore `for` from
		}
	}
	// What is recorded comes first.
	slices.SortFunc(e.groups, func(a, b *rules.Group) int { return rank(a) - rank(b) })
	return e, nil
}

// rank puts groups of recording rules before those that read them.
func rank(g *rules.Group) int { return len(g.AlertingRules()) }

// Eval evaluates all rules at a time.
func (e *Engine) Eval(ctx context.Context, at time.Time) error {
	var errs []error
	for _, g := range e.groups {
		g.Eval(ctx, at)
		for _, r := range g.Rules() {
			errs = append(errs, r.LastError())
		}
	}
	return errors.Join(errs...)
}

// Firing are the alerts that fire now, by name.
func (e *Engine) Firing() map[string][]*rules.Alert {
	firing := map[string][]*rules.Alert{}
	for _, g := range e.groups {
		for _, r := range g.AlertingRules() {
			for _, a := range r.ActiveAlerts() {
				if a.State == rules.StateFiring {
					firing[r.Name()] = append(firing[r.Name()], a)
				}
			}
		}
	}
	return firing
}
