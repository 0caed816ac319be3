package dashboards

import (
	"slices"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
)

// Queries are all expressions of all dashboards, with values in the place of Grafana's variables.
func Queries() ([]string, error) {
	all, err := All()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, d := range all {
		for _, p := range d.Panels {
			if p.Panel == nil {
				continue
			}
			for _, target := range p.Panel.Targets {
				if q, ok := target.(*prometheus.Dataquery); ok {
					found = append(found, q.Expr)
				} else if q, ok := target.(prometheus.Dataquery); ok {
					found = append(found, q.Expr)
				}
			}
		}
	}
	values := strings.NewReplacer("$__rate_interval", "1m", "$project", "game")
	for i := range found {
		found[i] = values.Replace(found[i])
	}
	slices.Sort(found)
	return found, nil
}
