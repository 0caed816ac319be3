package receiver

import (
	"math"
	"strconv"
	"time"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// The span of ClickHouse's DateTime64, in ms: 1900-01-01 to 2299-12-31. Zero
// belongs to it, but stands for "no time" in the table's identity.
const (
	minTime = -2208988800000
	maxTime = 10413791999999
)

// secondsBelow tells seconds from milliseconds: as seconds it is the year 5138,
// as milliseconds March 1973.
const secondsBelow = 1e11

// parseTime reads a client's time: RFC 3339, or a number of seconds or
// milliseconds since 1970, also as a string. Null is as good as absent.
func parseTime(m *jsonscan.Member) (int64, error) {
	switch m.Kind {
	case jsonscan.Null:
		return pipeline.NoTime, nil
	case jsonscan.Number:
		return parseEpoch(m.Value)
	case jsonscan.String:
		text := content(m)
		if isNumber(text) {
			return parseEpoch(text)
		}
		t, err := time.Parse(time.RFC3339, view(text))
		if err != nil {
			return 0, wrong("invalid_timestamp", "timestamp %.40q: want RFC 3339, as 2026-11-22T03:45:12.345Z, or seconds or milliseconds since 1970", text)
		}
		return inRange(float64(t.UnixMilli()), text)
	}
	return 0, wrong("wrong_type", "\"timestamp\" is of type %s, want a string or a number", m.Kind)
}

// isNumber tells plain decimal numbers from other text, and from what
// strconv.ParseFloat takes besides: hexadecimal, "inf", "nan".
func isNumber(text []byte) bool {
	if len(text) > 0 && text[0] == '-' {
		text = text[1:]
	}
	for _, c := range text {
		if c-'0' > 9 && c != '.' {
			return false
		}
	}
	return len(text) > 0
}

func parseEpoch(text []byte) (int64, error) {
	if ms, ok := wholeEpoch(text); ok {
		return ms, nil
	}
	f, err := strconv.ParseFloat(view(text), 64)
	if err != nil || math.IsNaN(f) {
		return 0, wrong("invalid_timestamp", "timestamp %.40q is not a number", text)
	}
	if math.Abs(f) < secondsBelow {
		f *= 1000
	}
	return inRange(math.Round(f), text)
}

// wholeEpoch is parseEpoch for what nearly all clients send: the digits of a
// whole number, so few that a float64 would hold them exactly too.
func wholeEpoch(text []byte) (ms int64, ok bool) {
	if len(text) > 13 { // within range: the year 2286 as milliseconds
		return 0, false
	}
	for _, c := range text {
		if c-'0' > 9 {
			return 0, false
		}
		ms = 10*ms + int64(c-'0')
	}
	if ms < secondsBelow {
		ms *= 1000
	}
	return ms, ms <= maxTime && len(text) > 0
}

func inRange(ms float64, text []byte) (int64, error) {
	if ms < minTime || ms > maxTime {
		return 0, wrong("invalid_timestamp", "timestamp %.40q is not within the years 1900 to 2299", text)
	}
	return int64(ms), nil
}
