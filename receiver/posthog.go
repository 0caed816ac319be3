package receiver

import (
	"bytes"
	"cmp"
	"net/http"
	"slices"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/errcode"
)

// PostHog's capture API: https://posthog.com/docs/api/capture
//
// name is event, user distinct_id, session properties.$session_id, id uuid or
// else properties.$insert_id; properties are its properties, with $set and
// $set_once beside them, and all else is in properties.$envelope.
// /s brings the chunks of session recordings. /batch is Amplitude's as well; see
// batchRoute.
var posthog = []*dialect{
	posthogCapture, posthogRecordings, batchRoute,
	{name: "posthog", paths: []string{"/flags", "/decide"}, methods: getOrPost, reply: posthogFlags},
	{name: "posthog", paths: []string{"/array/{}/config"}, methods: []string{http.MethodGet}, reply: posthogConfig},
	{name: "posthog", paths: []string{"/array/{}/config.js"}, methods: []string{http.MethodGet}, reply: posthogScript,
		contentType: "application/javascript"},
}

var getOrPost = []string{http.MethodGet, http.MethodPost}

var posthogCapture = &dialect{
	name: "posthog", methods: getOrPost,
	paths:   []string{"/capture", "/track", "/e", "/i/v0/e", "/i/v0/ai/batch", "/i/v1/analytics/events"},
	headKey: posthogHeadKey, bodyKey: posthogKey, prepare: posthogPrepare, sniffs: true,
	decode: posthogDecode, event: posthogEvent, nameKey: "event", answer: posthogAnswer,
}

// posthogRecordings is the route of session recordings. A step may hold a whole page,
// whose elements are nested more deeply than an event's values may be. It is kept
// as text, so that nothing of what is stored is nested as deeply.
var posthogRecordings = &dialect{
	name: "posthog", methods: getOrPost, paths: []string{"/s"},
	headKey: posthogHeadKey, bodyKey: posthogKey, prepare: posthogPrepare, sniffs: true,
	nameKey: "event", answer: posthogAnswer,
	decode: func(q *request, body []byte) *errcode.Error {
		q.scan.MaxDepth = max(recordingDepth, q.r.opts.MaxDepth)
		defer func() { q.scan.MaxDepth = q.r.opts.MaxDepth }()
		return posthogDecode(q, body)
	},
	event: func(q *request, members []jsonscan.Member) (pipeline.Event, error) {
		e, err := posthogEvent(q, members)
		if err == nil {
			_, _, err = q.inner.Object(e.Properties)
		}
		return e, err
	},
}

// recordingDepth is how deeply a recording's steps may be nested.
const recordingDepth = 2000

// posthogPrepare has a compression refused that nobody here reads (lz64 of old
// clients), by the head that names encodings. Gzip is found by its bytes.
func posthogPrepare(req *http.Request) {
	queryToBody(req)
	if c := queryValue(req.URL.RawQuery, "compression"); !slices.Contains(compressions, c) {
		req.Header.Set("Content-Encoding", c)
	}
}

func posthogHeadKey(req *http.Request) (key string, given bool) {
	if key, given = keyOf(req); !given {
		if key = queryValue(req.URL.RawQuery, "api_key"); key == "" {
			key = queryValue(req.URL.RawQuery, "token")
		}
	}
	return key, key != ""
}

// posthogKey is that of the body, or else of its first event.
func posthogKey(q *request, body []byte) string {
	body, err := q.unwrapped(body)
	if err != nil {
		return ""
	}
	key, batch := posthogToken(body)
	if key == nil {
		key, _ = posthogToken(batch)
	}
	return cmp.Or(string(plainText(key)), q.formKey)
}

// posthogToken is the key of an object, or of an array's first, and its batch.
func posthogToken(body []byte) (key, batch []byte) {
	if len(body) > 0 && body[0] == '[' {
		body = jsonscan.TrimSpace(body[1:])
		body = body[:extent(body)]
	}
	eachMember(body, func(name, value []byte) {
		switch string(name) {
		case "api_key", "token":
			key = value
		case "properties":
			if key == nil {
				key = dig(value, "token")
			}
		case "batch":
			batch = value
		}
	})
	return key, batch
}

