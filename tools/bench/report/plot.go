package report

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// The plot's size on paper, and its resolution.
const (
	plotWidth  = 20 * vg.Centimeter
	plotHeight = 12.5 * vg.Centimeter
	plotLegend = 3.6 * vg.Centimeter // part of the width
	plotDPI    = 150
)

// curves are the lines of the plot, by the figure's name without its suffix. Colour-blind readers can distinguish the
// colours.
var curves = []struct {
	part   string
	label  string
	colour color.RGBA
}{
	{"stack", "all of these", color.RGBA{0, 0, 0, 255}},
	{"clickhouse", "ClickHouse", color.RGBA{213, 94, 0, 255}},
	{"receiver", "receiver", color.RGBA{0, 114, 178, 255}},
	{"loader", "loader", color.RGBA{0, 158, 115, 255}},
	{"minio", "MinIO", color.RGBA{204, 121, 167, 255}},
	{"nats", "NATS", color.RGBA{86, 180, 233, 255}},
}

// Plot draws the cost curve of an e2e report as a PNG: the cores of each part over the accepted events a second. If the
// curve comes near the machine's number of cores, a line shows it: no rate can go beyond.
func Plot(r Report) ([]byte, error) {
	runs := slices.DeleteFunc(slices.Clone(r.Medians), func(m Run) bool {
		rate, ok := m.Figures.Get("accepted_per_s")
		_, cores := m.Figures.Get("stack_cores")
		return !ok || rate <= 0 || !cores
	})
	if len(runs) == 0 {
		return nil, errors.New("nothing to draw: no run of `bench e2e` is in it")
	}
	p := plot.New()
	p.Title.Text = "CPU cores needed, by events a second"
	p.Title.TextStyle.Font.Size = 14
	p.Title.Padding = vg.Points(8)
	m := r.Machine
	p.X.Label.Text = fmt.Sprintf(
		"events/s accepted (logarithmic), from the POST to the row and its merges\n%d cores (%s), %s, Linux %s, penstock "+
			"%s, %s",
		m.Cores, strings.TrimSpace(m.CPU), m.FileSystem, m.Kernel, r.Version, r.Time.Format("2006-01-02"))
	p.Y.Label.Text = "cores"
	// The axis is logarithmic by hand, because plot.LogScale leaves a wide margin for a long label.
	p.X.Tick.Marker = plot.TickerFunc(rateTicks)
	p.Y.Min = 0
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{225}, color.Gray{225}
	p.Add(grid)
	legend := plot.NewLegend() // beside the plot, so that no lines cross it
	legend.Top, legend.Left = true, true
	legend.Padding = vg.Points(3)
	for _, c := range curves {
		line, points, err := plotter.NewLinePoints(curve(runs, c.part+"_cores"))
		if err != nil {
			return nil, fmt.Errorf("draw %s: %w", c.label, err)
		}
		line.Color, line.Width = c.colour, vg.Points(1.8)
		points.Color, points.Shape, points.Radius = c.colour, draw.CircleGlyph{}, vg.Points(2.5)
		if c.part == "stack" {
			line.Dashes = []vg.Length{vg.Points(5), vg.Points(3)}
		}
		p.Add(line, points)
		legend.Add(c.label, line, points)
	}
	if all := float64(m.Cores); p.Y.Max > all/2 {
		line, err := plotter.NewLine(plotter.XYs{{X: p.X.Min, Y: all}, {X: p.X.Max, Y: all}})
		if err != nil {
			return nil, fmt.Errorf("draw the machine: %w", err)
		}
		line.Color, line.Width = color.Gray{128}, vg.Points(1)
		p.Add(line)
		legend.Add("this machine", line)
	}
	margin := 0.02 // shows the tick of a rate that was not quite reached
	if p.X.Min == p.X.Max {
		margin = 0.3 // a single rate
	}
	p.X.Min, p.X.Max = p.X.Min-margin, p.X.Max+margin
	p.Y.Max *= 1.05
	img := vgimg.NewWith(vgimg.UseWH(plotWidth, plotHeight), vgimg.UseDPI(plotDPI), vgimg.UseBackgroundColor(color.White))
	page := draw.Crop(draw.New(img), vg.Points(8), -vg.Points(8), vg.Points(8), -vg.Points(8))
	p.Draw(draw.Crop(page, 0, -plotLegend, 0, 0))
	legend.Draw(draw.Crop(page, plotWidth-plotLegend, 0, 0, -vg.Points(40)))
	var out bytes.Buffer
	_, err := vgimg.PngCanvas{Canvas: img}.WriteTo(&out)
	return out.Bytes(), err
}

// curve returns a figure of all runs over the logarithm of their rate.
func curve(runs []Run, figure string) plotter.XYs {
	var all plotter.XYs
	for _, r := range runs {
		rate, _ := r.Figures.Get("accepted_per_s")
		v, _ := r.Figures.Get(figure)
		all = append(all, plotter.XY{X: math.Log10(rate), Y: v})
	}
	slices.SortFunc(all, func(a, b plotter.XY) int { return int(math.Copysign(1, a.X-b.X)) })
	return all
}

// rateTicks are 1, 2 and 5 times each power of ten.
func rateTicks(least, most float64) (ticks []plot.Tick) {
	for power := math.Floor(least); power <= most; power++ {
		for _, n := range [...]float64{1, 2, 5} {
			if at := power + math.Log10(n); at >= least-0.001 && at <= most+0.001 {
				ticks = append(ticks, plot.Tick{Value: at, Label: short(math.Round(n * math.Pow(10, power)))})
			}
		}
	}
	return ticks
}

// short formats 20000 as 20 k.
func short(v float64) string {
	for _, unit := range []struct {
		size float64
		name string
	}{{1e6, " M"}, {1e3, " k"}} {
		if v >= unit.size {
			return strconv.FormatFloat(v/unit.size, 'g', 4, 64) + unit.name
		}
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}
