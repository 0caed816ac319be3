// Package dashboards builds Grafana's dashboards of Penstock. The SDK checks types. `go test ./dashboards -update`
// writes the JSON in infra/grafana.
package dashboards

import (
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
	"github.com/grafana/grafana-foundation-sdk/go/units"
)

// query is an expression and how its series are called.
type query struct{ expr, legend string }

// kind is how a panel shows its series.
type kind uint8

const (
	curves  kind = iota
	stacked      // curves, each on top of the one before
	number       // the last value, and its course behind it
	text         // the last value alone
	states       // a bar for each series: 1 is bad, 0 is good
)

// step is a value from which on a color means something.
type step struct {
	from  float64
	color string
}

// graph is a panel.
type graph struct {
	title, about, unit string
	kind               kind
	most               float64 // the axis reaches it at least; 0: as far as the curves
	steps              []step
	queries            []query
}

// row is a row of panels.
type row struct {
	title  string
	graphs []graph
}

type board struct {
	name, title, about string
	project            bool // it shows one project, which a variable chooses
	rows               []row
}

// few is the least height of an axis of counts, so that its ticks are whole numbers.
const few = 4

// Dashboard is a dashboard in the format that every version of Grafana reads.
type Dashboard = dashboard.Dashboard //nolint:staticcheck // version 2 needs a later Grafana

// All are the dashboards, by the names of their files.
func All() (map[string]Dashboard, error) {
	all := map[string]Dashboard{}
	for _, b := range []board{overview(), receiver(), loader(), clickhouse(), project()} {
		d, err := b.build()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", b.name, err)
		}
		all[b.name] = d
	}
	return all, nil
}

// source is the data source that the variable chooses.
func source() common.DataSourceRef {
	return common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr("${datasource}")}
}

func (b board) build() (Dashboard, error) {
	d := dashboard.NewDashboardBuilder(b.title) //nolint:staticcheck // as Dashboard
	d.Uid("penstock-"+b.name).Description(b.about).
		Tags([]string{"penstock"}).Refresh("30s").Time("now-3h", "now").Timezone(common.TimeZoneBrowser).
		Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Link(dashboard.NewDashboardLinkBuilder("Penstock").Type(dashboard.DashboardLinkTypeDashboards).
			Tags([]string{"penstock"}).KeepTime(true).IncludeVars(true)).
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("Data source").Type("prometheus"))
	if b.project {
		d.WithVariable(dashboard.NewQueryVariableBuilder("project").Label("Project").Datasource(source()).
			Query(dashboard.StringOrMap{String: cog.ToPtr("label_values(penstock_receiver_events_total, project)")}).
			Refresh(dashboard.VariableRefreshOnTimeRangeChanged).Sort(dashboard.VariableSortAlphabeticalAsc))
	}
	id := uint32(0)
	for _, r := range b.rows {
		id++
		d.WithRow(dashboard.NewRowBuilder(r.title).Id(id))
		for _, g := range r.graphs {
			id++
			d.WithPanel(g.panel(id, uint32(24/len(r.graphs)))) // #nosec G115 -- at most 24
		}
	}
	return d.Build()
}

// panel is as wide as a part of the dashboard, which is 24 wide.
func (g graph) panel(id, width uint32) cog.Builder[dashboard.Panel] {
	targets := make([]cog.Builder[variants.Dataquery], len(g.queries))
	for i, q := range g.queries {
		targets[i] = prometheus.NewDataqueryBuilder().Expr(q.expr).LegendFormat(q.legend).Datasource(source()).
			RefId(string(rune('A' + i)))
	}
	switch g.kind {
	case number, text:
		return g.stat(targets).Id(id).Span(width)
	case states:
		return statetimeline.NewPanelBuilder().Title(g.title).Description(g.about).Datasource(source()).Targets(targets).
			Id(id).Span(width).Height(8).ShowValue(common.VisibilityModeNever).MergeValues(true).
			Mappings([]dashboard.ValueMapping{meaning("0", "ok", "green"), meaning("1", g.title, "red")}).
			Thresholds(thresholds("green", []step{{1, "red"}})).FillOpacity(80).LineWidth(0).RowHeight(0.8).
			Legend(common.NewVizLegendOptionsBuilder().ShowLegend(false).DisplayMode(common.LegendDisplayModeHidden))
	}
	p := timeseries.NewPanelBuilder().Title(g.title).Description(g.about).Unit(g.unit).Datasource(source()).
		Targets(targets).Id(id).Span(width).Height(8).Min(0).ColorScheme(byColor("palette-classic")).
		LineWidth(1.5).FillOpacity(8).NoValue("-").
		ShowPoints(common.VisibilityModeNever).
		Legend(common.NewVizLegendOptionsBuilder().ShowLegend(true).DisplayMode(common.LegendDisplayModeList).
			Placement(common.LegendPlacementBottom)).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending))
	if g.most > 0 {
		p.AxisSoftMax(g.most)
	}
	if g.kind == stacked {
		p.FillOpacity(40).LineWidth(1).
			Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal).Group("A"))
	}
	for _, c := range meanings {
		p.OverrideByRegexp(c.names, []dashboard.DynamicConfigValue{{Id: "color",
			Value: map[string]string{"mode": "fixed", "fixedColor": c.color}}})
	}
	if g.steps != nil {
		p.Thresholds(thresholds("transparent", g.steps)).
			ThresholdsStyle(common.NewGraphThresholdsStyleConfigBuilder().Mode(common.GraphThresholdsStyleModeDashed))
	}
	return p
}

