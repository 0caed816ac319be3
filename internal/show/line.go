package show

import (
	"fmt"
	"io"
	"time"

	"golang.org/x/term"
)

// Line is a line of progress. On a terminal it is drawn over itself, elsewhere it is written every ten seconds.
type Line struct {
	to       io.Writer
	terminal bool
	drawn    bool
	last     time.Time
}

// NewLine makes a line of w.
func NewLine(w io.Writer) *Line {
	f, ok := w.(interface{ Fd() uintptr })
	return &Line{to: w, terminal: ok && term.IsTerminal(int(f.Fd())), last: time.Now()}
}

// Show draws the line.
func (l *Line) Show(format string, args ...any) {
	if l.terminal {
		fmt.Fprintf(l.to, "\r\x1b[K"+format, args...)
		l.drawn = true
	} else if time.Since(l.last) >= 10*time.Second {
		l.last = time.Now()
		fmt.Fprintf(l.to, format+"\n", args...)
	}
}

// End leaves the line as it is; what is written next is below it.
func (l *Line) End() {
	if l.drawn {
		fmt.Fprintln(l.to)
		l.drawn = false
	}
}
