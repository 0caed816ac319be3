package page

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var window = Window{From: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), Step: 15 * time.Second, N: 41}

// rising answers each query with two series, the second with a gap.
func rising(_ string, w Window) ([]Series, error) {
	all := []Series{
		{Labels: map[string]string{"pipeline": "events", "code": "a<b"}, Values: make([]float64, w.N)},
		{Labels: map[string]string{"pipeline": "errors"}, Values: make([]float64, w.N)},
	}
	for i := range w.N {
		all[0].Values[i], all[1].Values[i] = float64(i)/float64(w.N-1), 0.5
	}
	all[1].Values[7] = math.NaN()
	return all, nil
}

// Every dashboard is drawn: all panels, each query with the variables replaced, as well-formed SVG.
func TestDashboards(t *testing.T) {
	files, err := filepath.Glob("../../../infra/grafana/*.json")
	if err != nil || len(files) != 5 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Read(text)
		if err != nil {
			t.Fatal(err)
		}
		v := View{Board: b, Window: window, File: filepath.Base(path), Variables: map[string]string{"project": "shop"}}
		asked := 0
		page, err := v.HTML(func(query string, w Window) ([]Series, error) {
			if asked++; strings.Contains(query, "$") {
				t.Errorf("%s: a variable is left in %s", path, query)
			}
			return rising(query, w)
		}, true)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range b.Panels {
			if !strings.Contains(page, ">"+p.Title+"</text>") {
				t.Errorf("%s: no panel %q", path, p.Title)
			}
		}
		if asked < 10 || strings.Contains(page, "No data") || strings.Contains(page, "NaN") {
			t.Errorf("%s: %d queries; the page has %q", path, asked, page[strings.Index(page, "<main>"):][:200])
		}
		_, svg, _ := strings.Cut(page, "</header>")
		svg, _, _ = strings.Cut(svg, "<footer>")
		for d := xml.NewDecoder(strings.NewReader(svg)); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		}
	}
}

// A panel says that it has no data. A failed query fails the page, with the panel's name.
func TestWithoutAnswers(t *testing.T) {
	b, err := Read([]byte(`{"title": "T", "panels": [{"type": "timeseries", "title": "P", "gridPos": {"w": 24, "h": 8},
		"targets": [{"expr": "up", "legendFormat": ""}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	v := View{Board: b, Window: window}
	page, err := v.HTML(func(string, Window) ([]Series, error) { return nil, nil }, false)
	if err != nil || !strings.Contains(page, "No data") {
		t.Errorf("%v: %s", err, page)
	}
	away := errors.New("away")
	if _, err = v.HTML(func(string, Window) ([]Series, error) { return nil, away }, false); !errors.Is(err, away) ||
		!strings.Contains(err.Error(), `panel "P"`) {
		t.Errorf("got %v", err)
	}
}

func TestShow(t *testing.T) {
	now := window.To()
	for _, c := range []struct {
		value float64
		unit  string
		want  string
	}{
		{0, "s", "0 s"}, {0.00042, "s", "420 µs"}, {0.25, "s", "250 ms"}, {90, "s", "1.5 min"}, {7200, "s", "2 h"},
		{0.0123, "percentunit", "1.23%"}, {1, "percentunit", "100%"}, {0, "bytes", "0 B"}, {1536, "bytes", "1.5 KiB"},
		{3 << 20, "binBps", "3 MiB/s"}, {1234, "eps", "1.23 K evt/s"}, {0.0015, "short", "0.0015"}, {2500000, "short", "2.5 Mil"},
		{float64(now.Add(-5 * time.Minute).UnixMilli()), "dateTimeFromNow", "5 minutes ago"},
	} {
		if got := show(c.value, c.unit, now); got != c.want {
			t.Errorf("%g %s: got %q, want %q", c.value, c.unit, got, c.want)
		}
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		most float64
		unit string
		want []float64
	}{
		{4, "short", []float64{0, 1, 2, 3, 4}}, {0, "short", []float64{0, 0.25, 0.5, 0.75, 1}}, {95, "s", []float64{0, 30, 60, 90, 120}},
		{300, "bytes", []float64{0, 128, 256, 384}}, {0.07, "percentunit", []float64{0, 0.02, 0.04, 0.06, 0.08}},
	} {
		if diff := cmp.Diff(c.want, ticks(c.most, c.unit)); diff != "" {
			t.Errorf("%g %s (-want +got):\n%s", c.most, c.unit, diff)
		}
	}
}

// Stacked curves are sums. A gap counts as 0, and stays a gap.
func TestPile(t *testing.T) {
	on, base := pile([]curve{{"a", []float64{1, math.NaN()}}, {"b", []float64{2, 3}}})
	got := [][]float64{on[0].values, on[1].values, base[0], base[1]}
	want := [][]float64{{1, math.NaN()}, {3, 3}, {0, 0}, {1, 0}}
	if diff := cmp.Diff(want, got, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// An override chooses the color of the series that it matches.
func TestOverride(t *testing.T) {
	b, err := Read([]byte(`{"panels": [{"fieldConfig": {"overrides": [{"matcher": {"id": "byRegexp", "options": "/^5|^failed/"},
		"properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": "red"}}]}]}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	d := &drawing{panel: b.Panels[0]}
	for name, want := range map[string]string{"503": "var(--red)", "failed": "var(--red)", "not failed": "var(--s1)", "202": "var(--s1)"} {
		if got := d.paint(1, name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

// A line has gaps, and each piece of an area is closed.
func TestGaps(t *testing.T) {
	at := func(i int, v float64) (x, y float64) { return float64(i), v }
	values := []float64{1, 2, math.NaN(), 3, 4}
	if got, want := path(values, at), "M0.0 1.0L1.0 2.0M3.0 3.0L4.0 4.0"; got != want {
		t.Errorf("line %s, want %s", got, want)
	}
	want := "M0.0 1.0L1.0 2.0L1.0 0.0L0.0 0.0ZM3.0 3.0L4.0 4.0L4.0 0.0L3.0 0.0Z"
	if got := area(values, nil, at); got != want {
		t.Errorf("area %s, want %s", got, want)
	}
}

// Values of Prometheus' answer are put at their times.
func TestPrometheus(t *testing.T) {
	answer := `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"},
		"values":[[1795348815,"1.5"],[1795348845,"NaN"],[1795348860,"+Inf"],[1795348875,"2"]]}]}}`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if q := req.FormValue("query"); q != "up" || req.FormValue("start") != "1795348800" || req.FormValue("step") != "15" {
			t.Errorf("asked %v", req.Form)
		}
		_, _ = io.WriteString(w, answer)
	}))
	defer server.Close()
	w := Window{From: window.From, Step: window.Step, N: 6}
	got, err := Prometheus(server.URL)("up", w)
	if err != nil || len(got) != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	nan := math.NaN()
	same := func(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }
	if !slices.EqualFunc(got[0].Values, []float64{nan, 1.5, nan, nan, nan, 2}, same) || got[0].Labels["a"] != "b" {
		t.Errorf("got %v", got[0])
	}
	answer = `{"status":"error","error":"parse error"}`
	if _, err := Prometheus(server.URL)("up", w); err == nil || !strings.Contains(err.Error(), "up: parse error") {
		t.Errorf("got %v", err)
	}
}
