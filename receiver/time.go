package receiver

import (
	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
)

// parseTime reads the member that is an event's time. Null and an empty text mean that the client has none.
func parseTime(m *jsonscan.Member) (ms int64, err error) {
	text := m.Value
	switch m.Kind {
	case jsonscan.Null:
		return pipeline.NoTime, nil
	case jsonscan.Number:
		ms, err = pipeline.ParseEpoch(text)
	case jsonscan.String:
		text = content(m)
		ms, err = pipeline.ParseTime(text)
	default:
		return 0, errcode.WrongType.Errorf("%q is of type %s, want a string or a number", m.Key, m.Kind)
	}
	if err != nil {
		return 0, errcode.InvalidTimestamp.Errorf("%q is %.40q: %s", m.Key, text, err)
	}
	return ms, nil
}