// posthogDecode takes {batch: [event, …]}, an array of events, or one.
func posthogDecode(q *request, body []byte) *errcode.Error {
	body, err := q.unwrapped(body)
	if err != nil {
		return err
	}
	if batch, _ := find(body, "batch"); len(batch) > 0 && batch[0] != 'n' {
		return q.decodeMember(body, "batch")
	}
	return q.decode(body)
}

func posthogEvent(q *request, members []jsonscan.Member) (pipeline.Event, error) {
	d := &posthogDraft{draft: q.draft()}
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "event":
			d.name = d.text(m, maxName)
		case "distinct_id":
			d.own = d.text(m, maxID)
		case "session_id":
			d.session = d.text(m, maxID)
		case "uuid":
			d.id = d.text(m, maxID)
		case "timestamp":
			d.setTime(m)
		case "library":
			d.sdk = plainText(m.Value)
		case "library_version":
			d.version = plainText(m.Value)
		case "properties":
			d.facts(m)
		}
	}
	d.finish()
	for i := range members { // as the product has them, beside the properties
		if m := &members[i]; d.moves(m) {
			q.property(m)
		}
	}
	for i := range members {
		switch m := &members[i]; string(m.Key) {
		case "event", "distinct_id", "session_id", "timestamp", "properties", "library", "library_version", "api_key", "token", "sent_at":
		case "uuid":
			if d.named {
				d.keepID(m)
			} else {
				d.keep(m)
			}
		default:
			if !d.moves(m) {
				d.keep(m)
			}
		}
	}
	return d.event()
}

// posthogDraft is what an event's properties say of it.
type posthogDraft struct {
	*draft
	own      []byte // distinct_id beside the properties, which goes before the one in them
	insert   []byte // $insert_id
	named    bool   // the id is uuid's
	clock    []byte // $time, the client's, in seconds
	snapshot []byte // $snapshot_data
	set      [2]bool
}

// posthogMoved are members of an event that the product keeps in its properties.
var posthogMoved = [...]string{"$set", "$set_once"}

func (d *posthogDraft) moves(m *jsonscan.Member) bool {
	at := slices.Index(posthogMoved[:], string(m.Key))
	return at >= 0 && !d.set[at] && m.Kind != jsonscan.Null
}

// facts makes an event's properties, without the key that clients put there.
func (d *posthogDraft) facts(m *jsonscan.Member) {
	var key bool
	eachMember(m.Value, func(name, value []byte) {
		switch string(name) {
		case "distinct_id":
			d.user = d.text(asMember("distinct_id", value), maxID)
		case "$session_id":
			d.session = d.text(asMember("$session_id", value), maxID)
		case "$insert_id":
			d.insert = plainText(value)
		case "$time":
			d.clock = value
		case "$lib":
			d.sdk = plainText(value)
		case "$lib_version":
			d.version = plainText(value)
		case "token", "api_key":
			key = key || d.q.isKey(plainText(value))
		case "$snapshot_data":
			d.snapshot = value
		case posthogMoved[0]:
			d.set[0] = true
		case posthogMoved[1]:
			d.set[1] = true
		}
	})
	if !key && !isRecording(d.snapshot) {
		d.spread(m)
		return
	}
	eachMember(m.Value, func(name, value []byte) {
		switch string(name) {
		case "token", "api_key":
			if d.q.isKey(plainText(value)) {
				return
			}
		case "$snapshot_data":
			if isRecording(value) {
				d.q.jsonText(name, value)
				return
			}
		}
		d.q.property(&jsonscan.Member{Key: name, Value: value})
	})
}

// isRecording tells steps of a recording that do not come as text already.
func isRecording(value []byte) bool { return len(value) > 0 && (value[0] == '[' || value[0] == '{') }

