package app

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/tracing"
	"github.com/penstock/penstock/internal/version"
)

// process is what the stages of one process share.
type process struct {
	cfg    config.Config
	store  *objstore.Bucket
	log    *slog.Logger
	reg    prometheus.Registerer
	tracer *tracing.Tracer // nil: nothing is traced
}

func newProcess(cfg config.Config, log *slog.Logger, reg prometheus.Registerer) process {
	return process{cfg: cfg, store: OpenBucket(cfg.Storage), log: log, reg: reg}
}

// trace begins to trace the process if the configuration says so. Its tracer is closed after its stages. A collector
// that cannot be used keeps no process from its work.
func (p *process) trace(role, instance string) {
	t := p.cfg.Tracing
	tracer, err := tracing.New(tracing.Options{Enabled: t.Enabled, Endpoint: t.Endpoint, Service: "penstock-" + role,
		Instance: instance, Version: version.Current().Version, Requests: t.Requests, ClientRequests: t.ClientRequests},
		p.log, p.reg)
	if err != nil {
		p.log.Error("nothing is traced", "error", err)
	}
	p.tracer = tracer
}

// newRegistry has the metrics of Go and of the process.
func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	v := version.Current()
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "penstock_build_info", Help: "1, with the version as labels.",
		ConstLabels: prometheus.Labels{"version": v.Version, "revision": v.Revision, "goversion": v.Go}})
	build.Set(1)
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), build)
	return reg
}
