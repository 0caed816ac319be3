package page

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// View is what of a dashboard is shown.
type View struct {
	Board
	Window
	File      string            // of the dashboard
	Variables map[string]string // of the dashboard
}

// style has the colors of both themes. Series have ten colors.
const style = `
:root { --back: #f4f5f5; --panel: #fff; --line: #dcdee2; --grid: #e9eaec; --text: #24292e; --weak: #6e7681;
  --green: #1a8f3c; --orange: #d9730d; --red: #cf222e; --blue: #1f60c4;
  --s0: #37872d; --s1: #c98a04; --s2: #1f78c1; --s3: #d9640a; --s4: #c4162a; --s5: #705da0; --s6: #0f8a8a;
  --s7: #a352cc; --s8: #6b7d1a; --s9: #8a5a44; }
:root.dark { --back: #111217; --panel: #181b1f; --line: #2c2f36; --grid: #24272d; --text: #d8d9da; --weak: #8e9099;
  --green: #73bf69; --orange: #ff9830; --red: #f2495c; --blue: #6ea6ff;
  --s0: #73bf69; --s1: #f2cc0c; --s2: #5794f2; --s3: #ff9830; --s4: #f2495c; --s5: #b877d9; --s6: #5ad8d8;
  --s7: #e685c5; --s8: #c0d860; --s9: #cfa18a; }
body { margin: 0; background: var(--back); color: var(--text);
  font: 13px Inter, "Open Sans", "DejaVu Sans", sans-serif; }
main { width: %dpx; padding: 12px 16px 16px; }
header { display: flex; gap: 10px; align-items: center; margin-bottom: 10px; }
h1 { font-size: 18px; font-weight: 500; margin: 0 auto 0 4px; }
header span { border: 1px solid var(--line); border-radius: 2px; padding: 5px 10px; background: var(--panel); }
header b { font-weight: 500; color: var(--blue); margin-right: 6px; }
footer { color: var(--weak); font-size: 12px; margin-top: 10px; }
svg { display: block; overflow: visible; }
text { fill: var(--text); font-size: 12px; }
.panel { fill: var(--panel); stroke: var(--line); }
.title { font-size: 14px; font-weight: 500; }
.row { font-size: 15px; font-weight: 500; }
.axis, .weak { fill: var(--weak); }
.weak { font-size: 14px; }
.grid { stroke: var(--grid); }
.state { opacity: 0.75; }
`

// HTML is the page of a view, in light or dark colors.
func (v View) HTML(from Source, dark bool) (string, error) {
	var panels strings.Builder
	height := 0
	for _, p := range v.Panels {
		all, err := p.curves(from, v.Window, v.Variables)
		if err != nil {
			return "", err
		}
		panels.WriteString(p.draw(all, v.Window))
		height = max(height, (p.Grid.Y+p.Grid.H)*(cell+gap)-gap)
	}
	class := "light"
	if dark {
		class = "dark"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<!doctype html>\n<html class=%q><meta charset=\"utf-8\"><title>%s</title>\n", class,
		html.EscapeString(v.Title))
	fmt.Fprintf(&b, "<style>"+style+"</style>\n", width)
	fmt.Fprintf(&b, "<main><header><h1>%s</h1><span><b>Data source</b>Prometheus</span>", html.EscapeString(v.Title))
	var names []string
	for name := range v.Variables {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&b, "<span><b>%s</b>%s</span>", html.EscapeString(strings.ToUpper(name[:1])+name[1:]),
			html.EscapeString(v.Variables[name]))
	}
	fmt.Fprintf(&b, "<span>Last %.0f minutes, UTC</span></header>\n", v.To().Sub(v.From).Minutes())
	fmt.Fprintf(&b, "<svg width=\"%d\" height=\"%d\">\n%s</svg>\n", width, height, panels.String())
	fmt.Fprintf(&b, "<footer>infra/grafana/%s, drawn by Penstock's tools/alerts/page. This is not Grafana.</footer>"+
		"</main></html>\n", html.EscapeString(v.File))
	return b.String(), nil
}