// finish settles what more than one member may say.
func (d *posthogDraft) finish() {
	if len(d.own) > 0 {
		d.user = d.own
	}
	if d.named = len(d.id) > 0; !d.named && len(d.insert) <= maxID {
		d.id = d.insert
	}
	if d.time != pipeline.NoTime {
		return
	}
	// Clients that send an event's age (offset) in place of its time also send the
	// time by their clock. Unlike the age, it is the same in each resend.
	clock := d.clock
	if clock == nil && isRecording(d.snapshot) {
		clock = dig(firstElement(d.snapshot), "timestamp")
	}
	if t, err := parseTime(asMember("timestamp", clock)); err == nil {
		d.time = t
	}
}

// firstElement is an array's, and what is no array itself.
func firstElement(value []byte) []byte {
	if value[0] != '[' {
		return value
	}
	value = jsonscan.TrimSpace(value[1:])
	return value[:extent(value)]
}

// isKey tells whether a text is a key: in a row it would be a secret that is given
// away. PostHog's own are known by their prefix.
func (q *request) isKey(text []byte) bool {
	if len(text) == 0 || bytes.Equal(text, q.keyText) {
		return len(text) > 0
	}
	if !q.r.tenants.Known(view(text)) && !bytes.HasPrefix(text, []byte("phc_")) {
		return false
	}
	q.keyText = text
	return true
}

// posthogReplay is where clients send recordings of sessions, if they shall.
func posthogReplay(r *Receiver) string {
	if r.opts.SessionReplay {
		return `{"endpoint":"/s/"}`
	}
	return "false"
}

// posthogFlags says that there are no feature flags, in the words of all
// versions of the question.
func posthogFlags(r *Receiver, _ *http.Request) (int, []byte) {
	return http.StatusOK, []byte(`{"flags":{},"featureFlags":{},"featureFlagPayloads":{},` +
		`"errorsWhileComputingFlags":false,"config":{},"supportedCompression":["gzip","gzip-js"],"sessionRecording":` + posthogReplay(r) +
		`,"surveys":false,"toolbarParams":{},"siteApps":[]}` + "\n")
}

// posthogConfig is what posthog-js asks for first: what the project has switched on.
// As with gameanalyticsInit, nobody's key is judged here: events that are sent with
// a wrong one are refused, and kept. Surveys are not named: at a plain "false" the
// client still loads their script, which is not here.
func posthogConfig(r *Receiver, req *http.Request) (int, []byte) {
	b := appendText([]byte(`{"token":`), pathPart(req.URL.Path, 2))
	return http.StatusOK, append(b, `,"sessionRecording":`+posthogReplay(r)+posthogDefaults+"\n"...)
}

const posthogDefaults = `,"supportedCompression":["gzip","gzip-js"],"analytics":{"endpoint":"/i/v0/e/"},` +
	`"elementsChainAsString":true,"autocapture_opt_out":false,"autocaptureExceptions":false,` +
	`"capturePerformance":false,"captureDeadClicks":false,"heatmaps":false,"productTours":false,` +
	`"conversations":false,"logs":{"captureConsoleLogs":false},"defaultIdentifiedOnly":true,` +
	`"isAuthenticated":false,"toolbarParams":{},"siteApps":[]}`

// posthogScript is the same as a script.
func posthogScript(r *Receiver, req *http.Request) (int, []byte) {
	_, config := posthogConfig(r, req)
	const all = "window._POSTHOG_REMOTE_CONFIG"
	b := []byte("(function(){" + all + "=" + all + "||{};" + all + "[")
	b = appendText(b, pathPart(req.URL.Path, 2))
	b = append(b, "]={siteApps:[],config:"...)
	return http.StatusOK, append(append(b, bytes.TrimSpace(config)...), "}})();\n"...)
}

// posthogAnswer is what PostHog says of a good request. Its clients look at the
// status: they send again on 5xx, posthog-node in halves on 413, and they drop a
// batch on any other 4xx. Only some send again on 408 and 429, so these are 503.
func posthogAnswer(_ *request, _ *errcode.Error, status int, b []byte) (int, []byte) {
	switch status {
	case http.StatusAccepted:
		status = http.StatusOK
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		status = http.StatusServiceUnavailable
	}
	if status == http.StatusOK {
		b = append([]byte(`{"status":1,`), b[1:]...)
	} else {
		b = append([]byte(`{"status":0,`), b[1:]...)
	}
	return status, b
}
