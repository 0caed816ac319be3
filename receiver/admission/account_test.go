package admission

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/testing/bubble"
)

// Whatever requests do, in any order, the accounts never hold less than nothing, and in the end they hold nothing.
func TestAccountsBalance(t *testing.T) {
	for seed := range uint64(50) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { bubble.Test(t, func(t *testing.T) { balance(t, seed) }) })
	}
}

func balance(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	c := control(t, Limits{Memory: 1000, Spool: 4000, AnonymousRate: 1 << 20, StrangerBody: 1 << 20, MaxKeyless: 3})
	req := httptest.NewRequest("POST", "/batch", nil)
	req.Header.Set("X-Long", strings.Repeat("x", 5<<10))
	var leases [6]*Lease
	for step := range 300 {
		i := rnd.IntN(len(leases))
		l := leases[i]
		if l == nil {
			l = &Lease{}
			l.Open(c)
			leases[i] = l
			continue
		}
		what := ""
		switch op := rnd.IntN(12); op {
		case 0, 1:
			size := rnd.Int64N(900)
			if what = fmt.Sprint("resize ", size); l.Resize(size) == nil && l.Size() != size {
				t.Fatalf("step %d: %s, but it has %d", step, what, l.Size())
			}
		case 2:
			if what = "head"; l.head == 0 {
				l.Head(req)
			}
		case 3:
			what = "known"
			l.Known()
		case 4, 5:
			what = "write"
			if len(l.files) == 0 {
				l.Spool()
			}
			if f := l.files[0]; f.data == nil {
				f.Write(make([]byte, rnd.Int64N(1500)))
			}
		case 6:
			if what = "turn"; len(c.large) < cap(c.large) && len(c.medium) < cap(c.medium) {
				l.Turn(t.Context(), rnd.IntN(2*MediumAt))
			}
		case 7:
			what = "yield"
			l.Yield()
		case 8:
			if what = "enter"; !l.visit.inside && !l.known {
				l.Enter(fmt.Sprintf("192.0.2.%d", rnd.IntN(3)), nil)
			}
		case 9:
			what = "pay"
			l.Pay(rnd.Int64N(1 << 16))
		case 10:
			if what = "unknown"; l.visit.inside {
				l.Unknown(rnd.Int64N(100))
			}
		case 11:
			what = "close"
			l.Close()
			leases[i] = nil
		}
		if left := c.left(); left.memory < 0 || left.spooled < 0 || left.strange < 0 || left.strange > left.spooled ||
			left.turns < 0 || left.reading < 0 {
			t.Fatalf("step %d, %s: %+v", step, what, left)
		}
	}
	for _, l := range leases {
		if l != nil {
			l.Close()
			l.Close() // closed already
		}
	}
}

// A stranger's body that finds the spool full returns exactly what was counted. Otherwise strangers would exceed their
// quarter from then on.
func TestFullSpoolCountsStrangersOnce(t *testing.T) {
	c := control(t, Limits{Memory: 1 << 20, Spool: 4000})
	customer, err := c.customer(t).Spool()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := customer.Write(make([]byte, 3900)); err != nil {
		t.Fatal(err)
	}
	l := c.stranger(t)
	f, err := l.Spool()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, 200)); !errors.Is(err, ErrSpool) {
		t.Errorf("got error %v, want %v", err, ErrSpool)
	}
	l.Close()
	if got := c.left(); got.strange != 0 || got.spooled != 3900 {
		t.Errorf("got %+v, want 3900 bytes of the customer's alone", got)
	}
}

// A part of one file is not taken for a part of another that lies before it, however large it is.
func TestFileOfNeighbours(t *testing.T) {
	var l Lease
	all := make([]byte, 100)
	first, second := &File{data: all[:10]}, &File{data: all[10:90]}
	l.files = []*File{first, second}
	for _, c := range []struct {
		from, to int
		want     *File
		at       int
	}{
		{0, 10, first, 0}, {9, 10, first, 9}, {10, 90, second, 0}, {20, 90, second, 10}, {20, 30, second, 10},
		{5, 15, nil, 0}, {90, 100, nil, 0}, {0, 100, nil, 0}, {50, 95, nil, 0}, {3, 3, nil, 0},
	} {
		if got, at := l.FileOf(all[c.from:c.to]); got != c.want || at != c.at {
			t.Errorf("bytes %d to %d: got file %p at %d, want %p at %d", c.from, c.to, got, at, c.want, c.at)
		}
	}
}
