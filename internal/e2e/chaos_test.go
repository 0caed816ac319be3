package e2e

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// chaos is a stack behind proxies, with the clients' own account of it.
type chaos struct {
	*stack
	rnd       *rand.Rand
	receivers []*role
	loaders   []*role
	proxies   map[string]*proxy
	read      map[string]bool // blobs that were, by object and first byte

	mu    sync.Mutex
	sent  map[string]bool // event ids that ever left
	acked map[string]bool // event ids that were acknowledged
}

// TestChaos runs PENSTOCK_CHAOS_ROUNDS rounds (1) of PENSTOCK_CHAOS_SECONDS (10)
// seconds of faults each, from PENSTOCK_CHAOS_SEED on (the time's).
func TestChaos(t *testing.T) {
	rounds, seconds, seed := number("PENSTOCK_CHAOS_ROUNDS", 1), number("PENSTOCK_CHAOS_SECONDS", 10),
		number("PENSTOCK_CHAOS_SEED", int(time.Now().Unix()))
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) { // one after another: each needs the machine
			chaosOn(newChaos(t, newStackOn(t, b.open)), rounds, seconds, seed)
		})
	}
}

func chaosOn(c *chaos, rounds, seconds, seed int) {
	for i := range rounds {
		began := time.Now()
		if !c.round(uint64(seed+i), time.Duration(seconds)*time.Second) {
			return
		}
		c.mu.Lock()
		line := fmt.Sprintf("chaos: round %d, seed %d: %d events acknowledged so far, %d sent, exact; %.0f s", i+1, seed+i,
			len(c.acked), len(c.sent), time.Since(began).Seconds())
		c.mu.Unlock()
		c.t.Log(line)
		if rounds > 1 {
			fmt.Fprintln(os.Stderr, line)
		}
	}
}

func number(name string, def int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return def
}

