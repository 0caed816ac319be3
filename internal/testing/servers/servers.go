// Package servers starts a real NATS, MinIO or ClickHouse for a test, on free ports, in a folder that is removed
// afterwards. The first test on a machine waits while devstack fetches the programs, which takes minutes. After that a
// server takes half a second. If a server cannot be started, the test fails. With -short, the test is skipped.
package servers

import (
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/tools/devstack"
)

// NATS starts nats-server with JetStream.
func NATS(t testing.TB) *devstack.NATS {
	t.Helper()
	return NATSWith(t, "")
}

// NATSWith starts nats-server with more lines in its configuration.
func NATSWith(t testing.TB, extra string) *devstack.NATS {
	t.Helper()
	binary, err := fetcher(t).NATS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n, err := devstack.StartNATS(t.Context(), devstack.NATSOptions{Binary: binary, Data: t.TempDir(), Extra: extra})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, n.Process) })
	return n
}

// Targets returns a notification target for each pipeline, and their ARNs by the pipeline's name.
func Targets(specs []pipeline.Spec, subject func(pipeline.Spec) string) ([]devstack.NotifyTarget, map[string]string) {
	var targets []devstack.NotifyTarget
	arns := map[string]string{}
	for _, s := range specs {
		target := devstack.NotifyTarget{ID: strings.ToUpper(s.Name), Subject: subject(s)}
		targets = append(targets, target)
		arns[s.Name] = target.ARN()
	}
	return targets, arns
}

// MinIO starts MinIO. It fills in Binary, and Data if that is empty.
func MinIO(t testing.TB, o devstack.MinIOOptions) *devstack.MinIO {
	t.Helper()
	binary, err := fetcher(t).MinIO(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o.Binary = binary
	if o.Data == "" {
		o.Data = t.TempDir()
	}
	m, err := devstack.StartMinIO(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, m.Process) })
	return m
}

// ClickHouse starts ClickHouse.
func ClickHouse(t testing.TB) *devstack.ClickHouse {
	t.Helper()
	return ClickHouseWith(t, devstack.ClickHouseOptions{})
}

// ClickHouseWith starts ClickHouse. It fills in Engine and Data.
func ClickHouseWith(t testing.TB, o devstack.ClickHouseOptions) *devstack.ClickHouse {
	t.Helper()
	engine, err := fetcher(t).ClickHouse(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o.Engine, o.Data = engine, t.TempDir()
	c, err := devstack.StartClickHouse(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, c.Process) })
	return c
}

// Needed skips the test with -short: it needs a server, or a program that has to be fetched.
func Needed(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a server: run without -short")
	}
}

func fetcher(t testing.TB) *devstack.Fetcher {
	t.Helper()
	Needed(t)
	cache, err := devstack.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return &devstack.Fetcher{Cache: cache, Progress: t.Output()}
}

// end kills the server, as its data goes away anyhow, and shows the end of its log when the test has failed.
func end(t testing.TB, p *devstack.Process) {
	if err := p.Err(); err != nil {
		t.Errorf("while the test ran: %v", err)
	} else if t.Failed() {
		t.Logf("%s's log ends:\n%s", p.Name, p.LogTail())
	}
	p.Kill()
}
