package native

import (
	"bytes"
	"encoding/binary"
	"math"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/penstock/penstock/internal/jsonscan"
)

// Group is the rows of a block with the same project and name.
type Group struct {
	Project, Name string
	Rows          int
	First, Last   int64 // received_at, ms

	project uint32
}

// Count is the number of rows of a group with a value of one type at one path.
type Count struct {
	Group *Group
	Path  string
	Type  string // without the limits of JSON types
	Rows  int

	column *dynamic
	values *typed
	kind   byte
	first  int // first of the rows
}

// Survey gives the numbers of each path one type. Then it calls each with the number of values of every group, path and
// type. isFloat reports whether a path of a project is known to have floats; nil: no number changes. It also works on
// blocks that ErrNotColumnar has made unusable.
//
// If a path of a project has a float, in this block or by isFloat, its integers become Float64. An integer that a float
// cannot hold exactly stays an integer.
func (b *Block) Survey(isFloat func(project, path string) bool, each func(Count)) []Group {
	groups, of := b.groups()
	s := surveyor{groups: groups, of: of, isFloat: isFloat, projectOf: b.key.Projects.Of,
		floats: make([]bool, len(b.key.Projects.Values))}
	for _, d := range b.properties.root.paths {
		if !d.used() {
			continue
		}
		s.count(d)
		if isFloat != nil && s.mixed(d) && d.toFloats(s.projectOf, s.floats) == nil {
			s.count(d)
		}
		s.report(d, each)
	}
	return groups
}

// groups returns the block's groups and the group of each row.
func (b *Block) groups() (groups []Group, of []uint32) {
	of = make([]uint32, b.n)
	byPair := map[uint64]uint32{} // group + 1
	names := uint64(len(b.key.Names.Values))
	pairs := names * uint64(len(b.key.Projects.Values))
	if pairs > 1<<16 {
		pairs = 0
	}
	dense := make([]uint32, pairs) // replaces the map if there are few pairs
	for row := range of {
		p, at := b.key.Projects.Of[row], b.received[row]
		pair := uint64(p)*names + uint64(b.key.Names.Of[row])
		var g uint32
		if pairs > 0 {
			g = dense[pair]
		} else {
			g = byPair[pair]
		}
		if g == 0 {
			groups = append(groups, Group{Project: string(b.key.Projects.Values[p]),
				Name: string(b.key.Names.Values[b.key.Names.Of[row]]), First: at, Last: at, project: p})
			if g = uint32(len(groups)); pairs > 0 {
				dense[pair] = g
			} else {
				byPair[pair] = g
			}
		}
		group := &groups[g-1]
		group.Rows++
		group.First, group.Last = min(group.First, at), max(group.Last, at)
		of[row] = g - 1
	}
	return groups, of
}

// surveyor counts the values of one path at a time.
type surveyor struct {
	groups    []Group
	of        []uint32 // group of each row
	projectOf []uint32 // project of each row
	isFloat   func(project, path string) bool
	floats    []bool // by project: the path's numbers become floats

	counts []int32 // by group, then type
	first  []int32 // by group, then type: the first row
}

// count counts a path's values by group and type.
func (s *surveyor) count(d *dynamic) {
	types := len(d.types)
	n := types * len(s.groups)
	if cap(s.counts) < n {
		s.counts, s.first = make([]int32, n), make([]int32, n)
	}
	s.counts, s.first = s.counts[:n], s.first[:n]
	clear(s.counts)
	index := d.index
	for len(index) > 0 && d.row(len(index)-1) >= len(s.of) { // of a row that ErrNotColumnar has cut off
		index = index[:len(index)-1]
	}
	for at := 0; at < len(index); {
		if at+8 <= len(index) && binary.LittleEndian.Uint64(index[at:]) == math.MaxUint64 { // eight nulls
			at += 8
			continue
		}
		for end := min(at+8, len(index)); at < end; at++ {
			if t := index[at]; t != null {
				row := d.row(at)
				k := int(s.of[row])*types + int(t)
				if s.counts[k] == 0 {
					s.first[k] = int32(row)
				}
				s.counts[k]++
			}
		}
	}
}

