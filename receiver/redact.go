package receiver

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/receiver/document"
	"github.com/penstock/penstock/receiver/tenant"
)

// redaction is a project's rules to drop and hash, with a counter for each rule.
type redaction struct {
	*document.Redaction
	applied []prometheus.Counter
}

// newRedaction is nil if nothing is dropped or hashed.
func newRedaction(p *tenant.Project, m *metrics) (*redaction, error) {
	var rules []document.Rule
	d := &redaction{}
	project := m.of(p.Name)
	for _, path := range p.Drop {
		rules = append(rules, document.Rule{Path: path})
		d.applied = append(d.applied, m.redacted.WithLabelValues(project, path, "drop"))
	}
	for _, path := range p.Hash {
		rules = append(rules, document.Rule{Path: path, Hash: true})
		d.applied = append(d.applied, m.redacted.WithLabelValues(project, path, "hash"))
	}
	var err error
	if d.Redaction, err = document.NewRedaction(rules, p.Salt); err != nil || d.Redaction == nil {
		return nil, err
	}
	return d, nil
}
