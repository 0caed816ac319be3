package page

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// scaled is a prefix from a size on.
type scaled struct {
	from float64
	name string
}

var (
	decimal = []scaled{{1e12, " T"}, {1e9, " B"}, {1e6, " Mil"}, {1e3, " K"}}
	binary  = []scaled{{1 << 40, " TiB"}, {1 << 30, " GiB"}, {1 << 20, " MiB"}, {1 << 10, " KiB"}, {0, " B"}}
	seconds = []scaled{{86400, " d"}, {3600, " h"}, {60, " min"}, {1, " s"}, {1e-3, " ms"}, {0, " µs"}}
)

// suffixes are the units that only follow a number.
var suffixes = map[string]string{"eps": " evt/s", "rowsps": " rows/s", "reqps": " req/s", "ops": " ops/s"}

// show writes a value with its unit. now is for ages.
func show(v float64, unit string, now time.Time) string {
	switch unit {
	case "percentunit":
		return digits(100*v) + "%"
	case "bytes", "binBps":
		text := "0 B"
		if v != 0 {
			text = scale(v, binary)
		}
		if unit == "binBps" {
			text += "/s"
		}
		return text
	case "s":
		if v == 0 {
			return "0 s"
		}
		if math.Abs(v) < 1e-3 {
			return digits(v*1e6) + " µs"
		}
		return scale(v, seconds)
	case "dateTimeFromNow":
		return ago(now.Sub(time.UnixMilli(int64(v))))
	}
	return scale(v, decimal) + suffixes[unit]
}

func scale(v float64, by []scaled) string {
	for _, s := range by {
		if math.Abs(v) >= s.from && s.from > 0 {
			return digits(v/s.from) + s.name
		}
	}
	if last := by[len(by)-1]; last.from == 0 {
		return digits(v) + last.name
	}
	return digits(v)
}

// digits writes three digits of a number that count.
func digits(v float64) string {
	places := 0
	if a := math.Abs(v); a > 0 && a < 100 {
		places = 2 - int(math.Floor(math.Log10(a)))
	}
	text := strconv.FormatFloat(v, 'f', min(places, 6), 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}

func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "a few seconds ago"
	case d < 2*time.Minute:
		return "a minute ago"
	case d < time.Hour:
		return fmt.Sprintf("%d minutes ago", int(d.Minutes()))
	case d < 2*time.Hour:
		return "an hour ago"
	}
	return fmt.Sprintf("%d hours ago", int(d.Hours()))
}

// ticks are round values from 0 to most and beyond.
func ticks(most float64, unit string) []float64 {
	if most <= 0 {
		most = 1
	}
	step := roundStep(most/4, unit)
	var all []float64
	for i := 0; ; i++ {
		all = append(all, float64(i)*step)
		if all[i] >= most*0.999 {
			return all
		}
	}
}

// roundStep is the least round number that is not below a step.
func roundStep(step float64, unit string) float64 {
	if unit == "s" && step > 1 {
		for _, s := range []float64{2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600} {
			if s >= step {
				return s
			}
		}
	}
	if strings.HasPrefix(unit, "b") && step >= 1 { // bytes, and per second
		base := math.Pow(1024, math.Floor(math.Log(step)/math.Log(1024)))
		for n := 1.0; n <= 1024; n *= 2 {
			if n*base >= step {
				return n * base
			}
		}
	}
	base := math.Pow(10, math.Floor(math.Log10(step)))
	for _, n := range []float64{1, 2, 2.5, 5, 10} {
		if n*base >= step*0.999 {
			return n * base
		}
	}
	return 10 * base
}
