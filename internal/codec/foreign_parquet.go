package codec

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// maxRowValues bounds the values of one column in one row: the elements of its lists.
const maxRowValues = 1 << 22

var errLevels = errors.New("the levels do not fit the schema")

// parquetRows makes a line of JSON of each row of a Parquet file:
//
//	strings, enums, UUIDs        text
//	other byte arrays            text where they are UTF-8; else, and where the length is fixed, base64
//	whole numbers, booleans      themselves
//	floats                       numbers; NaN and the infinities, which JSON does not have, are null
//	decimals                     text, as 12.30
//	timestamps, dates, times     text by RFC 3339; those without a zone are taken for UTC
//	JSON                         itself where it is good JSON; else text
//	groups, maps, lists          objects, objects, arrays
//
// A column that is null, at the top or in a group, is left out.
type parquetRows struct {
	groups []parquet.RowGroup // not yet begun
	left   int64              // rows of the current group
	root   *field
	leaves []leafReader
	buf    []byte
}

// field is a column or a group of them.
type field struct {
	path       string // for messages
	key        []byte // the name as the key of a member, with the colon
	optional   bool
	repeated   bool
	first, end int // its leaves
	rep, def   int // the levels where it is there
	children   []*field
	kind       fieldKind
	append     func(b []byte, v parquet.Value) []byte // of a leaf: its value as JSON
}

type fieldKind int

const (
	leafField fieldKind = iota
	groupField
	listField // its child repeats and is the elements
	itemField // its child is the element
	mapField  // its child repeats and has keys and, mostly, values
)

func newParquetRows(r io.ReaderAt, size int64) (_ *parquetRows, err error) {
	defer guard(&err)
	f, err := openParquet(r, size)
	if err != nil {
		return nil, fmt.Errorf("open parquet: %w", err)
	}
	p := &parquetRows{groups: f.RowGroups()}
	check := func(c *parquet.Column) error { return checkColumn(f, r, size, c) }
	if p.root, err = p.field(f.Root(), "", check); err != nil {
		return nil, fmt.Errorf("open parquet: %w", err)
	}
	p.leaves = make([]leafReader, p.root.end)
	return p, nil
}

// field makes the fields of a column and of those below it.
func (p *parquetRows) field(c *parquet.Column, path string, check func(*parquet.Column) error) (*field, error) {
	f := &field{path: path, optional: c.Optional(), repeated: c.Repeated(), rep: c.MaxRepetitionLevel(), def: c.MaxDefinitionLevel()}
	bad := func(err error) (*field, error) { return nil, fmt.Errorf("column %q: %w", path, err) }
	if !utf8.ValidString(c.Name()) || strings.Contains(c.Name(), "\x00") {
		return bad(errors.New("its name cannot be a key of JSON"))
	}
	f.key = append(jsonscan.AppendQuoted(nil, []byte(c.Name())), ':')
	if c.Leaf() {
		f.first, f.end = c.Index(), c.Index()+1
		if err := check(c); err != nil {
			return bad(err)
		}
		f.append = appender(c)
		return f, nil
	}
	f.kind, f.first = groupField, math.MaxInt
	names := map[string]bool{}
	for _, child := range c.Columns() {
		if names[child.Name()] {
			return bad(fmt.Errorf("two columns in it are named %q", child.Name()))
		}
		names[child.Name()] = true
		below := child.Name()
		if path != "" {
			below = path + "." + below
		}
		g, err := p.field(child, below, check)
		if err != nil {
			return nil, err
		}
		f.children = append(f.children, g)
		f.first, f.end = min(f.first, g.first), g.end
	}
	if len(f.children) == 0 {
		return bad(errors.New("it has no columns"))
	}
	if path == "" {
		f.optional, f.repeated = false, false // the root, where some writers say so
		return f, nil
	}
	if err := f.shape(c); err != nil {
		return bad(err)
	}
	return f, nil
}

// shape finds lists and maps among the groups, old forms of them too.
func (f *field) shape(c *parquet.Column) error {
	switch t := logical(c.Type()).(type) {
	case nil:
	case *format.ListType:
		if len(f.children) != 1 || !f.children[0].repeated {
			return errors.New("a list without a repeated column")
		}
		f.kind = listField
		// By the format's rules for old lists, these hold the elements themselves.
		item, name := f.children[0], c.Columns()[0].Name()
		if len(item.children) == 1 && item.kind == groupField && name != "array" && name != c.Name()+"_tuple" {
			item.kind = itemField
		}
	case *format.MapType:
		if len(f.children) != 1 || !f.children[0].repeated || f.children[0].kind != groupField || len(f.children[0].children) > 2 {
			return errors.New("a map without repeated keys and values")
		}
		f.kind = mapField
		key := f.children[0].children[0]
		if key.kind != leafField || key.repeated {
			return errors.New("a map whose keys are no plain values is not supported")
		}
		key.append = keyAppender(key.append)
	default:
		return fmt.Errorf("a group of type %s is not supported", t)
	}
	return nil
}

