package peers

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// event is a line of internal/traffic's generator, split into members.
type event struct {
	id         string // UUID
	timestamp  time.Time
	session    string
	user       string
	name       string
	properties string // a JSON object
}

// members are the texts before each value of a generator's line, in order.
var members = [...]string{`{"event_id":"`, `","timestamp":`, `,"session_id":"`, `","user_id":"`, `","name":"`,
	`","properties":`}

// cutEvent splits a generator's line at its constant texts. A JSON parser would cost more than some of the measured
// work, and a client that inserts directly parses nothing.
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
