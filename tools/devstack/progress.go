package devstack

import (
	"fmt"
	"io"
	"os"
	"time"
)

// How often a running step reports its progress: a terminal redraws one line, a log or CI gets a new line.
const (
	redrawEvery = time.Second
	lineEvery   = 15 * time.Second
)

// step is work that takes long enough to report.
type step struct {
	what  string        // "build MinIO v1"
	hint  string        // what to expect: "about 3 minutes, once"
	count func() string // progress, "123 packages compiled"; called from another goroutine
}

// during runs work and writes Progress at its start, meanwhile and at its end. It adds the step's name to work's error.
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
	<-stopped // no progress line after the last one

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

// clearLine returns to the start of the line and clears it.
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
