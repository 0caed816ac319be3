package foreign

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// Rejected is a row that the decoder left out.
type Rejected struct {
	Row     uint32 // index in the file, from 0; rejected rows count too
	Code    string // of jsonscan, or wrong_type, invalid_timestamp, wrong_columns, invalid_csv
	Message string
	Raw     []byte // the row's bytes; JSON if ClickHouse decoded it
}

// Options are what a Decoder needs besides the file's bytes.
type Options struct {
	Key      string   // of the object
	Modified int64    // when the object was stored, ms: received_at of its rows
	Mapping  *Mapping // nil: members are found by the fields' own names
	MaxRow   int      // longest row, in bytes; 0: DefaultMaxRow
}

// DefaultMaxRow is the receiver's default limit of an event, in bytes.
const DefaultMaxRow = 100 << 20

const (
	maxRejected      = 1000
	maxRejectedBytes = 4 << 20

	// maxDepth bounds nesting, because no receiver has checked these rows.
	maxDepth = 256
)

// rows reads the rows of a file as JSON, each valid until the next call. bad says why a row is invalid. At the end, err
// is io.EOF.
type rows interface {
	next() (text []byte, bad error, err error)
}

// NewDecoder reads a file in a format that needs no ClickHouse, or the JSON lines that ClickHouse made of a file (then
// format is JSON). A copy of one of our Parquet objects is read as our object.
func NewDecoder(f File, format Format, opts Options) (codec.Decoder, error) {
	if format.ByServer() {
		if own := ownParquet(f, format); own != nil {
			return own, nil
		}
		return nil, fmt.Errorf("%s has to be decoded by ClickHouse", format)
	}
	d := &Decoder{key: opts.Key, modified: opts.Modified,
		scan:  jsonscan.Scanner{MaxDepth: maxDepth, AllowLoneSurrogates: true},
		inner: jsonscan.Scanner{MaxDepth: maxDepth}, finder: finder{scan: jsonscan.Scanner{MaxDepth: maxDepth}}}
	d.use(opts.Mapping)
	d.folders = folderMembers(opts.Key)
	maxRow := cmp.Or(opts.MaxRow, DefaultMaxRow)
	if f.Size == 0 {
		d.rows = newValues(bytes.NewReader(nil), maxRow)
		return d, nil
	}
	if format == JSON {
		s, _, err := open(f)
		if err != nil {
			return nil, err
		}
		d.rows, d.end = newValues(s, maxRow), s.Close
		return d, nil
	}
	t, err := newTable(format, maxRow, func() (*stream, error) {
		s, _, err := open(f)
		if err == nil {
			d.end = s.Close
		}
		return s, err
	})
	d.rows = t
	return d, err
}

// IsOwn reports whether a Parquet file is a copy of one of our objects.
func IsOwn(f File, format Format) bool {
	own := ownParquet(f, format)
	if own != nil {
		own.Close()
	}
	return own != nil
}

func ownParquet(f File, format Format) codec.Decoder {
	if format != Parquet {
		return nil
	}
	own, err := codec.NewDecoder(f.Data, f.Size, pipeline.Parquet)
	if err != nil {
		return nil
	}
	return own
}

// Decoder turns a file's rows into events.
type Decoder struct {
	rows     rows
	end      func()
	key      string
	modified int64 // ms
	row      uint32
	queue    [][]byte // further rows of the current document

	rejected      []Rejected
	rejectedBytes int
	repaired      int

	scan                                           jsonscan.Scanner // for the row
	inner                                          jsonscan.Scanner // for the properties in the row
	finder                                         finder
	project                                        []byte
	nested                                         []route // path to the rows in a document; empty: it is the row
	mapped                                         bool
	keep                                           bool // Mapping.Keep
	name, timestamp, id, user, session, properties field

	folders []jsonscan.Member // from the names of folders, see folderMembers
	all     []jsonscan.Member // of a row, including folders
	beside  []jsonscan.Member // properties at the top level of the row
	scratch []byte
}

func (d *Decoder) use(m *Mapping) {
	if m == nil {
		m = &Mapping{}
	} else {
		d.mapped, d.keep = true, m.Keep
	}
	d.project = []byte(m.Project)
	if m.Rows != "" {
		d.nested = newField("rows", []string{m.Rows}).ways[0]
	}
	d.name, d.timestamp, d.id = newField("name", m.Name), newField("timestamp", m.Timestamp),
		newField("event_id", m.EventID)
	d.user, d.session = newField("user_id", m.UserID), newField("session_id", m.SessionID)
	d.properties = newField("properties", m.Properties)
}

