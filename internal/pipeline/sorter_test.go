package pipeline

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// byKey compares events field by field as ClickHouse does.
func byKey(a, b *Event) int {
	return cmp.Or(bytes.Compare(a.Project, b.Project), bytes.Compare(a.Name, b.Name),
		cmp.Compare(a.IdentityTime(), b.IdentityTime()), bytes.Compare(a.ID[8:], b.ID[8:]), bytes.Compare(a.ID[:8], b.ID[:8]))
}

func TestSorter(t *testing.T) {
	var s Sorter // one for all: it must forget the events before
	for _, c := range []struct {
		what        string
		n, names    int
		first, span int64
	}{
		{"none", 0, 1, 0, 1},
		{"one", 1, 1, 1e12, 1},
		{"few times", 5000, 3, 1e12, 100},
		{"many names", 5000, 3000, 1e12, 1e9},
		{"before 1970", 5000, 3, -1e6, 2e6},
		{"beyond 2248", 500, 3, 1 << 43, 1e6},
		{"equal events", 500, 1, 1e12, 1},
	} {
		rnd := rand.New(rand.NewPCG(1, 2))
		events := make([]Event, c.n)
		for i := range events {
			e := &events[i]
			*e = Event{Project: []byte("p"), Name: fmt.Append(nil, "n", rnd.IntN(c.names)),
				Timestamp: c.first + rnd.Int64N(c.span)}
			if i%10 == 0 {
				e.Project = nil
			}
			if i%20 == 1 && c.span > 1 {
				e.Timestamp = NoTime
			}
			if c.what != "equal events" {
				e.ID = UUID{0: byte(rnd.IntN(2)), 7: byte(rnd.IntN(256)), 8: byte(rnd.IntN(2)), 15: byte(rnd.IntN(2))}
			}
		}
		want := make([]uint32, c.n)
		for i := range want {
			want[i] = uint32(i)
		}
		slices.SortStableFunc(want, func(a, b uint32) int { return byKey(&events[a], &events[b]) })
		s.Reset()
		for i := range events {
			s.Add(&events[i])
		}
		if diff := gocmp.Diff(want, append([]uint32{}, s.Order()...)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.what, diff)
		}
		s.Reset()
		for _, i := range want {
			s.Add(&events[i])
		}
		for at, i := range s.Order() {
			if int(i) != at {
				t.Fatalf("%s: sorted events come as %d at %d", c.what, i, at)
			}
		}
	}
}