// mixed finds the projects in which integers of the counted path become floats, and reports whether there are any.
func (s *surveyor) mixed(d *dynamic) bool {
	ints, floats := d.typeAt("Int64"), d.typeAt("Float64")
	if ints < 0 {
		return false
	}
	clear(s.floats)
	types, found := len(d.types), false
	for _, withFloats := range []bool{true, false} {
		for g := range s.groups {
			p := s.groups[g].project
			switch {
			case withFloats:
				s.floats[p] = s.floats[p] || floats >= 0 && s.counts[g*types+floats] > 0
			case s.counts[g*types+ints] > 0:
				s.floats[p] = s.floats[p] || s.isFloat(s.groups[g].Project, d.path)
				found = found || s.floats[p]
			}
		}
	}
	return found
}

func (s *surveyor) report(d *dynamic, each func(Count)) {
	types := len(d.types)
	for g := range s.groups {
		for t, n := range s.counts[g*types : (g+1)*types] {
			if n > 0 {
				each(Count{Group: &s.groups[g], Path: d.path, Type: plainType(d.types[t].name), Rows: int(n),
					column: d, values: d.types[t], kind: byte(t), first: int(s.first[g*types+t])})
			}
		}
	}
}

// plainType removes the limits from a type's name: JSON(max_dynamic_types=…) becomes JSON.
func plainType(name string) string {
	if at := strings.Index(name, "JSON("); at >= 0 {
		return name[:at+len("JSON")] + name[at+strings.IndexByte(name[at:], ')')+1:]
	}
	return name
}

// typeAt returns the index of a type, -1: the path has no such value.
func (d *dynamic) typeAt(name string) int {
	for i, t := range d.types {
		if t.name == name && t.used() {
			return i
		}
	}
	return -1
}

// toFloats converts the path's integers in the given projects to Float64.
func (d *dynamic) toFloats(projectOf []uint32, floats []bool) error {
	at := d.typeAt("Int64")
	to, kind, err := d.of("Float64")
	if err != nil {
		return err
	}
	from := d.types[at]
	var ints, all []byte
	all = make([]byte, 0, len(from.data)+len(to.data))
	ints = from.data[:0] // never longer than the bytes already read
	nextInt, nextFloat := from.data, to.data
	for i, t := range d.index {
		switch t {
		case byte(at):
			bits := binary.LittleEndian.Uint64(nextInt)
			nextInt = nextInt[8:]
			v := jsonscan.Value{Kind: jsonscan.IntValue, Bits: bits}
			if floats[projectOf[d.row(i)]] && v.Exact() {
				d.index[i] = kind
				all = binary.LittleEndian.AppendUint64(all, math.Float64bits(v.Float()))
			} else {
				ints = binary.LittleEndian.AppendUint64(ints, bits)
			}
		case kind:
			all = append(all, nextFloat[:8]...)
			nextFloat = nextFloat[8:]
		}
	}
	from.data, from.n = ints, len(ints)/8
	to.data, to.n = all, len(all)/8
	return nil
}

// An example has at most exampleBytes bytes. Values before it must be skipped, at most examplePassed of them.
const (
	exampleBytes  = 64
	examplePassed = 4096
)

// Example returns the first of the values as text, truncated. It returns false for arrays and objects, and if too many
// values precede it.
func (c Count) Example() (string, bool) {
	earlier := c.column.index[:sort.Search(len(c.column.index), func(i int) bool { return c.column.row(i) >= c.first })]
	before := bytes.Count(earlier, []byte{c.kind})
	t := c.values
	switch t.name {
	case "Int64":
		return strconv.FormatInt(int64(binary.LittleEndian.Uint64(t.data[8*before:])), 10), true
	case "UInt64":
		return strconv.FormatUint(binary.LittleEndian.Uint64(t.data[8*before:]), 10), true
	case "Float64":
		bits := binary.LittleEndian.Uint64(t.data[8*before:])
		return strconv.FormatFloat(math.Float64frombits(bits), 'g', -1, 64), true
	case "Bool":
		return strconv.FormatBool(t.data[before] != 0), true
	case "String":
		if before > examplePassed {
			return "", false
		}
		data := t.data
		for ; before >= 0; before-- {
			n, size := binary.Uvarint(data)
			value := data[size : size+int(n)]
			if before == 0 {
				return cutText(value), true
			}
			data = data[size+int(n):]
		}
	}
	return "", false
}

// cutText returns the beginning of a text without splitting a character.
func cutText(text []byte) string {
	if len(text) <= exampleBytes {
		return string(text)
	}
	n := exampleBytes
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return string(text[:n]) + "…"
}
