package foreign

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/jsonscan"
)

// cell is the type of a column's cells.
type cell uint8

const (
	emptyCell cell = iota // only empty cells so far
	boolCell
	intCell
	floatCell
	textCell
)

// numeric reports which kind of number a text is in JSON, or that it is text. 007 and +1 are codes; a whole number
// beyond 64 bits would lose digits.
func numeric(text []byte) cell {
	digits := bytes.TrimPrefix(text, []byte("-"))
	if len(digits) == 0 || digits[0]-'0' > 9 || len(digits) > 1 && digits[0] == '0' && digits[1]-'0' <= 9 {
		return textCell
	}
	if _, err := strconv.ParseInt(string(text), 10, 64); err == nil {
		return intCell
	}
	var scan jsonscan.Scanner
	kind, n, err := scan.Value(text)
	if err != nil || kind != jsonscan.Number || n != len(text) || !bytes.ContainsAny(text, ".eE") {
		return textCell
	}
	if f, err := strconv.ParseFloat(string(text), 64); err != nil || math.IsInf(f, 0) {
		return textCell
	}
	return floatCell
}

func cellOf(text []byte) cell {
	switch {
	case len(text) == 0:
		return emptyCell
	case string(text) == "true" || string(text) == "false":
		return boolCell
	}
	return numeric(text)
}

// with returns the type of a column with cells of both types.
func (c cell) with(d cell) cell {
	switch {
	case c == d || d == emptyCell:
		return c
	case c == emptyCell:
		return d
	case c == intCell && d == floatCell, c == floatCell && d == intCell:
		return floatCell
	}
	return textCell
}

// table reads a text with a header as lines of JSON: one member for each column, except for empty cells. A column has
// numbers or booleans only if all of its cells have, so no column mixes types. To know that, the file is read twice.
type table struct {
	records records
	names   [][]byte // quoted, with the colon
	kinds   []cell
	line    []byte
}

// records reads the rows of a table: the cells, or why a row is invalid and its text.
type records interface {
	next() (cells [][]byte, text []byte, bad error, err error)
}

// newTable opens a table. It calls open twice; each stream starts at the beginning.
func newTable(format Format, maxRow int, open func() (*stream, error)) (*table, error) {
	t := &table{}
	first, err := open()
	if err != nil {
		return nil, err
	}
	defer first.Close()
	if err := t.learn(newRecords(format, maxRow, first.Reader)); err != nil {
		return nil, err
	}
	second, err := open()
	if err != nil {
		return nil, err
	}
	t.records = newRecords(format, maxRow, second.Reader)
	if _, _, _, err := t.records.next(); err != nil && !errors.Is(err, io.EOF) { // the header
		return nil, err
	}
	return t, nil
}

// learn reads the header and finds the columns' types.
func (t *table) learn(in records) error {
	header, _, bad, err := in.next()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err = errors.Join(err, bad); err != nil {
		return fmt.Errorf("read the header: %w", err)
	}
	taken := map[string]bool{}
	for i, cell := range header {
		name := string(bytes.TrimSpace(cell))
		if name == "" {
			name = fmt.Sprintf("column_%d", i+1)
		}
		for base, n := name, 2; taken[name]; n++ {
			name = fmt.Sprintf("%s_%d", base, n)
		}
		taken[name] = true
		t.names = append(t.names, append(jsonscan.AppendQuoted(nil, []byte(name)), ':'))
	}
	t.kinds = make([]cell, len(t.names))
	for {
		cells, _, bad, err := in.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if bad != nil || len(cells) < len(t.names) {
			continue
		}
		for i, c := range cells[:len(t.names)] {
			if t.kinds[i] != textCell {
				t.kinds[i] = t.kinds[i].with(cellOf(c))
			}
		}
	}
}

