package receiver

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/penstock/penstock/receiver/errcode"
)

// Counts are what clients have sent since the start. Rates are made of them.
type Counts struct {
	Accepted uint64 `json:"accepted_events"`
	Rejected uint64 `json:"rejected_events"`
	Refused  uint64 `json:"rejected_requests"` // as a whole
}

// Redacted counts values that a rule of a project has dropped or hashed since the start.
type Redacted struct {
	Project string `json:"project"`
	Path    string `json:"path"`
	Done    string `json:"done"` // drop, hash
	Count   uint64 `json:"count"`
}

// Redacted may be called at any time.
func (r *Receiver) Redacted() (all []Redacted) {
	found := make(chan prometheus.Metric)
	go func() {
		r.metrics.redacted.Collect(found)
		close(found)
	}()
	for m := range found {
		var v dto.Metric
		if m.Write(&v) != nil {
			continue
		}
		one := Redacted{Count: uint64(v.GetCounter().GetValue())}
		for _, l := range v.GetLabel() {
			switch l.GetName() {
			case "project":
				one.Project = l.GetValue()
			case "path":
				one.Path = l.GetValue()
			case "done":
				one.Done = l.GetValue()
			}
		}
		all = append(all, one)
	}
	return all
}

type counts struct{ accepted, rejected, refused atomic.Uint64 }

func (c *counts) add(status int, q *request, refused *errcode.Error) {
	if status < 300 {
		c.accepted.Add(uint64(q.accepted))
	}
	if refused != nil {
		c.refused.Add(1)
		return
	}
	c.rejected.Add(uint64(len(q.rejects)))
}

// Counts may be called at any time.
func (r *Receiver) Counts() Counts {
	return Counts{Accepted: r.counts.accepted.Load(), Rejected: r.counts.rejected.Load(),
		Refused: r.counts.refused.Load()}
}
