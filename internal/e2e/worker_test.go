package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/edge"
	"github.com/penstock/penstock/receiver/tenant"
)

// workerRig is a stack whose receiver is the Worker, and a record of what the clients sent.
type workerRig struct {
	*stack
	project edge.Project
	address string
	options edge.Options

	mu      sync.Mutex // of edge, while it is killed
	edge    *edge.Edge
	copied  map[string]bool
	acked   atomic.Int64
	retried atomic.Int64
}

// TestWorkerKilled has clients send 10,000 events to the Worker while its runtime is killed five times. Each event that
// was acknowledged is one row, and each that was rejected is a failure record.
func TestWorkerKilled(t *testing.T) {
	t.Parallel()
	const clients, requests, batch, kills = 20, 25, 20, 5
	w := newWorkerRig(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			for r := range requests {
				w.send(ctx, c*requests+r, batch)
			}
		})
	}
	for k := range kills { // somewhere in each fifth of the work
		for w.acked.Load() < int64(clients*requests*batch*(2*k+1)/(2*kills)) && !t.Failed() {
			time.Sleep(time.Millisecond)
			w.revive()
		}
		w.killEdge()
	}
	for w.acked.Load() < clients*requests*batch && !t.Failed() {
		time.Sleep(time.Millisecond)
		w.revive()
	}
	all.Wait()
	w.settle(clients*requests, batch)
}

func newWorkerRig(t *testing.T) *workerRig {
	t.Helper()
	w := &workerRig{stack: newStackOn(t, onCloudflare), project: edge.Copy(t), address: address(t),
		copied: map[string]bool{}}
	w.project.Build(t)
	hash := tenant.HashKey(key)
	w.options = edge.Options{Address: w.address, Persist: t.TempDir(), Bindings: map[string]string{
		"PROJECTS": `{"projects":{"test":{"keys":[{"name":"a","sha256":"` + hex.EncodeToString(hash[:]) + `"}]}}}`,
		"ROLL_AGE": "1", "SHARDS": "3", "ERROR_BLOB_THRESHOLD": fmt.Sprint(rawThreshold),
	}}
	w.edge = w.project.Start(t, w.options)
	w.start("l1", "load")
	return w
}

// killEdge kills Worker and runtime in whatever they do, and starts them again with the same storage.
func (w *workerRig) killEdge() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.edge.Kill()
	w.edge = w.project.Start(w.t, w.options)
}

// revive starts the Worker again if its runtime has ended by itself, as Cloudflare would.
func (w *workerRig) revive() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.edge.Ended() {
		return
	}
	log := w.edge.Log()
	w.t.Logf("workerd has ended, and is started again; its log ends:\n%s", log[max(0, len(log)-4000):])
	w.edge = w.project.Start(w.t, w.options)
}

// send posts events until they are acknowledged. Each tenth request has an event that is rejected, some of them a large
// one, and each 25th a value that becomes a blob.
func (w *workerRig) send(ctx context.Context, request, batch int) {
	var body strings.Builder
	for i := range batch {
		var id [16]byte
		rand.Read(id[:])
		id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
		large := ""
		if request%25 == 0 && i == 0 {
			large = strings.Repeat("x", 70<<10)
		}
		fmt.Fprintf(&body, `{"name":"e","event_id":%q,"request":%d,"i":%d,"text":%q}`+"\n", pipeline.UUID(id), request, i, large)
	}
	rejected := 0
	if request%10 == 0 {
		body.WriteString(badEvent(request))
		rejected = 1
	}
	for ctx.Err() == nil && !w.t.Failed() {
		a, err := w.post(ctx, body.String())
		if err == nil {
			if a.Accepted != batch || a.Rejected != rejected {
				w.t.Errorf("request %d: %+v, want %d and %d", request, a, batch, rejected)
			}
			w.acked.Add(int64(batch))
			return
		}
		w.retried.Add(1)
		time.Sleep(20 * time.Millisecond)
	}
}

