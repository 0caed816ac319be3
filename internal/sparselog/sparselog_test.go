package sparselog

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/testing/bubble"
)

func TestOneLineASecond(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(New(slog.NewTextHandler(&out, &slog.HandlerOptions{
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			}})))
		for i := range 5 {
			log.Warn("a", "i", i)
			log.With("x", 1).Error("b", "i", i)
			log.Info("c")
		}
		time.Sleep(Every)
		log.Warn("a", "i", 5)
		time.Sleep(Every)
		log.Warn("a", "i", 6)
		want := "level=WARN msg=a i=0\nlevel=ERROR msg=b x=1 i=0\n" +
			"level=INFO msg=c\nlevel=INFO msg=c\nlevel=INFO msg=c\nlevel=INFO msg=c\nlevel=INFO msg=c\n" +
			"level=WARN msg=a i=5 suppressed=4\nlevel=WARN msg=a i=6\n"
		if out.String() != want {
			t.Errorf("got\n%swant\n%s", &out, want)
		}
	})
}
