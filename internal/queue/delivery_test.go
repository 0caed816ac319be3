package queue

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/pipeline"
)

// A notification that Penstock enqueues reads back unchanged, whatever its key.
func TestFormat(t *testing.T) {
	for _, want := range []pipeline.Notification{
		{Key: "events/dt=2026-11-22/hr=03/x.parquet", ETag: "e", Size: 7},
		{Key: "events/a b+c%20é\x01\"/x.json"},
		{Key: "errors/x", ETag: "a-2", Size: 1 << 40},
	} {
		got, err := Notifications(Format(want))
		if err != nil {
			t.Errorf("%q: %v", want.Key, err)
		}
		if diff := cmp.Diff([]pipeline.Notification{want}, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", want.Key, diff)
		}
	}
}

// A store's test message has no notifications and is no error. An error quotes the message, truncated if it is long.
func TestNotifications(t *testing.T) {
	if got, err := Notifications([]byte(`{"Service":"Amazon S3","Event":"s3:TestEvent"}`)); len(got) > 0 || err != nil {
		t.Errorf("a test message: %v, %v", got, err)
	}
	for text, want := range map[string]string{
		"{":                     `unexpected end of JSON input: "{"`,
		`{"x":1}`:               `of no known layout: "{\"x\":1}"`,
		`{"Records":[]}`:        "of no known layout",
		`{"object":{"size":5}}`: "no key",
		`{"Records":[{"eventName":"s3:ObjectCreated:Put","s3":{"object":{"key":"%zz"}}}]}`:  `key "%zz"`,
		`{"Records":[{"eventName":"s3:ObjectRemoved:Delete","s3":{"object":{"key":"a"}}}]}`: "it names no created object",
		`"` + strings.Repeat("x", 5000): "parse notification",
	} {
		got, err := Notifications([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || len(got) > 0 {
			t.Errorf("%.100s: %v, %v; want %q", text, got, err, want)
		}
		if err != nil && len(err.Error()) > 500 {
			t.Errorf("%.100s: an error of %d bytes", text, len(err.Error()))
		}
	}
}

// An SNS topic wraps a message as text in another one. A topic that subscribes to a topic wraps it twice.
func TestWrapped(t *testing.T) {
	inner := Format(pipeline.Notification{Key: "events/x"})
	for range 3 {
		got, err := Notifications(inner)
		if err != nil || len(got) != 1 || got[0].Key != "events/x" {
			t.Errorf("%s: %v, %v", inner, got, err)
		}
		inner = []byte(`{"Type":"Notification","Message":` + quoted(string(inner)) + `}`)
	}
}

func quoted(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}
