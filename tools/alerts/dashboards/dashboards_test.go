package dashboards

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/prometheus/prometheus/promql/parser"
)

var update = flag.Bool("update", false, "write infra/grafana")

const folder = "../../../infra/grafana"

// The files in infra/grafana are what this package builds, and nothing else is there.
func TestFilesAreUpToDate(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for name, d := range all {
		text, err := json.MarshalIndent(d, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, '\n')
		path := filepath.Join(folder, name+".json")
		want[path] = true
		if *update {
			if err := os.WriteFile(path, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(text), string(got)); diff != "" {
			t.Errorf("%s is out of date; run go -C tools/alerts test ./dashboards -update\n%s", path, diff)
		}
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if !want[path] {
			t.Errorf("%s is built by nothing", path)
		}
	}
}

// Grafana's own types read the files without a rest, and accept them. IDs are unique, and no panels overlap.
func TestGrafanaReadsTheFiles(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil || len(files) != 5 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if why := strict(text); why != "" {
			t.Errorf("%s: %s", path, why)
		}
		for _, field := range []string{"expr", "unit", "gridPos", "refresh", "legendFormat"} {
			wrong := strings.Replace(string(text), `"`+field+`":`, `"wrong":`, 1)
			if why := strict([]byte(wrong)); !strings.Contains(why, "unexpected field 'wrong'") {
				t.Errorf("%s without the field %s: %q", path, field, why)
			}
		}
		var d Dashboard
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatal(err)
		}
		if err := d.Validate(); err != nil && err.Error() != "" {
			t.Errorf("%s: %v", path, err)
		}
		ids, cells := map[uint32]string{}, map[[2]uint32]string{}
		for _, p := range d.Panels {
			if p.RowPanel != nil {
				if other := ids[p.RowPanel.Id]; other != "" || p.RowPanel.Id == 0 {
					t.Errorf("%s: the row %q and %q have the id %d", path, *p.RowPanel.Title, other, p.RowPanel.Id)
				}
				ids[p.RowPanel.Id] = *p.RowPanel.Title
				continue
			}
			title, at := *p.Panel.Title, p.Panel.GridPos
			if other := ids[*p.Panel.Id]; other != "" {
				t.Errorf("%s: %q and %q have the id %d", path, title, other, *p.Panel.Id)
			}
			ids[*p.Panel.Id] = title
			for x := at.X; x < at.X+at.W; x++ {
				for y := at.Y; y < at.Y+at.H; y++ {
					if other := cells[[2]uint32{x, y}]; other != "" || x >= 24 {
						t.Fatalf("%s: %q is at column %d, row %d, as is %q", path, title, x, y, other)
					}
					cells[[2]uint32{x, y}] = title
				}
			}
		}
	}
}

// strict is what Grafana's types say against a dashboard. The SDK returns an empty list for no errors, and does not
// compare the fields of fieldConfig.
func strict(text []byte) (why string) {
	var d Dashboard
	if err := d.UnmarshalJSONStrict(text); err != nil {
		why = err.Error()
	}
	var raw struct {
		Panels []struct {
			Field json.RawMessage `json:"fieldConfig"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(text, &raw); err != nil {
		return err.Error()
	}
	for _, p := range raw.Panels {
		var f dashboard.FieldConfigSource
		if err := f.UnmarshalJSONStrict(p.Field); err != nil {
			why += err.Error()
		}
	}
	return why
}

// Every expression is PromQL.
func TestExpressions(t *testing.T) {
	all, err := Queries()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Errorf("only %d expressions", len(all))
	}
	for _, expr := range all {
		if _, err := parser.NewParser(parser.Options{}).ParseExpr(expr); err != nil {
			t.Errorf("%s: %v", strings.Join(strings.Fields(expr), " "), err)
		}
	}
}
