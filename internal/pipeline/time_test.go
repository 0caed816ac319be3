package pipeline

import (
	"errors"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"
)

const timeAt = 1795514400123 // 2026-11-24T10:00:00.123Z

func TestParseTime(t *testing.T) {
	if got := Millis(timeAt).Format(TimeFormat); got != "2026-11-24T10:00:00.123Z" {
		t.Fatal(got)
	}
	for text, want := range map[string]int64{
		"":                              NoTime,
		"2026-11-24T10:00:00.123Z":      timeAt,
		"2026-11-24t10:00:00.123z":      timeAt,
		"2026-11-24 10:00:00.123":       timeAt, // as ClickHouse and DuckDB write it
		"2026-11-24 10:00:00.123456":    timeAt,
		"2026-11-24T10:00:00.123":       timeAt,
		"2026-11-24T10:00:00,123Z":      timeAt, // as Python's logging writes it
		"2026-11-24T10:00:00.123:Z":     timeAt,
		"2026-11-24T10:00:00.123+0000":  timeAt,
		"2026-11-24T10:00:00.123+00":    timeAt,
		"2026-11-24T10:00:00.123-00:00": timeAt,
		"2026-11-24 10:00:00.123 UTC":   timeAt,
		"2026-11-24 10:00:00.123 GMT":   timeAt,
		"2026-11-24 10:00:00.123 utc":   timeAt,
		"2026-11-24T10:00:00.123UTC":    timeAt,
		"2026-11-24 10:00:00.123 Z":     timeAt,
		"2026-11-24 10:00:00.123 +0000": timeAt, // as Ruby writes it
		"2026-11-24T12:00:00.123+02:00": timeAt,

		"2026-11-24T11:00:00.123+01:00[Europe/Berlin]":         timeAt, // Java's ZonedDateTime
		"2026-11-24T10:00:00.123Z[UTC]":                        timeAt,
		"2026-11-24T11:00:00.123+01:00[Europe/Berlin][u-ca=x]": timeAt, // JavaScript's Temporal
		"2026-11-24 10:00:00.123456789 +0000 UTC":              timeAt, // Go's Time.String
		"2026-11-24 11:00:00.123 +0100 CET":                    timeAt,
		"20261124":                                             timeAt - 123 - 36_000_000,
		"20261324":                                             20261324_000, // no date, so seconds

		"2026-11-24T12:00:00.123+02":                                     timeAt,
		"2026-11-25T00:00:00.123+14:00":                                  timeAt,
		"2026-11-23T20:00:00.123-1400":                                   timeAt,
		"2026-11-24T04:30:00.123-05:30":                                  timeAt,
		"2026-11-24T10:00:00.1239999Z":                                   timeAt,
		"2026-11-24T10:00:00." + "123" + strings.Repeat("9", 1000) + "Z": timeAt,
		"2026-11-24T10:00:00.1Z":                                         timeAt - 23,
		"2026-11-24T10:00:00.12":                                         timeAt - 3,
		"2026-11-24T10:00:00Z":                                           timeAt - 123,
		"2026-11-24T10:00:00:Z":                                          timeAt - 123,
		"2026-11-24T10:00Z":                                              timeAt - 123,
		"2026-11-24T10:00":                                               timeAt - 123,
		"2026-11-24":                                                     timeAt - 123 - 36_000_000,
		"2026-11-23T24:00:00Z":                                           timeAt - 123 - 36_000_000,
		"2026-11-23T24:00:00.000":                                        timeAt - 123 - 36_000_000,
		"2026-11-23 24:00":                                               timeAt - 123 - 36_000_000,
		"2016-12-31T23:59:60Z":                                           1483228800000,
		"2016-12-31T23:59:60.5Z":                                         1483228800500,
		"2016-12-31T18:59:60-05:00":                                      1483228800000,
		"2024-02-29T00:00:00Z":                                           1709164800000,
		"2000-02-29":                                                     951782400000,
		"1970-01-01T00:00:00Z":                                           0,
		"1969-12-31T23:59:59.9999Z":                                      -1,
		"1900-01-01T00:00:00Z":                                           MinTime,
		"2299-12-31T23:59:59.999999Z":                                    MaxTime,
		"2300-01-01T00:00:00.000+00:01":                                  MaxTime + 1 - 60_000,
		"1795514400123":                                                  timeAt,
		"1795514400.123456789":                                           timeAt,
		"1795514400123456789":                                            timeAt,
		"1795514400123999999":                                            timeAt + 1,
		"1795514400123500":                                               timeAt + 1,
		"1795514400123499":                                               timeAt,
		"1795514400123456":                                               timeAt,
		"0001795514400123":                                               timeAt,
		"1795514400123.4":                                                timeAt,
		"1795514400122.5":                                                timeAt,
		// a float64 that was printed with one digit too many
		"1795514400.1229999":                                  timeAt,
		"1.795514400123e9":                                    timeAt,
		"1.795514400123E+12":                                  timeAt,
		"1795514400123456789e0":                               timeAt,
		"179551440012345678900e-2":                            timeAt,
		"0." + strings.Repeat("0", 500) + "1795514400123e513": timeAt,
		"1.7955144001e9":                                      timeAt - 23,
		"1795514400":                                          timeAt - 123,
		"0":                                                   0,
		"-0":                                                  0,
		"0e99999999999999999999":                              0,
		"1e-99999999999999999999":                             0,
		"-1":                                                  -1000,
		"-1.5":                                                -1500,
		"-0.0004":                                             0,
		"-0.0005":                                             -1,
		"0.0005":                                              1,
		"100000000000":                                        100000000000,
		"100000000000000":                                     100000000000, // microseconds from here on
		"100000000000000000":                                  100000000000, // nanoseconds from here on
		"-1000000000001":                                      -1000000000001,
		"-1000000000000001":                                   -1000000000000,
		"-1000000000000500000":                                -1000000000001,
		"-2208988800":                                         MinTime,
		"-2208988800000000000":                                MinTime,
		"10413791999.999":                                     MaxTime,
		"10413791999999":                                      MaxTime,
		"10413791999999499":                                   MaxTime,
		"10413791999999499999":                                MaxTime,
	} {
		got, err := ParseTime([]byte(text))
		if err != nil || got != want {
			t.Errorf("%.60q: got %d, %v, want %d", text, got, err, want)
		}
	}
}