// rawThreshold is from which size on the raw payload of a failure record is a blob.
const rawThreshold = 1000

// badEvent is rejected. Its raw payload is a blob in half of the requests.
func badEvent(request int) string {
	return fmt.Sprintf(`{"name":"bad","request":%d,"value":1e400,"text":%q}`, request, strings.Repeat("y", request*4))
}

// post returns the answer 202, or an error that says to send again.
func (w *workerRig) post(ctx context.Context, body string) (a answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	url := "http://" + w.address + "/v1/events"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return a, err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusAccepted {
		return a, fmt.Errorf("%s: %s: %w", resp.Status, text, err)
	}
	return a, json.Unmarshal(text, &a)
}

// copyObjects copies new objects from the Worker's bucket to the one that the loader reads. That bucket sends R2's
// notifications to the stand-in for Cloudflare Queues, from which the loader pulls.
func (w *workerRig) copyObjects() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	ctx, bucket := w.t.Context(), w.bucket()
	objects, err := w.edge.Objects(ctx)
	if err != nil {
		return err
	}
	for _, o := range objects { // blobs first, by their names
		if w.copied[o.Key] {
			continue
		}
		data, err := w.edge.Get(ctx, o.Key)
		if err != nil {
			return err
		}
		meta, err := pipeline.ParseMeta(o.CustomMetadata)
		if err != nil {
			return err
		}
		if _, err := bucket.Put(ctx, o.Key, bytes.NewReader(data), int64(len(data)), meta); err != nil {
			return err
		}
		w.copied[o.Key] = true
	}
	return nil
}

// settle waits until all that was acknowledged is loaded, and compares.
func (w *workerRig) settle(requests, batch int) {
	t, want := w.t, uint64(requests*batch)
	eventually(t, time.Minute, "rows", func() error {
		w.revive()
		if err := w.copyObjects(); err != nil {
			return err
		}
		if got := one[uint64](w.stack, "SELECT uniqExact(event_id) FROM events"); got < want {
			return fmt.Errorf("%d events, want %d", got, want)
		}
		return w.failureRecords(requests)
	})
	for _, c := range []struct {
		query string
		want  uint64
	}{
		{"SELECT count() FROM events FINAL", want},
		{"SELECT count() FROM (SELECT 1 FROM events GROUP BY receiver, seq HAVING count() > 1)", 0},
		{"SELECT countIf(properties.text.`$blob`.bytes.:Int64 = 71680) FROM events FINAL", uint64(requests / 25)},
	} {
		if got := one[uint64](w.stack, c.query); got != c.want {
			t.Errorf("%s: %d, want %d", c.query, got, c.want)
		}
	}
	v, err := w.verify()
	if err != nil || len(v.Differences) > 0 {
		t.Errorf("verify: %v, %+v", err, v)
	}
	t.Logf("%d objects, %d requests were sent again", len(w.copied), w.retried.Load())
}

// failureRecords returns an error unless each rejected event is in errors, whole.
func (w *workerRig) failureRecords(requests int) error {
	var raws, sums []string
	for r := 0; r < requests; r += 10 {
		if raw := badEvent(r); len(raw) <= rawThreshold {
			raws = append(raws, raw)
		} else {
			sums = append(sums, fmt.Sprintf("%x", sha256.Sum256([]byte(raw))))
		}
	}
	const of = " FROM errors WHERE code = 'number_out_of_range'"
	for query, want := range map[string][]string{
		"SELECT arraySort(groupUniqArrayIf(raw, raw != ''))" + of: raws,
		"SELECT arraySort(groupUniqArray(assumeNotNull(properties.raw_blob.`$blob`.sha256.:String)))" + of +
			" AND raw = ''": sums,
	} {
		slices.Sort(want)
		if got := one[[]string](w.stack, query); !slices.Equal(got, want) {
			return fmt.Errorf("%s: %d failure records, want %d", query, len(got), len(want))
		}
	}
	return nil
}
