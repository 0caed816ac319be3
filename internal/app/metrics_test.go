package app

import (
	"cmp"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/loader"
)

var update = flag.Bool("update", false, "write docs/reference/metrics.md")

const metricsPage = "../../docs/reference/metrics.md"

// metric is one row of the page.
type metric struct {
	name, kind, help string
	labels           []string
	roles            []string
}

// The page of metrics lists what the roles register, and nothing else.
func TestMetricsPage(t *testing.T) {
	cfg := config.Default()
	cfg.Batcher.Dir, cfg.Loader.Dir = t.TempDir(), t.TempDir()
	cfg.Receiver.Projects = filepath.Join(t.TempDir(), "projects.yaml")
	key := "projects: {game: {keys: [{name: first, sha256: " + strings.Repeat("ab", 32) + "}]}}"
	if err := os.WriteFile(cfg.Receiver.Projects, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	receive, err := NewReceive(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	load, err := NewLoad(cfg, loader.NewIsolation(nil), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*metric{}
	describe(t, all, "receive", receive.reg)
	describe(t, all, "load", load.reg)
	page := metricsText(all)
	if *update {
		if err := os.WriteFile(metricsPage, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(metricsPage)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(page, string(got)); diff != "" {
		t.Errorf("docs/reference/metrics.md is out of date (-code +page); run go test ./internal/app -run MetricsPage -update\n%s",
			diff)
	}
}

var descPattern = regexp.MustCompile(
	`fqName: "(\w+)", help: "(.*)", unit: "\w*", constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}`)

var constLabel = regexp.MustCompile(`(\w+)="`)

// describe adds what a role's registry has.
func describe(t *testing.T, all map[string]*metric, role string, reg *prometheus.Registry) {
	t.Helper()
	kinds := map[string]string{}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		kinds[f.GetName()] = strings.ToLower(dto.MetricType_name[int32(f.GetType())])
	}
	descs := make(chan *prometheus.Desc, 1024)
	reg.Describe(descs)
	close(descs)
	for d := range descs {
		found := descPattern.FindStringSubmatch(d.String())
		if found == nil {
			t.Fatalf("a description of another form: %s", d)
		}
		name := found[1]
		if !strings.HasPrefix(name, "penstock_") {
			continue
		}
		m := all[name]
		if m == nil {
			m = &metric{name: name, help: strings.ReplaceAll(found[2], `\"`, `"`), kind: kinds[name]}
			for _, label := range constLabel.FindAllStringSubmatch(found[3], -1) {
				m.labels = append(m.labels, label[1])
			}
			if found[4] != "" {
				m.labels = append(m.labels, strings.Split(found[4], ",")...)
			}
			all[name] = m
		}
		if m.kind == "" {
			m.kind = kindOf(name)
		}
		if !slices.Contains(m.roles, role) {
			m.roles = append(m.roles, role)
		}
	}
}

// kindOf is for metrics without a series yet, whose type the registry does not say.
func kindOf(name string) string {
	switch {
	case strings.HasSuffix(name, "_total"):
		return "counter"
	case strings.HasSuffix(name, "_duration_seconds"):
		return "histogram"
	}
	return "gauge"
}

func metricsText(all map[string]*metric) string {
	var b strings.Builder
	b.WriteString(`# Metrics

<!-- Written by go test ./internal/app -run MetricsPage -update. Do not edit. -->

` + "`GET /metrics`" + ` on each admin listener returns these metrics in Prometheus' text format. Metrics of Go and of the
process follow.

| metric | type | labels | role | meaning |
|---|---|---|---|---|
`)
	sorted := make([]*metric, 0, len(all))
	for _, m := range all {
		sorted = append(sorted, m)
	}
	slices.SortFunc(sorted, func(a, b *metric) int { return cmp.Compare(a.name, b.name) })
	for _, m := range sorted {
		labels := ""
		if len(m.labels) > 0 {
			labels = "`" + strings.Join(m.labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", m.name, m.kind, labels, strings.Join(m.roles, ", "),
			strings.ReplaceAll(m.help, "|", `\|`))
	}
	return b.String()
}