func TestParseTimeRejects(t *testing.T) {
	for _, text := range []string{
		" ", "yesterday", "now", "-", ".", "1.", ".5", "1.2.3", "1e", "1e+", "1e5x", "+5", "--5", "1_000", "0x10", "inf",
		"Infinity", "nan",
		"NaN", " 1795514400", "1795514400 ", "1795514400s",
		"2026-11", "2026-1-24", "26-11-24", "2026/11/24", "2026-11-2", "2026-11-245", "2026-11-24Z", "2026-11-24T",
		"2026-11-24 ",
		"2026-13-24", "2026-00-24", "2026-11-00", "2026-11-31", "2026-02-29", "1900-02-29", "2100-02-29T00:00:00Z",
		"2026-02-30T00:00:00Z",
		"2026-11-24X10:00:00", "2026-11-24  10:00:00", "2026-11-24T9:00:00Z", "2026-11-24T10:0:00Z", "2026-11-24T10:00:0Z",
		"2026-11-24T10", "2026-11-24T10Z", "2026-11-24T100000Z", "2026-11-24T10:00:", "2026-11-24T10:00:00.",
		"2026-11-24T10:00:00.Z",
		"2026-11-24T10:00:00,Z", "2026-11-24T10:00:00.1.2Z", "2026-11-24T25:00:00Z", "2026-11-24T24:00:01Z",
		"2026-11-24T24:01Z",
		"2026-11-24T24:00:00.0001Z", "2026-11-24T24:00:60Z", "2026-11-24T10:60:00Z", "2026-11-24T10:00:61Z",
		"2026-11-24T10:00:60Z", "2026-11-24T22:59:60Z", "2026-11-24T23:59:60+01:00", "2026-11-24T23:58:60Z",
		"2026-11-24T10:00:00+14:01", "2026-11-24T10:00:00-15", "2026-11-24T10:00:00+24:00", "2026-11-24T10:00:00+1",
		"2026-11-24T10:00:00+01:0",
		"2026-11-24T10:00:00+010", "2026-11-24T10:00:00+01:60", "2026-11-24T10:00:00+01-00", "2026-11-24T10:00:00+",
		"2026-11-24T10:00:00 ",
		"2026-11-24T10:00:00[Europe/Berlin]", "2026-11-24T10:00:00 [UTC]", "2026-11-24T10:00:00Z[",
		"2026-11-24T10:00:00+01:00]",
		"2026-11-24T10:00:00+01:00[a]b", "2026-11-24T10:00:00[Z]", "2026-11-24T10:00:00+01 PM2", "2026-11-24T10:00:00 PM",
		"2026-11-24[UTC]",
		"2026-11-24T10:00:00 +0100 PM", "2026-11-24T10:00:00 +0100 CET CET",
		"2026-11-24T10:00:00Z PST", "2026-11-24T10:00:00 GMT PST", "20261124T100000Z",
		"2026-11-24T10:00:00  UTC", "2026-11-24T10:00:00 CET", "2026-11-24T10:00:00ZZ", "2026-11-24T10:00:00Z ",
		"2026-11-24T10:00:00:",
		"2026-11-24T10:00:00::Z", "2026-11-24T10:00:00é", "２026-11-24", "2026-11-24T10:00:00\x00", "20x6-11-24", "-026-11-24",
	} {
		if got, err := ParseTime([]byte(text)); !errors.Is(err, ErrNotTime) {
			t.Errorf("%q: got %d, %v, want %v", text, got, err, ErrNotTime)
		}
	}
	for _, text := range []string{
		"1899-12-31T23:59:59.999Z", "1899-12-31", "2300-01-01T00:00:00Z", "9999-12-31T00:00:00Z", "0000-01-01",
		"1900-01-01T00:00:00+00:01",
		"-2208988801", "-2208988800000.6", "10413792000000", "10413792000", "10413791999999999999", "1e300", "-1e300",
		"1e99999999999999999999", "18446744073709551615",
		"-9223372036854775808", strings.Repeat("9", 100_000), "99999999999",
	} {
		if got, err := ParseTime([]byte(text)); !errors.Is(err, ErrTimeRange) {
			t.Errorf("%.60q: got %d, %v, want %v", text, got, err, ErrTimeRange)
		}
	}
}

