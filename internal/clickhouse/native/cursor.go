package native

import (
	"encoding/binary"
	"slices"

	"github.com/penstock/penstock/internal/pipeline"
)

// batch is the events whose typed values are being copied, and memory to reuse.
type batch struct {
	first   int        // row of the first picked event
	pick    []uint32   // events in the order of their rows
	columns []*dynamic // those with typed values
	places  []uint32   // see source.at
	values  []uint32
}

// cursor copies the typed values of a batch into the column of their path. It copies many of them at once: at the end
// of the batch, or before a row whose text has the path as well, because a column keeps the order of rows.
type cursor struct {
	batch   *batch   // nil: nothing to copy
	sources []source // one for each type
	next    int      // index in batch.pick of the next event to copy
}

// source is the values of one type.
type source struct {
	from *pipeline.Typed
	as   *typed
	kind byte
	at   []uint32 // for each event the index of its value, plus one; 0: none. nil: each event has a value
}

var typedNames = [...]string{pipeline.TypedInt: "Int64", pipeline.TypedFloat: "Float64", pipeline.TypedBool: "Bool",
	pipeline.TypedText: "String"}

// begin gives the typed values of a batch of events to their columns.
func (c *jsonColumn) begin(all []*pipeline.Typed, events int, pick []uint32) error {
	b := &c.batch
	b.first, b.pick, b.columns = c.rows, pick, b.columns[:0]
	b.places = slices.Grow(b.places[:0], len(all)*events)
	for _, t := range all {
		if len(t.Rows) == 0 {
			continue
		}
		d, err := c.root.path(t.Path)
		if err != nil {
			return err
		}
		as, kind, err := d.of(typedNames[t.Kind])
		if err != nil {
			return err
		}
		s := source{from: t, as: as, kind: kind}
		if len(t.Rows) < events {
			from := len(b.places)
			b.places = b.places[:from+events]
			s.at = b.places[from:]
			clear(s.at)
			for i, row := range t.Rows {
				s.at[row-t.First] = uint32(i) + 1
			}
		}
		if d.cursor.batch == nil {
			d.cursor = cursor{batch: b, sources: d.cursor.sources}
			b.columns = append(b.columns, d)
		}
		d.cursor.sources = append(d.cursor.sources, s)
	}
	return nil
}

// end copies what is left of the batch, unless it has failed.
func (c *jsonColumn) end(failed error) error {
	b := &c.batch
	for _, d := range b.columns {
		if failed == nil {
			failed = d.copyTyped(b.first + len(b.pick))
		}
		clear(d.cursor.sources)
		d.cursor = cursor{sources: d.cursor.sources[:0]}
	}
	b.pick = nil
	return failed
}

// copyTyped copies the typed values of the rows before end.
func (d *dynamic) copyTyped(end int) error {
	c := &d.cursor
	b := c.batch
	end -= b.first
	if len(c.sources) == 1 {
		return d.copyRun(&c.sources[0], end)
	}
	for ; c.next < end; c.next++ {
		for k := range c.sources {
			s := &c.sources[k]
			if i := s.value(b.pick[c.next]); i >= 0 {
				if err := d.put(b.first+c.next, s.kind); err != nil {
					return err
				}
				s.copy([]uint32{uint32(i)})
			}
		}
	}
	return nil
}

// copyRun copies values of one type, up to the picked event at end.
func (d *dynamic) copyRun(s *source, end int) error {
	b, from := d.cursor.batch, d.cursor.next
	if from >= end {
		return nil
	}
	d.cursor.next = end
	if s.at == nil {
		s.copy(b.pick[from:end])
		return d.putRun(b.first+from, end-from, s.kind)
	}
	b.values = b.values[:0]
	for n, event := range b.pick[from:end] {
		i := s.at[event]
		if i == 0 {
			continue
		}
		if err := d.put(b.first+from+n, s.kind); err != nil {
			return err
		}
		b.values = append(b.values, i-1)
	}
	s.copy(b.values)
	return nil
}

// value returns the index of an event's value, -1: none.
func (s *source) value(event uint32) int {
	if s.at == nil {
		return int(event)
	}
	return int(s.at[event]) - 1
}

// copy appends values, given by their indexes.
func (s *source) copy(values []uint32) {
	t, data := s.from, s.as.data
	switch t.Kind {
	case pipeline.TypedText:
		for _, i := range values {
			data = appendBytes(data, t.String(int(i)))
		}
	case pipeline.TypedBool:
		for _, i := range values {
			data = append(data, byte(t.Bits[i]))
		}
	default:
		for _, i := range values {
			data = binary.LittleEndian.AppendUint64(data, t.Bits[i])
		}
	}
	s.as.data = data
	s.as.n += len(values)
}
