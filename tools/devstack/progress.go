package devstack

import (
	"fmt"
	"io"
	"os"
	"time"
)

// How often a running step says how far it is: on a terminal it redraws one line, elsewhere (a log, CI) it adds one.
const (
	redrawEvery = time.Second
	lineEvery   = 15 * time.Second
)

// step is one thing that takes long enough to be told about.
type step struct {
	what  string        // "build MinIO v1"
	hint  string        // what to expect: "about 3 minutes, once"
	count func() string // how far it is, "123 packages compiled"; must be safe to call from another goroutine
}

// during runs work, and shows Progress at its begin, meanwhile and at its end. It returns work's error with the name of
// the step.
func (f *Fetcher) during(s step, work func() error) error {
	begin := time.Now()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		if f.Progress != nil {
			s.report(f.Progress, isTerminal(f.Progress), begin, stop)
		}
	}()
	err := work()
	close(stop)
	<-stopped // so that no line of it comes after the last one

	took := elapsed(begin)
	if err != nil {
		f.say("%s: stopped after %s", s.what, took)
		return fmt.Errorf("%s: %w", s.what, err)
	}
	f.say("%s: done in %s, %s", s.what, took, s.count())
	return nil
}

// report writes the step's lines until stop is closed.
func (s step) report(w io.Writer, terminal bool, begin time.Time, stop <-chan struct{}) {
	every := lineEvery
	if terminal {
		every = redrawEvery
	}
	fmt.Fprintf(w, "%s: %s\n", s.what, s.hint)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			if terminal {
				fmt.Fprint(w, clearLine)
			}
			return
		case <-tick.C:
			line := fmt.Sprintf("%s: %s, %s", s.what, elapsed(begin), s.count())
			if terminal {
				fmt.Fprint(w, clearLine+line)
			} else {
				fmt.Fprintln(w, line)
			}
		}
	}
}

// clearLine goes back to the line's beginning and empties it.
const clearLine = "\r\x1b[K"

func elapsed(begin time.Time) time.Duration { return time.Since(begin).Round(time.Second) }

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
