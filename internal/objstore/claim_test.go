package objstore

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

func TestClaim(t *testing.T) {
	b, _ := open(t)
	var held atomic.Int32
	var mine *Claim
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			c, ok, err := b.Claim(t.Context(), "sweep", fmt.Sprint(i), 2*time.Second)
			if err != nil {
				t.Error(err)
			}
			if ok {
				held.Add(1)
				mine = c
			}
		})
	}
	wg.Wait()
	if held.Load() != 1 {
		t.Fatalf("%d hold it", held.Load())
	}
	if ok, err := mine.Renew(t.Context()); !ok || err != nil {
		t.Errorf("renew: %v, %v", ok, err)
	}
	if err := mine.Release(t.Context()); err != nil {
		t.Error(err)
	}
	first, ok, err := b.Claim(t.Context(), "sweep", "first", time.Second)
	if !ok || err != nil {
		t.Fatalf("after a release: %v, %v", ok, err)
	}
	// It expires; then somebody else gets it, and the first has lost it.
	deadline := time.Now().Add(15 * time.Second)
	for {
		if _, ok, err = b.Claim(t.Context(), "sweep", "second", time.Minute); ok || err != nil || time.Now().After(deadline) {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	if !ok || err != nil {
		t.Fatalf("after its end: %v, %v", ok, err)
	}
	if ok, err := first.Renew(t.Context()); ok || err != nil {
		t.Errorf("a lost claim is renewed: %v, %v", ok, err)
	}
	if err := first.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if _, ok, _ := b.Claim(t.Context(), "sweep", "third", time.Minute); ok {
		t.Error("a lost claim was released by who lost it")
	}
}

func TestList(t *testing.T) {
	b, _ := open(t)
	for i := range 5 {
		key := fmt.Sprintf("events/dt=2026-11-2%d/x", i%2)
		if _, err := b.Put(t.Context(), key+fmt.Sprint(i), strings.NewReader("abc"), 3, meta("a")); err != nil {
			t.Fatal(err)
		}
	}
	var keys []string
	if err := b.List(t.Context(), "events/dt=2026-11-20/", "", "", func(page []pipeline.Object) error {
		for _, o := range page {
			keys = append(keys, o.Key)
			if o.Size != 3 || o.ETag == "" || o.Modified.IsZero() {
				t.Errorf("object %+v", o)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(keys, " "), "events/dt=2026-11-20/x0 events/dt=2026-11-20/x2 events/dt=2026-11-20/x4"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The note outlives its writer: given back, expired, or killed before it could write more.
func TestClaimNote(t *testing.T) {
	b, _ := open(t)
	next := func(owner string) *Claim {
		t.Helper()
		for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if c, ok, err := b.Claim(t.Context(), "pass", owner, time.Second); err != nil {
				t.Fatal(err)
			} else if ok {
				return c
			}
		}
		t.Fatal("the claim cannot be had")
		return nil
	}
	c := next("first")
	if c.Note() != "" {
		t.Errorf("a new claim has the note %q", c.Note())
	}
	long := strings.Repeat("\x01<é", 300) // as long as a key, and longer in JSON
	c.SetNote(long)
	if err := c.Expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	c = next("second")
	if c.Note() != long {
		t.Errorf("the note after it expired is %q", c.Note())
	}
	c.SetNote("progress")
	if ok, err := c.Renew(t.Context()); !ok || err != nil {
		t.Fatalf("renew: %v, %v", ok, err)
	}
	c.SetNote("never written") // its holder is killed
	lost := c
	c = next("third")
	if c.Note() != "progress" {
		t.Errorf("the note after its holder was killed is %q", c.Note())
	}
	if err := lost.Expire(t.Context()); err != nil {
		t.Error(err)
	}
	if ok, err := c.Renew(t.Context()); !ok || err != nil || c.Note() != "progress" {
		t.Errorf("after a lost claim was expired by who lost it: %v, %v, %q", ok, err, c.Note())
	}
}