func newChaos(t *testing.T, s *stack) *chaos {
	// Merges of the real engine could hide a double load.
	create := one[string](s,
		"SELECT create_table_query FROM system.tables WHERE database = 'penstock' AND name = 'events'")
	for _, query := range []string{"DROP TABLE events SYNC",
		strings.Replace(create, "ReplacingMergeTree", "MergeTree", 1)} {
		if err := s.db.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	c := &chaos{stack: s, sent: map[string]bool{}, acked: map[string]bool{}, read: map[string]bool{},
		proxies: map[string]*proxy{
			"bucket":     newProxy(t, strings.TrimPrefix(s.backend.endpoint, "http://")),
			"queue":      newProxy(t, s.backend.queue),
			"clickhouse": newProxy(t, s.clickhouse.Addr()),
		}}
	env := append(s.backend.through(c.proxies["queue"].addr()),
		"PENSTOCK_STORAGE_ENDPOINT=http://"+c.proxies["bucket"].addr(),
		"PENSTOCK_CLICKHOUSE_ADDRESSES=["+c.proxies["clickhouse"].addr()+"]",
		"PENSTOCK_CLICKHOUSE_TIMEOUT=5s", "PENSTOCK_BATCHER_PUT_TIMEOUT=5s", "PENSTOCK_BATCHER_ROLL_AGE=700ms",
		"PENSTOCK_SWEEP_EVERY=2s", "PENSTOCK_SWEEP_GRACE=2s", "PENSTOCK_TEST_CHUNK_ROWS=150",
		"PENSTOCK_BATCHER_OBJECT_TIMEOUT=10s",
	)
	for i := range 2 {
		format := []string{"parquet", "ndjson"}[i]
		c.receivers = append(c.receivers,
			s.start(fmt.Sprintf("r%d", i), "receive", append(env, "PENSTOCK_BATCHER_FORMAT="+format)...))
		c.loaders = append(c.loaders, s.start(fmt.Sprintf("l%d", i), "load", env...))
	}
	return c
}

// round sends under faults, then fixes everything, and counts.
func (c *chaos) round(seed uint64, length time.Duration) bool {
	c.rnd = rand.New(rand.NewPCG(seed, 7))
	ctx, stop := context.WithTimeout(c.t.Context(), length)
	defer stop()
	var clients sync.WaitGroup
	for i := range 4 {
		clients.Go(func() { c.client(ctx, rand.New(rand.NewPCG(seed, uint64(100+i)))) })
	}
	var did []string
	for ctx.Err() == nil {
		did = append(did, c.fault(ctx))
		sleep(ctx, time.Duration(c.rnd.IntN(1500))*time.Millisecond)
	}
	c.mend()
	clients.Wait() // each resends until it is acknowledged
	err := c.settle()
	if err != nil {
		c.t.Errorf("seed %d: %v\nfaults: %s", seed, err, strings.Join(did, "; "))
	}
	return err == nil
}

// client sends events with its own ids, some without a time. It resends unacknowledged ones to either receiver.
func (c *chaos) client(ctx context.Context, rnd *rand.Rand) {
	hc := &http.Client{Timeout: 15 * time.Second}
	for ctx.Err() == nil && !c.t.Failed() {
		var body bytes.Buffer
		var ids []string
		for range 1 + rnd.IntN(60) {
			var u [16]byte
			for i := range u {
				u[i] = byte(rnd.Uint32())
			}
			u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
			h := hex.EncodeToString(u[:])
			id := h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
			ids = append(ids, id)
			if rnd.IntN(40) == 0 { // large enough to leave its row
				fmt.Fprintf(&body, `{"event_id":%q,"name":"b","timestamp":%d,"blob":%q}`+"\n", id, time.Now().UnixMilli(),
					strings.Repeat(id, 2000+rnd.IntN(10000)))
			} else if rnd.IntN(2) == 0 {
				fmt.Fprintf(&body, `{"event_id":%q,"name":"n%d","v":%d}`+"\n", id, rnd.IntN(3), rnd.IntN(100))
			} else {
				fmt.Fprintf(&body, `{"event_id":%q,"name":"n","timestamp":%d,"v":%d}`+"\n", id, time.Now().UnixMilli(),
					rnd.IntN(100))
			}
		}
		c.mu.Lock()
		for _, id := range ids {
			c.sent[id] = true
		}
		c.mu.Unlock()
		durability := []string{"disk", "disk", "object"}[rnd.IntN(3)]
		for try := 0; ; try++ {
			url := c.receivers[rnd.IntN(len(c.receivers))].URL + "/v1/events?key=" + key + "&durability=" + durability
			if c.post(hc, url, body.Bytes(), len(ids)) {
				break
			}
			time.Sleep(50 * time.Millisecond)
			if c.t.Context().Err() != nil {
				return
			}
		}
		c.mu.Lock()
		for _, id := range ids {
			c.acked[id] = true
		}
		c.mu.Unlock()
		time.Sleep(time.Duration(rnd.IntN(30)) * time.Millisecond)
	}
}

func (c *chaos) post(hc *http.Client, url string, body []byte, n int) bool {
	resp, err := hc.Post(url, "application/x-ndjson", bytes.NewReader(body))
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		return false
	}
	var a answer
	if err := json.Unmarshal(text, &a); err != nil || a.Accepted != n {
		c.t.Errorf("answer %s: %s", resp.Status, text)
	}
	return true
}

// fault does one thing that goes wrong in a data centre.
func (c *chaos) fault(ctx context.Context) string {
	r := c.rnd
	pause := time.Duration(r.IntN(2000)) * time.Millisecond
	roles := append(append([]*role{}, c.receivers...), c.loaders...)
	switch r.IntN(10) {
	case 0, 1, 2: // kill -9 of a role
		victim := roles[r.IntN(len(roles))]
		victim.Kill()
		sleep(ctx, pause)
		victim.spawn()
		return "kill " + victim.log
	case 3:
		c.clickhouse.Kill()
		sleep(ctx, pause)
		c.must(c.clickhouse.Restart(c.t.Context()))
		return "kill clickhouse"
	case 4:
		c.backend.bucketAway.begin()
		sleep(ctx, pause)
		c.must(c.backend.bucketAway.end())
		return "kill bucket"
	case 5:
		c.backend.queueAway.begin()
		sleep(ctx, pause)
		c.must(c.backend.queueAway.end())
		return "kill queue"
	case 6:
		c.backend.remove(r.IntN(2) == 0)
		return "delete queue or consumer"
	case 7: // SIGSTOP, sometimes for longer than the ack wait
		victim := roles[r.IntN(len(roles))]
		victim.Signal(syscall.SIGSTOP)
		sleep(ctx, pause*5)
		victim.Signal(syscall.SIGCONT)
		return "stop " + victim.log
	default:
		names := []string{"bucket", "queue", "clickhouse"}
		name := names[r.IntN(len(names))]
		p := c.proxies[name]
		switch r.IntN(3) {
		case 0:
			p.cut()
			return "cut " + name
		case 1:
			p.set(time.Duration(r.IntN(50))*time.Millisecond, false)
		default:
			p.set(0, true)
		}
		sleep(ctx, pause)
		p.set(0, false)
		if r.IntN(2) == 0 {
			p.cut()
		}
		return "slow or stall " + name
	}
}

