package pipeline

import (
	"bytes"
	"errors"
)

// MinTime and MaxTime are the span of ClickHouse's DateTime64 in milliseconds since 1970: 1900-01-01 to 2299-12-31.
const (
	MinTime = -2208988800000
	MaxTime = 10413791999999
)

// Events are received between 2020 and 2100, in milliseconds since 1970. Other times come from a wrong clock or damaged
// bytes, and would be stored in a partition that nobody queries.
const (
	MinReceived = 1577836800000
	MaxReceived = 4102444800000 // exclusive
)

// ErrReceived says that a received_at is none that a receiver with a right clock writes.
var ErrReceived = errors.New("received_at is outside the years 2020 to 2099")

// CheckReceived returns ErrReceived for a time in milliseconds at which no event can have been received.
func CheckReceived(ms int64) error {
	if ms < MinReceived || ms >= MaxReceived {
		return ErrReceived
	}
	return nil
}

// The errors of ParseTime and ParseEpoch. They are written to follow the name of the member and its value.
var (
	ErrNotTime = errors.New("want a time as 2026-11-22T03:45:12.345Z, or the seconds, milliseconds, microseconds or" +
		" nanoseconds since 1970")
	ErrTimeRange = errors.New("want a time within the years 1900 to 2299")
)

// ParseTime reads a time that a client or a file has as text, and returns milliseconds since 1970. An empty text is
// NoTime. It does not allocate. These forms are accepted:
//
//   - RFC 3339. Instead of "T" there may be "t" or a space. The fraction has one digit or more behind a point or a
//     comma, and what is finer than a millisecond is cut off. Without seconds, or as a date alone, the rest is zero.
//   - The zone is Z, an offset of at most 14 hours (+01:00, +0100, +01), UTC or GMT. A space may precede it. Text
//     without a zone is UTC. ":Z" is Z: a client in the field writes it.
//   - Behind Z or an offset there may be the zone's name, in brackets (RFC 9557, as Java and JavaScript write
//     it) or as letters behind a space (as Go and Ruby do). The offset decides. A name without an offset is rejected.
//   - Eight digits that are a date, as 20261124. As seconds they would be a day in 1970 to 1973.
//   - 24:00:00 is the end of the day. 23:59:60 in UTC, a leap second, is the second after it.
//   - A number, as ParseEpoch reads it.
func ParseTime(text []byte) (ms int64, err error) {
	switch {
	case len(text) == 0:
		return NoTime, nil
	case len(text) >= len("2026-11-22") && text[4] == '-' && text[7] == '-':
		return parseDateTime(text)
	case len(text) == len("20261122"):
		if ms, ok := parseBasicDate(text); ok {
			return ms, nil
		}
	}
	return ParseEpoch(text)
}

// parseBasicDate reads YYYYMMDD, as GA4 and warehouses write a date.
func parseBasicDate(text []byte) (ms int64, ok bool) {
	century, ok1 := twoDigits(text, 0)
	year, ok2 := twoDigits(text, 2)
	month, ok3 := twoDigits(text, 4)
	day, ok4 := twoDigits(text, 6)
	year += 100 * century
	if !(ok1 && ok2 && ok3 && ok4) || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return 0, false
	}
	ms = daysSince1970(year, month, day) * dayMillis
	return ms, CheckTime(ms) == nil
}

// CheckTime returns ErrTimeRange if a time in milliseconds is outside of what the table can store.
func CheckTime(ms int64) error {
	if ms < MinTime || ms > MaxTime {
		return ErrTimeRange
	}
	return nil
}

// ParseEpoch reads a number of seconds, milliseconds, microseconds or nanoseconds since 1970 and returns milliseconds.
// Its size tells the unit: below 1e11 it is seconds, which last until the year 5138, below 1e14 milliseconds, below
// 1e17 microseconds. The number is a JSON number, and may have leading zeros.
//
// What is finer than a millisecond is rounded, because a float64 often prints as a little less than it was.
func ParseEpoch(text []byte) (ms int64, err error) {
	// Nearly all clients send the digits of a whole number of seconds or milliseconds.
	if len(text) == 0 || len(text) > 13 {
		return parseNumber(text)
	}
	for _, c := range text {
		if c-'0' > 9 {
			return parseNumber(text)
		}
		ms = 10*ms + int64(c-'0')
	}
	if ms < 1e11 {
		ms *= 1000
	}
	return ms, CheckTime(ms)
}

