package devstack

// All sleeps here are in bubbles (internal/testing/bubble): fake time, which takes none.

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/testing/bubble"
)

func TestProgressInALog(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		f := &Fetcher{Progress: &log}
		packages := "7 packages compiled"
		s := step{what: "build it", hint: "about a minute, once", count: func() string { return packages }}
		if err := f.during(s, func() error { time.Sleep(40 * time.Second); return nil }); err != nil {
			t.Error(err)
		}
		want := "build it: about a minute, once\n" +
			"build it: 15s, 7 packages compiled\n" +
			"build it: 30s, 7 packages compiled\n" +
			"build it: done in 40s, 7 packages compiled\n"
		if log.String() != want {
			t.Errorf("got %s\nwant %s", &log, want)
		}
	})
}

func TestProgressOnATerminal(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var screen bytes.Buffer
		s := step{what: "get it", hint: "2 MB", count: func() string { return "1 MB" }}
		stop := make(chan struct{})
		go func() {
			time.Sleep(2500 * time.Millisecond)
			close(stop)
		}()
		s.report(&screen, true, time.Now(), stop)
		want := "get it: 2 MB\n" + clearLine + "get it: 1s, 1 MB" + clearLine + "get it: 2s, 1 MB" + clearLine
		if screen.String() != want {
			t.Errorf("got %q\nwant %q", &screen, want)
		}
	})
}

func TestProgressOfAFailure(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		cause := errors.New("no network")
		err := (&Fetcher{Progress: &log}).during(step{what: "get it", hint: "soon"}, func() error {
			time.Sleep(3 * time.Second)
			return cause
		})
		if !errors.Is(err, cause) || err.Error() != "get it: no network" {
			t.Errorf("got %v", err)
		}
		if want := "get it: soon\nget it: stopped after 3s\n"; log.String() != want {
			t.Errorf("got %q", &log)
		}
	})
}
