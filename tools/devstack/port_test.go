package devstack

import (
	"errors"
	"fmt"
	"testing"
)

func TestFreePortsDiffer(t *testing.T) {
	seen := map[int]bool{}
	for range 50 {
		number, hold, err := freePort()
		if err != nil {
			t.Fatal(err)
		}
		defer hold.Close()
		if seen[number] {
			t.Fatalf("port %d was given twice", number)
		}
		seen[number] = true
		if again, err := reserve(number); again != nil || err != nil {
			t.Fatalf("port %d was reserved twice: %v", number, err)
		}
	}
}

func TestUntilFreeTriesOnlyOurOwnPortsAgain(t *testing.T) {
	for _, test := range []struct {
		name   string
		wanted int // 0: devstack chooses
		fails  int // how often the port is taken at start
		starts int
		ok     bool
	}{
		{"ours, taken twice", 0, 2, 3, true},
		{"ours, always taken", 0, 100, portTries, false},
		{"the caller's", 4222, 100, 1, false},
	} {
		starts := 0
		_, err := untilFree(func() (*NATS, ports, error) {
			starts++
			chosen, err := choose(port{number: test.wanted, use: "NATS"})
			if err != nil {
				return nil, nil, err
			}
			if starts <= test.fails {
				return nil, chosen, fmt.Errorf("start: %w", &PortTakenError{Port: chosen[0].number, For: "NATS"})
			}
			return &NATS{}, chosen, nil
		})
		var taken *PortTakenError
		if starts != test.starts || (err == nil) != test.ok || (err != nil) != errors.As(err, &taken) {
			t.Errorf("%s: %d starts, %v", test.name, starts, err)
		}
	}
}
