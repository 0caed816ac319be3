package admission

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/testing/bubble"
)

func control(t *testing.T, l Limits) *Control {
	t.Helper()
	if l.SpoolDir == "" {
		l.SpoolDir = t.TempDir()
	}
	c := New(l, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	t.Cleanup(func() {
		if got := c.left(); got != (usage{}) {
			t.Errorf("left in the end: %+v", got)
		}
	})
	return c
}

type usage struct {
	memory, spooled, strange int64
	turns, reading           int
}

func (c *Control) left() usage {
	return usage{c.Memory(), c.Spooled(), c.strange.Load(), c.Turns(), c.Reading()}
}

func (c *Control) stranger(t *testing.T) *Lease {
	l := new(Lease)
	l.Open(c)
	t.Cleanup(l.Close)
	return l
}

func (c *Control) customer(t *testing.T) *Lease {
	l := c.stranger(t)
	l.Known()
	return l
}

func TestLease(t *testing.T) {
	type step struct {
		who  string
		size int64
		err  error
		all  int64 // counted after it
	}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"alone, a request is never refused", []step{{"a", 5000, nil, 5000}, {"a", 100, nil, 100}}},
		{"beside others it is", []step{{"a", 600, nil, 600}, {"b", 401, ErrMemory, 600}, {"b", 400, nil, 1000},
			{"b", 399, nil, 999}}},
		{"what is given back can be taken",
			[]step{{"a", 1000, nil, 1000}, {"b", 1, ErrMemory, 1000}, {"a", 0, nil, 0}, {"b", 1, nil, 1}}},
		{"strangers leave half to customers",
			[]step{{"stranger", 500, nil, 500}, {"other stranger", 1, ErrMemory, 500}, {"a", 500, nil, 1000}}},
		{"a refused request keeps what it has",
			[]step{{"a", 900, nil, 900}, {"b", 50, nil, 950}, {"b", 200, ErrMemory, 950}, {"b", 100, nil, 1000}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, leases := control(t, Limits{Memory: 1000}), map[string]*Lease{}
			for i, s := range tt.steps {
				if leases[s.who] == nil {
					leases[s.who] = c.stranger(t)
					if !strings.Contains(s.who, "stranger") {
						leases[s.who].Known()
					}
				}
				if err := leases[s.who].Resize(s.size); !errors.Is(err, s.err) || c.Memory() != s.all {
					t.Errorf("step %d: got %v, %d bytes; want %v, %d", i, err, c.Memory(), s.err, s.all)
				}
			}
		})
	}
}

// A large request's turn covers its memory: small requests use the memory beside it.
func TestTurnIsNotCounted(t *testing.T) {
	c := control(t, Limits{Memory: 1 << 20, Spool: 1 << 20})
	large, small := c.customer(t), c.customer(t)
	if _, err := large.Spool(); err != nil {
		t.Fatal(err)
	}
	for i, s := range []struct {
		l             *Lease
		turn          bool
		size, counted int64
	}{
		{large, false, 100, 100},
		{large, true, 50 << 20, 100},
		{small, false, 1 << 19, 100 + 1<<19},
		{large, true, 10 << 20, 100 + 1<<19},
		{large, true, 20 << 20, 100 + 1<<19},
		{large, true, 50, 50 + 1<<19},
		{small, false, 0, 50},
	} {
		if s.turn {
			if err := s.l.Turn(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.l.Resize(s.size); err != nil || c.Memory() != s.counted || s.l.Size() != s.size {
			t.Errorf("step %d: got %v, %d bytes, %d its own; want %d and %d", i, err, c.Memory(), s.l.Size(), s.counted, s.size)
		}
	}
	if err := large.Grow(2 << 20); err != nil || large.Overdrawn() {
		t.Errorf("got %v, overdrawn %v", err, large.Overdrawn())
	}
	large.Yield()
	if got, want := c.Memory(), int64(2<<20+50); got != want || large.Class() != Small {
		t.Errorf("after its turn: %d bytes, want %d; class %d", got, want, large.Class())
	}
	next := c.customer(t)
	if err := next.Turn(t.Context(), MediumAt+1); err != nil || !next.Overdrawn() {
		t.Errorf("the next one: %v, overdrawn %v; want true", err, next.Overdrawn())
	}
}

// Large bodies are checked one at a time, medium ones one for each processor, small ones at once.
func TestTurns(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := control(t, Limits{Memory: 1 << 20, Spool: 1 << 20})
		var mu sync.Mutex
		got := map[string]int{}
		var g sync.WaitGroup
		for range 3 * cap(c.medium) {
			for name, size := range map[string]int{"small": MediumAt, "medium": MediumAt + 1, "large": 0} {
				l := c.customer(t)
				if name == "large" {
					if _, err := l.Spool(); err != nil {
						t.Fatal(err)
					}
				}
				g.Go(func() {
					if err := l.Turn(t.Context(), size); err != nil {
						t.Error(err)
					}
					if err := l.Turn(t.Context(), size); err != nil { // it has it already
						t.Error(err)
					}
					mu.Lock()
					got[name]++
					mu.Unlock()
					time.Sleep(time.Second)
					l.Yield()
				})
			}
		}
		time.Sleep(time.Millisecond)
		mu.Lock()
		want := map[string]int{"small": 3 * cap(c.medium), "medium": cap(c.medium), "large": 1}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("at once (-want +got):\n%s", diff)
		}
		mu.Unlock()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.customer(t).Turn(ctx, MediumAt+1); !errors.Is(err, context.Canceled) {
			t.Errorf("a client that left: got %v", err)
		}
		g.Wait()
	})
}

