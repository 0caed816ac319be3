package loader

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/loader/audit"
)

// Claimer lets one loader at a time have an object. Claim returns false while another has it.
type Claimer interface {
	Claim(ctx context.Context, name, owner string, ttl time.Duration) (Claim, bool, error)
}

// Claim is held until it expires, unless it is renewed.
type Claim interface {
	Renew(ctx context.Context) (held bool, err error)
	Release(ctx context.Context) error
}

// Poller is a Queue without a queue server. It sweeps the bucket for objects that are not loaded, and claims them there
// so that several loaders share the work. Receive is for one goroutine.
type Poller struct {
	Spec   pipeline.Spec
	Owner  string
	Poll   time.Duration // between sweeps of the last hour
	Every  time.Duration // between sweeps of the whole span
	Span   time.Duration // how far back the whole span reaches
	TTL    time.Duration // of a claim without renewal
	Bucket audit.Lister
	Ledger audit.Ledger
	Claims Claimer
	More   chan pipeline.Notification // from Enqueue; its capacity is the limit

	found []pipeline.Notification // by the last sweep, not yet tried
	swept time.Time               // last sweep of the whole span
	last  time.Time               // last sweep of any kind
	held  bool                    // an object found then was claimed by another loader

	mu    sync.Mutex
	tried map[string]tried // objects delivered and not yet loaded, by key
}

// tried is what the poller remembers about an object, like a queue about a message.
type tried struct {
	attempts int
	until    time.Time // do not try before
}

// maxFound is the most objects that a sweep remembers. The next sweep finds the rest.
const maxFound = 10_000

// errEnough ends a sweep that has found maxFound objects.
var errEnough = errors.New("enough")

// Enqueue accepts an object found elsewhere. It is safe for concurrent use.
func (p *Poller) Enqueue(_ context.Context, n pipeline.Notification) (known bool, err error) {
	select {
	case p.More <- n:
		return false, nil
	default:
		return false, audit.ErrEnqueueLater
	}
}

// takeMore moves some of Enqueue's objects to found. It is bounded, so that sweeps for new objects continue.
func (p *Poller) takeMore() {
	for len(p.found) < 100 {
		select {
		case n := <-p.More:
			p.found = append(p.found, n)
		default:
			return
		}
	}
}

// Receive returns objects that it can claim. If there are none, it sweeps, or waits some seconds at most for the next
// sweep.
func (p *Poller) Receive(ctx context.Context, max int) ([]pipeline.Delivery, error) {
	if len(p.found) == 0 && time.Since(p.last) >= p.interval() {
		if err := p.sweep(ctx); err != nil {
			return nil, err
		}
	}
	if len(p.found) == 0 {
		p.takeMore()
	}
	var all []pipeline.Delivery
	for len(p.found) > 0 && len(all) < max {
		n := p.found[0]
		p.found = p.found[1:]
		d, err := p.claim(ctx, n)
		if err != nil {
			return all, err
		}
		if d != nil {
			all = append(all, d)
		}
	}
	if len(all) == 0 && len(p.found) == 0 {
		return nil, retry.Sleep(ctx, min(5*time.Second, p.interval()-time.Since(p.last)))
	}
	return all, nil
}

// claim returns nil if the object cannot be claimed now; the next sweep finds it again.
func (p *Poller) claim(ctx context.Context, n pipeline.Notification) (pipeline.Delivery, error) {
	p.mu.Lock()
	t := p.tried[n.Key]
	p.mu.Unlock()
	if time.Now().Before(t.until) {
		return nil, nil
	}
	c, ok, err := p.Claims.Claim(ctx, strings.ReplaceAll(n.Key, "/", "_"), p.Owner, p.TTL)
	if err != nil {
		return nil, err
	}
	if !ok {
		p.held = true
		return nil, nil
	}
	t.attempts++
	p.remember(n.Key, t)
	return &polled{poller: p, n: n, claim: c, attempt: t.attempts}, nil
}

// remember replaces the memory of an object; forget removes it.
func (p *Poller) remember(key string, t tried) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tried == nil {
		p.tried = map[string]tried{}
	}
	p.tried[key] = t
}

func (p *Poller) forget(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.tried, key)
}

// interval is shorter while another loader has an object: if that loader dies, its claim expires soon.
func (p *Poller) interval() time.Duration {
	if p.held {
		return min(p.Poll, p.TTL/4)
	}
	return p.Poll
}

func (p *Poller) sweep(ctx context.Context) error {
	now := time.Now()
	span := time.Hour
	whole := now.Sub(p.swept) >= p.Every
	if whole {
		span = p.Span
	}
	scope := audit.InSpan(p.Spec, audit.Span{From: now.Add(-span), To: now.Add(time.Hour)})
	_, err := audit.Sweep(ctx, audit.SweepOptions{Scope: scope, Bucket: p.Bucket, Ledger: p.Ledger,
		Enqueue: func(_ context.Context, n pipeline.Notification) (known bool, err error) {
			if p.found = append(p.found, n); len(p.found) == maxFound {
				err = errEnough
			}
			return false, err
		}})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	p.last, p.held = now, false
	if whole && err == nil {
		p.swept = now
	}
	return nil
}

// polled is the Delivery of an object that the poller has claimed.
type polled struct {
	poller  *Poller
	n       pipeline.Notification
	claim   Claim
	attempt int
}

func (d *polled) Notifications() ([]pipeline.Notification, error) {
	return []pipeline.Notification{d.n}, nil
}

func (d *polled) Attempt() int { return d.attempt }

func (d *polled) Extend() error {
	ok, err := d.claim.Renew(context.Background())
	if err == nil && !ok {
		err = fmt.Errorf("the claim on %s was lost", d.n.Key)
	}
	return err
}

func (d *polled) Ack(ctx context.Context) error {
	d.poller.forget(d.n.Key)
	return d.claim.Release(ctx)
}

func (d *polled) Nak(delay time.Duration) error {
	d.poller.remember(d.n.Key, tried{d.attempt, time.Now().Add(delay)})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return d.claim.Release(ctx)
}
