package ask

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Subjects are values for the names in braces in statements, and the current time.
type Subjects struct {
	names map[string]string
	now   time.Time
}

// FindSubjects chooses subjects from the truth tables: a user with more events than 99.5 % of the plan's users, the
// median user, a session of the first, and so on. cut is a time between the last event and the live request.
func FindSubjects(ctx context.Context, s Server, users int, cut time.Time) (Subjects, error) {
	found := Subjects{names: map[string]string{}, now: cut.Add(5 * time.Minute)}
	for _, subject := range []struct{ name, sql string }{
		{"user", fmt.Sprintf("SELECT user_id FROM truth.events WHERE project = 'game' GROUP BY user_id "+
			"ORDER BY count() DESC, user_id LIMIT 1 OFFSET %d", users/200)},
		{"usual", fmt.Sprintf("SELECT user_id FROM truth.events WHERE project = 'game' GROUP BY user_id "+
			"ORDER BY count() DESC, user_id LIMIT 1 OFFSET %d", users/2)},
		{"session", "SELECT session_id FROM truth.events WHERE project = 'game' AND user_id = '{user}' " +
			"ORDER BY timestamp DESC LIMIT 1"},
		{"event", "SELECT toString(event_id) FROM truth.events WHERE session_id = '{session}' LIMIT 1"},
		{"talk", "SELECT conversation FROM truth.calls WHERE conversation = session_id " +
			"ORDER BY conversation LIMIT 1"},
		{"conversation", "SELECT conversation FROM truth.calls WHERE conversation != session_id " +
			"ORDER BY conversation LIMIT 1"},
		{"caller", "SELECT user_id FROM truth.calls GROUP BY user_id ORDER BY count() DESC, user_id LIMIT 1"},
		{"object", "SELECT any(object) FROM events WHERE received_at > now() - 300"},
	} {
		value, err := s.One(ctx, found.fill(subject.sql))
		if err != nil {
			return found, fmt.Errorf("choose a %s: %w", subject.name, err)
		}
		found.names[subject.name] = value
	}
	return found, nil
}

// fill replaces the names in a statement.
func (s Subjects) fill(sql string) string {
	at := s.now.UTC().Format(time.DateTime)
	pairs := []string{"now()", "toDateTime('" + at + "', 'UTC')", "today()", "toDate('" + at[:len(time.DateOnly)] + "')"}
	for name, value := range s.names {
		pairs = append(pairs, "{"+name+"}", value)
	}
	return strings.NewReplacer(pairs...).Replace(sql)
}