func TestParseEpoch(t *testing.T) {
	for text, want := range map[string]int64{"1795514400": timeAt - 123, "1795514400123": timeAt,
		"1.7955144001e9": timeAt - 23} {
		if got, err := ParseEpoch([]byte(text)); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "2026-11-24", "2026-11-24T10:00:00Z", "x"} {
		if got, err := ParseEpoch([]byte(text)); !errors.Is(err, ErrNotTime) {
			t.Errorf("%q: got %d, %v, want %v", text, got, err, ErrNotTime)
		}
	}
}

// Every day that the table can store must be the one that package time has.
func TestDays(t *testing.T) {
	for day := Millis(MinTime); day.UnixMilli() <= MaxTime; day = day.AddDate(0, 0, 1) {
		text := day.Format(time.DateOnly)
		if got, err := ParseTime([]byte(text)); err != nil || got != day.UnixMilli() {
			t.Fatalf("%s: got %d, %v, want %d", text, got, err, day.UnixMilli())
		}
	}
}

func FuzzParseTime(f *testing.F) {
	for _, text := range []string{
		"2026-11-24T10:00:00.123Z", "2026-11-24 10:00:00,1 +0100", "2016-12-31T23:59:60Z", "2026-11-24T24:00",
		"1795514400.123456789",
		"-1795514400123456789", "1.7955144001e9", "0.00017e13", "2299-12-31T23:59:59.999-14:00", "1969-12-31", "00.5e-3",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1000 {
			return
		}
		got, err := ParseTime([]byte(text))
		if err == nil && text != "" && (got < MinTime || got > MaxTime) || err != nil && got > MaxTime &&
			!errors.Is(err, ErrTimeRange) {
			t.Fatalf("got %d, %v", got, err)
		}
		var exact time.Time
		if exact.UnmarshalText([]byte(text)) == nil { // RFC 3339 to the letter
			_, offset := exact.Zone()
			ms := exact.UnixMilli()
			if offset < -14*3600 || offset > 14*3600 {
				if !errors.Is(err, ErrNotTime) {
					t.Fatalf("offset of %d s: got %d, %v", offset, got, err)
				}
			} else if (err == nil) != (CheckTime(ms) == nil) || err == nil && got != ms {
				t.Fatalf("got %d, %v, want %d", got, err, ms)
			}
			return
		}
		if lax, e := time.Parse(time.RFC3339, text); e == nil && err == nil && lax.UnixMilli() != got {
			t.Fatalf("got %d, want %d", got, lax.UnixMilli())
		}
		if day, e := time.Parse("20060102", text); e == nil && err == nil && got == day.UnixMilli() {
			return // eight digits that are a day are no seconds of 1970
		}
		if want, ok := exactEpoch(text); ok {
			if (err == nil) != (want >= MinTime && want <= MaxTime) || err == nil && got != want {
				t.Fatalf("got %d, %v, want %d", got, err, want)
			}
		}
	})
}

