package native

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// order returns the rows in the order of the table's key: (project, name,
// identity_time, event_id). The server compares the second half of a UUID first.
func (b *Block) order() []uint32 {
	// Project, name and time as one number sort many times faster than one by one.
	// If they do not fit into it, the fields are compared.
	const timeBits = 43 // to the year 2248
	keys := make([]key, b.n)
	projects, names := b.projects.ranks(), b.names.ranks()
	fits := len(projects)*len(names) < 1<<(64-timeBits)
	for i := range keys {
		group := uint64(projects[b.projects.of[i]])*uint64(len(names)) + uint64(names[b.names.of[i]])
		fits = fits && uint64(b.identities[i]) < 1<<timeBits
		keys[i] = key{group<<timeBits | uint64(b.identities[i]), uint32(i)}
	}
	if fits {
		slices.SortFunc(keys, func(x, y key) int { return cmp.Compare(x.at, y.at) })
		for from := 0; from < len(keys); {
			to := from + 1
			for to < len(keys) && keys[to].at == keys[from].at {
				to++
			}
			slices.SortFunc(keys[from:to], b.byID)
			from = to
		}
	} else {
		slices.SortFunc(keys, func(x, y key) int {
			return cmp.Or(cmp.Compare(projects[b.projects.of[x.row]], projects[b.projects.of[y.row]]),
				cmp.Compare(names[b.names.of[x.row]], names[b.names.of[y.row]]),
				cmp.Compare(b.identities[x.row], b.identities[y.row]), b.byID(x, y))
		})
	}
	order := make([]uint32, b.n)
	for i := range keys {
		order[i] = keys[i].row
	}
	return order
}

// key is a row's project, name and time as one number.
type key struct {
	at  uint64
	row uint32
}

func (b *Block) byID(x, y key) int {
	first, second := &b.ids[x.row], &b.ids[y.row]
	return cmp.Or(cmp.Compare(binary.BigEndian.Uint64(first[8:]), binary.BigEndian.Uint64(second[8:])),
		cmp.Compare(binary.BigEndian.Uint64(first[:8]), binary.BigEndian.Uint64(second[:8])), cmp.Compare(x.row, y.row))
}