// parseNumber is ParseEpoch for any number. It goes by the digits, because a float64 does not hold nanoseconds.
func parseNumber(text []byte) (int64, error) {
	n, ok := readNumber(text)
	if !ok {
		return 0, ErrNotTime
	}
	var keep int // how many digits of the mantissa are milliseconds or more; negative: it begins with zeros behind them
	switch {
	case n.digits == 0:
		return 0, nil
	case n.point <= 11:
		keep = n.point + 3
	case n.point <= 14:
		keep = n.point
	case n.point <= 17:
		keep = n.point - 3
	case n.point <= 20:
		keep = n.point - 6
	default:
		return 0, ErrTimeRange
	}
	ms := n.rounded(text, keep)
	if n.negative {
		ms = -ms
	}
	return ms, CheckTime(ms)
}

// decimal is a number's text, taken apart: 0.MANTISSA * 10^point, where the mantissa does not begin with a zero.
type decimal struct {
	negative bool
	from, to int // the mantissa in the text; it may contain the point
	digits   int // of the mantissa; 0: the number is zero
	point    int
}

// maxExponent is larger than any text is long, so that no mantissa makes up for it, and far from overflowing.
const maxExponent = 1 << 40

func readNumber(text []byte) (n decimal, ok bool) {
	i := 0
	if n.negative = len(text) > 0 && text[0] == '-'; n.negative {
		i++
	}
	begin := i
	for i < len(text) && text[i]-'0' <= 9 {
		i++
	}
	whole := i - begin
	n.to = i
	if i < len(text) && text[i] == '.' {
		i++
		for i < len(text) && text[i]-'0' <= 9 {
			i++
		}
		if n.to = i; i == begin+whole+1 {
			return n, false
		}
	}
	if whole == 0 {
		return n, false
	}
	n.point = whole
	exponent := 0
	if i < len(text) && text[i]|0x20 == 'e' {
		if exponent, ok = readExponent(text[i+1:]); !ok {
			return n, false
		}
		i = len(text)
	}
	n.from = begin
	for n.from < n.to && (text[n.from] == '0' || text[n.from] == '.') {
		if text[n.from] == '0' {
			n.point--
		}
		n.from++
	}
	n.point += exponent
	n.digits = n.to - n.from
	if begin+whole > n.from && begin+whole < n.to {
		n.digits-- // the point
	}
	return n, i == len(text)
}

func readExponent(text []byte) (n int, ok bool) {
	negative := len(text) > 0 && text[0] == '-'
	if negative || len(text) > 0 && text[0] == '+' {
		text = text[1:]
	}
	for _, c := range text {
		if c-'0' > 9 {
			return 0, false
		}
		n = min(10*n+int(c-'0'), maxExponent)
	}
	if negative {
		n = -n
	}
	return n, len(text) > 0
}

// rounded is the first count digits of the mantissa as a number, with zeros behind it if it has fewer, rounded half up.
func (n *decimal) rounded(text []byte, count int) (v int64) {
	if count < 0 {
		return 0
	}
	for _, c := range text[n.from:n.to] {
		if c == '.' {
			continue
		}
		if count == 0 {
			if c >= '5' {
				v++
			}
			return v
		}
		v = 10*v + int64(c-'0')
		count--
	}
	for ; count > 0; count-- {
		v *= 10
	}
	return v
}

const dayMillis = 24 * 3600 * 1000

// parseDateTime is ParseTime for a text that has the dashes of a date.
func parseDateTime(text []byte) (int64, error) {
	century, ok1 := twoDigits(text, 0)
	year, ok2 := twoDigits(text, 2)
	month, ok3 := twoDigits(text, 5)
	day, ok4 := twoDigits(text, 8)
	year += 100 * century
	if !(ok1 && ok2 && ok3 && ok4) || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return 0, ErrNotTime
	}
	ms := daysSince1970(year, month, day) * dayMillis
	if text = text[len("2026-11-22"):]; len(text) == 0 {
		return ms, CheckTime(ms)
	}
	if c := text[0]; c != 'T' && c != 't' && c != ' ' {
		return 0, ErrNotTime
	}
	clock, leap, zone, ok := parseClock(text[1:])
	if !ok {
		return 0, ErrNotTime
	}
	offset, ok := parseZone(zone)
	if !ok {
		return 0, ErrNotTime
	}
	ms += clock - offset
	// A leap second is always the last one of a day in UTC, so the time after it is within the first of the next day.
	if leap && (ms%dayMillis+dayMillis)%dayMillis >= 1000 {
		return 0, ErrNotTime
	}
	return ms, CheckTime(ms)
}

