// Package queue defines what a queue must do, and reads the stores' notifications. The adapters are in the packages
// below it.
package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/penstock/penstock/internal/pipeline"
)

// ErrTest is returned by Parse for a store's test message, which stores send when notifications are set up. It names no
// object.
var ErrTest = errors.New("a store's test message")

// message has the fields of all supported layouts.
type message struct {
	// S3, MinIO, versitygw: {"Records":[{"s3":{"object":{…}}}]}
	Records []record `json:"Records"`
	Event   string   `json:"Event"`   // S3: "s3:TestEvent"
	Message string   `json:"Message"` // an SNS envelope contains the message as text

	// EventBridge: {"detail":{"bucket":{…},"object":{"key","size","etag"}}}
	DetailType string `json:"detail-type"`
	Detail     *struct {
		Object object `json:"object"`
	} `json:"detail"`

	// R2: {"account","action","bucket","object":{"key","size","eTag"}}
	Action string  `json:"action"`
	Object *object `json:"object"`
}

type record struct {
	EventName string `json:"eventName"`
	S3        struct {
		Object object `json:"object"`
	} `json:"s3"`
}

type object struct {
	Key  string `json:"key"`
	Size int64  `json:"size"`
	ETag string `json:"eTag"` // encoding/json accepts "etag" as well
}

// Notifications parses a store's message for a delivery. A test message has none.
func Notifications(body []byte) ([]pipeline.Notification, error) {
	all, err := Parse(body)
	switch {
	case errors.Is(err, ErrTest):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%w: %.300q", err, body)
	}
	return all, nil
}

// Parse reads a store's message. It has usually one notification, sometimes several.
func Parse(body []byte) ([]pipeline.Notification, error) {
	var m message
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, fmt.Errorf("parse notification: %w", err)
	}
	if m.Message != "" && len(m.Records) == 0 {
		return Parse([]byte(m.Message)) // each round removes one level of quoting, so it ends
	}
	var all []pipeline.Notification
	switch {
	case m.Event == "s3:TestEvent":
		return nil, ErrTest
	case len(m.Records) > 0:
		for _, r := range m.Records {
			if removal(r.EventName) {
				continue
			}
			// Keys are percent-encoded here, and a space is a plus.
			key, err := url.QueryUnescape(r.S3.Object.Key)
			if err != nil {
				return nil, fmt.Errorf("parse notification: key %q: %w", r.S3.Object.Key, err)
			}
			o := r.S3.Object
			o.Key = key
			all = append(all, o.notification())
		}
	case removal(m.DetailType), removal(m.Action):
	case m.Detail != nil:
		all = append(all, m.Detail.Object.notification())
	case m.Object != nil:
		all = append(all, m.Object.notification())
	}
	for _, n := range all {
		if n.Key == "" {
			return nil, errors.New("parse notification: no key")
		}
	}
	switch {
	case len(all) > 0:
		return all, nil
	case len(m.Records) > 0 || m.Detail != nil || m.Object != nil:
		return nil, errors.New("parse notification: it names no created object")
	}
	return nil, errors.New("parse notification: of no known layout")
}

// removal reports whether an event's name means that an object was deleted: "s3:ObjectRemoved:Delete",
// "s3:LifecycleExpiration:Delete", "Object Deleted", "DeleteObject", "LifecycleDeletion".
func removal(event string) bool {
	return strings.Contains(event, "Removed") || strings.Contains(event, "Delet")
}

func (o object) notification() pipeline.Notification {
	return pipeline.Notification{Key: o.Key, ETag: strings.Trim(o.ETag, `"`), Size: o.Size}
}

// Format writes a notification as S3 does, for notifications that Penstock enqueues itself.
func Format(n pipeline.Notification) []byte {
	var r record
	r.EventName = "s3:ObjectCreated:Put"
	r.S3.Object = object{Key: url.QueryEscape(n.Key), Size: n.Size, ETag: n.ETag}
	text, _ := json.Marshal(map[string][]record{"Records": {r}}) // strings and a number: cannot fail
	return text
}
