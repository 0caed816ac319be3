// Package cloudflaretest stands in for Cloudflare's API in tests: Queues with HTTP pull consumers, and the event
// notification rules of R2 buckets. It follows the public description of the API. It was not compared with Cloudflare.
//
// An API is an http.Handler. Its paths begin with /accounts, as behind https://api.cloudflare.com/client/v4.
package cloudflaretest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limits of Cloudflare Queues.
const (
	MaxBatch    = 100              // messages of one pull, and of one ack
	MaxLease    = 12 * time.Hour   // visibility_timeout_ms
	MaxDelay    = 24 * time.Hour   // delay_seconds
	MaxRetries  = 100              // max_retries
	MaxMessage  = 128_000          // bytes
	DefaultPull = 5                // messages, if a pull does not say
	DefaultHide = 30 * time.Second // lease, if neither pull nor consumer says
)

// API is one account.
type API struct {
	account, token string
	routes         *http.ServeMux

	mu      sync.Mutex
	queues  []*queue
	rules   map[string][]*rule // by bucket
	buckets map[string]bool    // nil: every bucket exists
	ids     int                // given so far
	usage   Usage
	limited int           // requests still to be answered by 429
	wait    time.Duration // Retry-After of those
	down    bool          // connections are closed
}

// Usage counts what Cloudflare charges for, and calls.
type Usage struct {
	Writes, Reads, Deletes int // operations; a pull that returns nothing is one read
	Pulls, Acks, Others    int // calls
}

// New makes an account with one API token. buckets are the R2 buckets that exist. None: all do.
func New(account, token string, buckets ...string) *API {
	a := &API{account: account, token: token, rules: map[string][]*rule{}, routes: http.NewServeMux()}
	if len(buckets) > 0 {
		a.buckets = map[string]bool{}
	}
	for _, b := range buckets {
		a.buckets[b] = true
	}
	for pattern, serve := range map[string]func(*http.Request) (any, error){
		"GET /queues":                                                       a.listQueues,
		"POST /queues":                                                      a.createQueue,
		"GET /queues/{queue}":                                               a.getQueue,
		"GET /queues/{queue}/metrics":                                       a.metrics,
		"GET /queues/{queue}/consumers":                                     a.listConsumers,
		"POST /queues/{queue}/consumers":                                    a.createConsumer,
		"PUT /queues/{queue}/consumers/{consumer}":                          a.updateConsumer,
		"POST /queues/{queue}/messages":                                     a.push,
		"POST /queues/{queue}/messages/pull":                                a.pull,
		"POST /queues/{queue}/messages/ack":                                 a.ack,
		"GET /event_notifications/r2/{bucket}/configuration":                a.listRules,
		"PUT /event_notifications/r2/{bucket}/configuration/queues/{queue}": a.createRules,
	} {
		method, path, _ := strings.Cut(pattern, " ")
		a.routes.HandleFunc(method+" /accounts/{account}"+path, func(w http.ResponseWriter, r *http.Request) {
			a.answer(w, r, serve)
		})
	}
	a.routes.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fail(w, &apiError{http.StatusNotFound, 7003, "No route for the URI"})
	})
	return a
}

// apiError is an entry of an answer's "errors".
type apiError struct {
	status, code int
	message      string
}

func (e *apiError) Error() string { return e.message }

// Errors of which the description gives the code.
var (
	errToken    = &apiError{http.StatusForbidden, 10000, "Authentication error"}
	errQueue    = &apiError{http.StatusNotFound, 11000, "workers.api.error.queue_not_found"}
	errConsumer = &apiError{http.StatusBadRequest, 11004, "workers.api.error.consumer_exists"}
	errTaken    = &apiError{http.StatusConflict, 11009, "workers.api.error.queue_name_taken"}
	errBucket   = &apiError{http.StatusNotFound, 10006, "The specified bucket does not exist."}
	errBody     = &apiError{http.StatusBadRequest, 10207, "Request JSON body does not match expected schema"}
	errMalform  = &apiError{http.StatusBadRequest, 10208, "Request body is not valid JSON"}
	errDelay    = &apiError{http.StatusBadRequest, 10203, "Invalid message metadata"}
	errSize     = &apiError{http.StatusBadRequest, 10204, "Message size out of bounds"}
	errBatch    = &apiError{http.StatusBadRequest, 10206, "Batch count out of bounds"}
	errThrottle = &apiError{http.StatusTooManyRequests, 10250, "Queue is overloaded"}

	// Their codes are not in the description.
	errPull = &apiError{http.StatusMethodNotAllowed, 10405, "HTTP pull is not enabled for this queue"}
	errRule = &apiError{http.StatusConflict, 11020, "workers.api.error.event_notification_rule_conflict"}
)

// ServeHTTP serves the API.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.routes.ServeHTTP(w, r) }

func (a *API) answer(w http.ResponseWriter, r *http.Request, serve func(*http.Request) (any, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.down {
		panic(http.ErrAbortHandler) // the client sees a closed connection
	}
	if r.Header.Get("Authorization") != "Bearer "+a.token || r.PathValue("account") != a.account {
		fail(w, errToken)
		return
	}
	if a.limited > 0 {
		a.limited--
		w.Header().Set("Retry-After", strconv.Itoa(int(a.wait.Seconds())))
		fail(w, errThrottle)
		return
	}
	result, err := serve(r)
	if err != nil {
		fail(w, err)
		return
	}
	write(w, http.StatusOK, map[string]any{"success": true, "errors": []any{}, "messages": []any{}, "result": result})
}

func fail(w http.ResponseWriter, err error) {
	e, known := errors.AsType[*apiError](err)
	if !known {
		e = &apiError{http.StatusInternalServerError, 15000, err.Error()}
	}
	write(w, e.status, map[string]any{"success": false, "messages": []any{}, "result": nil,
		"errors": []any{map[string]any{"code": e.code, "message": e.message}}})
}

func write(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}

func read(r *http.Request, into any) error {
	d := json.NewDecoder(r.Body)
	var raw json.RawMessage
	if err := d.Decode(&raw); err != nil {
		return errMalform
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return errBody
	}
	return nil
}

// id makes an identifier of 32 digits, as Cloudflare's.
func (a *API) id() string {
	a.ids++
	return fmt.Sprintf("%032x", a.ids)
}

// Throttle answers the next n requests by 429, with Retry-After.
func (a *API) Throttle(n int, wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.limited, a.wait = n, wait
}

// SetDown makes the API close every connection, or serve again.
func (a *API) SetDown(down bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.down = down
}

// SetToken replaces the one token that is valid.
func (a *API) SetToken(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.token = token
}

// Usage returns what was counted so far.
func (a *API) Usage() Usage {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.usage
}
