package loader

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/bubble"
	"github.com/penstock/penstock/loader/audit"
)

// What is found elsewhere is given out between two sweeps, and no more waits than there is room for.
func TestPollerTakesMore(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := &Poller{Spec: pipeline.Events, Owner: "l", Poll: 10 * time.Second, Every: time.Minute, Span: time.Hour,
			TTL: time.Minute, Bucket: nothing{}, Ledger: nothing{},
			Claims: everybody{}, More: make(chan pipeline.Notification, 250)}
		var err error
		n := 0
		for ; err == nil && n < 1000; n++ {
			_, err = p.Enqueue(t.Context(), pipeline.Notification{Key: fmt.Sprint(n)})
		}
		if n--; n != 250 || !errors.Is(err, audit.ErrEnqueueLater) {
			t.Fatalf("%d taken, %v", n, err)
		}
		got := 0
		for range 100 {
			all, err := p.Receive(t.Context(), 4)
			if err != nil {
				t.Fatal(err)
			}
			got += len(all)
			time.Sleep(time.Second)
		}
		if got != 250 {
			t.Errorf("%d given out, want 250", got)
		}
	})
}
