package alerts

import (
	"context"
	"math"
	"net/http"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
)

// clock runs speed times as fast as the real one, from began on. So minutes of an outage take seconds.
type clock struct{ began time.Time }

const speed = 60

func (c clock) at(real time.Time) time.Time { return c.began.Add(speed * real.Sub(c.began)) }

// scaled is the value that a metric would have if everything had taken speed times as long. The units in the names of
// metrics say which ones that concerns.
func (c clock) scaled(name string, v float64) float64 {
	switch {
	case strings.HasSuffix(name, "_timestamp_seconds") && v > 0:
		began := float64(c.began.UnixMilli()) / 1000
		return began + speed*(v-began)
	case strings.HasSuffix(name, "_age_seconds"):
		return speed * v
	}
	return v
}

// target is an admin listener that is scraped.
type target struct {
	url, name string
	series    map[string]labels.Labels // of the last scrape
	names     map[string]bool          // of all scrapes, with those of histograms' series
}

// scrape writes a target's metrics into a storage, as Prometheus does. What is gone becomes stale.
func (c clock) scrape(ctx context.Context, to storage.Storage, tg *target) error {
	found := map[string]*dto.MetricFamily{}
	if resp, err := http.Get(tg.url + "/metrics"); err == nil {
		parser := expfmt.NewTextParser(model.UTF8Validation)
		found, err = parser.TextToMetricFamilies(resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
	}
	at := c.at(time.Now()).UnixMilli()
	app := to.AppenderV2(ctx)
	last := tg.series
	tg.series = map[string]labels.Labels{}
	for name, f := range found {
		tg.names[name] = true
		if f.GetType() == dto.MetricType_HISTOGRAM {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				tg.names[name+suffix] = true
			}
		}
		for _, m := range f.GetMetric() {
			values := map[string]float64{"": m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()}
			if h := m.GetHistogram(); h != nil { // its buckets are read by no rule
				values = map[string]float64{"_sum": h.GetSampleSum(), "_count": float64(h.GetSampleCount())}
			}
			for suffix, v := range values {
				ls := labelsOf(name+suffix, tg.name, m)
				if _, err := app.Append(0, ls, 0, at, c.scaled(name, v), nil, nil, storage.AOptions{}); err != nil {
					return err
				}
				tg.series[ls.String()] = ls
			}
		}
	}
	for text, ls := range last {
		if _, there := tg.series[text]; !there {
			gone := math.Float64frombits(value.StaleNaN)
			if _, err := app.Append(0, ls, 0, at, gone, nil, nil, storage.AOptions{}); err != nil {
				return err
			}
		}
	}
	return app.Commit()
}

// labelsOf are those of a sample, sorted and without empty ones.
func labelsOf(name, instance string, m *dto.Metric) labels.Labels {
	b := labels.NewScratchBuilder(4)
	b.Add(model.MetricNameLabel, name)
	b.Add("instance", instance)
	for _, l := range m.GetLabel() {
		if l.GetValue() != "" {
			b.Add(l.GetName(), l.GetValue())
		}
	}
	b.Sort()
	return b.Labels()
}
