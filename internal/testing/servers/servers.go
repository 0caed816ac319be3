// Package servers gives a test a NATS, a MinIO or a ClickHouse of its own: a real one, on free ports, in a folder that
// goes away with the test. The first test on a machine waits while the programs are fetched (minutes, once: see devstack);
// after that a server takes about half a second. A server that cannot be had fails the test.
package servers

import (
	"testing"

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

// MinIO starts MinIO. The options may say anything except for Binary and, when it is empty, Data, which are filled in.
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
	engine, err := fetcher(t).ClickHouse(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err := devstack.StartClickHouse(t.Context(), devstack.ClickHouseOptions{Engine: engine, Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, c.Process) })
	return c
}

func fetcher(t testing.TB) *devstack.Fetcher {
	t.Helper()
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
