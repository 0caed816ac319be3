package operate

import (
	"bufio"
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/retry"
)

// handleOperations serves all operations below /v1/, for who has the token.
func handleOperations(mux *http.ServeMux, o *Operator, token func() string) {
	for _, op := range Operations() {
		mux.HandleFunc(op.method+" "+op.path,
			guard(token, func(w http.ResponseWriter, r *http.Request) { op.serve(w, r, o) }))
	}
	mux.HandleFunc("GET /v1/blobs/{key...}", guard(token, o.serveBlob))
	mux.HandleFunc("GET /v1/openapi.json", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, openAPI()) })
}

// guard lets through who has the admin token.
func guard(secret func() string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") {
			given = ""
		}
		token := secret()
		switch {
		case token == "":
			WriteError(w, http.StatusForbidden, "the operators' API is off: set admin.token or admin.token_file")
		case subtle.ConstantTimeCompare([]byte(given), []byte(token)) != 1:
			w.Header().Set("WWW-Authenticate", `Bearer realm="penstock admin"`)
			WriteError(w, http.StatusUnauthorized, "send the admin token as Authorization: Bearer TOKEN")
		default:
			h(w, r)
		}
	}
}

// WriteError answers with an error as JSON.
func WriteError(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(line{Error: message})
}

// serve answers with a line an item. What fails before the first line has a
// status of its own; later the last line says how it ended.
func (op Operation) serve(w http.ResponseWriter, r *http.Request, o *Operator) {
	var params any
	var err error
	if op.method == http.MethodGet {
		params, err = op.fromQuery(r.URL.Query())
	} else {
		params, err = op.fromJSON(http.MaxBytesReader(w, r.Body, 256<<20))
	}
	if err != nil {
		WriteError(w, http.StatusBadRequest, err.Error())
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
	err = op.run(r.Context(), o, params, sink{
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
