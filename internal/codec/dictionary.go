package codec

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"

	"github.com/penstock/penstock/internal/pipeline"
)

// dictionary numbers the distinct values of a column, in the order in which they come.
type dictionary struct {
	text   bool
	n      int      // entries
	bits   []uint64 // entries that are numbers
	bytes  []byte   // entries that are texts
	ends   []uint32 // where each text ends in bytes
	slots  []slot   // hash table
	needs  int      // slots that these entries need; a table of an earlier object may have more
	last   int      // entry of the last lookup
	hasher hasher
}

// slot is a place of the hash table: an entry's number from 1, 0: free. Above it are more bits of the hash, so that few
// other entries are compared.
type slot uint32

const (
	slotBits = 19 // a row group has fewer rows, and no more entries
	_        = uint(1<<slotBits - groupRows - 1)

	fewSlots = 64

	lengthBytes = 4
	numberBytes = 8
	shortValue  = 16 // bytes
)

func newSlot(hash uint64, entry int) slot { return slot(hash>>32)<<slotBits | slot(entry+1) }

func (s slot) entry() int { return int(s&(1<<slotBits-1)) - 1 }

func (s slot) tag() slot { return s >> slotBits }

func newDictionary(text bool) *dictionary {
	return &dictionary{text: text, slots: make([]slot, fewSlots), needs: fewSlots, hasher: newHasher()}
}

// indexOf returns the number of a text. A new text is added.
func (d *dictionary) indexOf(v []byte) int {
	if d.n > 0 && bytes.Equal(d.entry(d.last), v) { // often equal to the row before
		return d.last
	}
	h := d.hasher.text(v)
	at, mask := uint32(h), uint32(len(d.slots)-1)
	for at &= mask; d.slots[at] != 0; at = (at + 1) & mask {
		if s := d.slots[at]; s.tag() == newSlot(h, 0).tag() && bytes.Equal(d.entry(s.entry()), v) {
			d.last = s.entry()
			return d.last
		}
	}
	d.slots[at] = newSlot(h, d.n)
	d.addText(v)
	d.grow()
	return d.last
}

// indexOfBits is indexOf for a number.
func (d *dictionary) indexOfBits(v uint64) int {
	h := d.hasher.number(v)
	at, mask := uint32(h), uint32(len(d.slots)-1)
	for at &= mask; d.slots[at] != 0; at = (at + 1) & mask {
		if s := d.slots[at]; s.tag() == newSlot(h, 0).tag() && d.bits[s.entry()] == v {
			return s.entry()
		}
	}
	d.slots[at] = newSlot(h, d.n)
	d.addBits(v)
	d.grow()
	return d.last
}

func (d *dictionary) addText(v []byte) {
	d.bytes = append(d.bytes, v...)
	d.ends = append(d.ends, uint32(len(d.bytes)))
	d.last = d.n
	d.n++
}

func (d *dictionary) addBits(v uint64) {
	d.bits = append(d.bits, v)
	d.last = d.n
	d.n++
}

// grow makes the hash table larger if it is two thirds full.
func (d *dictionary) grow() {
	if 3*d.n <= 2*d.needs {
		return
	}
	if d.needs *= 2; d.needs <= len(d.slots) {
		return
	}
	d.slots = make([]slot, d.needs)
	mask := uint32(len(d.slots) - 1)
	for i := range d.n {
		var h uint64
		if d.text {
			h = d.hasher.text(d.entry(i))
		} else {
			h = d.hasher.number(d.bits[i])
		}
		at := uint32(h) & mask
		for d.slots[at] != 0 {
			at = (at + 1) & mask
		}
		d.slots[at] = newSlot(h, i)
	}
}

// entry returns the text with a number.
func (d *dictionary) entry(i int) []byte {
	from := uint32(0)
	if i > 0 {
		from = d.ends[i-1]
	}
	return d.bytes[from:d.ends[i]:d.ends[i]]
}

// size is the memory of the entries, in bytes. It does not depend on earlier objects, because it decides where a row
// group ends.
func (d *dictionary) size() int { return len(d.bytes) + 4*len(d.ends) + 8*len(d.bits) + 4*d.needs }

// plainSize is the size of the entries in Parquet's PLAIN encoding, in bytes.
func (d *dictionary) plainSize() int {
	return len(d.bytes) + lengthBytes*len(d.ends) + numberBytes*len(d.bits)
}

