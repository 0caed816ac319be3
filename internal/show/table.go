package show

import (
	"io"
	"strings"
	"unicode/utf8"
)

// Table aligns columns. It holds its rows until Flush.
type Table struct {
	to    io.Writer
	right []bool // columns of numbers
	rows  [][]string
}

// NewTable makes a table of w. A column whose header begins with > is aligned to the right.
func NewTable(w io.Writer, header ...string) *Table {
	t := &Table{to: w, right: make([]bool, len(header))}
	names := make([]string, len(header))
	for i, name := range header {
		names[i], t.right[i] = strings.CutPrefix(name, ">")
	}
	t.Row(names...)
	return t
}

// Row adds a row. Space in a cell becomes one blank: a row is a line.
func (t *Table) Row(cells ...string) {
	row := make([]string, len(t.right))
	for i := range row {
		row[i] = strings.Join(strings.Fields(cells[i]), " ")
	}
	t.rows = append(t.rows, row)
}

// Flush writes all rows and forgets them.
func (t *Table) Flush() error {
	widths := make([]int, len(t.right))
	for _, row := range t.rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range t.rows {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i > 0 {
				line.WriteString("  ")
			}
			if t.right[i] {
				line.WriteString(pad + cell)
			} else {
				line.WriteString(cell + pad)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	t.rows = nil
	_, err := io.WriteString(t.to, b.String())
	return err
}
