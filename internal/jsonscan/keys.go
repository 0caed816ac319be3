package jsonscan

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math/bits"
)

// fewKeys is how many keys of an object are compared one by one before they go into the table.
const fewKeys = 32

// keySet holds the keys of all open objects, to find duplicates. Keys of a small object are compared one by one, and
// only if a filter of 64 bits requires it. Keys of larger objects are in a hash table that all open objects share. Only
// the innermost open object gets keys, and it loses all of them when it closes. So the last key in is always the first
// one out, and linear probing needs no tombstones. The hash is seeded, so that clients cannot make keys collide.
type keySet struct {
	// keys are those of the open objects, outermost first. If an object has more than fewKeys, its keys are in the table.
	keys  []entry
	table []slot // its length is a power of two, at least twice inUse
	inUse int
	seed  maphash.Seed
}

// slot is 0, or the high half of a key's hash, so that a probe need not look at other keys, and 1 + the key's index in
// keys.
type slot uint64

func newSlot(hash uint64, index int) slot { return slot(hash&^(1<<32-1) | uint64(uint32(index+1))) }

// entry is a key: the position of its content, and its fingerprint, or its hash if it is in the table.
type entry struct {
	span
	fp uint64
}

// span is a part of src or, with ^start in place of start, of the scratch.
type span struct{ start, end int }

func (k span) of(src, scratch []byte) []byte {
	if k.start >= 0 {
		return src[k.start:k.end]
	}
	return scratch[^k.start:k.end]
}

// spread is 2^64 divided by the golden ratio: a product with it has its entropy in the high bits.
const spread = 0x9E3779B97F4A7C15

// fingerprint distinguishes most keys by their length and both ends. It is cheap and not seeded, so it decides nothing.
// dots is not 0 if the key has a dot; that costs half as much as a search, because the bytes are loaded anyway.
func fingerprint(b []byte) (fp, dots uint64) {
	var x uint64
	switch n := len(b); {
	case n >= 8:
		x = binary.LittleEndian.Uint64(b)
		tail := binary.LittleEndian.Uint64(b[n-8:])
		dots = points(tail)
		if n > 16 {
			dots |= uint64(bytes.IndexByte(b[8:n-8], '.') + 1)
		}
		dots |= points(x)
		x ^= bits.RotateLeft64(tail, 29)
		return (x + uint64(n)) * spread, dots
	case n >= 4:
		x = uint64(binary.LittleEndian.Uint32(b)) | uint64(binary.LittleEndian.Uint32(b[n-4:]))<<32
	case n > 0:
		x = uint64(b[0]) | uint64(b[n>>1])<<8 | uint64(b[n-1])<<16
	}
	return (x + uint64(len(b))) * spread, points(x)
}

// points is not 0 if one of the bytes of x is a dot.
func points(x uint64) uint64 {
	x ^= '.' * ones
	return (x - ones) &^ x & highs
}

// add adds k, which has its fingerprint, to the innermost of the open containers, and returns false if it is there
// already.
func (t *keySet) add(src, scratch []byte, open []frame, k entry) bool {
	base := open[len(open)-1].base
	key := k.of(src, scratch)
	n := len(t.keys) - base
	if n <= fewKeys {
		for _, o := range t.keys[base:] {
			if o.fp == k.fp && bytes.Equal(o.of(src, scratch), key) {
				return false
			}
		}
		if n < fewKeys {
			t.keys = append(t.keys, k)
			return true
		}
		t.reserve(open, n+1)
		for i := base; i < len(t.keys); i++ {
			o := &t.keys[i]
			o.fp = t.hash(o.of(src, scratch), base)
			t.insert(i)
		}
	}

	t.reserve(open, 1)
	k.fp = t.hash(key, base)
	mask := uint64(len(t.table) - 1)
	at := k.fp & mask
	for ; t.table[at] != 0; at = (at + 1) & mask {
		o := t.table[at]
		if i := int(uint32(o)) - 1; o == newSlot(k.fp, i) && i >= base && bytes.Equal(t.keys[i].of(src, scratch), key) {
			return false
		}
	}
	t.table[at] = newSlot(k.fp, len(t.keys))
	t.keys = append(t.keys, k)
	t.inUse++
	return true
}

// hash is that of key in the object whose keys begin at base, so that a key that many open objects have is not one
// slot's burden.
func (t *keySet) hash(key []byte, base int) uint64 {
	return maphash.Bytes(t.seed, key) ^ uint64(base)*spread
}

// reserve makes room in the table for n more keys of the innermost of the open containers.
func (t *keySet) reserve(open []frame, n int) {
	if 2*(t.inUse+n) <= len(t.table) {
		return
	}
	if t.table == nil {
		t.seed = maphash.MakeSeed()
	}
	t.table = make([]slot, 1<<bits.Len(uint(2*(t.inUse+n))))
	t.inUse = 0
	for d := range open {
		from, to := open[d].base, len(t.keys)
		if d+1 < len(open) {
			to = open[d+1].base
		}
		if to-from <= fewKeys {
			continue
		}
		for i := from; i < to; i++ {
			t.insert(i)
		}
	}
}

// insert puts keys[i], which is not there, into the table.
func (t *keySet) insert(i int) {
	mask := uint64(len(t.table) - 1)
	at := t.keys[i].fp & mask
	for t.table[at] != 0 {
		at = (at + 1) & mask
	}
	t.table[at] = newSlot(t.keys[i].fp, i)
	t.inUse++
}

// drop removes keys[base:], which are those of the innermost object.
func (t *keySet) drop(base int) {
	n := len(t.keys) - base
	switch {
	case n <= fewKeys: // not in the table
	case n == t.inUse && n >= len(t.table)/8:
		clear(t.table)
		t.inUse = 0
	default:
		mask := uint64(len(t.table) - 1)
		for i := len(t.keys) - 1; i >= base; i-- {
			at := t.keys[i].fp & mask
			for t.table[at] != newSlot(t.keys[i].fp, i) {
				at = (at + 1) & mask
			}
			t.table[at] = 0
		}
		t.inUse -= n
	}
	t.keys = t.keys[:base]
}
