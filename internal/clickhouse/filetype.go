package clickhouse

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/penstock/penstock/internal/jsonscan"
)

// fileColumns are the columns of a file that the server decodes.
type fileColumns []fileColumn

type fileColumn struct {
	name string
	kind *fileType
}

// fileType is a type of the server, reduced to what matters for JSON.
type fileType struct {
	name     string      // without arguments: Array, Float64
	args     string      // arguments that are not types, as text
	inner    []*fileType // of Nullable, LowCardinality, Array, Map, Tuple
	names    []string    // of a Tuple's elements; nil: unnamed
	role     role
	decimals int // of a time, or of a decimal that holds a time
}

// role is the conversion of a value that the server prints.
type role uint8

const (
	plainRole    role = iota // nothing
	floatRole                // a float without a point gets one
	wideRole                 // an integer of more than 64 bits becomes text
	textRole                 // bytes that are not UTF-8 become base64
	dateRole                 // days since 1970
	momentRole               // seconds since 1970, or ticks in Avro
	clockRole                // seconds since midnight
	documentRole             // a text holding JSON becomes that JSON
	int96Role                // nanoseconds of a Julian day, as Hive, Impala and Spark write times
)

// parseType reads a type as DESCRIBE writes it.
func parseType(text string) (*fileType, error) {
	p := typeParser{text}
	t, err := p.one()
	if err == nil && strings.TrimSpace(p.rest) != "" {
		err = fmt.Errorf("something follows the type: %q", p.rest)
	}
	if err != nil {
		return nil, fmt.Errorf("type %s: %w", text, err)
	}
	return t, nil
}

type typeParser struct{ rest string }

var errType = errors.New("its brackets do not fit")

func (p *typeParser) one() (*fileType, error) {
	p.space()
	n := 0
	for n < len(p.rest) &&
		(p.rest[n] == '_' || p.rest[n] >= '0' && p.rest[n] <= '9' || p.rest[n]|0x20 >= 'a' && p.rest[n]|0x20 <= 'z') {
		n++
	}
	t := &fileType{name: p.rest[:n]}
	if p.rest = p.rest[n:]; n == 0 {
		return nil, errType
	}
	if !strings.HasPrefix(p.rest, "(") {
		return t, t.assign()
	}
	p.rest = p.rest[1:]
	switch t.name {
	case "Nullable", "LowCardinality", "Array", "Map", "Tuple":
		if err := p.inner(t); err != nil {
			return nil, err
		}
	default:
		if err := p.args(t); err != nil {
			return nil, err
		}
	}
	return t, t.assign()
}

func (p *typeParser) space() { p.rest = strings.TrimLeft(p.rest, " \n\t") }

// inner reads types up to the closing bracket. Those of a Tuple have names.
func (p *typeParser) inner(t *fileType) error {
	for {
		p.space()
		if t.name == "Tuple" {
			if len(t.inner) == 0 && strings.HasPrefix(p.rest, ")") { // a struct without fields
				p.rest = p.rest[1:]
				return nil
			}
			if name, ok := p.elementName(); ok {
				t.names = append(t.names, name)
			}
		}
		one, err := p.one()
		if err != nil {
			return err
		}
		t.inner = append(t.inner, one)
		p.space()
		if p.rest == "" {
			return errType
		}
		c := p.rest[0]
		if p.rest = p.rest[1:]; c == ')' {
			return nil
		} else if c != ',' {
			return errType
		}
	}
}

