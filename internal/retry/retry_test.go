package retry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/testing/bubble"
)

func TestDelay(t *testing.T) {
	for _, b := range []Backoff{
		{time.Millisecond, time.Second}, {time.Second, 5 * time.Minute}, {time.Second, 24 * time.Hour},
		{5 * time.Second, time.Hour},
		{time.Minute, 24 * time.Hour}, {time.Second, time.Second}, {time.Second, time.Millisecond}, {0, time.Second}, {0, 0},
	} {
		for n := -1; n < 100; n++ {
			top := b.Max
			if n < 30 && b.Min<<max(n, 1) < top && b.Min<<max(n, 1) > 0 {
				top = b.Min << max(n, 1)
			}
			low, high := time.Duration(1<<62), time.Duration(0)
			for range 50 {
				d := b.Delay(n)
				if d < b.Min || d > max(top, b.Min) {
					t.Fatalf("%v, attempt %d: got %s, want %s to %s", b, n, d, b.Min, top)
				}
				low, high = min(low, d), max(high, d)
			}
			if top > b.Min+time.Microsecond && high-low < (top-b.Min)/8 {
				t.Errorf("%v, attempt %d: %s to %s is no jitter", b, n, low, high)
			}
		}
	}
}

func TestClass(t *testing.T) {
	for _, c := range []struct {
		err  error
		want Class
	}{
		{nil, Unknown}, {io.EOF, Unknown}, {As(Permanent, io.EOF), Permanent}, {As(Outage, io.EOF), Outage},
		{fmt.Errorf("get: %w", As(Outage, io.EOF)), Outage},
		{errors.Join(errors.New("x"), As(Permanent, io.EOF)), Permanent},
		{As(Permanent, fmt.Errorf("load: %w", As(Outage, io.EOF))), Permanent}, // the outer one decides
	} {
		if got := ClassOf(c.err); got != c.want {
			t.Errorf("%v: got %d, want %d", c.err, got, c.want)
		}
	}
	if err := As(Outage, nil); err != nil {
		t.Errorf("got %v", err)
	}
	if err := As(Outage, io.EOF); !errors.Is(err, io.EOF) || err.Error() != "EOF" {
		t.Errorf("got %v", err)
	}
}

func TestSleep(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		began := time.Now()
		if err := Sleep(t.Context(), time.Minute); err != nil || time.Since(began) != time.Minute {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		if err := Sleep(ctx, time.Minute); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("got %v after %s", err, time.Since(began))
		}
	})
}

// A server's code is found below whatever wraps it, also below another class.
func TestCodes(t *testing.T) {
	refused := AsCode(Permanent, 241, io.EOF)
	for _, tt := range []struct {
		err   error
		code  int
		class Class
	}{
		{nil, 0, Unknown},
		{io.EOF, 0, Unknown},
		{refused, 241, Permanent},
		{fmt.Errorf("insert: %w", refused), 241, Permanent},
		{As(Outage, fmt.Errorf("insert: %w", refused)), 241, Outage},
		{As(Outage, io.EOF), 0, Outage},
		{errors.Join(errors.New("first"), refused), 241, Permanent},
	} {
		if code, class := CodeOf(tt.err), ClassOf(tt.err); code != tt.code || class != tt.class {
			t.Errorf("%v: code %d of class %s, want %d of class %s", tt.err, code, class, tt.code, tt.class)
		}
		if tt.code != 0 && !errors.Is(tt.err, io.EOF) {
			t.Errorf("%v hides its cause", tt.err)
		}
	}
	if err := As(Outage, nil); err != nil {
		t.Errorf("no error becomes %v", err)
	}
	for class, want := range map[Class]string{Unknown: "unknown", Permanent: "permanent", Outage: "outage"} {
		if got := class.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