// Close releases the decompressors.
func (d *Decoder) Close() error {
	if d.end != nil {
		d.end()
	}
	return nil
}

// Rejected returns the rows that the last Decode left out. The next Decode clears them. Decode also ends at 1000
// rejected rows or at 4 MiB of them. So Decode may return no event and no error. It returns io.EOF only if nothing was
// rejected.
func (d *Decoder) Rejected() []Rejected {
	r := d.rejected
	d.rejected = nil
	return r
}

// Repaired returns in how many rows the last Decode replaced half surrogate pairs by U+FFFD.
func (d *Decoder) Repaired() int { return d.repaired }

// Decode works as codec.Decoder says.
func (d *Decoder) Decode(dst []pipeline.Event, limit codec.Limit) ([]pipeline.Event, error) {
	d.rejected, d.rejectedBytes, d.repaired = nil, 0, 0
	from, bytes := len(dst), 0
	for len(dst) == from || len(dst)-from < limit.Rows && bytes < limit.Bytes {
		if len(d.rejected) == maxRejected || d.rejectedBytes >= maxRejectedBytes {
			return dst, nil
		}
		text, bad, err := d.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && d.row == math.MaxUint32 {
			err = fmt.Errorf("more than %d rows", d.row)
		}
		if err != nil {
			return dst[:from], fmt.Errorf("read row %d: %w", d.row, err)
		}
		var e pipeline.Event
		if bad == nil {
			e, bad = d.event(text)
		}
		if bad != nil {
			d.reject(text, bad)
		} else {
			e.Row = d.row
			dst = append(dst, e)
			bytes += e.Size()
		}
		d.row++
	}
	if len(dst) == from && len(d.rejected) == 0 {
		return dst, io.EOF
	}
	return dst, nil
}

// next returns a copy of the next row.
func (d *Decoder) next() (text []byte, bad error, err error) {
	for {
		if len(d.queue) > 0 {
			text, d.queue = d.queue[0], d.queue[1:]
			return text, nil, nil
		}
		text, bad, err = d.rows.next()
		text = bytes.Clone(text)
		if err != nil || bad != nil || len(d.nested) == 0 {
			return text, bad, err
		}
		members, _, scanErr := d.scan.Object(text)
		if scanErr != nil {
			return text, scanErr, nil
		}
		m, _ := d.finder.follow(members, d.nested[0])
		if m.Kind != jsonscan.Array {
			return text, &memberError{"wrong_type",
				fmt.Sprintf("%q is of type %s, want the array of rows that the import's \"rows\" names", d.nested[0].whole,
					m.Kind)}, nil
		}
		d.queue = elements(m.Value)
	}
}

func (d *Decoder) reject(text []byte, err error) {
	r := Rejected{Row: d.row, Code: jsonscan.InvalidJSON, Message: err.Error(), Raw: text}
	if e, ok := errors.AsType[*jsonscan.Error](err); ok {
		r.Code = e.Code
	} else if e, ok := errors.AsType[*memberError](err); ok {
		r.Code = e.code
	}
	d.rejected = append(d.rejected, r)
	d.rejectedBytes += len(text)
}

// Event turns one row of a file into an event, as a Decoder of that file does.
func Event(row []byte, place uint32, opts Options) (pipeline.Event, error) {
	dec, err := NewDecoder(File{}, JSON, opts)
	if err != nil {
		return pipeline.Event{}, err
	}
	d := dec.(*Decoder)
	d.row = place
	e, err := d.event(jsonscan.TrimSpace(bytes.Clone(row)))
	e.Row = place
	return e, err
}

// memberError says what is wrong with a member of valid JSON.
type memberError struct{ code, message string }

func (e *memberError) Error() string { return e.message }

