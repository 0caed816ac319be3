package jsonscan

import (
	"bytes"
	"hash/maphash"
	"slices"
)

// SharedPath returns a path that two values of an object have where keys are joined by dots: {"a.b":1,"a":{"b":2}} has
// a.b twice. ClickHouse's JSON type joins them so, and takes neither the value nor its row. Objects within arrays are
// looked at by themselves; null and {} are no values there. nil: there is none. text is a value that a Scanner found
// valid; only where Scanner.Dotted says so can there be one.
//
// It takes 8 bytes for each value of a text in which an object and a dotted key of the same object begin alike, else
// nothing.
func SharedPath(text []byte) []byte {
	var p paths
	if p.again(text); !p.alike {
		return nil
	}
	p.seed, p.hashing = maphash.MakeSeed(), true
	p.again(text)
	slices.Sort(p.hashes)
	for i := 1; i < len(p.hashes); i++ {
		if p.hashes[i] != p.hashes[i-1] {
			continue
		}
		// Which it is, and that it is no accident of two hashes.
		p.wanted, p.hashing = p.hashes[i], false
		p.again(text)
		if slices.SortFunc(p.found, bytes.Compare); len(slices.CompactFunc(p.found, bytes.Equal)) == 1 {
			return p.found[0]
		}
		p.found = nil
	}
	return nil
}

// paths walks through a text: first to see whether keys begin alike, then for the hashes of all paths, then for the
// wanted ones.
type paths struct {
	Walker
	alike   bool
	seed    maphash.Seed
	hashing bool
	roots   uint64
	hashes  []uint64
	wanted  uint64
	keys    [][]byte // that lead to the current value
	found   [][]byte
}

func (p *paths) again(text []byte) {
	p.Walker, p.roots = NewWalker(text), 0
	p.Space()
	p.value(0)
}

// value passes a value whose path has this hash.
func (p *paths) value(path uint64) {
	switch p.Peek() {
	case '{':
		p.object(path)
		return
	case '[':
		keys := p.keys
		p.keys = nil
		p.Elements(func() error {
			p.roots++
			p.elements()
			return nil
		})
		p.keys = keys
	case '"':
		p.text()
	default:
		null := p.Peek() == 'n'
		for p.i < len(p.b) && p.b[p.i] > ' ' && p.b[p.i] != ',' && p.b[p.i] != '}' && p.b[p.i] != ']' {
			p.i++
		}
		if null {
			return
		}
	}
	switch {
	case path == 0: // the text itself, an array's element, or nobody asks
	case p.hashing:
		p.hashes = append(p.hashes, path)
	case path == p.wanted:
		p.found = append(p.found, bytes.Join(p.keys, []byte{'.'}))
	}
}

// elements passes an array's element. Its paths are none of those around it.
func (p *paths) elements() {
	if p.Peek() == '{' {
		p.object(p.roots * spread)
		return
	}
	p.value(0)
}

func (p *paths) object(path uint64) {
	var objects, dotted [4]uint64 // filters of the keys' beginnings
	p.i++
	for p.Space(); p.Peek() == '"'; p.Space() {
		key, err := p.Key()
		if err != nil {
			return
		}
		p.Space()
		switch {
		case p.hashing, p.wanted != 0:
			p.keys = append(p.keys, key)
			p.value(p.join(path, key))
			p.keys = p.keys[:len(p.keys)-1]
		default:
			first, _, dots := bytes.Cut(key, []byte{'.'})
			at, _ := fingerprint(first)
			at >>= 56
			if dots {
				dotted[at>>6] |= 1 << (at & 63)
			}
			if p.Peek() == '{' {
				objects[at>>6] |= 1 << (at & 63)
			}
			p.value(0)
		}
		p.Space()
		p.Take(',')
	}
	p.Take('}')
	for i := range objects {
		p.alike = p.alike || objects[i]&dotted[i] != 0
	}
}

// join is the hash of a path and a key behind it, the same however keys have the dots.
func (p *paths) join(path uint64, key []byte) uint64 {
	for part := range bytes.SplitSeq(key, []byte{'.'}) {
		path = (path ^ maphash.Bytes(p.seed, part)) * spread
		path ^= path >> 29
	}
	return max(path, 1)
}