func (c *chaos) must(err error) {
	if err != nil {
		c.t.Errorf("restart: %v", err)
	}
}

// mend restarts every process that is not running.
func (c *chaos) mend() {
	for _, p := range c.proxies {
		p.set(0, false)
	}
	for _, r := range append(append([]*role{}, c.receivers...), c.loaders...) {
		select {
		case <-r.Done():
			r.spawn()
		default:
		}
		r.awaitReady()
	}
}

// settle waits until everything is loaded, and holds the rows against the
// clients' account.
func (c *chaos) settle() error {
	if c.backend.aws != nil || c.backend.cloudflare != nil {
		// A loader sees there only after two minutes that the queue was purged.
		c.stack.must("sweep")
	}
	deadline := time.Now().Add(90 * time.Second)
	for {
		err := c.drained()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not drained: %w", err)
		}
		time.Sleep(300 * time.Millisecond)
	}
	if n := one[int64](c.stack, "SELECT count() - uniqExact(object, object_row) FROM events"); n != 0 {
		return fmt.Errorf("%d rows of objects are there twice", n)
	}
	if n := one[uint64](c.stack,
		"SELECT count() FROM (SELECT event_id FROM events GROUP BY event_id HAVING uniqExact(project, name, "+
			"identity_time) > 1)"); n != 0 {
		return fmt.Errorf("%d event ids would be there twice with FINAL", n)
	}
	if err := c.blobs(); err != nil {
		return err
	}
	rows, err := c.db.Query(c.t.Context(), "SELECT DISTINCT toString(event_id) FROM events")
	if err != nil {
		return err
	}
	defer rows.Close()
	have := map[string]bool{}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return err
		}
		have[id] = true
	}
	if err := rows.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	missing, strange := 0, 0
	for id := range c.acked {
		if !have[id] {
			missing++
		}
	}
	for id := range have {
		if !c.sent[id] {
			strange++
		}
	}
	if missing > 0 || strange > 0 {
		return fmt.Errorf("%d acknowledged events are no rows, %d rows were never sent (%d acknowledged, %d rows)", missing,
			strange, len(c.acked), len(have))
	}
	return nil
}

// blobs reads the large values of all events that were not looked at before.
func (c *chaos) blobs() error {
	rows, err := c.db.Query(c.t.Context(),
		"SELECT toString(event_id), properties.blob.$blob.object.:String, "+
			"properties.blob.$blob.range.:`Array(Nullable(Int64))` FROM events WHERE name = 'b'")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var object *string
		var part []*int64
		if err := rows.Scan(&id, &object, &part); err != nil {
			return err
		}
		if object == nil || len(part) != 2 {
			return fmt.Errorf("event %s does not refer to its blob", id)
		}
		place := fmt.Sprint(*object, *part[0])
		if c.read[place] {
			continue
		}
		body, err := c.bucket().GetRange(c.t.Context(), *object, *part[0], *part[1])
		if err != nil {
			return fmt.Errorf("event %s: %w", id, err)
		}
		text, err := io.ReadAll(body)
		if body.Close(); err != nil || len(text) < 2000*len(id) || string(text) != strings.Repeat(id, len(text)/len(id)) {
			return fmt.Errorf("event %s: its blob is something else: %.100q (%v)", id, text, err)
		}
		c.read[place] = true
	}
	return rows.Err()
}

// drained: no batch waits in a receiver, and the audit is clean.
func (c *chaos) drained() error {
	for _, r := range c.receivers {
		resp, err := http.Get(r.Admin + "/status")
		if err != nil {
			return err
		}
		var st struct {
			Batchers []struct {
				ActiveRows int `json:"active_rows"`
				Sealed     int `json:"sealed_batches"`
			}
		}
		err = json.NewDecoder(resp.Body).Decode(&st)
		resp.Body.Close()
		if err != nil {
			return err
		}
		for _, b := range st.Batchers {
			if b.ActiveRows+b.Sealed > 0 {
				return fmt.Errorf("%s: %+v", r.log, b)
			}
		}
	}
	v, err := c.verify()
	if err != nil {
		return fmt.Errorf("%w: %.300s", err, fmt.Sprintf("%+v", v))
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
