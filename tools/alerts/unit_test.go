package alerts

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"go.yaml.in/yaml/v3"
)

const (
	rulesFile = "../../infra/prometheus/penstock.rules.yaml"
	testFile  = "../../infra/prometheus/penstock_test.yaml"
	runbook   = "../../docs/operate/runbook.md"
)

// unitTests is the file that promtool reads, as far as it is used.
type unitTests struct {
	Interval model.Duration `yaml:"evaluation_interval"`
	Tests    []struct {
		Name     string         `yaml:"name"`
		Interval model.Duration `yaml:"interval"`
		Series   []struct {
			Series string `yaml:"series"`
			Values string `yaml:"values"`
		} `yaml:"input_series"`
		Alerts []struct {
			At    model.Duration `yaml:"eval_time"`
			Alert string         `yaml:"alertname"`
			Want  []struct {
				Labels      map[string]string `yaml:"exp_labels"`
				Annotations map[string]string `yaml:"exp_annotations"`
			} `yaml:"exp_alerts"`
		} `yaml:"alert_rule_test"`
		Expressions []struct {
			Expr string         `yaml:"expr"`
			At   model.Duration `yaml:"eval_time"`
			Want []struct {
				Labels string  `yaml:"labels"`
				Value  float64 `yaml:"value"`
			} `yaml:"exp_samples"`
		} `yaml:"promql_expr_test"`
	} `yaml:"tests"`
}

// The rules do what infra/prometheus/penstock_test.yaml says. promtool reads the same file.
func TestRules(t *testing.T) {
	text, err := os.ReadFile(testFile)
	if err != nil {
		t.Fatal(err)
	}
	var file unitTests
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, test := range file.Tests {
		t.Run(test.Name, func(t *testing.T) {
			load := fmt.Sprintf("load %s\n", test.Interval)
			for _, s := range test.Series {
				load += "  " + s.Series + " " + s.Values + "\n"
			}
			lazy, err := promqltest.NewLazyLoader(load, promqltest.LazyLoaderOpts{
				EnableAtModifier: true, EnableNegativeOffset: true, Parser: parser.NewParser(parser.Options{})})
			if err != nil {
				t.Fatal(err)
			}
			defer lazy.Close()
			engine, err := NewEngine(lazy.QueryEngine(), lazy.Storage(), rulesFile)
			if err != nil {
				t.Fatal(err)
			}
			var last time.Duration
			for _, a := range test.Alerts {
				last = max(last, time.Duration(a.At))
			}
			start := time.Unix(0, 0).UTC()
			for at := time.Duration(0); at <= last; at += time.Duration(file.Interval) {
				lazy.WithSamplesTill(start.Add(at), func(loading error) { err = loading })
				if err == nil {
					err = engine.Eval(lazy.Context(), start.Add(at))
				}
				if err != nil {
					t.Fatal(err)
				}
				for _, x := range test.Expressions {
					if time.Duration(x.At) != at {
						continue
					}
					want := map[string]float64{}
					for _, w := range x.Want {
						ls, err := parser.NewParser(parser.Options{}).ParseMetric(w.Labels)
						if err != nil {
							t.Fatal(err)
						}
						want[ls.String()] = w.Value
					}
					samples, err := engine.query(lazy.Context(), x.Expr, start.Add(at))
					got := map[string]float64{}
					for _, s := range samples {
						got[s.Metric.String()] = s.F
					}
					if diff := cmp.Diff(want, got); diff != "" || err != nil {
						t.Errorf("%s at %s: %v (-want +got):\n%s", x.Expr, x.At, err, diff)
					}
				}
				for _, a := range test.Alerts {
					if time.Duration(a.At) != at {
						continue
					}
					var want, got []map[string]string
					for _, w := range a.Want {
						want = append(want, merged(labels.FromMap(w.Labels), labels.FromMap(w.Annotations)))
					}
					for _, f := range engine.Firing()[a.Alert] {
						got = append(got, merged(labels.NewBuilder(f.Labels).Del(labels.AlertName).Labels(), f.Annotations))
					}
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("%s at %s (-want +got):\n%s", a.Alert, a.At, diff)
					}
				}
			}
		})
	}
}

func merged(all ...labels.Labels) map[string]string {
	m := map[string]string{}
	for _, ls := range all {
		ls.Range(func(l labels.Label) { m[l.Name] = l.Value })
	}
	return m
}

// Each alert has a section in the runbook, and tests that see it fire.
func TestEachAlertIsExplainedAndTested(t *testing.T) {
	groups, errs := rulefmt.ParseFile(rulesFile, false, model.UTF8Validation, parser.NewParser(parser.Options{}), nil)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	text, err := os.ReadFile(runbook)
	if err != nil {
		t.Fatal(err)
	}
	var anchors []string
	for line := range strings.Lines(string(text)) {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			anchors = append(anchors, strings.ReplaceAll(strings.ToLower(strings.TrimSpace(title)), " ", "-"))
		}
	}
	tests, err := os.ReadFile(testFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" {
				continue
			}
			page, anchor, _ := strings.Cut(r.Annotations["runbook_url"], "#")
			if !strings.HasSuffix(page, "/docs/operate/runbook.md") || !slices.Contains(anchors, anchor) {
				t.Errorf("%s: runbook_url %q is no section of %s", r.Alert, r.Annotations["runbook_url"], filepath.Clean(runbook))
			}
			if !strings.Contains(string(text), r.Alert) {
				t.Errorf("%s is not in the runbook", r.Alert)
			}
			if !strings.Contains(string(tests), "alertname: "+r.Alert+"\n        exp_alerts:") {
				t.Errorf("%s fires in no test of %s", r.Alert, filepath.Clean(testFile))
			}
			if outages[r.Alert] == nil {
				t.Errorf("%s has no outage in TestOutages", r.Alert)
			}
		}
	}
}