// event turns a row into an event. Its slices are views into text, where half surrogate pairs are replaced.
func (d *Decoder) event(text []byte) (e pipeline.Event, err error) {
	members, used, err := d.scan.Object(text)
	if err != nil {
		return e, err
	}
	if used != len(text) {
		return e, &jsonscan.Error{Code: jsonscan.InvalidJSON, Offset: used,
			Message: fmt.Sprintf("something follows the object at byte %d", used)}
	}
	if d.scan.LoneSurrogates() {
		jsonscan.ReplaceLoneSurrogates(text, true) // in place: the length stays the same
		d.repaired++
	}
	dotted := d.scan.Dotted()
	own := !d.mapped && ours(members, &e)
	if own {
		e.Properties, e.Context = codec.Document(e.Properties), codec.Document(e.Context)
	} else if err := d.mapEvent(d.withFolders(members), &e); err != nil {
		return e, err
	}
	if dotted {
		if path := jsonscan.SharedPath(e.Properties); path != nil {
			return e, &memberError{jsonscan.DuplicateKey, fmt.Sprintf(
				"two properties have the path %.200q, because keys are stored joined by dots", path)}
		}
	}
	return e, nil
}

// withFolders adds members from the names of the file's folders. The row's own members win.
func (d *Decoder) withFolders(members []jsonscan.Member) []jsonscan.Member {
	if len(d.folders) == 0 {
		return members
	}
	d.all = append(d.all[:0], members...)
	for _, f := range d.folders {
		if _, has := member(members, string(f.Key)); !has {
			d.all = append(d.all, f)
		}
	}
	return d.all
}

// mapEvent turns a row of another layout into an event.
func (d *Decoder) mapEvent(members []jsonscan.Member, e *pipeline.Event) error {
	used := make([]bool, len(members))
	scalar := func(f *field) (text []byte, kind jsonscan.Kind) {
		m, i := d.finder.find(members, f)
		text, ok := scalarText(&d.finder, m)
		if ok && i >= 0 {
			used[i] = true
		}
		return text, m.Kind
	}
	e.Project, e.ReceivedAt, e.Timestamp = d.project, d.modified, pipeline.NoTime
	e.Name, _ = scalar(&d.name)
	e.UserID, _ = scalar(&d.user)
	if e.SessionID, _ = scalar(&d.session); d.mapped && string(e.SessionID) == "-1" { // Amplitude's value for none
		e.SessionID = nil
	}
	if text, kind := scalar(&d.timestamp); len(text) > 0 {
		var err error
		parse := pipeline.ParseTime
		if kind == jsonscan.Number {
			parse = pipeline.ParseEpoch // eight digits in text would be read as a day
		}
		if e.Timestamp, err = parse(text); err != nil {
			return &memberError{"invalid_timestamp", fmt.Sprintf("%q: %s", d.timestamp.ways[0][0].whole, err)}
		}
	}
	d.identify(members, used, e)
	if len(e.Name) == 0 {
		e.Name = []byte("imported")
	}
	var props []byte
	if m, i := d.finder.find(members, &d.properties); m.Kind != jsonscan.Null {
		if doc := d.object(m); doc != nil {
			if props = doc; i >= 0 {
				used[i] = true
			}
		}
	}
	d.beside = d.beside[:0]
	for i := range members {
		m := &members[i]
		switch {
		case used[i] && !d.keep:
		case !d.mapped && string(m.Key) == "context" && d.object(*m) != nil:
			e.Context = d.object(*m)
		case !d.mapped && (m.Kind == jsonscan.Null || string(m.Value) == `""`) && isField(m.Key):
		default:
			d.beside = append(d.beside, *m)
		}
	}
	e.Properties, e.Context = d.join(props), codec.Document(e.Context)
	return nil
}

// isField reports whether a name is a field of an event. Such a member counts as absent if it is null or empty.
func isField(key []byte) bool {
	switch string(key) {
	case "event_id", "name", "timestamp", "user_id", "session_id", "properties", "context":
		return true
	}
	return false
}

// identify sets the event's id: the row's own if it is valid, otherwise one derived from the row's place.
func (d *Decoder) identify(members []jsonscan.Member, used []bool, e *pipeline.Event) {
	m, i := d.finder.find(members, &d.id)
	text, _ := scalarText(&d.finder, m)
	id, err := pipeline.ParseUUID(text)
	switch {
	case len(text) > 0 && d.id.own:
		if e.ID = id; err != nil {
			e.ID = pipeline.UUIDv5(e.Project, text)
		} else if i >= 0 {
			used[i] = true // otherwise the original stays a property
		}
		return
	case err == nil && len(e.Name) > 0 && e.Timestamp != pipeline.NoTime:
		e.ID, used[i] = id, true
		return
	}
	e.ID = pipeline.UUIDv5(e.Project, fmt.Appendf(nil, "%s#%d", d.key, d.row))
	if e.Timestamp == pipeline.NoTime {
		e.Timestamp = e.ReceivedAt
	}
}