// parseClock reads HH:MM, HH:MM:SS or HH:MM:SS.fraction as the milliseconds of a day. rest is what follows.
func parseClock(text []byte) (ms int64, leap bool, rest []byte, ok bool) {
	hour, ok1 := twoDigits(text, 0)
	minute, ok2 := twoDigits(text, 3)
	if !ok1 || !ok2 || text[2] != ':' || hour > 24 || minute > 59 {
		return 0, false, nil, false
	}
	ms = int64(hour*60+minute) * 60_000
	rest = text[len("03:45"):]
	second, ok := twoDigits(rest, 1)
	if ok && rest[0] == ':' {
		if second > 60 {
			return 0, false, nil, false
		}
		leap = second == 60
		ms += int64(second) * 1000
		rest = rest[len(":12"):]
		if len(rest) > 1 && (rest[0] == '.' || rest[0] == ',') && rest[1]-'0' <= 9 {
			rest = rest[1:]
			unit := int64(100)
			for len(rest) > 0 && rest[0]-'0' <= 9 {
				if hour == 24 && rest[0] != '0' {
					return 0, false, nil, false
				}
				ms += unit * int64(rest[0]-'0')
				unit /= 10
				rest = rest[1:]
			}
		}
	}
	return ms, leap, rest, ms <= dayMillis || leap && hour < 24
}

// parseZone reads what follows the clock, and returns the zone's offset to the east of UTC in milliseconds.
func parseZone(text []byte) (offset int64, ok bool) {
	if len(text) == 0 || len(text) == 1 && text[0]|0x20 == 'z' {
		return 0, true
	}
	text = withoutZoneName(text)
	if text[0] == ' ' {
		text = text[1:]
	}
	switch {
	case len(text) == 0:
		return 0, false
	case text[0] == '+' || text[0] == '-':
		return parseOffset(text)
	case len(text) == 2 && text[0] == ':':
		text = text[1:]
	}
	for _, name := range []string{"Z", "UTC", "GMT"} {
		if bytes.EqualFold(text, []byte(name)) {
			return 0, true
		}
	}
	return 0, false
}

// withoutZoneName cuts off the name of a zone that follows Z or an offset.
func withoutZoneName(text []byte) []byte {
	if n := len(text); n == 0 || text[n-1] != ']' && text[n-1]-'A' > 'Z'-'A' {
		return text
	}
	if i := bytes.IndexByte(text, '['); i > 0 && text[len(text)-1] == ']' {
		return text[:i]
	}
	if i := bytes.LastIndexByte(text, ' '); i > 0 && text[i-1]-'0' <= 9 && len(text)-i >= len(" CET") &&
		len(text)-i <= len(" CHADT") {
		for _, c := range text[i+1:] {
			if c-'A' > 'Z'-'A' {
				return text
			}
		}
		return text[:i]
	}
	return text
}

// parseOffset reads +HH:MM, +HHMM or +HH, with either sign.
func parseOffset(text []byte) (offset int64, ok bool) {
	hours, ok := twoDigits(text, 1)
	minutes := 0
	switch {
	case !ok:
		return 0, false
	case len(text) == len("+01"):
	case len(text) == len("+0100"):
		minutes, ok = twoDigits(text, 3)
	case len(text) == len("+01:00") && text[3] == ':':
		minutes, ok = twoDigits(text, 4)
	default:
		return 0, false
	}
	if !ok || minutes > 59 || hours*60+minutes > 14*60 {
		return 0, false
	}
	offset = int64(hours*60+minutes) * 60_000
	if text[0] == '-' {
		offset = -offset
	}
	return offset, true
}

// twoDigits reads the two decimal digits at text[i].
func twoDigits(text []byte, i int) (n int, ok bool) {
	if len(text) < i+2 || text[i]-'0' > 9 || text[i+1]-'0' > 9 {
		return 0, false
	}
	return int(text[i]-'0')*10 + int(text[i+1]-'0'), true
}

func daysIn(year, month int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// daysSince1970 counts in years that begin in March, so that a leap day is the last of its year.
func daysSince1970(year, month, day int) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	return int64(365*year + year/4 - year/100 + year/400 + (153*month-457)/5 + day - 719469)
}
