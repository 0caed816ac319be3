package outagelog

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/testing/bubble"
)

// An outage is a line when it starts, one a minute, and one when it ends. One that fails now and then adds no more.
func TestLinesOfAnOutage(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			}}))
		l := New(log, Messages{"away", "still away", "back"})
		l.Works() // it always did
		away := errors.New("connection refused")
		for range 150 { // 2.5 minutes
			l.Failed(away, "batches", 2)
			time.Sleep(time.Second)
		}
		l.Works()
		l.Works()
		for range 20 { // every second PUT fails
			l.Failed(away)
			l.Works()
			time.Sleep(time.Second)
		}
		time.Sleep(Every)
		l.Failed(away)
		want := `level=WARN msg=away error="connection refused" batches=2
level=WARN msg="still away" outage=1m0s failures=61 error="connection refused" batches=2
level=WARN msg="still away" outage=2m0s failures=121 error="connection refused" batches=2
level=INFO msg=back outage=2m30s failures=150
level=WARN msg=away error="connection refused"
`
		// The 20 seconds of flapping are quiet until a minute after the last line.
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	})
}
