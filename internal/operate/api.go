package operate

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/pprof"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/penstock/penstock/internal/version"
)

// API is what a role's admin listener serves.
type API struct {
	Operator *Operator
	Metrics  prometheus.Gatherer
	Ready    func() error      // why the role is not ready; nil: it is
	Status   func() RoleStatus // of the role, now
	Access   *Access           // who may use operations
	Console  http.Handler      // of pages below /console/; nil: there are none
	Hosts    []string          // by which the listener is known; "*": any
}

// Handler serves the API to everybody but pages of other sites.
func (a API) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", a.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.Metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, version.Current()) })
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, a.Status()) })
	// A profile costs CPU: for operators.
	mux.HandleFunc("GET /debug/pprof/", a.Access.guard(profile(pprof.Index)))
	mux.HandleFunc("GET /debug/pprof/profile", a.Access.guard(profile(pprof.Profile)))
	handleOperations(mux, a.Operator, a.Access)
	if a.Console != nil {
		mux.Handle("/console/", a.Console)
		mux.Handle("GET /{$}", http.RedirectHandler("/console/", http.StatusFound))
	}
	return checkOrigin(mux, a.Hosts)
}

// profile lets operators through.
func profile(h http.HandlerFunc) func(http.ResponseWriter, *http.Request, Identity) {
	return func(w http.ResponseWriter, r *http.Request, id Identity) {
		if id.Role != RoleOperator {
			WriteError(w, http.StatusForbidden, "a profile needs a token with the role operator")
			return
		}
		h(w, r)
	}
}

// readyz says ok, and then what the operator should look at.
func (a API) readyz(w http.ResponseWriter, _ *http.Request) {
	if err := a.Ready(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
	for _, warning := range a.Status().Warnings() {
		fmt.Fprintln(w, warning)
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}
