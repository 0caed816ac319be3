package codec

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// Refused is a row that was left out.
type Refused struct {
	Row     uint32 // its place in the object, from 0; refused rows are counted too
	Code    string // of jsonscan, or "wrong_type", "invalid_timestamp"
	Message string
	Raw     []byte // the line; a row of Parquet as JSON
}

// Refuser is what a Decoder is where a bad row does not spoil its object.
// Refused returns the rows that the last Decode left out, once; the next
// Decode forgets them. Decode also ends with the 1000th of them, or with the
// one that brings their bytes to 4 MiB. So it may return no event and no
// error, and io.EOF comes alone: with nothing refused.
type Refuser interface {
	Refused() []Refused
}

const (
	maxRefused      = 1000
	maxRefusedBytes = 4 << 20

	// maxForeignDepth bounds the nesting, which no receiver has judged.
	maxForeignDepth = 256
)

// NewForeignDecoder reads an object that has no metadata of ours: one that
// somebody else wrote, or one of ours that was copied without it. The ending of
// its key tells the format.
//
// Members, or columns, are taken by their names, as the package's comment lists
// them; all others go into the properties. A name that stands in the
// properties and beside them is kept twice, the one beside as "_name". What is
// absent: the name becomes "imported", received_at the time at which the object
// was put, and event_id follows from project, key and row, so that loading
// again is the same row. The Decoder is a Refuser.
func NewForeignDecoder(r io.ReaderAt, size int64, object pipeline.Object) (Decoder, error) {
	format, ok := pipeline.FormatOf(object.Key)
	if !ok {
		return nil, errors.New("its name ends in no known format")
	}
	f := &foreignDecoder{
		key: object.Key, modified: object.Modified.UnixMilli(),
		scan: jsonscan.Scanner{MaxDepth: maxForeignDepth}, inner: jsonscan.Scanner{MaxDepth: maxForeignDepth},
	}
	if size == 0 && format != pipeline.PlainNDJSON {
		return nil, errors.New("the object is empty: it has not even a header")
	}
	var err error
	section := io.NewSectionReader(r, 0, size)
	switch format {
	case pipeline.Parquet:
		// A copy of one of ours has typed columns, which belong into the properties.
		if own, e := newParquetDecoder(r, size); e == nil && len(own.typed) > 0 {
			f.rows = &ownRows{dec: own}
		} else {
			f.rows, err = newParquetRows(r, size)
		}
	case pipeline.PlainNDJSON:
		f.rows = newTextRows(section, func() {})
	case pipeline.GzipNDJSON:
		z, e := gzip.NewReader(section)
		if e != nil {
			return nil, fmt.Errorf("open gzip: %w", e)
		}
		f.rows = newTextRows(z, func() {})
	case pipeline.NDJSON:
		z, e := newZstd(section)
		if e != nil {
			return nil, e
		}
		f.rows = newTextRows(z, z.Close)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// ownRows is a Parquet object of ours as lines.
type ownRows struct {
	dec  *parquetDecoder
	one  []pipeline.Event
	line []byte
}

func (o *ownRows) next() ([]byte, error) {
	var err error
	if o.one, err = o.dec.Decode(o.one[:0], Limit{Rows: 1, Bytes: 1}); err != nil {
		return nil, err
	}
	o.line = AppendLine(o.line[:0], &o.one[0])
	return o.line[:len(o.line)-1], nil
}

func (o *ownRows) close() error { return o.dec.Close() }

// rows is a foreign file as lines of JSON, each valid until the next call.
type rows interface {
	next() ([]byte, error)
	close() error
}

type textRows struct {
	lines
	end func()
}

func newTextRows(r io.Reader, end func()) *textRows {
	t := &textRows{newLines(r), end}
	if mark, _ := t.in.Peek(3); string(mark) == "\ufeff" {
		t.in.Discard(len(mark)) // editors put it there
	}
	return t
}

func (t *textRows) next() ([]byte, error) {
	line, err := t.lines.next()
	if err != nil && err != io.EOF {
		err = fmt.Errorf("read ndjson line %d: %w", t.line, err)
	}
	return line, err
}

func (t *textRows) close() error {
	t.end()
	return nil
}

type foreignDecoder struct {
	rows     rows
	key      string
	modified int64 // ms
	row      uint32
	arena    arena

	refused      []Refused
	refusedBytes int

	scan    jsonscan.Scanner  // of the row
	inner   jsonscan.Scanner  // of the properties in it
	beside  []jsonscan.Member // properties that stand in the row itself
	scratch []byte
}

func (f *foreignDecoder) Close() error { return f.rows.close() }

func (f *foreignDecoder) Refused() []Refused {
	r := f.refused
	f.refused = nil
	return r
}

func (f *foreignDecoder) Decode(dst []pipeline.Event, limit Limit) ([]pipeline.Event, error) {
	f.refused, f.refusedBytes = nil, 0
	from, bytes := len(dst), 0
	for len(dst) == from || len(dst)-from < limit.Rows && bytes < limit.Bytes {
		if len(f.refused) == maxRefused || f.refusedBytes >= maxRefusedBytes {
			return dst, nil
		}
		line, err := f.rows.next()
		if err == io.EOF {
			break
		}
		if err == nil && f.row == math.MaxUint32 {
			err = fmt.Errorf("more than %d rows", f.row)
		}
		if err != nil {
			return dst[:from], err
		}
		line = f.arena.keep(line)
		e, err := f.event(line)
		if err != nil {
			f.refuse(line, err)
		} else {
			e.Row = f.row
			dst = append(dst, e)
			bytes += e.Size()
		}
		f.row++
	}
	if len(dst) == from && len(f.refused) == 0 {
		return dst, io.EOF
	}
	return dst, nil
}

func (f *foreignDecoder) refuse(line []byte, err error) {
	r := Refused{Row: f.row, Message: err.Error(), Raw: line}
	if e, ok := errors.AsType[*jsonscan.Error](err); ok {
		r.Code = e.Code
	} else if e, ok := errors.AsType[*memberError](err); ok {
		r.Code = e.code
	}
	f.refused = append(f.refused, r)
	f.refusedBytes += len(line)
}

// memberError is what is wrong with a member that is good JSON.
type memberError struct{ code, message string }

func (e *memberError) Error() string { return e.message }

func wrongType(m *jsonscan.Member, want string) error {
	return &memberError{"wrong_type", fmt.Sprintf("%q is of type %s, want %s", m.Key, m.Kind, want)}
}

// event makes an event of a row, as the receiver does of what a client sends.
// Its slices are views into line.
func (f *foreignDecoder) event(line []byte) (e pipeline.Event, err error) {
	members, used, err := f.scan.Object(line)
	if err != nil {
		return e, err
	}
	if used != len(line) {
		return e, &jsonscan.Error{Code: jsonscan.InvalidJSON, Offset: used, Message: fmt.Sprintf("something follows the object at byte %d", used)}
	}
	e.Timestamp, e.ReceivedAt = pipeline.NoTime, pipeline.NoTime
	f.beside = f.beside[:0]
	var id *jsonscan.Member
	var props []byte
	for i := range members {
		m := &members[i]
		switch string(m.Key) {
		case "event_id":
			id = m
		case "project":
			e.Project, err = name(m)
		case "name":
			e.Name, err = name(m)
		case "timestamp":
			e.Timestamp, err = moment(m)
		case "received_at":
			if e.ReceivedAt, err = moment(m); err == nil && e.ReceivedAt != pipeline.NoTime && (e.ReceivedAt < 0 || e.ReceivedAt >= maxReceived) {
				err = &memberError{"invalid_timestamp", fmt.Sprintf("%q is %.40q, which is not within the years 1970 to 2099", m.Key, m.Value)}
			}
		case "session_id":
			e.SessionID, err = name(m)
		case "user_id":
			e.UserID, err = name(m)
		case "receiver":
			e.Receiver, err = name(m)
		case "seq":
			e.Seq, err = count(m)
		case "properties":
			props = f.document(m)
		case "context":
			e.Context = f.document(m)
		default:
			f.beside = append(f.beside, *m)
		}
		if err != nil {
			return e, err
		}
	}
	if len(e.Name) == 0 {
		e.Name = []byte("imported")
	}
	if e.ReceivedAt == pipeline.NoTime {
		e.ReceivedAt = f.modified
	}
	if err := f.identify(&e, id); err != nil {
		return e, err
	}
	e.Properties, e.Context = f.properties(props), document(e.Context)
	return e, nil
}

// identify gives the event its id: the row's own, one that follows from it, or
// one that follows from the row's place, so that loading again is the same row.
func (f *foreignDecoder) identify(e *pipeline.Event, m *jsonscan.Member) error {
	var id []byte
	if m != nil {
		var err error
		if id, err = name(m); err != nil {
			return err
		}
	}
	if len(id) == 0 {
		e.ID = pipeline.UUIDv5(e.Project, fmt.Appendf(nil, "%s#%d", f.key, f.row))
		if e.Timestamp == pipeline.NoTime {
			e.Timestamp = e.ReceivedAt
		}
		return nil
	}
	var err error
	if e.ID, err = pipeline.ParseUUID(id); err != nil {
		e.ID = pipeline.UUIDv5(e.Project, id)
		f.beside = append(f.beside, *m) // the original is kept
	}
	return nil
}

// document is the JSON object that a member is, or holds as a string. Anything
// else becomes a property.
func (f *foreignDecoder) document(m *jsonscan.Member) []byte {
	switch m.Kind {
	case jsonscan.Null:
		return nil
	case jsonscan.Object:
		return m.Value
	case jsonscan.String:
		text := jsonscan.TrimSpace(content(m))
		if _, n, err := f.inner.Object(text); err == nil && n == len(text) {
			return text
		}
	}
	f.beside = append(f.beside, *m)
	return nil
}

// properties joins those beside the others with them.
func (f *foreignDecoder) properties(props []byte) []byte {
	if len(f.beside) == 0 {
		return document(props)
	}
	inner, _, _ := f.inner.Object(document(props))        // it was scanned before
	within, names := map[string]bool{}, map[string]bool{} // the names in props, and all
	if len(inner) > 0 {
		for i := range inner {
			within[string(inner[i].Key)], names[string(inner[i].Key)] = true, true
		}
		for i := range f.beside {
			names[string(f.beside[i].Key)] = true
		}
	}
	b := append(f.scratch[:0], '{')
	for i := range f.beside {
		m := &f.beside[i]
		key := m.Key
		if within[string(key)] {
			for names[string(key)] {
				key = slices.Concat([]byte("_"), key)
			}
			names[string(key)] = true
		}
		b = jsonscan.AppendQuoted(b, key)
		b = append(b, ':')
		b = append(b, m.Value...)
		b = append(b, ',')
	}
	if len(inner) > 0 {
		b = append(b, jsonscan.TrimSpace(props[1:len(props)-1])...)
	} else {
		b = b[:len(b)-1]
	}
	f.scratch = append(b, '}')
	return f.arena.keep(f.scratch)
}

// name is the content of a member that names something. Numbers are taken by
// their digits; null is as good as absent.
func name(m *jsonscan.Member) ([]byte, error) {
	switch m.Kind {
	case jsonscan.Null:
		return nil, nil
	case jsonscan.Number:
		return m.Value, nil
	case jsonscan.String:
		return content(m), nil
	}
	return nil, wrongType(m, "a string")
}

// content is that of a string.
func content(m *jsonscan.Member) []byte {
	if bytes.IndexByte(m.Value, '\\') >= 0 {
		return jsonscan.AppendUnquoted(nil, m.Value)
	}
	return m.Value[1 : len(m.Value)-1 : len(m.Value)-1]
}

func count(m *jsonscan.Member) (uint64, error) {
	text, err := name(m)
	if err != nil || len(text) == 0 {
		return 0, err
	}
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil {
		return 0, &memberError{"wrong_type", fmt.Sprintf("%q is %.40q, want a whole number from 0 to 2^64-1", m.Key, text)}
	}
	return n, nil
}

// maxReceived is the year 2100, in ms: partitions are days of received_at, and
// ClickHouse's days go from 1970 to 2149.
const maxReceived = 4102444800000

// moment reads a time in ms. Null and an empty text mean that there is none.
func moment(m *jsonscan.Member) (ms int64, err error) {
	text := m.Value
	switch m.Kind {
	case jsonscan.Null:
		return pipeline.NoTime, nil
	case jsonscan.Number:
		ms, err = pipeline.ParseEpoch(text)
	case jsonscan.String:
		text = content(m)
		ms, err = pipeline.ParseTime(text)
	default:
		return 0, wrongType(m, "a string or a number")
	}
	if err != nil {
		return 0, &memberError{"invalid_timestamp", fmt.Sprintf("%q is %.40q: %s", m.Key, text, err)}
	}
	return ms, nil
}