// elementName reads the name of a Tuple's element if a type follows it.
func (p *typeParser) elementName() (string, bool) {
	if strings.HasPrefix(p.rest, "`") {
		for i := 1; i < len(p.rest); i++ {
			switch p.rest[i] {
			case '\\':
				i++
			case '`':
				name := strings.NewReplacer("\\`", "`", `\\`, `\`).Replace(p.rest[1:i])
				p.rest = p.rest[i+1:]
				return name, true
			}
		}
		return "", false
	}
	end := strings.IndexAny(p.rest, " ,()")
	if end <= 0 || p.rest[end] != ' ' {
		return "", false
	}
	name := p.rest[:end]
	p.rest = p.rest[end:]
	return name, true
}

// args reads arguments that are not types, including brackets and quotes.
func (p *typeParser) args(t *fileType) error {
	depth := 1
	for i := 0; i < len(p.rest); i++ {
		switch p.rest[i] {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				t.args, p.rest = p.rest[:i], p.rest[i+1:]
				return nil
			}
		case '\'', '`':
			for q := p.rest[i]; ; {
				if i++; i >= len(p.rest) {
					return errType
				}
				if p.rest[i] == '\\' {
					i++
				} else if p.rest[i] == q {
					break
				}
			}
		}
	}
	return errType
}

// assign finds what a type needs.
func (t *fileType) assign() error {
	switch t.name {
	case "Float32", "Float64", "BFloat16":
		t.role = floatRole
	case "Int128", "Int256", "UInt128", "UInt256":
		t.role = wideRole
	case "String", "FixedString":
		t.role = textRole
	case "Date", "Date32":
		t.role = dateRole
	case "DateTime64":
		t.role = momentRole
		n, _, _ := strings.Cut(t.args, ",")
		var err error
		if t.decimals, err = strconv.Atoi(strings.TrimSpace(n)); err != nil {
			return fmt.Errorf("DateTime64(%s): want a number of decimals", t.args)
		}
	}
	return nil
}

// quoteForeign is any name as an identifier of SQL: a file's columns may have backslashes.
func quoteForeign(s string) string {
	return "`" + strings.NewReplacer(`\`, `\\`, "`", "\\`").Replace(s) + "`"
}

// leaves adds the types of the columns in which a file stores the value.
func (t *fileType) leaves(all []*fileType) []*fileType {
	if len(t.inner) == 0 {
		return append(all, t)
	}
	for _, i := range t.inner {
		all = i.leaves(all)
	}
	return all
}

// structure is what the file is read as. Days and seconds are read as numbers,
// for the server's own dates end in 1900 and 2299.
func (all fileColumns) structure(format string) string {
	var b strings.Builder
	for i, c := range all {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quoteForeign(c.name) + " ")
		c.kind.write(&b, format)
	}
	return b.String()
}

func (t *fileType) write(b *strings.Builder, format string) {
	switch {
	case t.role == dateRole:
		b.WriteString("Int32")
	case t.role == int96Role:
		b.WriteString("FixedString(12)")
	case t.name == "DateTime64" && format == "Avro":
		b.WriteString("Int64") // its reader makes no decimals of times
	case t.name == "DateTime64":
		fmt.Fprintf(b, "Decimal(38, %d)", t.decimals)
	case len(t.inner) > 0 || t.name == "Tuple":
		b.WriteString(t.name + "(")
		for i, inner := range t.inner {
			if i > 0 {
				b.WriteString(", ")
			}
			if i < len(t.names) {
				b.WriteString(quoteForeign(t.names[i]) + " ")
			}
			inner.write(b, format)
		}
		b.WriteString(")")
	case t.args != "":
		b.WriteString(t.name + "(" + t.args + ")")
	default:
		b.WriteString(t.name)
	}
}

// rewrite makes of a line that the server printed the line that the file means.
func (all fileColumns) rewrite(b []byte, line string) ([]byte, error) {
	w := rewriter{text: []byte(line), out: append(b, '{')}
	if !w.take('{') {
		return b, errPrinted
	}
	for i, c := range all {
		if i > 0 && !w.take(',') {
			return b, errPrinted
		}
		from := len(w.out)
		if i > 0 && w.out[from-1] != '{' {
			w.out = append(w.out, ',')
		}
		if !w.key() {
			return b, errPrinted
		}
		at := len(w.out)
		if err := w.value(c.kind); err != nil {
			return b, fmt.Errorf("column %q: %w", c.name, err)
		}
		if string(w.out[at:]) == "null" { // an absent column says nothing
			w.out = w.out[:from]
		}
	}
	if !w.take('}') {
		return b, errPrinted
	}
	return append(w.out, '}'), nil
}

// errPrinted cannot be: the server prints JSON.
var errPrinted = errors.New("the server's line is not of the columns that it described")

// rewriter walks through a line that the server printed, by the types of its columns.
type rewriter struct {
	text []byte
	at   int
	out  []byte
}

func (w *rewriter) take(c byte) bool {
	if w.at < len(w.text) && w.text[w.at] == c {
		w.at++
		return true
	}
	return false
}

// key copies a key with its colon.
func (w *rewriter) key() bool {
	text, ok := w.quoted()
	if !ok || !w.take(':') {
		return false
	}
	w.out = append(appendBytesText(w.out, text), ':')
	return true
}

// mapKey copies the key of a map with its colon: a key of JSON, whatever its type.
func (w *rewriter) mapKey(t *fileType) error {
	for t.name == "Nullable" || t.name == "LowCardinality" {
		t = t.inner[0]
	}
	text, ok := w.quoted()
	if !ok || !w.take(':') {
		return errPrinted
	}
	var err error
	switch {
	case t.role == dateRole, t.role == momentRole && !bytes.Contains(text, []byte(".")): // ticks, of Avro
		err = w.number(t, text[1:len(text)-1])
	case t.role == momentRole, t.role == clockRole, t.role == int96Role:
		err = w.string(t, text)
	default:
		w.out = appendBytesText(w.out, text)
	}
	w.out = append(w.out, ':')
	return err
}

// quoted takes a string, with its quotes.
func (w *rewriter) quoted() ([]byte, bool) {
	if w.at >= len(w.text) || w.text[w.at] != '"' {
		return nil, false
	}
	for i := w.at + 1; i < len(w.text); i++ {
		switch w.text[i] {
		case '\\':
			i++
		case '"':
			text := w.text[w.at : i+1]
			w.at = i + 1
			return text, true
		}
	}
	return nil, false
}

// word takes a number, a boolean or null.
func (w *rewriter) word() []byte {
	from := w.at
	for w.at < len(w.text) && bytes.IndexByte([]byte(",]}"), w.text[w.at]) < 0 {
		w.at++
	}
	return w.text[from:w.at]
}

func (w *rewriter) value(t *fileType) error {
	switch t.name {
	case "Nullable", "LowCardinality":
		return w.value(t.inner[0])
	case "Array":
		return w.all('[', ']', func(int) error { return w.value(t.inner[0]) })
	case "Map":
		return w.all('{', '}', func(int) error {
			if err := w.mapKey(t.inner[0]); err != nil {
				return err
			}
			return w.value(t.inner[1])
		})
	case "Tuple":
		return w.tuple(t)
	}
	if w.at < len(w.text) && w.text[w.at] == '"' {
		text, ok := w.quoted()
		if !ok {
			return errPrinted
		}
		return w.string(t, text)
	}
	if w.at < len(w.text) && (w.text[w.at] == '{' || w.text[w.at] == '[') {
		return w.foreign()
	}
	word := w.word()
	if len(word) == 0 {
		return errPrinted
	}
	return w.number(t, word)
}

func (w *rewriter) tuple(t *fileType) error {
	open, end := byte('['), byte(']')
	if t.names != nil {
		open, end = '{', '}'
	}
	return w.all(open, end, func(i int) error {
		if i >= len(t.inner) || t.names != nil && !w.key() {
			return errPrinted
		}
		return w.value(t.inner[i])
	})
}

// all copies what stands between brackets, element by element.
func (w *rewriter) all(open, end byte, one func(i int) error) error {
	if w.at < len(w.text) && w.text[w.at] == 'n' { // a tuple may be null
		w.out = append(w.out, w.word()...)
		return nil
	}
	if !w.take(open) {
		return errPrinted
	}
	w.out = append(w.out, open)
	for i := 0; !w.take(end); i++ {
		if i > 0 {
			if !w.take(',') {
				return errPrinted
			}
			w.out = append(w.out, ',')
		}
		if err := one(i); err != nil {
			return err
		}
	}
	w.out = append(w.out, end)
	return nil
}

// foreign copies a value of a type that is not taken apart here, as Variant.
func (w *rewriter) foreign() error {
	var scan jsonscan.Scanner
	scan.MaxDepth = 1 << 10
	_, n, err := scan.Value(w.text[w.at:])
	if err != nil {
		return err
	}
	w.out = append(w.out, w.text[w.at:w.at+n]...)
	w.at += n
	return nil
}

func (w *rewriter) number(t *fileType, word []byte) error {
	switch {
	case string(word) == "null":
		w.out = append(w.out, word...)
	case t.role == floatRole:
		w.out = append(w.out, word...)
		if !bytes.ContainsAny(word, ".eE") {
			w.out = append(w.out, ".0"...)
		}
	case t.role == wideRole:
		w.out = append(append(append(w.out, '"'), word...), '"')
	case t.role == dateRole:
		days, err := strconv.ParseInt(string(word), 10, 32)
		if err != nil {
			return errPrinted
		}
		w.out = time.Unix(days*86400, 0).UTC().AppendFormat(append(w.out, '"'), time.DateOnly)
		w.out = append(w.out, '"')
	case t.role == momentRole: // of Avro: ticks
		ticks, ok := new(big.Int).SetString(string(word), 10)
		if !ok {
			return errPrinted
		}
		return w.moment(t, ticks)
	default:
		w.out = append(w.out, word...)
	}
	return nil
}

func (w *rewriter) string(t *fileType, text []byte) error {
	switch t.role {
	case momentRole, clockRole: // a decimal of seconds
		digits := bytes.Replace(text[1:len(text)-1], []byte("."), nil, 1)
		ticks, ok := new(big.Int).SetString(string(digits), 10)
		if !ok {
			return errPrinted
		}
		return w.moment(t, ticks)
	case int96Role:
		data := jsonscan.AppendUnquoted(nil, text)
		if len(data) != 12 {
			return errPrinted
		}
		nanos, day := binary.LittleEndian.Uint64(data), binary.LittleEndian.Uint32(data[8:])
		ticks := new(big.Int).Mul(big.NewInt(int64(int32(day))-julian1970), big.NewInt(int64(24*time.Hour)))
		return w.moment(t, ticks.Add(ticks, big.NewInt(int64(nanos))))
	case documentRole:
		doc := jsonscan.TrimSpace(jsonscan.AppendUnquoted(nil, text))
		var scan jsonscan.Scanner
		if _, n, err := scan.Value(doc); err == nil && n == len(doc) {
			w.out = append(w.out, bytes.ReplaceAll(doc, []byte("\n"), []byte(" "))...)
			return nil
		}
	}
	w.out = appendBytesText(w.out, text)
	return nil
}

// julian1970 is the Julian day of 1970-01-01.
const julian1970 = 2440588

// moment writes a time that is given in ticks, of which a second has 10^decimals.
func (w *rewriter) moment(t *fileType, ticks *big.Int) error {
	second := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(t.decimals)), nil)
	rest := new(big.Int)
	seconds, _ := new(big.Int).DivMod(ticks, second, rest)
	nanos := new(big.Int).Div(new(big.Int).Mul(rest, big.NewInt(1e9)), second)
	if !seconds.IsInt64() {
		return fmt.Errorf("the time %s is beyond all years", ticks)
	}
	layout := "2006-01-02T15:04:05.999999999Z"
	if t.role == clockRole {
		layout = "15:04:05.999999999"
	}
	w.out = time.Unix(seconds.Int64(), nanos.Int64()).UTC().AppendFormat(append(w.out, '"'), layout)
	w.out = append(w.out, '"')
	return nil
}

// appendBytesText writes a string that the server printed. Its bytes are the
// column's own: where they are no UTF-8, or hold a zero, they are base64.
func appendBytesText(b, text []byte) []byte {
	if utf8.Valid(text) && !bytes.Contains(text, []byte(`\u0000`)) {
		return append(b, text...)
	}
	data := jsonscan.AppendUnquoted(nil, text)
	if utf8.Valid(data) && bytes.IndexByte(data, 0) < 0 {
		return append(b, text...)
	}
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, data)
	return append(b, '"')
}