// keyAppender makes a string of what the key of a map is.
func keyAppender(value func([]byte, parquet.Value) []byte) func([]byte, parquet.Value) []byte {
	return func(b []byte, v parquet.Value) []byte {
		from := len(b)
		if b = value(b, v); b[from] == '"' {
			return b
		}
		return jsonscan.AppendQuoted(b[:from], bytes.Clone(b[from:]))
	}
}

// appender is how a leaf's values, which are not null, become JSON.
func appender(c *parquet.Column) func([]byte, parquet.Value) []byte {
	switch t := logical(c.Type()).(type) {
	case *format.JsonType:
		var scan jsonscan.Scanner
		return func(b []byte, v parquet.Value) []byte { return appendJSON(b, v.ByteArray(), &scan) }
	case *format.BsonType, *format.GeometryType, *format.GeographyType:
		return func(b []byte, v parquet.Value) []byte { return appendBase64(b, v.ByteArray()) }
	case *format.UUIDType:
		return func(b []byte, v parquet.Value) []byte { return appendUUID(b, v.ByteArray()) }
	case *format.DecimalType:
		return func(b []byte, v parquet.Value) []byte { return appendDecimal(b, v, int(t.Scale)) }
	case *format.DateType:
		return func(b []byte, v parquet.Value) []byte {
			return appendMoment(b, time.Unix(int64(v.Int32())*86400, 0), time.DateOnly)
		}
	case *format.TimestampType:
		unit := t.Unit.Value.Duration()
		return func(b []byte, v parquet.Value) []byte {
			return appendMoment(b, since1970(v.Int64(), unit), time.RFC3339Nano)
		}
	case *format.TimeType:
		unit := t.Unit.Value.Duration()
		return func(b []byte, v parquet.Value) []byte {
			n := v.Int64()
			if v.Kind() == parquet.Int32 {
				n = int64(v.Int32())
			}
			return appendMoment(b, since1970(n, unit), "15:04:05.999999999")
		}
	case *format.IntType:
		if !t.IsSigned {
			return func(b []byte, v parquet.Value) []byte {
				if v.Kind() == parquet.Int32 {
					return strconv.AppendUint(b, uint64(v.Uint32()), 10)
				}
				return strconv.AppendUint(b, v.Uint64(), 10)
			}
		}
	}
	if p := c.Path(); len(p) == 1 && p[0] == "event_id" && logical(c.Type()) == nil {
		return appendID
	}
	return appendPlain
}

// appendPlain goes by the way a value is stored.
func appendPlain(b []byte, v parquet.Value) []byte {
	switch v.Kind() {
	case parquet.Boolean:
		return strconv.AppendBool(b, v.Boolean())
	case parquet.Int32:
		return strconv.AppendInt(b, int64(v.Int32()), 10)
	case parquet.Int64:
		return strconv.AppendInt(b, v.Int64(), 10)
	case parquet.Int96:
		return appendMoment(b, int96(v), time.RFC3339Nano)
	case parquet.Float:
		return appendFloat(b, float64(v.Float()), 32)
	case parquet.Double:
		return appendFloat(b, v.Double(), 64)
	case parquet.ByteArray:
		return appendText(b, v.ByteArray())
	}
	return appendBase64(b, v.ByteArray())
}

// appendID takes 16 bytes for a UUID, but not where they are the letters of a
// text: in a UUID by the RFC the ninth is none.
func appendID(b []byte, v parquet.Value) []byte {
	if k := v.Kind(); k != parquet.ByteArray && k != parquet.FixedLenByteArray {
		return appendPlain(b, v)
	}
	id := v.ByteArray()
	ascii := !bytes.ContainsFunc(id, func(r rune) bool { return r >= utf8.RuneSelf })
	if len(id) == len(pipeline.UUID{}) && (v.Kind() == parquet.FixedLenByteArray || !ascii) {
		return appendUUID(b, id)
	}
	return appendPlain(b, v)
}

func appendUUID(b, id []byte) []byte {
	b = append(b, '"')
	b = pipeline.UUID(id).Append(b)
	return append(b, '"')
}

func appendText(b, text []byte) []byte {
	if !utf8.Valid(text) {
		return appendBase64(b, text)
	}
	return jsonscan.AppendQuoted(b, text)
}

func appendBase64(b, data []byte) []byte {
	b = append(b, '"')
	b = base64.StdEncoding.AppendEncode(b, data)
	return append(b, '"')
}

