package codec

import (
	"bytes"
	"encoding/binary"
)

// collector makes the dictionary of a column when the row group is full. If a column has tens of thousands of distinct
// values, each lookup in a hash table misses the processor's caches. To sort the values by hash takes a third of the
// time.
type collector struct {
	hasher         hasher
	texts, numbers dictionary
	keys, spare    []uint64 // 32 bits of a value's hash, and its place
	index          []uint32 // the entry of each value
}

func newCollector() collector { return collector{hasher: newHasher(), texts: dictionary{text: true}} }

// collect makes the dictionary of a chunk's values, and their numbers. nil: it does not pay.
func (k *collector) collect(c *chunk) *dictionary {
	d := &k.numbers
	if c.form.long() {
		d = &k.texts
	}
	d.reset()
	k.keys = k.keys[:0]
	for i := range uint32(c.n) {
		h := uint64(0)
		if d.text {
			h = k.hasher.text(c.textAt(i))
		} else {
			h = k.hasher.number(c.bitsAt(i))
		}
		k.keys = append(k.keys, h>>32<<32|uint64(i))
	}
	k.sort()
	k.index = resized(k.index, c.n)
	first := 0 // entry with the hash of the last value
	for at, key := range k.keys {
		if at > 0 && key>>32 != k.keys[at-1]>>32 {
			first = d.n
		}
		i := uint32(key)
		entry := first
		for entry < d.n && !c.equals(i, d, entry) { // other values rarely have the same hash
			entry++
		}
		if entry == d.n {
			if d.text {
				d.addText(c.textAt(i))
			} else {
				d.addBits(c.bitsAt(i))
			}
			if !c.pays(d, d.n, c.n) {
				return nil
			}
		}
		k.index[i] = uint32(entry)
	}
	for _, entry := range k.index {
		c.numbers.add(uint64(entry))
	}
	return d
}

// sort sorts the keys by their hashes.
func (k *collector) sort() {
	k.spare = resized(k.spare, len(k.keys))
	var counts [4][256]uint32
	for _, key := range k.keys {
		for digit := range counts {
			counts[digit][byte(key>>(32+8*digit))]++
		}
	}
	for digit := range counts {
		count := &counts[digit]
		next := uint32(0)
		for i, n := range count {
			count[i] = next
			next += n
		}
		for _, key := range k.keys {
			to := &count[byte(key>>(32+8*digit))]
			k.spare[*to] = key
			*to++
		}
		k.keys, k.spare = k.spare, k.keys
	}
}

// equals reports whether a value is an entry of a dictionary.
func (c *chunk) equals(i uint32, d *dictionary, entry int) bool {
	if d.text {
		return bytes.Equal(c.textAt(i), d.entry(entry))
	}
	return c.bitsAt(i) == d.bits[entry]
}

// textAt returns a text outside the dictionary.
func (c *chunk) textAt(i uint32) []byte { return c.bytes[c.ends[i]:c.ends[i+1]] }

// bitsAt returns a float outside the dictionary.
func (c *chunk) bitsAt(i uint32) uint64 { return binary.LittleEndian.Uint64(c.bytes[numberBytes*i:]) }