// scalarText returns the content of a string or the digits of a number. It unwraps MongoDB's {"$date":…}, {"$oid":…}
// and similar objects. Other values have no text.
func scalarText(f *finder, m jsonscan.Member) ([]byte, bool) {
	switch m.Kind {
	case jsonscan.Number:
		return m.Value, true
	case jsonscan.String:
		return m.Text(), true
	case jsonscan.Object:
		members, _, err := f.scan.Object(m.Value)
		if err == nil && len(members) == 1 && len(members[0].Key) > 0 && members[0].Key[0] == '$' {
			return scalarText(f, members[0])
		}
	}
	return nil, false
}

// object returns a member's JSON object. The member may be the object, its text, or an array of keys and values. nil:
// none of these.
func (d *Decoder) object(m jsonscan.Member) []byte {
	switch m.Kind {
	case jsonscan.Object:
		return m.Value
	case jsonscan.String:
		text := jsonscan.TrimSpace(m.Text())
		if _, n, err := d.inner.Object(text); err == nil && n == len(text) {
			return text
		}
	case jsonscan.Array:
		pairs := d.finder.pairs(m.Value)
		if len(pairs) == 0 || !d.mapped {
			return nil
		}
		b := []byte{'{'}
		for _, p := range pairs {
			if p.Kind == jsonscan.Null {
				continue
			}
			if len(b) > 1 {
				b = append(b, ',')
			}
			b = append(append(jsonscan.AppendQuoted(b, p.Key), ':'), p.Value...)
		}
		if b = append(b, '}'); d.valid(b) {
			return b
		}
	}
	return nil
}

func (d *Decoder) valid(doc []byte) bool {
	_, n, err := d.inner.Object(doc)
	return err == nil && n == len(doc)
}

// join adds members to the properties. If a name is taken, the member becomes "_name".
func (d *Decoder) join(props []byte) []byte {
	if len(d.beside) == 0 {
		return codec.Document(props)
	}
	inner, _, _ := d.inner.Object(codec.Document(props))  // was scanned before
	within, names := map[string]bool{}, map[string]bool{} // names in props, and all names
	if len(inner) > 0 {
		for i := range inner {
			within[string(inner[i].Key)], names[string(inner[i].Key)] = true, true
		}
		for i := range d.beside {
			names[string(d.beside[i].Key)] = true
		}
	}
	b := append(d.scratch[:0], '{')
	for i := range d.beside {
		m := &d.beside[i]
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
	d.scratch = append(b, '}')
	return bytes.Clone(d.scratch)
}

// ours turns a row into an event if it has all members that Penstock writes, each with the right type. Such a row comes
// from an export, and is the same event as before.
func ours(members []jsonscan.Member, e *pipeline.Event) bool {
	if len(members) != 11 {
		return false
	}
	e.Timestamp = pipeline.NoTime
	for i := range members {
		m := &members[i]
		text := m.Kind == jsonscan.String
		var err error
		switch string(m.Key) {
		case "event_id":
			if !text {
				return false
			}
			e.ID, err = pipeline.ParseUUID(m.Text())
		case "timestamp":
			if m.Kind != jsonscan.Null {
				e.Timestamp, err = ownTime(m)
			}
		case "received_at":
			e.ReceivedAt, err = ownTime(m)
		case "seq":
			e.Seq, err = strconv.ParseUint(string(m.Value), 10, 64)
		case "properties", "context":
			if m.Kind != jsonscan.Object {
				return false
			}
			if string(m.Key) == "context" {
				e.Context = m.Value
			} else {
				e.Properties = m.Value
			}
		default:
			to := map[string]*[]byte{"project": &e.Project, "name": &e.Name, "session_id": &e.SessionID, "user_id": &e.UserID,
				"receiver": &e.Receiver}[string(m.Key)]
			if to == nil || !text {
				return false
			}
			*to = m.Text()
		}
		if err != nil {
			return false
		}
	}
	return len(e.Name) > 0 && pipeline.CheckReceived(e.ReceivedAt) == nil
}

var errNoTime = errors.New("not a time as Penstock writes it")

func ownTime(m *jsonscan.Member) (int64, error) {
	if m.Kind != jsonscan.String {
		return 0, errNoTime
	}
	ms, err := pipeline.ParseTime(m.Text())
	if err == nil && ms == pipeline.NoTime {
		err = errNoTime
	}
	return ms, err
}
