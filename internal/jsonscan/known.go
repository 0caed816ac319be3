package jsonscan

import "encoding/binary"

// known remembers keys and which of them followed each other. Events of one client have the same keys in the same
// order, and a key that is foreseen is compared with one or two words of the text, instead of being read.
type known struct {
	keys [256]knownKey // keys[0] stands for the beginning of a text
	at   [256]uint8    // keys by the high bits of their fingerprints; 0: none
	next uint8         // the key that is replaced next
}

// maxKnown is how long a key may be that is remembered, with its closing quote.
const maxKnown = 24

type knownKey struct {
	first, last, mask uint64 // its first and its last eight bytes; where it has fewer, mask leaves these
	middle            uint64 // where it has more than 16
	fp, dots          uint64
	size              uint8 // with its closing quote; 0: it is nothing yet
	at                uint8 // where last begins
	next              uint8 // what followed it last
}

func newKnown() *known {
	k := &known{}
	for i := range k.keys {
		k.keys[i].mask, k.keys[i].last = 1, 1 // matches nothing: first and last differ where they are the same byte
	}
	return k
}

// match reports whether text, of at least maxKnown bytes, begins with the key and a quote.
func (k *knownKey) match(text []byte) bool {
	first, last := binary.LittleEndian.Uint64(text), binary.LittleEndian.Uint64(text[k.at:])
	return ((first^k.first)|(last^k.last))&k.mask == 0 &&
		(k.size <= 16 || binary.LittleEndian.Uint64(text[8:]) == k.middle)
}

// learn remembers that a key followed another one, and returns its place. A key that cannot be remembered has the place
// 0.
func (k *known) learn(behind uint8, name []byte, fp, dots uint64) uint8 {
	if len(name) >= maxKnown {
		return 0
	}
	i := k.at[fp>>56]
	if i == 0 || k.keys[i].fp != fp || !k.keys[i].is(name) {
		k.next = max(1, k.next+1)
		i = k.next
		next := k.keys[i].next
		k.keys[i] = newKnownKey(name, fp, dots)
		k.keys[i].next = next
		k.at[fp>>56] = i
	}
	k.keys[behind].next = i
	return i
}

func newKnownKey(name []byte, fp, dots uint64) knownKey {
	var text [maxKnown]byte
	copy(text[:], name)
	text[len(name)] = '"'
	size := len(name) + 1
	k := knownKey{mask: ^uint64(0), fp: fp, dots: dots, size: uint8(size), at: uint8(max(size-8, 0))}
	if size < 8 {
		k.mask = 1<<(8*size) - 1
	}
	k.first, k.middle, k.last = binary.LittleEndian.Uint64(text[:]), binary.LittleEndian.Uint64(text[8:]),
		binary.LittleEndian.Uint64(text[k.at:])
	return k
}

func (k *knownKey) is(name []byte) bool {
	var text [maxKnown]byte
	copy(text[:], name)
	text[len(name)] = '"'
	return int(k.size) == len(name)+1 && k.match(text[:])
}