// exactEpoch computes what a number means with numbers of any size.
func exactEpoch(text string) (int64, bool) {
	mantissa, exponent, scientific := strings.Cut(strings.ToLower(text), "e")
	if e, err := strconv.Atoi(exponent); scientific && (err != nil || e < -400 || e > 400) {
		return 0, false
	}
	whole, fraction, point := strings.Cut(strings.TrimPrefix(mantissa, "-"), ".")
	if whole == "" || point && fraction == "" || strings.Trim(whole+fraction, "0123456789") != "" {
		return 0, false
	}
	v, ok := new(big.Rat).SetString(text)
	if !ok {
		return 0, false
	}
	abs := new(big.Rat).Abs(v)
	for _, unit := range []struct{ below, scale string }{{"1e11", "1e3"}, {"1e14", "1"}, {"1e17", "1e-3"},
		{"1e400", "1e-6"}} {
		below, _ := new(big.Rat).SetString(unit.below)
		if abs.Cmp(below) < 0 {
			scale, _ := new(big.Rat).SetString(unit.scale)
			v.Mul(v, scale)
			break
		}
	}
	half := big.NewRat(1, 2) // and away from zero
	if v.Sign() < 0 {
		half.Neg(half)
	}
	v.Add(v, half)
	ms := new(big.Int).Quo(v.Num(), v.Denom())
	if !ms.IsInt64() {
		return MaxTime + 1, true
	}
	return ms.Int64(), true
}

func TestParseTimeDoesNotAllocate(t *testing.T) {
	for _, text := range []string{"2026-11-24T10:00:00.123Z", "2026-11-24 10:00:00.123456 UTC", "1795514400123456789",
		"1.7955144001e9", "soon"} {
		b := []byte(text)
		if n := testing.AllocsPerRun(100, func() { ParseTime(b) }); n != 0 {
			t.Errorf("%q: %v allocations", text, n)
		}
	}
}

func BenchmarkParseTime(b *testing.B) {
	for _, c := range []struct{ name, text string }{
		{"rfc3339", "2026-11-24T10:00:00.123Z"},
		{"offset", "2026-11-24T12:00:00.123456+02:00"},
		{"ms", "1795514400123"},
		{"ns", "1795514400123456789"},
		{"float", "1795514400.123456"},
	} {
		text := []byte(c.text)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseTime(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	text := []byte("2026-11-24T10:00:00.123Z")
	b.Run("rfc3339/package_time", func(b *testing.B) {
		for b.Loop() {
			if _, err := time.Parse(time.RFC3339, string(text)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