func (t *table) next() (text []byte, bad error, err error) {
	cells, raw, bad, err := t.records.next()
	if err != nil || bad != nil {
		return raw, bad, err
	}
	for len(cells) > len(t.names) && len(cells[len(cells)-1]) == 0 {
		cells = cells[:len(cells)-1] // spreadsheets add trailing separators
	}
	if len(cells) != len(t.names) {
		return raw, &memberError{"wrong_columns",
			fmt.Sprintf("the row has %d columns, the header %d", len(cells), len(t.names))}, nil
	}
	b := append(t.line[:0], '{')
	for i, c := range cells {
		if len(c) == 0 {
			continue
		}
		if !utf8.Valid(c) {
			return raw, &memberError{jsonscan.InvalidUTF8, fmt.Sprintf(
				"column %d is not UTF-8: %.40q; convert the file, for example by iconv -f windows-1252 -t utf-8", i+1, c)}, nil
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(b, t.names[i]...)
		switch t.kinds[i] {
		case textCell:
			b = jsonscan.AppendQuoted(b, c)
		case floatCell:
			b = appendFloat(b, c)
		default:
			b = append(b, c...)
		}
	}
	t.line = append(b, '}')
	return t.line, nil, nil
}

// appendFloat appends a number in a form that reads as a float.
func appendFloat(b, number []byte) []byte {
	b = append(b, number...)
	if !bytes.ContainsAny(number, ".eE") {
		b = append(b, ".0"...)
	}
	return b
}

// maxColumns bounds the cells of a row. Even an empty one takes memory.
const maxColumns = 1 << 20

func newRecords(format Format, maxRow int, in *bufio.Reader) records {
	if mark, _ := in.Peek(3); string(mark) == "\ufeff" {
		in.Discard(len(mark))
	}
	head, _ := in.Peek(peekBytes)
	if bytes.IndexByte(head, '\r') >= 0 && bytes.IndexByte(head, '\n') < 0 {
		in = bufio.NewReaderSize(oldLines{in}, peekBytes)
		head, _ = in.Peek(peekBytes)
	}
	if format == TSV {
		return &tsvRecords{lines: codec.Lines{In: in, Max: maxRow}}
	}
	r := &csvRecords{kept: recorder{in: in, max: maxRow, comma: byte(delimiter(head))}}
	r.csv = csv.NewReader(&r.kept)
	r.csv.Comma, r.csv.ReuseRecord, r.csv.FieldsPerRecord = delimiter(head), true, -1
	line, _, _ := bytes.Cut(head, []byte("\n"))
	if bytes.HasPrefix(line, []byte("sep=")) && len(bytes.TrimSpace(line)) <= len("sep=;") {
		in.Discard(len(line) + 1) // a hint for Excel, not the header
	}
	return r
}

// oldLines reads a text whose lines end in CR alone, as old versions of Excel for Macintosh write them.
type oldLines struct{ in io.Reader }

func (o oldLines) Read(p []byte) (int, error) {
	n, err := o.in.Read(p)
	for i, c := range p[:n] {
		if c == '\r' {
			p[i] = '\n'
		}
	}
	return n, err
}

// delimiter is the most frequent separator in the header outside of quotes.
func delimiter(head []byte) rune {
	if i := bytes.IndexAny(head, "\r\n"); i >= 0 {
		head = head[:i]
	}
	best, most := ',', 0
	for _, d := range ",;\t|" {
		n, quoted := 0, false
		for _, c := range head {
			switch {
			case c == '"':
				quoted = !quoted
			case rune(c) == d && !quoted:
				n++
			}
		}
		if n > most {
			best, most = d, n
		}
	}
	return best
}

// csvRecords reads RFC 4180.
type csvRecords struct {
	csv   *csv.Reader
	kept  recorder
	cells [][]byte
}

func (r *csvRecords) next() ([][]byte, []byte, error, error) {
	from := r.csv.InputOffset()
	fields, err := r.csv.Read()
	text := r.kept.cut(from, r.csv.InputOffset())
	if e, ok := errors.AsType[*csv.ParseError](err); ok {
		return nil, text, &memberError{"invalid_csv", fmt.Sprintf("line %d, byte %d: %s", e.Line, e.Column, e.Err)}, nil
	}
	if err != nil {
		return nil, nil, nil, err
	}
	r.cells = r.cells[:0]
	for _, f := range fields {
		if f == `\N` { // null in ClickHouse, MySQL and PostgreSQL
			f = ""
		}
		r.cells = append(r.cells, []byte(f))
	}
	return r.cells, text, nil, nil
}

// csvAhead is more than package csv reads ahead, in bytes.
const csvAhead = 8 << 10

// recorder keeps the bytes that were read through it, until cut.
type recorder struct {
	in     io.Reader
	max    int // most bytes to keep, besides those read ahead
	comma  byte
	commas int   // in kept
	base   int64 // offset of kept[0]
	kept   []byte
}

func (r *recorder) Read(p []byte) (int, error) {
	// An unclosed quote turns the rest of the file into one row.
	if len(r.kept) > r.max+csvAhead {
		return 0, fmt.Errorf("a row is longer than %d bytes", r.max)
	}
	n, err := r.in.Read(p)
	r.kept = append(r.kept, p[:n]...)
	if r.commas += bytes.Count(p[:n], []byte{r.comma}); r.commas > maxColumns+csvAhead {
		return 0, fmt.Errorf("a row has more than %d columns", maxColumns)
	}
	return n, err
}

// cut returns the bytes between two offsets. The next call drops all bytes before them.
func (r *recorder) cut(from, to int64) []byte {
	r.commas -= bytes.Count(r.kept[:from-r.base], []byte{r.comma})
	r.kept = r.kept[:copy(r.kept, r.kept[from-r.base:])]
	r.base = from
	return bytes.Trim(r.kept[:to-from], "\r\n")
}

// tsvRecords reads lines with cells separated by tabs. In a cell, \t, \n, \r and \\ are escapes, and \N is null.
type tsvRecords struct {
	lines codec.Lines
	cells [][]byte
}

func (r *tsvRecords) next() ([][]byte, []byte, error, error) {
	line, err := r.lines.Next()
	if err != nil {
		return nil, nil, nil, err
	}
	if n := bytes.Count(line, []byte("\t")); n >= maxColumns {
		return nil, nil, nil, fmt.Errorf("a row has %d columns, want at most %d", n+1, maxColumns)
	}
	r.cells = r.cells[:0]
	for c := range bytes.SplitSeq(line, []byte("\t")) {
		if string(c) == `\N` {
			c = nil
		} else if bytes.IndexByte(c, '\\') >= 0 {
			c = unescape(c)
		}
		r.cells = append(r.cells, c)
	}
	return r.cells, line, nil, nil
}

func unescape(c []byte) []byte {
	out := make([]byte, 0, len(c))
	for i := 0; i < len(c); i++ {
		if c[i] != '\\' || i+1 == len(c) {
			out = append(out, c[i])
			continue
		}
		i++
		switch c[i] {
		case 't':
			out = append(out, '\t')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case '\\':
			out = append(out, '\\')
		default:
			out = append(out, '\\', c[i])
		}
	}
	return out
}
