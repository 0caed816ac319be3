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

// API is served by a role's admin listener.
type API struct {
	Operator *Operator
	Metrics  prometheus.Gatherer
	Ready    func() error      // why the role is not ready; nil: ready
	Status   func() RoleStatus // current status of the role
	Access   *Access           // tokens for operations
	Console  http.Handler      // pages below /console/; nil: none
	Hosts    []string          // names of the listener; "*": any
}

// Handler serves the API, but not to pages of other sites.
func (a API) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", a.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.Metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, version.Current()) })
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, a.Status()) })
	// A profile costs CPU, so it is for operators.
	mux.HandleFunc("GET /debug/pprof/", a.Access.guard(profile(pprof.Index)))
	mux.HandleFunc("GET /debug/pprof/profile", a.Access.guard(profile(pprof.Profile)))
	handleOperations(mux, a.Operator, a.Access)
	if a.Console != nil {
		mux.Handle("/console/", a.Console)
		mux.Handle("GET /{$}", http.RedirectHandler("/console/", http.StatusFound))
	}
	return checkOrigin(mux, a.Hosts)
}

// profile admits only operators.
func profile(h http.HandlerFunc) func(http.ResponseWriter, *http.Request, Identity) {
	return func(w http.ResponseWriter, r *http.Request, id Identity) {
		if id.Role != RoleOperator {
			WriteError(w, http.StatusForbidden, "a profile needs a token with the role operator")
			return
		}
		h(w, r)
	}
}

// readyz answers ok, followed by warnings.
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
