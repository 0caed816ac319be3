package page

import (
	"fmt"
	"html"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Sizes in pixels. Cells and gaps are Grafana's.
const (
	width = 1480
	// Width is that of the page.
	Width     = width + 32
	cell, gap = 30, 8
	header    = 32
	pad       = 10
)

// colors are Grafana's names as variables of the style sheet.
func color(name string) string {
	switch name {
	case "green", "orange", "red", "blue":
		return "var(--" + name + ")"
	}
	return "none"
}

// paint is the color of the i-th series, or what an override says.
func (d *drawing) paint(i int, name string) string {
	for _, o := range d.Field.Overrides {
		if o.Matcher.ID != "byRegexp" || !regexp.MustCompile(strings.Trim(o.Matcher.Options, "/")).MatchString(name) {
			continue
		}
		for _, p := range o.Properties {
			if p.ID == "color" {
				return color(p.Value.Color)
			}
		}
	}
	return fmt.Sprintf("var(--s%d)", i%10)
}

// box is a panel's place.
type box struct{ x, y, w, h float64 }

func (g grid) box() box {
	column := float64(width+gap) / 24
	return box{float64(g.X) * column, float64(g.Y * (cell + gap)), float64(g.W)*column - gap,
		float64(g.H*(cell+gap) - gap)}
}

// drawing is a panel that is being drawn.
type drawing struct {
	strings.Builder
	panel
	box
	window Window
}

func (d *drawing) add(format string, args ...any) { fmt.Fprintf(d, format, args...) }

// text writes a text at a place.
func (d *drawing) text(x, y float64, class, anchor, text string) {
	d.add(`<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>`, x, y, class, anchor, html.EscapeString(text))
}

// draw is the SVG of a panel.
func (p panel) draw(all []curve, w Window) string {
	d := &drawing{panel: p, box: p.Grid.box(), window: w}
	d.add(`<svg x="%.1f" y="%.1f" width="%.1f" height="%.1f">`, d.x, d.y, d.w, d.h)
	if p.Type == "row" {
		d.add(`<path d="M4 12l5 5 5-5" fill="none" stroke="var(--weak)" stroke-width="1.6"/>`)
		d.text(22, 20, "row", "start", p.Title)
	} else {
		d.add(`<rect class="panel" x="0.5" y="0.5" width="%.1f" height="%.1f" rx="2"/>`, d.w-1, d.h-1)
		d.text(pad, 21, "title", "start", p.Title)
		d.content(all)
	}
	d.add("</svg>\n")
	return d.String()
}

func (d *drawing) content(all []curve) {
	switch {
	case len(all) == 0 && d.Type == "stat":
		d.big(d.Field.Defaults.NoValue, "var(--weak)")
	case len(all) == 0:
		d.text(d.w/2, (d.h+header)/2, "weak", "middle", "No data")
	case d.Type == "stat":
		d.stat(all)
	case d.Type == "state-timeline":
		d.timeline(all)
	default:
		d.series(all)
	}
}

// stat draws the last value, with its course below it.
func (d *drawing) stat(all []curve) {
	f := d.Field.Defaults
	if d.Options.TextMode == "name" {
		d.big(all[0].name, d.level(0))
		return
	}
	v, ok := all[0].last()
	if !ok {
		d.big(f.NoValue, "var(--weak)")
		return
	}
	if d.Options.GraphMode == "area" {
		d.spark(all[0], d.level(v))
	}
	d.big(show(v, f.Unit, d.window.To()), d.level(v))
}

// big writes a stat's value. The unit is smaller.
func (d *drawing) big(text, fill string) {
	number, unit, _ := strings.Cut(text, " ")
	if strings.HasSuffix(text, "ago") {
		number, unit = text, ""
	}
	size := min(40, 1.7*(d.w-2*pad)/max(1, float64(len(number))+0.55*float64(len(unit))))
	d.add(`<text x="%.1f" y="78" text-anchor="middle" style="fill:%s;font-size:%.0fpx;font-weight:500">%s`, d.w/2,
		fill, size, html.EscapeString(number))
	if unit != "" {
		d.add(`<tspan style="font-size:%.0fpx" dx="6">%s</tspan>`, size*0.55, html.EscapeString(unit))
	}
	d.add("</text>")
}

// level is the color of a value.
func (d *drawing) level(v float64) string {
	name := ""
	for _, s := range d.Field.Defaults.Thresholds.Steps {
		if s.Value == nil || v >= *s.Value {
			name = s.Color
		}
	}
	return color(name)
}

func (d *drawing) spark(c curve, stroke string) {
	most := highest([]curve{c})
	if most == 0 {
		most = 1
	}
	at := func(i int, v float64) (x, y float64) {
		return float64(i) * d.w / float64(d.window.N-1), d.h - 2 - v/most*(d.h-94)
	}
	d.add(`<path d="%s" fill="none" stroke="%s" stroke-width="1.2" opacity="0.9"/>`, path(c.values, at), stroke)
	d.add(`<path d="%s" fill="%s" opacity="0.15"/>`, area(c.values, nil, at), stroke)
}

// path is a line through values, with gaps where there are none.
func path(values []float64, at func(i int, v float64) (x, y float64)) string {
	var b strings.Builder
	pen := "M"
	for i, v := range values {
		if math.IsNaN(v) {
			pen = "M"
			continue
		}
		x, y := at(i, v)
		fmt.Fprintf(&b, "%s%.1f %.1f", pen, x, y)
		pen = "L"
	}
	return b.String()
}

// area is what is between values and a base; nil: 0.
func area(values, base []float64, at func(i int, v float64) (x, y float64)) string {
	var b strings.Builder
	for i := 0; i < len(values); i++ {
		from := i
		for ; i < len(values) && !math.IsNaN(values[i]); i++ {
			pen := "L"
			if i == from {
				pen = "M"
			}
			x, y := at(i, values[i])
			fmt.Fprintf(&b, "%s%.1f %.1f", pen, x, y)
		}
		for j := i - 1; j >= from; j-- {
			low := 0.0
			if base != nil {
				low = base[j]
			}
			x, y := at(j, low)
			fmt.Fprintf(&b, "L%.1f %.1f", x, y)
		}
		if i > from {
			b.WriteString("Z")
		}
	}
	return b.String()
}

// timeline draws a bar for each series: red where it is not 0.
func (d *drawing) timeline(all []curve) {
	const axis, tallest = 24, 34
	left, right, bottom := float64(pad), d.w-pad, d.h-axis
	for _, c := range all {
		left = max(left, textWidth(c.name)+2*pad)
	}
	d.times(left, right, bottom)
	each := min(tallest, (bottom-header-6)/float64(len(all)))
	for i, c := range all {
		top := header + 6 + float64(i)*each
		d.text(left-8, top+each/2+4, "label", "end", c.name)
		for j := 0; j < len(c.values); {
			v, from := c.values[j], j
			for ; j < len(c.values) && (c.values[j] == v || math.IsNaN(c.values[j]) && math.IsNaN(v)); j++ {
			}
			if math.IsNaN(v) {
				continue
			}
			fill := "green"
			if v > 0 {
				fill = "red"
			}
			x := func(i int) float64 { return left + (right-left)*float64(i)/float64(len(c.values)) }
			d.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="1" class="state" fill="%s"/>`, x(from), top+each*0.15,
				x(j)-x(from), each*0.7, color(fill))
		}
	}
}

// textWidth is about the width of a label.
func textWidth(text string) float64 { return 6.6 * float64(len([]rune(text))) }

// times draws the time axis.
func (d *drawing) times(left, right, bottom float64) {
	span := d.window.To().Sub(d.window.From)
	step := 5 * time.Minute
	for span/step > time.Duration((right-left)/55) {
		step *= 2
	}
	for t := d.window.From.Truncate(step).Add(step); !t.After(d.window.To()); t = t.Add(step) {
		x := left + (right-left)*float64(t.Sub(d.window.From))/float64(span)
		d.add(`<line class="grid" x1="%[1]f" x2="%[1]f" y1="%d" y2="%[3]f"/>`, x, header+4, bottom)
		d.text(x, bottom+17, "axis", "middle", t.UTC().Format("15:04"))
	}
}

// series draws curves with axes and a legend.
func (d *drawing) series(all []curve) {
	f := d.Field.Defaults
	base := make([][]float64, len(all))
	if f.Custom.Stacking.Mode == "normal" {
		all, base = pile(all)
	}
	legend := d.legend(all)
	marks := ticks(max(f.Custom.SoftMax, 1.02*highest(all)), f.Unit)
	bottom, left := legend-28, 0.0
	for _, m := range marks {
		left = max(left, textWidth(show(m, f.Unit, time.Time{})))
	}
	left, top, right := left+pad+4, float64(header+6), d.w-pad-6
	at := func(i int, v float64) (x, y float64) {
		return left + (right-left)*float64(i)/float64(d.window.N-1), bottom - v/marks[len(marks)-1]*(bottom-top)
	}
	for _, m := range marks {
		_, y := at(0, m)
		d.add(`<line class="grid" x1="%f" x2="%f" y1="%[3]f" y2="%[3]f"/>`, left, right, y)
		d.text(left-8, y+4, "axis", "end", show(m, f.Unit, time.Time{}))
	}
	d.times(left, right, bottom)
	for _, s := range f.Thresholds.Steps {
		if s.Value != nil && f.Custom.Lines.Mode == "dashed" && *s.Value <= marks[len(marks)-1] {
			_, y := at(0, *s.Value)
			d.add(`<line x1="%f" x2="%f" y1="%[3]f" y2="%[3]f" stroke="%s" stroke-dasharray="8 6" opacity="0.8"/>`, left,
				right, y, color(s.Color))
		}
	}
	for i, c := range all {
		paint := d.paint(i, c.name)
		d.add(`<path d="%s" fill="%s" opacity="%.2f"/>`, area(c.values, base[i], at), paint, f.Custom.Fill/100)
		d.add(`<path d="%s" fill="none" stroke="%s" stroke-width="1.5" stroke-linejoin="round"/>`, path(c.values, at), paint)
	}
}

// highest is the highest value of all curves; 0 if there is none.
func highest(all []curve) (most float64) {
	for _, c := range all {
		for _, v := range c.values {
			if !math.IsNaN(v) {
				most = max(most, v)
			}
		}
	}
	return most
}

// pile puts each curve on top of the one before, and returns what is below each.
func pile(all []curve) (on []curve, base [][]float64) {
	below := make([]float64, len(all[0].values))
	for _, c := range all {
		sum := make([]float64, len(below))
		shown := slices.Clone(sum)
		for i, v := range c.values {
			sum[i], shown[i] = below[i], v
			if !math.IsNaN(v) {
				sum[i] += v
				shown[i] = sum[i]
			}
		}
		on, base, below = append(on, curve{c.name, shown}), append(base, below), sum
	}
	return on, base
}

// legend writes the names of curves, and returns where it begins.
func (d *drawing) legend(all []curve) float64 {
	const line = 18
	type entry struct {
		x    float64
		line int
	}
	var places []entry
	x, n := float64(pad), 0
	for _, c := range all {
		w := 26 + textWidth(c.name)
		if x+w > d.w && x > pad {
			x, n = pad, n+1
		}
		places = append(places, entry{x, n})
		x += w + 8
	}
	top := d.h - float64((n+1)*line) - 4
	for i, c := range all {
		y := top + float64(places[i].line*line)
		d.add(`<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%[3]f" stroke="%s" stroke-width="4" stroke-linecap="round"/>`,
			places[i].x+2, places[i].x+14, y+8, d.paint(i, c.name))
		d.text(places[i].x+21, y+12, "label", "start", c.name)
	}
	return top
}
