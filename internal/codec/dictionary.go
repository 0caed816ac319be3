package codec

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"math/rand/v2"
)

// dictionary numbers the distinct values of a column. It keeps its entries in Parquet's PLAIN encoding, so they are the
// dictionary page.
type dictionary struct {
	text  bool   // each entry follows its length
	page  []byte // the entries
	ends  []uint32
	marks []mark   // one for each entry
	slots []uint32 // hash table of entry numbers from 1; 0: free
	last  int32    // entry of the last lookup
	long  maphash.Seed
	seed  [2]uint64 // keeps clients from making hashes collide
}

// mark identifies a value. Up to 16 bytes it is the value itself.
type mark struct {
	head, tail uint64
	size       uint32
}

const (
	lengthBytes = 4
	shortValue  = 16 // bytes
)

func newDictionary(text bool) *dictionary {
	return &dictionary{text: text, slots: make([]uint32, 64), long: maphash.MakeSeed(),
		seed: [2]uint64{rand.Uint64(), rand.Uint64()}} // #nosec G404 -- the runtime's generator is seeded by the system
}

func (d *dictionary) markOf(v []byte) mark {
	n := len(v)
	switch {
	case n > shortValue:
		return mark{maphash.Bytes(d.long, v), 0, uint32(n)}
	case n >= 8:
		return mark{binary.LittleEndian.Uint64(v), binary.LittleEndian.Uint64(v[n-8:]), uint32(n)}
	case n >= 4:
		return mark{uint64(binary.LittleEndian.Uint32(v)), uint64(binary.LittleEndian.Uint32(v[n-4:])), uint32(n)}
	}
	var head uint64
	for _, b := range v {
		head = head<<8 | uint64(b)
	}
	return mark{head, 0, uint32(n)}
}

func (d *dictionary) slot(m mark) uint32 {
	high, low := bits.Mul64(m.head^d.seed[0], m.tail^uint64(m.size)<<56^d.seed[1])
	return uint32(high^low) & uint32(len(d.slots)-1)
}

// index returns the number of a value. A new value is added.
func (d *dictionary) index(v []byte) int32 {
	if len(v) > shortValue && len(d.ends) > 0 && bytes.Equal(d.entry(int(d.last)), v) { // often equal to the row before
		return d.last
	}
	m := d.markOf(v)
	at := d.slot(m)
	for d.slots[at] != 0 {
		i := int(d.slots[at] - 1)
		if d.marks[i] == m && (len(v) <= shortValue || bytes.Equal(d.entry(i), v)) {
			d.last = int32(i)
			return d.last
		}
		at = (at + 1) & uint32(len(d.slots)-1)
	}
	d.add(v, m, at)
	return d.last
}

func (d *dictionary) add(v []byte, m mark, slot uint32) {
	if d.text {
		d.page = binary.LittleEndian.AppendUint32(d.page, uint32(len(v)))
	}
	d.page = append(d.page, v...)
	d.last = int32(len(d.ends))
	d.ends, d.marks = append(d.ends, uint32(len(d.page))), append(d.marks, m)
	d.slots[slot] = uint32(len(d.ends))
	if 2*len(d.ends) <= len(d.slots) {
		return
	}
	d.slots = make([]uint32, 2*len(d.slots))
	for i, m := range d.marks {
		at := d.slot(m)
		for d.slots[at] != 0 {
			at = (at + 1) & uint32(len(d.slots)-1)
		}
		d.slots[at] = uint32(i + 1)
	}
}

// entry returns the value with a number.
func (d *dictionary) entry(i int) []byte {
	from := uint32(0)
	if i > 0 {
		from = d.ends[i-1]
	}
	if d.text {
		from += lengthBytes
	}
	return d.page[from:d.ends[i]:d.ends[i]]
}

func (d *dictionary) reset() {
	d.page, d.ends, d.marks, d.last = d.page[:0], d.ends[:0], d.marks[:0], 0
	clear(d.slots)
}
