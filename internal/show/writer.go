package show

import (
	"io"
	"os"
	"unicode/utf8"

	"golang.org/x/term"
)

// Writer quotes for a terminal what passes through it. A character may be split between two writes.
type Writer struct {
	To     io.Writer
	Colour bool   // the terminal shows styles
	rest   []byte // the begin of a character
}

// Write never keeps more than three bytes back; they are shown with the next write, or by Close.
func (w *Writer) Write(p []byte) (int, error) {
	text := append(w.rest, p...)
	whole := len(text) - partial(text)
	_, err := io.WriteString(w.To, Terminal(string(text[:whole])))
	w.rest = append([]byte(nil), text[whole:]...)
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close shows the rest. It does not close the underlying writer.
func (w *Writer) Close() error {
	_, err := io.WriteString(w.To, Terminal(string(w.rest)))
	w.rest = nil
	return err
}

// partial is how many bytes at the end are the begin of a character.
func partial(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if last := text[len(text)-n:]; utf8.RuneStart(last[0]) {
			if utf8.FullRune(last) {
				return 0
			}
			return n
		}
	}
	return 0
}

// Plain quotes what is written to a terminal; any other writer is returned as it is.
func Plain(w io.Writer) io.Writer {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return &Writer{To: w, Colour: colour()}
	}
	return w
}
