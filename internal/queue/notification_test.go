package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/pipeline"
)

const (
	aws = `{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","awsRegion":"eu-central-1","eventTime":"2026-11-22T03:45:12.345Z",
		"eventName":"ObjectCreated:Put","userIdentity":{"principalId":"A"},"requestParameters":{"sourceIPAddress":"192.0.2.1"},
		"s3":{"s3SchemaVersion":"1.0","bucket":{"name":"b","arn":"arn:aws:s3:::b"},
		"object":{"key":"events/dt%3D2026-11-22/hr%3D03/a+b%2Bc.parquet","size":1024,"eTag":"d41d8cd98f00b204e9800998ecf8427e","sequencer":"0A"}}}]}`
	minio = `{"EventName":"s3:ObjectCreated:Put","Key":"b/events/dt=2026-11-22/a.parquet","Records":[{"eventVersion":"2.0","eventName":"s3:ObjectCreated:Put",
		"s3":{"bucket":{"name":"b"},"object":{"key":"events%2Fdt%3D2026-11-22%2Fa.parquet","size":5,"eTag":"abc","userMetadata":{"content-type":"x"}}}}]}`
	multipart   = `{"Records":[{"eventName":"ObjectCreated:CompleteMultipartUpload","s3":{"object":{"key":"%C3%BC.ndjson","eTag":"abc-2"}}}]}`
	test        = `{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2026-11-22T03:45:12.345Z","Bucket":"b","RequestId":"r","HostId":"h"}`
	eventBridge = `{"version":"0","id":"1","detail-type":"Object Created","source":"aws.s3","detail":{"version":"0","bucket":{"name":"b"},
		"object":{"key":"events/a+b%20.parquet","size":7,"etag":"abc","sequencer":"0"},"reason":"PutObject"}}`
	r2 = `{"account":"x","action":"PutObject","bucket":"b","object":{"key":"events/a+b%20.parquet","size":9,"eTag":"\"abc\""},"eventTime":"2026-11-22T03:45:12Z"}`
)

// sns wraps a message as SNS does, the given number of times.
func sns(message string, times int) string {
	for range times {
		text, _ := json.Marshal(message)
		message = `{"Type":"Notification","MessageId":"m","TopicArn":"t","Message":` + string(text) + `,"Signature":"s"}`
	}
	return message
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       []pipeline.Notification
	}{
		{"aws", aws, []pipeline.Notification{{Key: "events/dt=2026-11-22/hr=03/a b+c.parquet",
			ETag: "d41d8cd98f00b204e9800998ecf8427e", Size: 1024}}},
		{"minio", minio, []pipeline.Notification{{Key: "events/dt=2026-11-22/a.parquet", ETag: "abc", Size: 5}}},
		{"multipart, no size", multipart, []pipeline.Notification{{Key: "ü.ndjson", ETag: "abc-2"}}},
		{"several", `{"Records":[{"s3":{"object":{"key":"a"}}},{"s3":{"object":{"key":"b"}}}]}`,
			[]pipeline.Notification{{Key: "a"}, {Key: "b"}}},
		{"sns", sns(aws, 1), []pipeline.Notification{{Key: "events/dt=2026-11-22/hr=03/a b+c.parquet",
			ETag: "d41d8cd98f00b204e9800998ecf8427e", Size: 1024}}},
		{"sns, twice", sns(minio, 2), []pipeline.Notification{{Key: "events/dt=2026-11-22/a.parquet", ETag: "abc", Size: 5}}},
		{"sns, deep", sns(r2, 12), []pipeline.Notification{{Key: "events/a+b%20.parquet", ETag: "abc", Size: 9}}},
		{"eventbridge, plain key", eventBridge,
			[]pipeline.Notification{{Key: "events/a+b%20.parquet", ETag: "abc", Size: 7}}},
		{"r2, plain key", r2, []pipeline.Notification{{Key: "events/a+b%20.parquet", ETag: "abc", Size: 9}}},
		{"created and removed",
			`{"Records":[{"eventName":"ObjectRemoved:Delete","s3":{"object":{"key":"a"}}},{"eventName":"ObjectCreated:Copy","s3":{"object":{"key":"b"}}}]}`,
			[]pipeline.Notification{{Key: "b"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Parse([]byte(c.body))
			if err != nil || fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got %v, %v\nwant %v", got, err, c.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ name, body, says string }{
		{"nothing", "", "parse notification"},
		{"no JSON", "hello", "parse notification"},
		{"null", "null", "no known layout"},
		{"an array", "[]", "parse notification"},
		{"an empty object", "{}", "no known layout"},
		{"no records", `{"Records":[]}`, "no known layout"},
		{"no key", `{"Records":[{"s3":{}}]}`, "no key"},
		{"one of two without a key", `{"Records":[{"s3":{"object":{"key":"a"}}},{}]}`, "no key"},
		{"bad encoding", `{"Records":[{"s3":{"object":{"key":"a%zz"}}}]}`, "a%zz"},
		{"a key that is no text", `{"object":{"key":5}}`, "parse notification"},
		{"r2 without a key", `{"action":"PutObject","object":{}}`, "no key"},
		{"sns of no JSON", sns("hello", 1), "parse notification"},
		{"removed", `{"Records":[{"eventName":"s3:ObjectRemoved:Delete","s3":{"object":{"key":"a"}}}]}`, "no created object"},
		{"r2, removed", `{"action":"DeleteObject","object":{"key":"a"}}`, "no created object"},
		{"r2, expired", `{"action":"LifecycleDeletion","object":{"key":"a"}}`, "no created object"},
		{"eventbridge, removed", `{"detail-type":"Object Deleted","detail":{"object":{"key":"a"}}}`, "no created object"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Parse([]byte(c.body))
			if err == nil || got != nil || errors.Is(err, ErrTest) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, %v, want %q", got, err, c.says)
			}
		})
	}
}

func TestParseTestMessage(t *testing.T) {
	for _, body := range []string{test, sns(test, 1)} {
		if got, err := Parse([]byte(body)); !errors.Is(err, ErrTest) || got != nil {
			t.Errorf("got %v, %v", got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{aws, minio, multipart, test, eventBridge, r2, sns(aws, 1), sns(r2, 5), sns(test, 2), "{}",
		`{"Message":"{}"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := Parse(body)
		if (err == nil) != (len(got) > 0) {
			t.Fatalf("got %v, %v", got, err)
		}
		for _, n := range got {
			if n.Key == "" {
				t.Fatalf("got %+v", got)
			}
		}
	})
}