func appendJSON(b, text []byte, scan *jsonscan.Scanner) []byte {
	scan.MaxDepth = maxForeignDepth
	text = jsonscan.TrimSpace(text)
	if _, n, err := scan.Value(text); err != nil || n != len(text) {
		return appendText(b, text)
	}
	return append(b, text...)
}

// appendFloat writes a number as encoding/json does: most of them without an
// exponent, so that an id that was stored as a float is still its digits.
func appendFloat(b []byte, f float64, bits int) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(b, "null"...)
	}
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		return strconv.AppendFloat(b, f, 'e', -1, bits)
	}
	return strconv.AppendFloat(b, f, 'f', -1, bits)
}

func appendDecimal(b []byte, v parquet.Value, scale int) []byte {
	n := new(big.Int)
	switch v.Kind() {
	case parquet.Int32:
		n.SetInt64(int64(v.Int32()))
	case parquet.Int64:
		n.SetInt64(v.Int64())
	default: // big-endian, two's complement
		bytes := v.ByteArray()
		n.SetBytes(bytes)
		if len(bytes) > 0 && bytes[0] >= 0x80 {
			n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(len(bytes))*8))
		}
	}
	digits := new(big.Int).Abs(n).String()
	if short := scale + 1 - len(digits); short > 0 {
		digits = strings.Repeat("0", short) + digits
	}
	b = append(b, '"')
	if n.Sign() < 0 {
		b = append(b, '-')
	}
	b = append(b, digits[:len(digits)-scale]...)
	if scale > 0 {
		b = append(b, '.')
		b = append(b, digits[len(digits)-scale:]...)
	}
	return append(b, '"')
}

func appendMoment(b []byte, t time.Time, layout string) []byte {
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, layout)
	return append(b, '"')
}

func since1970(n int64, unit time.Duration) time.Time {
	switch unit {
	case time.Millisecond:
		return time.UnixMilli(n)
	case time.Microsecond:
		return time.UnixMicro(n)
	}
	return time.Unix(0, n)
}

// int96 is a time as older writers have it: nanoseconds of a Julian day.
func int96(v parquet.Value) time.Time {
	const epoch = 2440588 // 1970-01-01
	i := v.Int96()
	return time.Unix((int64(i[2])-epoch)*86400, int64(uint64(i[1])<<32|uint64(i[0])))
}

func (p *parquetRows) close() (err error) {
	defer guard(&err)
	for i := range p.leaves {
		p.leaves[i].close()
	}
	return nil
}

func (p *parquetRows) next() (line []byte, err error) {
	defer guard(&err)
	for p.left == 0 {
		if err := p.end(); err != nil {
			return nil, err
		}
		if len(p.groups) == 0 {
			return nil, io.EOF
		}
		p.left = p.groups[0].NumRows()
		for i, c := range p.groups[0].ColumnChunks() {
			p.leaves[i] = leafReader{pages: c.Pages()}
		}
		p.groups = p.groups[1:]
	}
	p.left--
	for i := range p.leaves {
		if err := p.leaves[i].read(); err != nil {
			return nil, p.failed(i, err)
		}
	}
	if p.buf, err = p.object(p.buf[:0], p.root); err != nil {
		return nil, err
	}
	for i := range p.leaves {
		if len(p.leaves[i].row) > 0 {
			return nil, p.failed(i, errLevels)
		}
	}
	return p.buf, nil
}

// end closes a row group, of which nothing must be left.
func (p *parquetRows) end() error {
	for i := range p.leaves {
		if p.leaves[i].pages == nil {
			continue // before the first group, or after the last
		}
		if more, err := p.leaves[i].more(); err != nil || more {
			return p.failed(i, cmp.Or(err, errLevels))
		}
		p.leaves[i].close()
	}
	return nil
}

func (p *parquetRows) failed(leaf int, err error) error {
	f := p.root
	for f.kind != leafField {
		for _, c := range f.children {
			if leaf < c.end {
				f = c
				break
			}
		}
	}
	return fmt.Errorf("read parquet column %q: %w", f.path, err)
}

// value writes what a field is in the current row, and takes its values.
func (p *parquetRows) value(b []byte, f *field) ([]byte, error) {
	switch {
	case f.repeated:
		return p.each(b, f, '[', ']', p.one)
	case f.optional && p.absent(f):
		p.skip(f)
		return append(b, "null"...), nil
	}
	return p.one(b, f)
}

// absent tells whether a field has no value here. Where a file is damaged so
// that its columns do not fit together, a row's values may be at an end, here
// and in skip and one: guard makes an error of it.
func (p *parquetRows) absent(f *field) bool {
	return p.leaves[f.first].row[0].DefinitionLevel() < f.def
}

func (p *parquetRows) skip(f *field) {
	for i := f.first; i < f.end; i++ {
		p.leaves[i].row = p.leaves[i].row[1:]
	}
}

