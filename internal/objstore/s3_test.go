package objstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/servers"
	"github.com/penstock/penstock/tools/devstack"
)

func open(t *testing.T) (*Bucket, *devstack.MinIO) {
	t.Helper()
	m := servers.MinIO(t, devstack.MinIOOptions{})
	b := Open(Options{Endpoint: m.Endpoint(), Region: "us-east-1", Bucket: "bucket", AccessKey: m.AccessKey(), SecretKey: m.SecretKey(), PathStyle: true})
	for range 2 { // the second finds it there
		if err := b.Create(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return b, m
}

func meta(sum string) pipeline.Meta {
	return pipeline.Meta{Schema: 1, Rows: 3, FirstSeq: 7, FirstReceived: 1795348800123, LastReceived: 1795348800456, SHA256: strings.Repeat(sum, 64)}
}

func TestPutGet(t *testing.T) {
	b, _ := open(t)
	key := "events/dt=2026-11-22/hr=03/a b+ü%.parquet"
	body := []byte("some bytes")
	put, err := b.Put(t.Context(), key, bytes.NewReader(body), int64(len(body)), meta("a"))
	if err != nil {
		t.Fatal(err)
	}
	got, r, err := b.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(text, body) {
		t.Errorf("got %q, %v", text, err)
	}
	if got.Meta != meta("a") || got.Size != int64(len(body)) || got.ETag != put.ETag || got.ETag == "" || strings.Contains(got.ETag, `"`) {
		t.Errorf("got %+v, put %+v", got, put)
	}
	if head, err := b.Head(t.Context(), key); err != nil || head.Meta != got.Meta || head.ETag != got.ETag {
		t.Errorf("head %+v, %v", head, err)
	}
}

// A key is written once. The same again succeeds, another is a conflict, and
// what was there first stays.
func TestPutIsOnce(t *testing.T) {
	b, _ := open(t)
	for i, tt := range []struct {
		body, sum string
		conflict  bool
	}{{"one", "a", false}, {"one", "a", false}, {"two", "b", true}} {
		_, err := b.Put(t.Context(), "events/k.parquet", strings.NewReader(tt.body), int64(len(tt.body)), meta(tt.sum))
		c, conflict := errors.AsType[pipeline.ConflictError](err)
		if conflict != tt.conflict || (err != nil) != tt.conflict {
			t.Errorf("put %d: %v", i, err)
		}
		if conflict && c.Found.Meta != meta("a") {
			t.Errorf("found %+v", c.Found)
		}
	}
	_, r, err := b.Get(t.Context(), "events/k.parquet")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if text, _ := io.ReadAll(r); string(text) != "one" {
		t.Errorf("got %q", text)
	}
}

func TestErrorsAreClassed(t *testing.T) {
	b, m := open(t)
	if _, _, err := b.Get(t.Context(), "nothing"); !errors.Is(err, ErrNotFound) || retry.ClassOf(err) != retry.Permanent {
		t.Errorf("get of nothing: %v, class %d", err, retry.ClassOf(err))
	}
	if _, err := b.Head(t.Context(), "nothing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("head of nothing: %v", err)
	}
	wrong := Open(Options{Endpoint: m.Endpoint(), Region: "us-east-1", Bucket: "bucket", AccessKey: m.AccessKey(), SecretKey: "wrong-secret", PathStyle: true})
	if err := wrong.Ping(t.Context()); err == nil || retry.ClassOf(err) != retry.Outage {
		t.Errorf("wrong secret: %v", err)
	}
	m.Kill()
	if _, _, err := b.Get(t.Context(), "nothing"); err == nil || retry.ClassOf(err) != retry.Outage || errors.Is(err, ErrNotFound) {
		t.Errorf("store away: %v", err)
	}
	if _, err := b.Put(t.Context(), "k", strings.NewReader("x"), 1, meta("a")); err == nil || retry.ClassOf(err) != retry.Outage {
		t.Errorf("store away: %v", err)
	}
}

// Our rules are set and replaced; somebody else's stay.
func TestNotifyKeepsForeignRules(t *testing.T) {
	nats := servers.NATS(t)
	var targets []devstack.NotifyTarget
	arns := map[string]string{}
	for _, s := range pipeline.Specs() {
		target := devstack.NotifyTarget{ID: strings.ToUpper(s.Name), Subject: "x." + s.Name}
		targets = append(targets, target)
		arns[s.Name] = target.ARN()
	}
	other := devstack.NotifyTarget{ID: "OTHER", Subject: "x.other"}
	m := servers.MinIO(t, devstack.MinIOOptions{Targets: append(targets, other), NATSAddress: nats.Addr()})
	b := Open(Options{Endpoint: m.Endpoint(), Region: "us-east-1", Bucket: "bucket", AccessKey: m.AccessKey(), SecretKey: m.SecretKey(), PathStyle: true})
	if err := b.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	foreign := pipeline.Spec{Name: "other", Prefix: "other/"}
	if err := b.Notify(t.Context(), []pipeline.Spec{foreign}, map[string]string{"other": other.ARN()}); err != nil {
		t.Fatal(err)
	}
	if err := b.renameRule(t.Context(), rulePrefix+"other", "theirs"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.Notify(t.Context(), pipeline.Specs(), arns); err != nil {
			t.Fatal(err)
		}
	}
	names, err := b.ruleNames(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(names, " "); got != "penstock-errors penstock-events theirs" {
		t.Errorf("rules %q", got)
	}
}

func TestGetRange(t *testing.T) {
	b, m := open(t)
	key := "blobs/events/dt=2026-11-22/hr=03/x.blobs"
	sum := sha256.Sum256([]byte("0123456789"))
	if _, err := b.Put(t.Context(), key, strings.NewReader("0123456789"), 10, pipeline.Meta{SHA256: hex.EncodeToString(sum[:])}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		first, last int64
		want        string
	}{{0, 9, "0123456789"}, {3, 3, "3"}, {8, 10, ""}, {10, 11, ""}} {
		r, err := b.GetRange(t.Context(), key, c.first, c.last)
		if c.want == "" {
			if err == nil {
				t.Errorf("%d-%d: no error", c.first, c.last)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if r.Close(); err != nil || string(text) != c.want {
			t.Errorf("%d-%d: got %q, %v", c.first, c.last, text, err)
		}
	}
	if _, err := b.GetRange(t.Context(), key+"x", 0, 1); !errors.Is(err, ErrNotFound) {
		t.Errorf("an object that is not there: %v", err)
	}
	m.Kill()
	if _, err := b.GetRange(t.Context(), key, 0, 1); retry.ClassOf(err) != retry.Outage {
		t.Errorf("a bucket that is away: %v", err)
	}
}