func (g graph) stat(targets []cog.Builder[variants.Dataquery]) *stat.PanelBuilder {
	mode, base := common.BigValueGraphModeArea, "green"
	if g.kind == text {
		mode = common.BigValueGraphModeNone
	}
	if g.steps == nil {
		base = "blue"
	}
	p := stat.NewPanelBuilder().Title(g.title).Description(g.about).Unit(g.unit).Datasource(source()).Targets(targets).
		Height(4).NoValue("-").GraphMode(mode).Orientation(common.VizOrientationAuto).
		ColorMode(common.BigValueColorModeValue).
		ColorScheme(byColor("thresholds")).
		Thresholds(thresholds(base, g.steps)).
		ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"}))
	if g.queries[0].legend != "" {
		p.TextMode(common.BigValueTextModeName)
	}
	return p
}

// byColor is how Grafana chooses colors.
func byColor(mode dashboard.FieldColorModeId) cog.Builder[dashboard.FieldColor] {
	return dashboard.NewFieldColorBuilder().Mode(mode)
}

// meanings are the colors of series whose names say that something is wrong.
var meanings = []struct{ names, color string }{{"/^(5\\d\\d|failed|dead)$/", "red"}, {"/^4\\d\\d$/", "orange"}}

// thresholds are colors from values on, with a color for all below.
func thresholds(base string, steps []step) cog.Builder[dashboard.ThresholdsConfig] {
	all := []dashboard.Threshold{{Color: base}}
	for _, s := range steps {
		all = append(all, dashboard.Threshold{Value: cog.ToPtr(s.from), Color: s.color})
	}
	return dashboard.NewThresholdsConfigBuilder().Mode(dashboard.ThresholdsModeAbsolute).Steps(all)
}

// meaning is how a value is shown.
func meaning(value, text, color string) dashboard.ValueMapping {
	return dashboard.ValueMapping{ValueMap: &dashboard.ValueMap{Type: dashboard.MappingTypeValueToText,
		Options: map[string]dashboard.ValueMappingResult{value: {Text: &text, Color: &color}}}}
}

func one(title, about, unit, expr string, steps ...step) graph {
	return graph{title: title, about: about, unit: unit, kind: number, queries: []query{{expr, ""}}, steps: steps}
}

func lines(title, about, unit string, queries ...query) graph {
	return graph{title: title, about: about, unit: unit, queries: queries}
}

// counts are lines of numbers of things.
func counts(title, about string, queries ...query) graph {
	return graph{title: title, about: about, unit: units.Short, most: few, queries: queries}
}

// stack leaves series out while they are 0: their lines would be on top of the others.
func stack(title, about, unit string, queries ...query) graph {
	for i := range queries {
		queries[i].expr += " > 0"
	}
	return graph{title: title, about: about, unit: unit, kind: stacked, queries: queries}
}

// line draws values from which on a color means something, as dashed lines.
func (g graph) line(from float64, color string) graph {
	g.steps = append(g.steps, step{from, color})
	return g
}

// times are the mean and a quantile of a histogram. A quantile is as exact as the buckets are narrow. Without samples,
// there are none.
func times(histogram, by, window string) []query {
	name, labels, sum := "", "le", "sum"
	if by != "" {
		name, labels, sum = "{{"+by+"}} ", "le, "+by, "sum by ("+by+")"
	}
	return []query{
		{fmt.Sprintf("%[1]s (rate(%[2]s_sum[%[3]s])) / (%[1]s (rate(%[2]s_count[%[3]s])) > 0)", sum, histogram, window),
			name + "mean"},
		{fmt.Sprintf("histogram_quantile(0.99, sum by (%s) (rate(%s_bucket[%s]))) >= 0", labels, histogram, window),
			name + "p99"},
	}
}

// perSecond is the rate of a counter, summed by a label.
func perSecond(counter, by string) query {
	return query{fmt.Sprintf("sum by (%s) (rate(%s[$__rate_interval]))", by, counter), "{{" + by + "}}"}
}

// smooth is perSecond for what happens once in a batch: over a shorter time, its rate would be 0 between two batches.
func smooth(counter, by string) query {
	return query{fmt.Sprintf("sum by (%s) (rate(%s[%s]))", by, counter, batches), "{{" + by + "}}"}
}
