package codec

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/penstock/penstock/internal/pipeline"
)

var update = flag.Bool("update", false, "write the golden objects anew; only where their layout was never released")

// goldenEvent is an event of schema1.json.
type goldenEvent struct {
	ID, Project, Name, SessionID, UserID string
	Timestamp                            *int64 // null: pipeline.NoTime
	ReceivedAt                           int64
	Receiver                             string
	Seq                                  uint64
	Row                                  uint32
	Properties, Context                  string
}

func golden(e *pipeline.Event) goldenEvent {
	g := goldenEvent{
		ID: e.ID.String(), Project: string(e.Project), Name: string(e.Name), SessionID: string(e.SessionID),
		UserID:     string(e.UserID),
		ReceivedAt: e.ReceivedAt, Receiver: string(e.Receiver), Seq: e.Seq, Row: e.Row, Properties: string(e.Properties),
		Context: string(e.Context),
	}
	if e.Timestamp != pipeline.NoTime {
		g.Timestamp = &e.Timestamp
	}
	return g
}

// goldenEvents are the events of the golden objects.
func goldenEvents() []pipeline.Event {
	props := []string{
		`{}`, `{"level":3,"score":1.50,"premium":true,"gone":null}`, `{"nested":{"a":[1,{"b":[]},"c"],"d":{}}}`,
		`{"text":"日本語 😀 \u00e9\"\\\n"}`,
		`{"big":9223372036854775807,"bigger":18446744073709551615,"small":-9223372036854775808,"float":1e-300}`,
		`{"":"empty key","a.b":1,"ключ":"значение"}`,
	}
	var events []pipeline.Event
	for i := range 20 {
		e := pipeline.Event{
			ID: pipeline.UUID{0: 0x01, 5: byte(i), 6: 0x70, 8: 0x80, 15: byte(i)}, Project: []byte("game"),
			Name:      fmt.Appendf(nil, "event_%d", i%4),
			SessionID: fmt.Appendf(nil, "s-%d", i/5), UserID: fmt.Appendf(nil, "player_%d", i%3),
			Timestamp: 1795319112345 - int64(i)*1001, ReceivedAt: 1795319112345 + int64(i), Seq: 1795319112345000 + uint64(i),
			Properties: []byte(props[i%len(props)]),
			Context:    fmt.Appendf(nil, `{"ip":"203.0.113.%d","user_agent":"x/1.0 (é)"}`, i),
		}
		events = append(events, e)
	}
	events[1].Timestamp = pipeline.NoTime
	events[2].SessionID, events[2].UserID, events[2].Context = nil, nil, []byte("{}")
	events[3].Name, events[3].UserID = []byte("naïve \"quoted\" \\ 😀\n\t"), []byte("пользователь")
	events[4].Project, events[4].Timestamp = nil, 0
	events[5].Timestamp, events[5].ReceivedAt, events[5].Seq = -2208988800000, 0, 1<<63
	events[6].Timestamp, events[6].Seq, events[6].ID = 10413791999999, 0, pipeline.UUID{}
	return events
}

// Objects of every earlier layout must stay readable forever.
func TestGolden(t *testing.T) {
	path := func(name string) string { return filepath.Join("testdata", name) }
	if *update {
		object := encode(t, pipeline.Parquet, goldenEvents(), 7) // NDJSON has never changed
		if err := os.WriteFile(path("schema3.parquet"), object, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path("schema1.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want []goldenEvent
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"schema1.parquet", "schema1.ndjson.zst", "schema2.parquet", "schema3.parquet"} {
		object, err := os.ReadFile(path(f))
		if err != nil {
			t.Fatal(err)
		}
		format, _ := pipeline.FormatOf(f)
		ours, _, err := decode(object, format, noLimit)
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		if len(ours) != len(want) {
			t.Fatalf("%s: %d events, want %d", f, len(ours), len(want))
		}
		for i := range ours {
			got := golden(&ours[i])
			if f != "schema1.parquet" && canonical([]byte(got.Properties)) == canonical([]byte(want[i].Properties)) {
				got.Properties = want[i].Properties
			}
			if !reflect.DeepEqual(got, want[i]) {
				t.Errorf("%s, event %d:\n got %+v\nwant %+v", f, i, got, want[i])
			}
		}
	}
}
