package show

import (
	"bufio"
	"io"
	"os"
)

// Style is how a terminal shows a text.
type Style string

// Styles, as parameters of the escape sequence SGR.
const (
	Red    Style = "31"
	Green  Style = "32"
	Yellow Style = "33"
	normal Style = "0"
)

// styler is a writer to a terminal that shows styles.
type styler interface{ style(Style) error }

// Print writes a text in a style. Only a Writer with Colour, and a Buffer of one, show it.
func Print(w io.Writer, s Style, text string) error {
	st, ok := w.(styler)
	if ok {
		if err := st.style(s); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, text)
	if err == nil && ok {
		err = st.style(normal)
	}
	return err
}

func (w *Writer) style(s Style) error {
	if !w.Colour {
		return nil
	}
	_, err := io.WriteString(w.To, "\x1b["+string(s)+"m")
	return err
}

// Clear empties the screen of a terminal. Elsewhere it does nothing.
func Clear(w io.Writer) error {
	if t, ok := w.(*Writer); ok {
		_, err := io.WriteString(t.To, "\x1b[H\x1b[2J\x1b[3J")
		return err
	}
	return nil
}

// Buffer is a bufio.Writer that passes styles on.
type Buffer struct {
	*bufio.Writer
	to io.Writer
}

// NewBuffer makes a buffer of w. Flush it at the end.
func NewBuffer(w io.Writer) Buffer { return Buffer{bufio.NewWriter(w), w} }

func (b Buffer) style(s Style) error {
	st, ok := b.to.(styler)
	if !ok {
		return nil
	}
	if err := b.Flush(); err != nil {
		return err
	}
	return st.style(s)
}

// colour reports whether the user wants colours on a terminal: https://no-color.org.
func colour() bool { return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" }
