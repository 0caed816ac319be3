package objstore

import (
	"errors"
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
	b := Open(Options{Endpoint: m.Endpoint(), Region: "us-east-1", Bucket: "bucket", AccessKey: m.AccessKey(),
		SecretKey: m.SecretKey(), PathStyle: true})
	if err := b.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b, m
}

func meta(sum string) pipeline.Meta {
	return pipeline.Meta{Schema: 1, Rows: 3, FirstSeq: 7, FirstReceived: 1795348800123, LastReceived: 1795348800456,
		SHA256: strings.Repeat(sum, 64)}
}

func TestErrorsAreClassed(t *testing.T) {
	b, m := open(t)
	wrong := Open(Options{Endpoint: m.Endpoint(), Region: "us-east-1", Bucket: "bucket", AccessKey: m.AccessKey(),
		SecretKey: "wrong-secret", PathStyle: true})
	if err := wrong.Ping(t.Context()); err == nil || retry.ClassOf(err) != retry.Outage {
		t.Errorf("wrong secret: %v", err)
	}
	m.Kill()
	if _, _, err := b.Get(t.Context(), "nothing"); err == nil || retry.ClassOf(err) != retry.Outage ||
		errors.Is(err, ErrNotFound) {
		t.Errorf("store away: %v", err)
	}
	if _, err := b.Put(t.Context(), "k", strings.NewReader("x"), 1, meta("a")); err == nil ||
		retry.ClassOf(err) != retry.Outage {
		t.Errorf("store away: %v", err)
	}
	if _, err := b.GetRange(t.Context(), "k", 0, 1); retry.ClassOf(err) != retry.Outage {
		t.Errorf("store away: %v", err)
	}
}

// Our rules are set and replaced; somebody else's stay.
func TestNotifyKeepsForeignRules(t *testing.T) {
	nats := servers.NATS(t)
	targets, arns := servers.Targets(pipeline.Specs(), func(s pipeline.Spec) string { return "x." + s.Name })
	other := devstack.NotifyTarget{ID: "OTHER", Subject: "x.other"}
	m := servers.MinIO(t, devstack.MinIOOptions{Targets: append(targets, other), NATSAddress: nats.Addr()})
	b := Open(Options{Endpoint: m.Endpoint(), Region: "us-east-1", Bucket: "bucket", AccessKey: m.AccessKey(),
		SecretKey: m.SecretKey(), PathStyle: true})
	if err := b.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	foreign := pipeline.Spec{Name: "other", Prefix: "other/"}
	if err := b.Notify(t.Context(), []pipeline.Spec{foreign}, map[string]string{"other": other.ARN()}, nil); err != nil {
		t.Fatal(err)
	}
	if err := b.renameRule(t.Context(), rulePrefix+"other", "theirs"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.Notify(t.Context(), pipeline.Specs(), arns, nil); err != nil {
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