// each writes what repeats, by write, between brackets.
func (p *parquetRows) each(b []byte, f *field, begin, end byte, write func([]byte, *field) ([]byte, error)) (_ []byte, err error) {
	b = append(b, begin)
	if p.absent(f) {
		p.skip(f)
		return append(b, end), nil
	}
	for {
		if b, err = write(b, f); err != nil {
			return b, err
		}
		if row := p.leaves[f.first].row; len(row) == 0 || row[0].RepetitionLevel() != f.rep {
			return append(b, end), nil
		}
		b = append(b, ',')
	}
}

// one writes a field that is there, once.
func (p *parquetRows) one(b []byte, f *field) ([]byte, error) {
	switch f.kind {
	case groupField:
		return p.object(b, f)
	case listField, itemField:
		return p.value(b, f.children[0])
	case mapField:
		return p.each(b, f.children[0], '{', '}', p.entry)
	}
	r := &p.leaves[f.first]
	v := r.row[0]
	r.row = r.row[1:]
	if v.IsNull() {
		return append(b, "null"...), nil
	}
	// One entry of a dictionary can stand in a row many times.
	if b = f.append(b, v); len(b) > maxLine {
		return b, fmt.Errorf("read parquet column %q: the row is longer than %d bytes", f.path, maxLine)
	}
	return b, nil
}

func (p *parquetRows) object(b []byte, f *field) (_ []byte, err error) {
	b = append(b, '{')
	for _, c := range f.children {
		if c.optional && p.absent(c) {
			p.skip(c)
			continue
		}
		b = append(b, c.key...)
		if b, err = p.value(b, c); err != nil {
			return b, err
		}
		b = append(b, ',')
	}
	return append(bytes.TrimSuffix(b, []byte(",")), '}'), nil
}

// entry writes a key of a map with its value.
func (p *parquetRows) entry(b []byte, f *field) (_ []byte, err error) {
	key := f.children[0]
	if p.absent(key) {
		return b, fmt.Errorf("read parquet column %q: a map has a key that is null", key.path)
	}
	if b, err = p.one(b, key); err != nil {
		return b, err
	}
	b = append(b, ':')
	if len(f.children) == 1 { // a set
		return append(b, "null"...), nil
	}
	return p.value(b, f.children[1])
}

// leafReader reads a column of a row group row by row.
type leafReader struct {
	pages parquet.Pages
	page  parquet.Page
	done  []parquet.Page // that row still has values of
	from  parquet.ValueReader
	left  int64 // values of page that were not read
	buf   []parquet.Value
	ahead []parquet.Value // of buf, those of later rows
	row   []parquet.Value // of the current row, those not yet taken
	all   []parquet.Value // what row is cut from
}

// read takes the next row's values.
func (r *leafReader) read() error {
	r.release()
	r.all = r.all[:0]
	for {
		more, err := r.more()
		if err != nil {
			return err
		}
		if !more && len(r.all) == 0 {
			return errTruncated
		}
		if !more || len(r.all) > 0 && r.ahead[0].RepetitionLevel() == 0 {
			break
		}
		if len(r.all) == 0 && r.ahead[0].RepetitionLevel() != 0 {
			return errLevels
		}
		if len(r.all) == maxRowValues {
			return fmt.Errorf("more than %d values in a row", maxRowValues)
		}
		r.all = append(r.all, r.ahead[0])
		r.ahead = r.ahead[1:]
	}
	r.row = r.all
	return nil
}

// more tells whether there is a value ahead.
func (r *leafReader) more() (bool, error) {
	if len(r.ahead) > 0 {
		return true, nil
	}
	for r.left == 0 {
		if r.page != nil {
			r.done = append(r.done, r.page)
			r.page = nil
		}
		page, err := r.pages.ReadPage()
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		r.page, r.from, r.left = page, page.Values(), page.NumValues()
	}
	if r.buf == nil {
		r.buf = make([]parquet.Value, 64)
	}
	n, err := r.from.ReadValues(r.buf[:min(r.left, int64(len(r.buf)))])
	r.ahead = r.buf[:n]
	r.left -= int64(n)
	switch {
	case err == io.EOF && r.left > 0:
		return false, errTruncated
	case err != nil && err != io.EOF:
		return false, err
	case n == 0:
		return false, io.ErrNoProgress
	}
	return true, nil
}

// release gives the memory of pages back of which no value is needed any more.
func (r *leafReader) release() {
	for _, page := range r.done {
		parquet.Release(page)
	}
	r.done = r.done[:0]
}

func (r *leafReader) close() {
	r.release()
	if r.page != nil {
		parquet.Release(r.page)
		r.page = nil
	}
	if r.pages != nil {
		r.pages.Close()
		r.pages = nil
	}
}
