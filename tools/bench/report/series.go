package report

import (
	"context"
	"time"

	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/load"
)

// SampleRSS reads the memory of process groups every interval until ctx ends. It returns "seconds" since the start, and
// for each name the total of its groups in MiB.
func SampleRSS(ctx context.Context, every time.Duration, groups map[string][]int) map[string][]float64 {
	series := map[string][]float64{}
	began := time.Now()
	for {
		if all, err := load.Groups(); err == nil {
			series["seconds"] = append(series["seconds"], time.Since(began).Round(time.Millisecond).Seconds())
			for name, pids := range groups {
				var sum int64
				for _, pid := range pids {
					sum += all[pid].RSS
				}
				series[name] = append(series[name], float64(sum)/(1<<20))
			}
		}
		if retry.Sleep(ctx, every) != nil {
			return series
		}
	}
}

// Ages are the ages of an object's events at one moment.
type Ages struct {
	Events         uint64
	Newest, Oldest time.Duration
}

// AgeQuantile is the age that the share q of all events does not exceed. It assumes that the events of an object are
// spread evenly from its newest to its oldest.
func AgeQuantile(ages []Ages, q float64) time.Duration {
	var total float64
	var low, high time.Duration
	for _, a := range ages {
		total += float64(a.Events)
		high = max(high, a.Oldest)
	}
	if q >= 1 {
		return high
	}
	for high-low > 10*time.Microsecond {
		middle := (low + high) / 2
		var below float64
		for _, a := range ages {
			switch {
			case middle >= a.Oldest:
				below += float64(a.Events)
			case middle > a.Newest:
				below += float64(a.Events) * float64(middle-a.Newest) / float64(a.Oldest-a.Newest)
			}
		}
		if below < q*total {
			low = middle
		} else {
			high = middle
		}
	}
	return high
}