// appendPlain appends an entry in Parquet's PLAIN encoding.
func (d *dictionary) appendPlain(to []byte, i int) []byte {
	if !d.text {
		return binary.LittleEndian.AppendUint64(to, d.bits[i])
	}
	v := d.entry(i)
	return append(binary.LittleEndian.AppendUint32(to, uint32(len(v))), v...)
}

func (d *dictionary) reset() {
	d.bits, d.bytes, d.ends, d.n, d.last = d.bits[:0], d.bytes[:0], d.ends[:0], 0, 0
	d.needs = fewSlots
	clear(d.slots)
}

// sorted returns the entries' numbers in the order of their values.
func (d *dictionary) sorted(f form, s *scratch) []pipeline.SortKey {
	shared := d.shared()
	s.keys = s.keys[:0]
	for i := range d.n {
		at := uint64(0)
		if !d.text {
			at = f.ordered(d.bits[i])
		} else if v := d.entry(i)[shared:]; len(v) >= 8 {
			at = binary.BigEndian.Uint64(v)
		} else {
			for j, b := range v {
				at |= uint64(b) << (56 - 8*j)
			}
		}
		s.keys = append(s.keys, pipeline.SortKey{At: at, Row: uint32(i)})
	}
	s.keys, s.spare = pipeline.SortByRadix(s.keys, s.spare)
	for from := 0; d.text && from < len(s.keys); {
		to := from + 1
		for to < len(s.keys) && s.keys[to].At == s.keys[from].At {
			to++
		}
		if to-from > 1 {
			slices.SortFunc(s.keys[from:to], func(x, y pipeline.SortKey) int {
				return bytes.Compare(d.entry(int(x.Row)), d.entry(int(y.Row)))
			})
		}
		from = to
	}
	return s.keys
}

// shared returns how many bytes all texts begin with.
func (d *dictionary) shared() (n int) {
	if !d.text || d.n == 0 {
		return 0
	}
	first := d.entry(0)
	n = len(first)
	for i := range d.n {
		v := d.entry(i)
		for n = min(n, len(v)); !bytes.Equal(v[:n], first[:n]); {
			n--
		}
	}
	return n
}

// ordered returns a number that compares, unsigned, as the value with these bits.
func (f form) ordered(v uint64) uint64 {
	switch {
	case f == formInt, f == formFloat && v>>63 == 0:
		return v ^ 1<<63
	case f == formFloat:
		return ^v
	}
	return v
}

// ranks returns the place of each entry in the order of the entries.
func ranks(sorted []pipeline.SortKey, used []uint32) []uint32 {
	used = resized(used, len(sorted))
	for at, k := range sorted {
		used[k.Row] = uint32(at)
	}
	return used
}

// foreseen estimates the distinct values in rows values, if the first n have seen distinct ones, and values come at
// random.
func foreseen(seen, n, rows int) int {
	if seen >= n || n >= rows {
		return seen + max(0, rows-n)*seen/max(n, 1)
	}
	// Of k equally frequent values, k(1-e^(-n/k)) are seen. That rises with k.
	after := func(k, n float64) float64 { return -k * math.Expm1(-n/k) }
	least, most := float64(seen), float64(n)*float64(n)
	for range 50 {
		if k := (least + most) / 2; after(k, float64(n)) < float64(seen) {
			least = k
		} else {
			most = k
		}
	}
	return int(after(least, float64(rows)))
}

// hasher has secrets that keep clients from making hashes collide.
type hasher struct {
	long maphash.Seed
	seed [2]uint64
}

func newHasher() hasher {
	// #nosec G404 -- the runtime's generator is seeded by the system
	return hasher{maphash.MakeSeed(), [2]uint64{rand.Uint64(), rand.Uint64()}}
}

func (h *hasher) number(v uint64) uint64 {
	high, low := bits.Mul64(v^h.seed[0], h.seed[1])
	return high ^ low
}

func (h *hasher) text(v []byte) uint64 {
	var head, tail uint64
	switch n := len(v); {
	case n > shortValue:
		return maphash.Bytes(h.long, v)
	case n >= 8:
		head, tail = binary.LittleEndian.Uint64(v), binary.LittleEndian.Uint64(v[n-8:])
	case n >= 4:
		head, tail = uint64(binary.LittleEndian.Uint32(v)), uint64(binary.LittleEndian.Uint32(v[n-4:]))
	default:
		for _, b := range v {
			head = head<<8 | uint64(b)
		}
	}
	high, low := bits.Mul64(head^h.seed[0], tail^uint64(len(v))<<56^h.seed[1])
	return high ^ low
}
