package pipeline

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// Sorter finds the order of events by the key of their table: project, name, identity
// time, id. Its memory can be used again.
type Sorter struct {
	Projects, Names Repeated
	Times           []int64 // Event.IdentityTime
	IDs             []UUID

	keys, spare []SortKey
	order       []uint32
}

// SortKey is a number to sort by, and the row that it belongs to. A Sorter's number is made of an event's project, name
// and time.
type SortKey struct {
	At  uint64
	Row uint32
}

// timeBits is how much of a Sorter's SortKey is the time: up to the year 2248.
const timeBits = 43

// Add adds an event.
func (s *Sorter) Add(e *Event) {
	s.Projects.Add(e.Project)
	s.Names.Add(e.Name)
	s.Times = append(s.Times, e.IdentityTime())
	s.IDs = append(s.IDs, e.ID)
}

// Reset removes all events.
func (s *Sorter) Reset() {
	s.Projects.Reset()
	s.Names.Reset()
	s.Times, s.IDs = s.Times[:0], s.IDs[:0]
}

// Order returns the places of the events, as they were added, in the order of their keys. Equal
// ones stay in the order in which they were added. It is valid until the next call.
func (s *Sorter) Order() []uint32 {
	projects, names := s.Projects.ranks(), s.Names.ranks()
	s.keys = make([]SortKey, 0, len(s.Times))
	fits, sorted, last := len(projects)*len(names) < 1<<(64-timeBits), true, uint64(0)
	for i, t := range s.Times {
		group := uint64(projects[s.Projects.Of[i]])*uint64(len(names)) + uint64(names[s.Names.Of[i]])
		fits = fits && uint64(t) < 1<<timeBits
		at := group<<timeBits | uint64(t)
		sorted = sorted && at >= last
		last = at
		s.keys = append(s.keys, SortKey{at, uint32(i)})
	}
	switch {
	case !fits:
		slices.SortFunc(s.keys, func(x, y SortKey) int {
			return cmp.Or(cmp.Compare(projects[s.Projects.Of[x.Row]], projects[s.Projects.Of[y.Row]]),
				cmp.Compare(names[s.Names.Of[x.Row]], names[s.Names.Of[y.Row]]),
				cmp.Compare(s.Times[x.Row], s.Times[y.Row]), s.byID(x, y))
		})
	case !sorted:
		s.keys, s.spare = SortByRadix(s.keys, s.spare)
		fallthrough
	default:
		for from := 0; from < len(s.keys); {
			to := from + 1
			for to < len(s.keys) && s.keys[to].At == s.keys[from].At {
				to++
			}
			s.orderEqual(s.keys[from:to])
			from = to
		}
	}
	s.order = s.order[:0]
	for i := range s.keys {
		s.order = append(s.order, s.keys[i].Row)
	}
	s.keys, s.spare = nil, nil // 32 bytes an event, which are needed for a moment only
	return s.order
}

// orderEqual orders rows that differ in nothing but their ids. It puts the half of the ids that decides into the keys,
// so that comparing two of them looks into no other memory.
func (s *Sorter) orderEqual(keys []SortKey) {
	if len(keys) < 2 {
		return
	}
	for i := range keys {
		keys[i].At = binary.BigEndian.Uint64(s.IDs[keys[i].Row][8:])
	}
	slices.SortFunc(keys, func(x, y SortKey) int {
		if x.At != y.At {
			return cmp.Compare(x.At, y.At)
		}
		return s.byID(x, y)
	})
}

// byID compares ids as the server does, which looks at the second half of a UUID first.
func (s *Sorter) byID(x, y SortKey) int {
	a, b := &s.IDs[x.Row], &s.IDs[y.Row]
	return cmp.Or(cmp.Compare(binary.BigEndian.Uint64(a[8:]), binary.BigEndian.Uint64(b[8:])),
		cmp.Compare(binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(b[:8])), cmp.Compare(x.Row, y.Row))
}

// SortByRadix sorts keys, byte by byte from the lowest on, and skips bytes that are the same in
// all. It returns them and the other slice.
func SortByRadix(keys, spare []SortKey) (sorted, other []SortKey) {
	spare = slices.Grow(spare[:0], len(keys))[:len(keys)]
	var counts [8][256]uint32
	for i := range keys {
		for digit := range counts {
			counts[digit][byte(keys[i].At>>(8*digit))]++
		}
	}
	for digit := range counts {
		count := &counts[digit]
		if count[byte(keys[0].At>>(8*digit))] == uint32(len(keys)) {
			continue
		}
		next := uint32(0)
		for i, n := range count {
			count[i] = next
			next += n
		}
		for i := range keys {
			to := &count[byte(keys[i].At>>(8*digit))]
			spare[*to] = keys[i]
			*to++
		}
		keys, spare = spare, keys
	}
	return keys, spare
}

// Repeated is texts of which few are different.
type Repeated struct {
	Values [][]byte // the different ones, as they came first
	Of     []uint32 // the number of each text among the values
	number map[string]uint32
}

// Add adds a text.
func (r *Repeated) Add(text []byte) {
	if n := len(r.Of); n > 0 && bytes.Equal(r.Values[r.Of[n-1]], text) {
		r.Of = append(r.Of, r.Of[n-1])
		return
	}
	i, ok := r.number[string(text)]
	if !ok {
		if r.number == nil {
			r.number = map[string]uint32{}
		}
		i = uint32(len(r.Values))
		r.Values = append(r.Values, bytes.Clone(text))
		r.number[string(text)] = i
	}
	r.Of = append(r.Of, i)
}

// Reset removes all texts.
func (r *Repeated) Reset() {
	r.Values, r.Of = nil, r.Of[:0]
	clear(r.number)
}

// ranks returns the place of each value among the sorted ones.
func (r *Repeated) ranks() []uint32 {
	sorted := make([]uint32, len(r.Values))
	for i := range sorted {
		sorted[i] = uint32(i)
	}
	slices.SortFunc(sorted, func(a, b uint32) int { return bytes.Compare(r.Values[a], r.Values[b]) })
	ranks := make([]uint32, len(sorted))
	for at, i := range sorted {
		ranks[i] = uint32(at)
	}
	return ranks
}
