package posthog_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/receivertest"
)

// A chunk of a recording is stored as the text that was sent, in the row or as a blob.
func TestReplay(t *testing.T) {
	steps := `[{"type":2,"data":{"node":{"attributes":{},"a.b":null,"a":{"b":1}}}, "timestamp":1795630206889},{"type":3,"data":"\u0000\u001f\u008b\"", "timestamp":1795630206890}]`
	for _, c := range []struct {
		body  string
		blobs int
		time  string
	}{
		{`{"event":"$snapshot","uuid":"` + intake.UUID +
			`","timestamp":"2026-11-22T03:45:12.345Z","properties":{"$session_id":"s","distinct_id":"u","$snapshot_data":STEPS,"token":"KEY","$snapshot_bytes":5}}`, 0, "2026-11-22T03:45:12.345Z"},
		{`[{"event":"$snapshot","uuid":"` + intake.UUID +
			`","properties":{"$session_id":"s","distinct_id":"u","$snapshot_data":STEPS,"token":"KEY","$snapshot_bytes":5}}]`, 0,
			"2026-11-25T18:10:06.889Z"},
		{`{"event":"$snapshot","uuid":"` + intake.UUID +
			`","properties":{"$session_id":"s","distinct_id":"u","$snapshot_data":STEPS,"$snapshot_bytes":5}}`, 1,
			"2026-11-25T18:10:06.889Z"},
	} {
		r, s := receivertest.Start(func(o *receiver.Options) {
			if c.blobs > 0 {
				o.BlobThreshold = 40
			}
		})
		code, a := receivertest.Send(r, "/s/?api_key="+key, intake.Gzip(strings.NewReplacer("KEY", key, "STEPS", steps).Replace(c.body)),
			"Content-Type", "text/plain")
		if code != 200 || len(s.Events) != 1 || len(s.Blobs) != c.blobs {
			t.Errorf("%s: got %d %v, %d blobs", c.body, code, a, len(s.Blobs))
			continue
		}
		e := s.Events[0]
		var properties map[string]any
		if err := json.Unmarshal(e.Properties, &properties); err != nil {
			t.Fatal(err)
		}
		text, _ := properties["$snapshot_data"].(string)
		if c.blobs > 0 {
			text = string(s.Blobs[0].Data)
			if b := s.Blobs[0]; b.Kind != pipeline.BlobText || b.ContentType != "application/json" ||
				b.Size != int64(len(steps)) {
				t.Errorf("blob %+v", b.Blob)
			}
		}
		if text != steps || properties["$snapshot_bytes"] != 5.0 || properties["token"] != nil {
			t.Errorf("%s: got %s, steps %s", c.body, e.Properties, text)
		}
		if got := pipeline.Millis(e.Timestamp).Format(pipeline.TimeFormat); string(e.SessionID) != "s" ||
			string(e.UserID) != "u" || e.ID.String() != intake.UUID || got != c.time {
			t.Errorf("%s: got %s %s %s %s", c.body, e.SessionID, e.UserID, e.ID, got)
		}
	}
}

// Only the pages in a recording may be nested deeper than events.
func TestReplayDepth(t *testing.T) {
	page := func(depth int) string { return strings.Repeat(`{"childNodes":[`, depth) + strings.Repeat(`]}`, depth) }
	for _, c := range []struct{ target, properties, codes string }{
		{"/s/", `{"$snapshot_data":[{"type":2,"data":{"node":` + page(400) + `}}]}`, ""},
		{"/s/", `{"$snapshot_data":` + page(1100) + `}`, "0:too_deep"},
		{"/s/", `{"$snapshot_data":[],"other":` + page(100) + `}`, "0:too_deep"},
		{"/e/", `{"other":` + page(100) + `}`, "0:too_deep"},
	} {
		r, s := receivertest.Start(nil)
		w := intake.Do(r, receivertest.WithKey(intake.Post(c.target, `{"event":"$snapshot","properties":`+c.properties+`}`)))
		var a intake.Answer
		json.Unmarshal(w.Body.Bytes(), &a)
		if a.Codes() != c.codes || (w.Code == 200) != (c.codes == "") || len(s.Events)+len(s.Failures) != 1 {
			t.Errorf("%.60s: got %d %s", c.properties, w.Code, w.Body)
		}
	}
}
