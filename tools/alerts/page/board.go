// Package page draws Grafana's dashboards as HTML with SVG, from their JSON and what Prometheus answers. It is no
// Grafana: it knows the panels that package dashboards builds, and lays them out as Grafana does. It is for pictures in
// documents, where Grafana cannot be installed.
package page

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Board is a dashboard, as far as it is drawn.
type Board struct {
	Title  string  `json:"title"`
	Panels []panel `json:"panels"`
}

type panel struct {
	Type    string   `json:"type"`
	Title   string   `json:"title"`
	Grid    grid     `json:"gridPos"`
	Targets []target `json:"targets"`
	Options struct {
		GraphMode string `json:"graphMode"`
		TextMode  string `json:"textMode"`
	} `json:"options"`
	Field struct {
		Defaults  field      `json:"defaults"`
		Overrides []override `json:"overrides"`
	} `json:"fieldConfig"`
}

// override is a color for the series whose names match.
type override struct {
	Matcher struct {
		ID      string `json:"id"`
		Options string `json:"options"`
	} `json:"matcher"`
	Properties []struct {
		ID    string `json:"id"`
		Value struct {
			Color string `json:"fixedColor"`
		} `json:"value"`
	} `json:"properties"`
}

type grid struct{ X, Y, W, H int }

type target struct {
	Expr   string `json:"expr"`
	Legend string `json:"legendFormat"`
}

type field struct {
	Unit       string `json:"unit"`
	NoValue    string `json:"noValue"`
	Thresholds struct {
		Steps []threshold `json:"steps"`
	} `json:"thresholds"`
	Custom struct {
		Fill     float64 `json:"fillOpacity"`
		SoftMax  float64 `json:"axisSoftMax"`
		Stacking struct {
			Mode string `json:"mode"`
		} `json:"stacking"`
		Lines struct {
			Mode string `json:"mode"`
		} `json:"thresholdsStyle"`
	} `json:"custom"`
}

// threshold is a color from a value on; nil: from the lowest value on.
type threshold struct {
	Value *float64 `json:"value"`
	Color string   `json:"color"`
}

// Read reads a dashboard's JSON.
func Read(text []byte) (b Board, err error) {
	if err := json.Unmarshal(text, &b); err != nil {
		return b, fmt.Errorf("read dashboard: %w", err)
	}
	return b, nil
}

// Series are the values of a query's result, one for each point of the window; NaN: none.
type Series struct {
	Labels map[string]string
	Values []float64
}

// Window is the time that is shown.
type Window struct {
	From time.Time
	Step time.Duration
	N    int // points
}

// To is the time of the last point.
func (w Window) To() time.Time { return w.From.Add(time.Duration(w.N-1) * w.Step) }

// Source answers a query for each point of a window.
type Source func(query string, w Window) ([]Series, error)

// scrapeEvery is the interval that our documents recommend.
const scrapeEvery = 15 * time.Second

// variables replaces Grafana's, and the dashboard's own.
func variables(expr string, w Window, own map[string]string) string {
	rate := max(w.Step+scrapeEvery, 4*scrapeEvery)
	expr = strings.ReplaceAll(expr, "$__rate_interval", rate.String())
	for name, value := range own {
		expr = strings.ReplaceAll(expr, "$"+name, value)
	}
	return expr
}

var labelPattern = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)

// curve is a series with its name.
type curve struct {
	name   string
	values []float64
}

// last is the last value that is one.
func (c curve) last() (float64, bool) {
	for i := len(c.values) - 1; i >= 0; i-- {
		if v := c.values[i]; v == v { //nolint:gocritic // not NaN
			return v, true
		}
	}
	return 0, false
}

// curves asks for a panel's series.
func (p panel) curves(from Source, w Window, own map[string]string) ([]curve, error) {
	var all []curve
	for _, t := range p.Targets {
		found, err := from(variables(t.Expr, w, own), w)
		if err != nil {
			return nil, fmt.Errorf("panel %q: %w", p.Title, err)
		}
		for _, s := range found {
			name := labelPattern.ReplaceAllStringFunc(t.Legend, func(m string) string {
				return s.Labels[labelPattern.FindStringSubmatch(m)[1]]
			})
			all = append(all, curve{strings.TrimSpace(name), s.Values})
		}
	}
	return all, nil
}
