package pipeline

import "testing"

// The entries of an object in the order in which they count: each hides those
// before it, in whatever order they are written.
func TestLoadVersions(t *testing.T) {
	order := []Load{
		{State: Loading, Attempts: 1},
		{State: Failed, Attempts: 1},
		{State: Dead, Attempts: 1},
		{State: Dropped, Attempts: 1},
		{State: Loading, Attempts: 2},
		{State: Failed, Attempts: 2},
		{State: Loading, Attempts: 1 << 21},
		{State: Loaded, Attempts: 1},
		{State: Loaded, Attempts: 2},
		{Generation: 1, State: Loading, Attempts: 1},
		{Generation: 1, State: Dead, Attempts: 1 << 30},
		{Generation: 1, State: Loaded, Attempts: 1},
		{Generation: 2, State: Loading},
	}
	for i := range order {
		for j := range order[:i] {
			if order[j].Version() >= order[i].Version() {
				t.Errorf("%s of generation %d, attempt %d, hides %s of generation %d, attempt %d",
					order[j].State, order[j].Generation, order[j].Attempts, order[i].State, order[i].Generation, order[i].Attempts)
			}
		}
	}
}
