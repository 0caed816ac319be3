// Package report has the results of benchmarks: figures of runs, medians, tables and the plot of a cost curve.
package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Figure is a named number. The name ends with the unit.
type Figure struct {
	Name  string
	Value float64
}

// Figures are the figures of one run, in display order. In JSON they are an object.
type Figures []Figure

// Add appends a figure. It omits a value that is not a number, such as a share of nothing. It keeps ten digits; further
// ones are rounding errors.
func (f *Figures) Add(name string, value float64) {
	if !math.IsNaN(value) && !math.IsInf(value, 0) {
		value, _ = strconv.ParseFloat(strconv.FormatFloat(value, 'g', 10, 64), 64)
		*f = append(*f, Figure{name, value})
	}
}

// Get finds a figure.
func (f Figures) Get(name string) (float64, bool) {
	i := slices.IndexFunc(f, func(g Figure) bool { return g.Name == name })
	if i < 0 {
		return 0, false
	}
	return f[i].Value, true
}

// MarshalJSON keeps the order.
func (f Figures) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, g := range f {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(strconv.AppendQuote(b, g.Name), ':')
		b = strconv.AppendFloat(b, g.Value, 'f', -1, 64)
	}
	return append(b, '}'), nil
}

// UnmarshalJSON keeps the order.
func (f *Figures) UnmarshalJSON(text []byte) error {
	*f = nil
	d := json.NewDecoder(bytes.NewReader(text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("figures are an object: %w", err)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var v float64
		if err := d.Decode(&v); err != nil {
			return fmt.Errorf("figure %v: %w", name, err)
		}
		*f = append(*f, Figure{name.(string), v})
	}
	return nil
}

// Run is one measurement, or the medians of several.
type Run struct {
	What     string           `json:"what"` // receive, load, e2e, disk…, and comparisons: floor, before, alone
	Rate     int              `json:"rate"` // requested events a second; 0: closed loop
	Figures  Figures          `json:"figures"`
	Failures map[string]int64 `json:"failures,omitempty"` // requests, by status or "connection"
	Failure  string           `json:"failure,omitempty"`  // first failure
	// Over the time of sending: seconds, and the RSS of each part in MiB.
	Series map[string][]float64 `json:"series,omitempty"`
}

// Report is the result of a benchmark.
type Report struct {
	Command string            `json:"command"`
	Version string            `json:"version"`
	Time    time.Time         `json:"time"`
	Machine Machine           `json:"machine"`
	Flags   map[string]string `json:"flags"`
	Runs    []Run             `json:"runs"`
	Medians []Run             `json:"medians"`         // over the runs of each kind and rate
	Ratio   Figures           `json:"ratio,omitempty"` // medians divided by those of the comparison
}

// Summarize computes Medians and Ratio from Runs.
func (r *Report) Summarize() {
	r.Medians, r.Ratio = nil, nil
	for _, run := range r.Runs {
		if !slices.ContainsFunc(r.Medians, func(m Run) bool { return m.What == run.What && m.Rate == run.Rate }) {
			r.Medians = append(r.Medians, r.median(run.What, run.Rate))
		}
	}
	base := slices.IndexFunc(r.Medians, func(m Run) bool { return m.What == r.base() })
	if base < 0 || len(r.Medians) != 2 {
		return
	}
	for _, f := range r.Medians[base].Figures {
		if v, ok := r.Medians[1-base].Figures.Get(f.Name); ok {
			r.Ratio.Add(f.Name, v/f.Value)
		}
	}
}

// base names the comparison of the other runs; empty: none.
func (r *Report) base() string {
	for _, run := range r.Runs {
		if slices.Contains([]string{"floor", "before", "alone"}, run.What) {
			return run.What
		}
	}
	return ""
}

func (r *Report) median(what string, rate int) Run {
	m := Run{What: what, Rate: rate}
	values := map[string][]float64{}
	for _, run := range r.of(what, rate) {
		for _, f := range run.Figures {
			if values[f.Name] == nil {
				m.Figures = append(m.Figures, Figure{Name: f.Name})
			}
			values[f.Name] = append(values[f.Name], f.Value)
		}
	}
	names := m.Figures
	m.Figures = nil
	for _, f := range names {
		m.Figures.Add(f.Name, Median(values[f.Name]))
	}
	return m
}

// Failed is the number of failed requests in all runs.
func (r *Report) Failed() (n int64) {
	for _, run := range r.Runs {
		n += run.failed()
	}
	return n
}

func (r Run) failed() (n int64) {
	for _, of := range r.Failures {
		n += of
	}
	return n
}

func (r *Report) of(what string, rate int) (runs []Run) {
	for _, run := range r.Runs {
		if run.What == what && run.Rate == rate {
			runs = append(runs, run)
		}
	}
	return runs
}

// Median is the middle value, or the mean of the middle two; 0 of none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// Print writes tables for people: a line for each figure, a column for each run. If each rate has one run, as in a
// curve, the rates share a table.
func (r *Report) Print(w io.Writer) error {
	m := r.Machine
	fmt.Fprintf(w, "%s: %d cores (%s), %d MiB, %s, %s %s, %s, penstock %s\n", r.Command, m.Cores, m.CPU, m.MemoryMiB,
		m.FileSystem, m.OS, m.Kernel, m.Go, r.Version)
	for i, name := range slices.Sorted(maps.Keys(r.Flags)) {
		if i > 0 {
			fmt.Fprint(w, " ")
		}
		fmt.Fprintf(w, "--%s=%s", name, r.Flags[name])
	}
	fmt.Fprintln(w)
	var curve []column
	for _, m := range r.Medians {
		runs := r.of(m.What, m.Rate)
		if len(runs) == 1 {
			curve = append(curve, column{head(m), m.Figures, false})
			continue
		}
		var columns []column
		for i, run := range runs {
			columns = append(columns, column{strconv.Itoa(i + 1), run.Figures, false})
		}
		columns = append(columns, column{"median", m.Figures, false})
		if m.What != r.base() && r.Ratio != nil {
			columns = append(columns, column{"by " + r.base(), r.Ratio, true})
		}
		if err := table(w, head(m), columns); err != nil {
			return err
		}
	}
	if curve != nil && r.Ratio != nil {
		curve = append(curve, column{"by " + r.base(), r.Ratio, true})
	}
	if curve != nil {
		if err := table(w, "", curve); err != nil {
			return err
		}
	}
	for i, run := range r.Runs {
		if got, _ := run.Figures.Get("accepted_per_s"); run.Rate > 0 && got < 0.95*float64(run.Rate) {
			fmt.Fprintf(w, "! run %d, %s: only %.0f a second were accepted; latencies are those of a queue that grows\n", i+1,
				head(run), got)
		}
		if run.Failure == "" {
			continue
		}
		fmt.Fprintf(w, "! run %d, %s: %d requests failed (", i+1, head(run), run.failed())
		for j, how := range slices.Sorted(maps.Keys(run.Failures)) {
			if j > 0 {
				fmt.Fprint(w, ", ")
			}
			fmt.Fprintf(w, "%s: %d", how, run.Failures[how])
		}
		fmt.Fprintf(w, "); the first: %s\n", run.Failure)
	}
	return nil
}

func head(r Run) string {
	if r.Rate == 0 {
		return r.What
	}
	return fmt.Sprintf("%s %d/s", r.What, r.Rate)
}

// column is a column of a table.
type column struct {
	head    string
	figures Figures
	ratio   bool // relative to another column, without unit
}

func table(w io.Writer, title string, columns []column) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "\n%s\t", title)
	var names []string
	for _, c := range columns {
		fmt.Fprintf(t, "%s\t", c.head)
		for _, f := range c.figures {
			if !slices.Contains(names, f.Name) {
				names = append(names, f.Name)
			}
		}
	}
	fmt.Fprintln(t)
	for _, name := range names {
		fmt.Fprintf(t, "%s\t", strings.ReplaceAll(name, "_", " "))
		var values []float64
		for _, c := range columns {
			if v, ok := c.figures.Get(name); ok && !c.ratio {
				values = append(values, v)
			}
		}
		n := decimals(values)
		for _, c := range columns {
			v, ok := c.figures.Get(name)
			switch {
			case !ok:
				fmt.Fprint(t, "-\t")
			case c.ratio:
				fmt.Fprintf(t, "%.3g\t", v)
			default:
				fmt.Fprintf(t, "%.*f\t", n, v)
			}
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// decimals returns the decimal places for a table's line. Whole or large values have none; otherwise the largest value
// gets three digits in total.
func decimals(values []float64) int {
	whole, most := true, 0.0
	for _, v := range values {
		whole = whole && v == math.Trunc(v)
		most = max(most, math.Abs(v))
	}
	switch {
	case whole || most >= 1000:
		return 0
	case most >= 100:
		return 1
	case most >= 1:
		return 2
	case most >= 0.1:
		return 3
	}
	return 3 - int(math.Ceil(math.Log10(most)))
}
