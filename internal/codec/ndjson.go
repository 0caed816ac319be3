package codec

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

type ndjsonEncoder struct {
	z        *zstd.Encoder
	receiver string
	buf      []byte
	clock    clock
}

func newNDJSONEncoder(w io.Writer, receiver string) (*ndjsonEncoder, error) {
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("open zstd: %w", err)
	}
	return &ndjsonEncoder{z: z, receiver: receiver}, nil
}

func (n *ndjsonEncoder) Encode(events []pipeline.Event) error {
	n.buf = n.buf[:0]
	for i := range events {
		n.buf = appendLine(n.buf, &events[i], n.receiver, &n.clock)
		if len(n.buf) >= 256<<10 {
			if err := n.flush(); err != nil {
				return err
			}
		}
	}
	return n.flush()
}

func (n *ndjsonEncoder) flush() error {
	if _, err := n.z.Write(n.buf); err != nil {
		return fmt.Errorf("write ndjson: %w", err)
	}
	n.buf = n.buf[:0]
	return nil
}

func (n *ndjsonEncoder) Close() error {
	if err := n.z.Close(); err != nil {
		return fmt.Errorf("close ndjson: %w", err)
	}
	return nil
}

// AppendLine writes an event that was read from an object as a line of NDJSON, as in objects of that format.
func AppendLine(b []byte, e *pipeline.Event) []byte {
	return appendLine(b, e, string(e.Receiver), new(clock))
}

func appendLine(b []byte, e *pipeline.Event, receiver string, c *clock) []byte {
	b = append(b, `{"event_id":"`...)
	b = e.ID.Append(b)
	b = append(b, `","project":`...)
	b = jsonscan.AppendQuoted(b, e.Project)
	b = append(b, `,"name":`...)
	b = jsonscan.AppendQuoted(b, e.Name)
	b = append(b, `,"timestamp":`...)
	b = c.append(b, e.Timestamp)
	b = append(b, `,"received_at":`...)
	b = c.append(b, e.ReceivedAt)
	b = append(b, `,"session_id":`...)
	b = jsonscan.AppendQuoted(b, e.SessionID)
	b = append(b, `,"user_id":`...)
	b = jsonscan.AppendQuoted(b, e.UserID)
	b = append(b, `,"receiver":"`...)
	b = append(b, receiver...)
	b = append(b, `","seq":`...)
	b = strconv.AppendUint(b, e.Seq, 10)
	b = append(b, `,"properties":`...)
	b = appendDocument(b, e.Properties)
	b = append(b, `,"context":`...)
	b = appendDocument(b, e.Context)
	return append(b, "}\n"...)
}

// appendDocument replaces newlines, so that a document stays on its line. In valid JSON they are only space.
func appendDocument(b, doc []byte) []byte {
	from := len(b)
	b = append(b, Document(doc)...)
	for rest := b[from:]; ; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			return b
		}
		rest[i] = ' '
		rest = rest[i+1:]
	}
}

// clock formats times as pipeline.TimeFormat. It caches the text of the day: an object's events are from one or two
// days, and formatting whole times takes longer than the rest of a line.
type clock struct {
	day  int64  // days since 1970
	text []byte // up to the T; empty: none yet
}

const dayMillis = 24 * 60 * 60 * 1000

func (c *clock) append(b []byte, ms int64) []byte {
	if ms == pipeline.NoTime {
		return append(b, "null"...)
	}
	day, in := ms/dayMillis, ms%dayMillis
	if in < 0 {
		day, in = day-1, in+dayMillis
	}
	if day != c.day || len(c.text) == 0 {
		c.day = day
		c.text = pipeline.Millis(ms).AppendFormat(c.text[:0], "2006-01-02T")
	}
	b = append(b, '"')
	b = append(b, c.text...)
	h, m, s := in/3_600_000, in/60_000%60, in/1000%60
	return append(b, digit(h, 10), digit(h, 1), ':', digit(m, 10), digit(m, 1), ':', digit(s, 10), digit(s, 1),
		'.', digit(in, 100), digit(in, 10), digit(in, 1), 'Z', '"')
}

// digit returns the decimal digit of n at unit 1, 10 or 100.
func digit(n, unit int64) byte { return '0' + byte(n/unit%10) }

// maxLine is the longest line of one event, in bytes.
const maxLine = MaxEvent + 1<<20

type ndjsonDecoder struct {
	lines Lines
	z     *zstd.Decoder
	scan  jsonscan.Scanner
	row   uint32
	arena arena
}

