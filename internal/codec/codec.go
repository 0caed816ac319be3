// Package codec writes events into objects and reads them back: Parquet, and
// NDJSON under zstd. Both hold the same columns under the same names:
//
//	event_id    UUID
//	project, name, session_id, user_id   strings, empty: none
//	timestamp   the client's time, ms, UTC; null: an id but no time was given
//	received_at the receiver's time, ms, UTC
//	receiver, seq   order within a receiver
//	properties, context   JSON objects
//
// Parquet objects store properties that often occur in typed columns instead:
// typed.PATH, and typed.PATH:TYPE for the rarer types of a path (int64, float64,
// bool, string). PATH is keys joined by dots, with ^ before each capital letter:
// see columnName.
//
// An object is whole or it is an error: neither decoder returns a partial one
// without saying so.
package codec

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/penstock/penstock/internal/pipeline"
)

// Encoder writes one object. It does not keep the events.
type Encoder interface {
	Encode(events []pipeline.Event) error
	Close() error // only then is the object complete
}

// Decoder reads one object. Decode appends events to dst until the limit is reached. They are valid until the next
// Decode. At the end it returns io.EOF and no event. The cuts depend only on the events and the limit, so every loader
// cuts an object at the same rows.
type Decoder interface {
	Decode(dst []pipeline.Event, limit Limit) ([]pipeline.Event, error)
	Close() error
}

// TypedDecoder reads an object with typed columns. DecodeTyped returns the next events, at least one, and their typed
// values separately: the properties lack what typed has. All are valid until the next call. bytes is their size, which
// counts against the limit's Bytes. The cuts depend only on the object and the limits so far.
type TypedDecoder interface {
	DecodeTyped(dst []pipeline.Event, limit Limit) (events []pipeline.Event, typed []*pipeline.Typed, bytes int, err error)
}

// Limit ends one Decode after Rows events, or with the event whose pipeline.Event.Size brings the sum to Bytes. One
// event is always returned.
type Limit struct {
	Rows  int
	Bytes int
}

// Encoders makes encoders that take over the memory of closed ones, tens of MiB each. It is safe for concurrent use.
type Encoders struct {
	mu    sync.Mutex
	spare []*parquetEncoder // closed
}

// maxEncoders is how many closed encoders keep their memory. A sync.Pool would lose it in each collection.
const maxEncoders = 2

// NewEncoders returns Encoders.
func NewEncoders() *Encoders { return new(Encoders) }

// takeSpare returns a closed encoder, nil: there is none.
func (s *Encoders) takeSpare() (old *parquetEncoder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.spare) - 1; n >= 0 {
		old, s.spare = s.spare[n], s.spare[:n]
	}
	return old
}

func (s *Encoders) addSpare(closed *parquetEncoder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.spare) < maxEncoders {
		s.spare = append(s.spare, closed)
	}
}

// New returns an encoder that writes an object of the given format to w. All its events come from one receiver.
func (s *Encoders) New(w io.Writer, format pipeline.Format, receiver string) (Encoder, error) {
	switch format {
	case pipeline.Parquet:
		return newParquetEncoder(w, receiver, s), nil
	case pipeline.NDJSON:
		return newNDJSONEncoder(w, receiver)
	}
	return nil, fmt.Errorf("no encoder for format %q", format)
}

// NewDecoder returns a decoder for an object of size bytes.
func NewDecoder(r io.ReaderAt, size int64, format pipeline.Format) (Decoder, error) {
	dec, err := newDecoder(r, size, format)
	if err != nil {
		return nil, err
	}
	if typed, ok := dec.(TypedDecoder); ok {
		return datedTyped{dated{dec}, typed}, nil
	}
	return dated{dec}, nil
}

// newDecoder is NewDecoder without the check of received_at.
func newDecoder(r io.ReaderAt, size int64, format pipeline.Format) (Decoder, error) {
	if size == 0 {
		return nil, errors.New("the object is empty: it has not even a header")
	}
	switch format {
	case pipeline.Parquet:
		return newParquetDecoder(r, size)
	case pipeline.NDJSON:
		return newNDJSONDecoder(io.NewSectionReader(r, 0, size))
	}
	return nil, fmt.Errorf("no decoder for format %q", format)
}

// Sample returns events from many places near the beginning of an object. Rows of Parquet objects are sorted by name,
// so the first ones may all have one name.
func Sample(r io.ReaderAt, size int64, format pipeline.Format, limit Limit) ([]pipeline.Event, error) {
	dec, err := newDecoder(r, size, format)
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	if p, ok := dec.(*parquetDecoder); ok {
		return p.sample(limit)
	}
	return dec.Decode(nil, limit)
}

// arena holds the bytes of events, so that an event needs no separate allocation. A block lives as long as an event in
// it. Blocks are never moved.
type arena struct {
	block []byte
	kept  int64 // bytes since the last reset to 0
}

const arenaBlock = 256 << 10

func (a *arena) keep(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	a.kept += int64(len(b))
	if len(b) > arenaBlock/4 {
		return bytes.Clone(b)
	}
	if cap(a.block)-len(a.block) < len(b) {
		a.block = make([]byte, 0, arenaBlock)
	}
	from := len(a.block)
	a.block = append(a.block, b...)
	return a.block[from:len(a.block):len(a.block)]
}

// keepSame is keep for columns where values repeat: a value equal to the last one shares its memory.
func (a *arena) keepSame(b, last []byte) []byte {
	if bytes.Equal(b, last) {
		return last
	}
	return a.keep(b)
}

// Document returns a JSON object that is never empty, as both formats require.
func Document(b []byte) []byte {
	if len(b) == 0 {
		return []byte("{}")
	}
	return b
}