func TestHead(t *testing.T) {
	req, _ := http.NewRequest("POST", "/batch", nil)
	req.Header.Set("X-Long", strings.Repeat("x", 8<<10))
	small, _ := http.NewRequest("POST", "/batch", nil)
	c := control(t, Limits{Memory: 64 << 10})
	stranger, customer, free := c.stranger(t), c.customer(t), c.customer(t)
	if err := stranger.Head(req); err != nil || c.Memory() < strangerMemory+8<<10 {
		t.Errorf("a stranger's: %v, %d bytes", err, c.Memory())
	}
	before := c.Memory()
	if err := free.Head(small); err != nil || c.Memory() != before {
		t.Errorf("a customer's small one: %v, %d bytes more", err, c.Memory()-before)
	}
	if err := customer.Head(req); err != nil || c.Memory()-before < 8<<10 {
		t.Errorf("a customer's large one: %v, %d bytes more", err, c.Memory()-before)
	}
	if err := c.stranger(t).Head(req); !errors.Is(err, ErrMemory) {
		t.Errorf("another stranger's: got %v, want %v", err, ErrMemory)
	}
	stranger.Known()
	if got := c.Memory(); got >= before {
		t.Errorf("%d bytes are counted once the key is known, %d before", got, before)
	}
}

func TestFile(t *testing.T) {
	c := control(t, Limits{Memory: 1 << 20, Spool: 4000})
	l, other := c.stranger(t), c.stranger(t)
	f, err := l.Spool()
	if err != nil {
		t.Fatal(err)
	}
	text := []byte(strings.Repeat("spooled ", 100))
	if _, err := f.Write(text[:400]); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(text[400:]); err != nil {
		t.Fatal(err)
	}
	data, err := f.Map()
	if err != nil || !bytes.Equal(data, text) || f.Size() != int64(len(text)) {
		t.Fatalf("got %d bytes, %v", len(data), err)
	}
	l.Unload()
	if !bytes.Equal(data, text) {
		t.Error("its pages do not come back")
	}
	part := make([]byte, 8)
	if _, err := f.ReadAt(part, 8); err != nil || string(part) != "spooled " {
		t.Errorf("read %q, %v", part, err)
	}
	if got, at := l.FileOf(data[16:20]); got != f || at != 16 {
		t.Errorf("a part of it is at %d of %p, want 16 of %p", at, got, f)
	}
	if got := l.InMemory(data); got != 0 {
		t.Errorf("it takes %d bytes of memory", got)
	}
	if got := l.InMemory(make([]byte, 3, 5)); got != 5 {
		t.Errorf("another one takes %d bytes, want 5", got)
	}
	// Strangers have a quarter of the spool, until their key is known.
	g, err := other.Spool()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Write(make([]byte, 201)); !errors.Is(err, ErrSpool) {
		t.Errorf("beyond the strangers' quarter: got %v", err)
	}
	l.Enter("192.0.2.1", nil)
	l.Known()
	if got := c.strange.Load(); got != 201 {
		t.Errorf("strangers have %d bytes, want 201", got)
	}
	if _, err := f.Write(make([]byte, 4000)); !errors.Is(err, ErrSpool) {
		t.Errorf("beyond the spool: got %v", err)
	}
	if files, _ := os.ReadDir(c.limits.SpoolDir); len(files) > 0 {
		t.Errorf("files have names: %v", files)
	}
	l.Remove()
	if l.Spooled() {
		t.Error("it is still there")
	}
}

func TestFileErrors(t *testing.T) {
	c := control(t, Limits{Memory: 1 << 20, Spool: 4000, SpoolDir: "/nowhere"})
	if _, err := c.customer(t).Spool(); !errors.Is(err, ErrSpool) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a folder: got %v", err)
	}
	c = control(t, Limits{Memory: 1 << 20, Spool: 4000})
	l := c.customer(t)
	f, err := l.Spool()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Map(); !errors.Is(err, ErrSpool) {
		t.Errorf("an empty file: got %v", err)
	}
	f.file.Close()
	if _, err := io.WriteString(f, "x"); !errors.Is(err, ErrSpool) {
		t.Errorf("a disk that fails: got %v", err)
	}
}