func newNDJSONDecoder(r io.Reader) (*ndjsonDecoder, error) {
	z, err := newZstd(r)
	if err != nil {
		return nil, err
	}
	// No depth limit here: the receiver has checked the depth.
	return &ndjsonDecoder{lines: Lines{In: bufio.NewReaderSize(z, 1<<20), Max: maxLine}, z: z,
		scan: jsonscan.Scanner{MaxDepth: 1 << 20}}, nil
}

func newZstd(r io.Reader) (*zstd.Decoder, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
	if err != nil {
		return nil, fmt.Errorf("open zstd: %w", err)
	}
	return z, nil
}

func (n *ndjsonDecoder) Close() error {
	n.z.Close()
	return nil
}

func (n *ndjsonDecoder) Decode(dst []pipeline.Event, limit Limit) ([]pipeline.Event, error) {
	from, bytes := len(dst), 0
	for len(dst) == from || len(dst)-from < limit.Rows && bytes < limit.Bytes {
		line, err := n.lines.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return dst[:from], fmt.Errorf("read ndjson line %d: %w", n.lines.N, err)
		}
		if line = jsonscan.TrimSpace(line); len(line) == 0 {
			continue
		}
		var e pipeline.Event
		if err := n.parse(&e, n.arena.keep(line)); err != nil {
			return dst[:from], fmt.Errorf("read ndjson line %d: %w", n.lines.N, err)
		}
		e.Row = n.row
		n.row++
		dst = append(dst, e)
		bytes += e.Size()
	}
	if len(dst) == from {
		return dst, io.EOF
	}
	return dst, nil
}

// parse reads a line that appendLine wrote. e's slices are views into line.
func (n *ndjsonDecoder) parse(e *pipeline.Event, line []byte) error {
	members, used, err := n.scan.Object(line)
	if err != nil {
		return err
	}
	if used != len(line) {
		return fmt.Errorf("something follows the object at byte %d", used)
	}
	e.Timestamp, e.ReceivedAt = pipeline.NoTime, pipeline.NoTime
	var id bool
	for _, m := range members {
		switch string(m.Key) {
		case "event_id":
			var text []byte
			if text, err = n.text(m); err == nil {
				e.ID, err = pipeline.ParseUUID(text)
			}
			id = err == nil
		case "project":
			e.Project, err = n.text(m)
		case "name":
			e.Name, err = n.text(m)
		case "timestamp":
			e.Timestamp, err = n.time(m)
		case "received_at":
			e.ReceivedAt, err = n.time(m)
		case "session_id":
			e.SessionID, err = n.text(m)
		case "user_id":
			e.UserID, err = n.text(m)
		case "receiver":
			e.Receiver, err = n.text(m)
		case "seq":
			e.Seq, err = strconv.ParseUint(string(m.Value), 10, 64)
		case "properties":
			e.Properties, err = object(m)
		case "context":
			e.Context, err = object(m)
		}
		if err != nil {
			return fmt.Errorf("member %q: %w", m.Key, err)
		}
	}
	switch {
	case !id:
		return errors.New("no event_id")
	case len(e.Name) == 0:
		return errors.New("no name")
	case e.ReceivedAt == pipeline.NoTime:
		return errors.New("no received_at")
	case len(e.Properties) == 0 || len(e.Context) == 0:
		return errors.New("no properties or no context")
	}
	return nil
}

// text returns a string member's content; null is empty.
func (n *ndjsonDecoder) text(m jsonscan.Member) ([]byte, error) {
	switch {
	case m.Kind == jsonscan.Null:
		return nil, nil
	case m.Kind != jsonscan.String:
		return nil, fmt.Errorf("is a %s, want a string", m.Kind)
	case len(m.Value) == len(`""`):
		return nil, nil
	}
	return m.Text(), nil
}

func object(m jsonscan.Member) ([]byte, error) {
	if m.Kind != jsonscan.Object {
		return nil, fmt.Errorf("is a %s, want an object", m.Kind)
	}
	return m.Value, nil
}

func (n *ndjsonDecoder) time(m jsonscan.Member) (int64, error) {
	if m.Kind == jsonscan.Null {
		return pipeline.NoTime, nil
	}
	text, err := n.text(m)
	if err != nil {
		return 0, err
	}
	t, err := time.Parse(time.RFC3339, string(text))
	if err != nil {
		return 0, err
	}
	return t.UnixMilli(), nil
}
