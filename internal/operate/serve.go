package operate

import (
	"bufio"
	"encoding/json"
	"net/http"
	"time"

	"github.com/penstock/penstock/internal/retry"
)

// handleOperations serves all operations below /v1/ to holders of a token.
func handleOperations(mux *http.ServeMux, o *Operator, access *Access) {
	for _, op := range Operations() {
		mux.HandleFunc(op.method+" "+op.path,
			access.guard(func(w http.ResponseWriter, r *http.Request, id Identity) {
				op.serve(w, r, o, id)
			}))
	}
	mux.HandleFunc("GET /v1/blobs/{key...}",
		access.guard(func(w http.ResponseWriter, r *http.Request, _ Identity) { o.serveBlob(w, r) }))
	mux.HandleFunc("GET /v1/openapi.json", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, openAPI()) })
}

// WriteError answers with an error as JSON.
func WriteError(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(line{Error: message})
}

// Limits of a request's parameters, in bytes. An operator's have edited payloads.
const (
	maxParams       = 256 << 20
	maxViewerParams = 1 << 20
)

// read reads the parameters of a request. An error has been answered.
func (op Operation) read(w http.ResponseWriter, r *http.Request, o *Operator, id Identity) (params any, err error) {
	if err := op.Permit(r.Context(), o, id, nil); err != nil {
		writeDenied(w, err)
		return nil, err
	}
	switch {
	case op.method == http.MethodGet:
		params, err = op.fromQuery(r.URL.Query())
	case id.Role == RoleOperator:
		params, err = op.fromJSON(http.MaxBytesReader(w, r.Body, maxParams))
	default:
		params, err = op.fromJSON(http.MaxBytesReader(w, r.Body, maxViewerParams))
	}
	if err != nil {
		WriteError(w, http.StatusBadRequest, err.Error())
		return nil, err
	}
	if err := op.Permit(r.Context(), o, id, params); err != nil {
		writeDenied(w, err)
		return nil, err
	}
	return params, nil
}

// serve answers with a line for each item. If the operation fails before the first line, the status says so; after it,
// the last line does.
func (op Operation) serve(w http.ResponseWriter, r *http.Request, o *Operator, id Identity) {
	params, err := op.read(w, r, o, id)
	if err != nil {
		return
	}
	begun := false
	out := bufio.NewWriterSize(w, 64<<10)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	flushed := time.Now()
	write := func(l line, now bool) error {
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "application/x-ndjson")
		}
		if err := enc.Encode(l); err != nil {
			return err
		}
		if now || time.Since(flushed) > 200*time.Millisecond {
			flushed = time.Now()
			if err := out.Flush(); err != nil {
				return err
			}
			return http.NewResponseController(w).Flush()
		}
		return nil
	}
	err = op.carryOut(r.Context(), o, params, sink{
		item:     func(item any) error { return write(line{Item: item}, false) },
		progress: func(p progress) { write(line{Progress: &p}, true) },
	})
	switch {
	case err == nil:
	case begun:
		write(line{Error: err.Error()}, true)
		return
	case isUsage(err):
		WriteError(w, http.StatusBadRequest, err.Error())
		return
	case retry.ClassOf(err) == retry.Outage:
		WriteError(w, http.StatusServiceUnavailable, err.Error())
		return
	default:
		WriteError(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	write(line{Done: true}, true)
}
