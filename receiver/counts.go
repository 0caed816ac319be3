package receiver

import (
	"sync/atomic"

	"github.com/penstock/penstock/receiver/errcode"
)

// Counts are what clients have sent since the start. Rates are made of them.
type Counts struct {
	Accepted uint64 `json:"accepted_events"`
	Rejected uint64 `json:"rejected_events"`
	Refused  uint64 `json:"rejected_requests"` // as a whole
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
