package peers

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// event is a line of internal/traffic's generator, cut into its members.
type event struct {
	id         string // UUID
	timestamp  time.Time
	session    string
	user       string
	name       string
	properties string // a JSON object
}

// members are what stands before each value of a generator's line, in order.
var members = [...]string{`{"event_id":"`, `","timestamp":`, `,"session_id":"`, `","user_id":"`, `","name":"`,
	`","properties":`}

// cutEvent takes a generator's line apart at the places where it always has the same text. A JSON parser would cost
// more than some of what is measured, and a client that inserts by itself has its values and parses nothing.
func cutEvent(line []byte) (event, error) {
	rest, found := strings.CutPrefix(string(line), members[0])
	var values [len(members)]string
	for i, next := range members[1:] {
		if found {
			values[i], rest, found = strings.Cut(rest, next)
		}
	}
	properties, closed := strings.CutSuffix(rest, "}")
	ms, err := strconv.ParseInt(values[1], 10, 64)
	if !found || !closed || err != nil {
		return event{}, fmt.Errorf("the generator's lines have another form: %s", line)
	}
	return event{id: values[0], timestamp: time.UnixMilli(ms), session: values[2], user: values[3], name: values[4],
		properties: properties}, nil
}
