package admission

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/testing/bubble"
)

func TestBudget(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		const rate = LowestRefill
		b := &Budget{rate: rate, debt: 1000}
		if !b.Take(rate*BudgetSeconds) || b.Take(1) {
			t.Error("a full budget is not what it has at once")
		}
		if !b.borrow(1000) || b.borrow(1) {
			t.Error("the debt is not as large as it may be")
		}
		b.Spend(5000) // read already
		if got := b.Left(); got != -1000 {
			t.Errorf("left %v, want -1000", got)
		}
		b.giveBack(400)
		if got := b.Left(); got != -600 {
			t.Errorf("left %v, want -600", got)
		}
		time.Sleep(time.Second)
		if got := b.Left(); got != rate-600 {
			t.Errorf("left %v after a second, want %d", got, rate-600)
		}
		time.Sleep(time.Hour)
		if got := b.Left(); got != rate*BudgetSeconds {
			t.Errorf("left %v after an hour, want %d", got, rate*BudgetSeconds)
		}
	})
}

// A budget of nothing keeps nothing, and pays debts off.
func TestNoBudget(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		b := &Budget{debt: 1000}
		if b.Take(1) || !b.borrow(1000) || b.borrow(1) {
			t.Error("it is not a debt of 1000")
		}
		time.Sleep(time.Second)
		if b.Take(1) || !b.borrow(1000) {
			t.Error("the debt was not paid off")
		}
	})
}

func TestHost(t *testing.T) {
	for ip, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::",
		"2001:db8:0:0:1::1": "2001:db8::",
		"fe80::1%eth0":      "fe80::",
	} {
		if got := host(ip); got != netip.MustParseAddr(want) {
			t.Errorf("%s counts as %s, want %s", ip, got, want)
		}
	}
	if got := host("nobody"); got.IsValid() {
		t.Errorf("no address counts as %s", got)
	}
}

// deadline is a client that was cut off.
type deadline struct{ at time.Time }

func (d *deadline) SetReadDeadline(t time.Time) error { d.at = t; return nil }

// An address may send a limited number of bodies at once. A further one replaces a body that has been read for a second
// without a key.
func TestBodiesOfAnAddress(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := control(t, Limits{Memory: 1 << 20, MaxKeyless: 2})
		first, second, third, other := c.stranger(t), c.stranger(t), c.stranger(t), c.stranger(t)
		var client, whole deadline
		if first.Enter("192.0.2.1", &client) != nil || second.Enter("192.0.2.1", &whole) != nil ||
			other.Enter("192.0.2.2", nil) != nil {
			t.Fatal("they are refused")
		}
		if err := second.Arrived(); err != nil {
			t.Fatal(err)
		}
		if err := third.Enter("192.0.2.1", nil); !errors.Is(err, ErrCrowded) {
			t.Errorf("a third one: got %v, want %v", err, ErrCrowded)
		}
		time.Sleep(Graceful)
		if err := third.Enter("192.0.2.1", nil); err != nil || !third.Inside() {
			t.Errorf("a third one after a second: got %v", err)
		}
		if !first.Replaced() || !errors.Is(first.Arrived(), ErrCrowded) || client.at.After(time.Now()) || client.at.IsZero() {
			t.Errorf("the first one goes on: replaced %v, deadline %s", first.Replaced(), client.at)
		}
		if second.Replaced() || !whole.at.IsZero() {
			t.Error("one whose body is whole was cut off")
		}
		if got := c.Reading(); got != 3 {
			t.Errorf("%d bodies are read, want 3", got)
		}
		second.Known()
		if second.Inside() || c.Reading() != 2 {
			t.Error("one with a known key still counts")
		}
	})
}

// Bytes beyond what each body may have are paid for, and given back to those whose key becomes known.
func TestPay(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		const rate = 1 << 20
		c := control(t, Limits{Memory: 1 << 20, AnonymousRate: rate, StrangerBody: 4 << 20})
		full := c.Budget.Left()
		enter := func(ip string) *Lease {
			l := c.stranger(t)
			if err := l.Enter(ip, nil); err != nil {
				t.Fatal(err)
			}
			return l
		}
		paid := func(want int64) {
			t.Helper()
			if got := full - c.Budget.Left(); got != float64(want) {
				t.Errorf("%v bytes are taken, want %d", got, want)
			}
		}
		if err := c.customer(t).Pay(1 << 30); err != nil {
			t.Errorf("a customer: got %v", err)
		}
		l := enter("192.0.2.1")
		for _, n := range []int64{FrontBytes, FrontBytes} {
			if err := l.Pay(n); err != nil {
				t.Fatal(err)
			}
		}
		paid(0)
		if err := l.Pay(1000); err != nil {
			t.Fatal(err)
		}
		paid(1000)
		l.Known()
		paid(0)

		proven := enter("192.0.2.1") // by the one before
		if err := proven.Pay(10 << 20); err != nil {
			t.Errorf("a proven address: got %v", err)
		}
		paid(0)
		if !proven.Unknown(1000) {
			t.Error("its record is not stored")
		}
		paid(10<<20 + 1000)

		refused := enter("192.0.2.2") // and must retry
		if err := refused.Pay(1000); err != nil || refused.Unknown(0) {
			t.Errorf("a record of a request that comes again is stored, %v", err)
		}
		paid(10<<20 + 2000)
		flood := enter("192.0.2.3")
		flood.Pay(2 * FrontBytes)
		if err := flood.Pay(1 << 30); !errors.Is(err, ErrAnonymous) {
			t.Errorf("a flood: got %v, want %v", err, ErrAnonymous)
		}
		if flood.Unknown(1 << 30) {
			t.Error("a record beyond the budget is stored")
		}
		time.Sleep(provenFor + time.Second)
		late := enter("192.0.2.1")
		late.Pay(2*FrontBytes + 1)
		if got := c.Budget.Left(); got >= full {
			t.Error("an address is trusted for longer than an hour")
		}
	})
}

func TestProvenAddressesAreBounded(t *testing.T) {
	c := control(t, Limits{Memory: 1 << 20})
	for i := range maxProven + 10 {
		l := new(Lease)
		l.Open(c)
		l.Enter(fmt.Sprintf("10.%d.%d.1", i>>8, i&255), nil)
		l.Known()
		l.Close()
	}
	if got := len(c.keyless.proven); got != maxProven {
		t.Errorf("%d addresses are trusted, want %d", got, maxProven)
	}
}

// A handler that panics leaves its place.
func TestCloseInside(t *testing.T) {
	c := control(t, Limits{Memory: 1 << 20})
	l := c.stranger(t)
	l.Enter("192.0.2.1", nil)
	l.Close()
	l.Close() // it is closed already
	if got := c.Reading(); got != 0 {
		t.Errorf("%d bodies are read, want 0", got)
	}
}
