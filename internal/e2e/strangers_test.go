package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/penstock/penstock/internal/testing/load"
)

// The budget of strangers as it is configured by default.
const (
	anonymousRate  = 64 << 10
	anonymousBurst = 16 * anonymousRate
)

// attacks are what one stranger does again and again. address is its own.
var attacks = []func(ctx context.Context, r *role, address string){
	noiseAsGzip, bomb, wrongKey, wrongKeyInBody, leaveEarly,
}

// junk is 4 MiB that nothing compresses.
var junk = sync.OnceValue(func() []byte {
	b := make([]byte, 4<<20)
	rand.Read(b)
	return b
})

// bombed is 255 MiB of an array that never ends, without a key.
var bombed = sync.OnceValue(func() string {
	return gzipped(`{"batch":[` + strings.Repeat(" ", 255<<20) + `]}`)
})

func strange(ctx context.Context, r *role, address, path string, body io.Reader, size int64, header ...string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL+path, body)
	if err != nil {
		panic(err)
	}
	req.ContentLength = size
	req.Header.Set("X-Forwarded-For", address)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := strangersClient.Do(req)
	if err != nil {
		return // cut off: as it should be
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}

var strangersClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func noiseAsGzip(ctx context.Context, r *role, address string) {
	body := io.MultiReader(slices.Collect(func(yield func(io.Reader) bool) {
		for range 15 { // 60 MiB
			if !yield(bytes.NewReader(junk())) {
				return
			}
		}
	})...)
	strange(ctx, r, address, "/batch", body, 60<<20, "Content-Encoding", "gzip")
}

func bomb(ctx context.Context, r *role, address string) {
	strange(ctx, r, address, "/batch", strings.NewReader(bombed()), int64(len(bombed())), "Content-Encoding", "gzip")
}

func wrongKey(ctx context.Context, r *role, address string) {
	strange(ctx, r, address, "/v1/events", bytes.NewReader(junk()), int64(len(junk())), "X-API-Key", "wrong")
}

func wrongKeyInBody(ctx context.Context, r *role, address string) {
	body := `{"api_key":"wrong","batch":[{"event":"a","v":"` + strings.Repeat("v", 300<<10) + `"}]}`
	strange(ctx, r, address, "/capture", strings.NewReader(body), int64(len(body)))
}

func leaveEarly(_ context.Context, r *role, address string) {
	c, err := net.Dial("tcp", strings.TrimPrefix(r.URL, "http://"))
	if err != nil {
		return
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /2/httpapi HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %s\r\nContent-Length: 1000\r\n\r\n%90s",
		address, "")
	time.Sleep(50 * time.Millisecond) // as long as it is read
}

// stall opens a connection that announces 1.2 MB, sends a part, and waits until its server or the test ends it.
func stall(r *role, address string) (net.Conn, error) {
	c, err := net.Dial("tcp", strings.TrimPrefix(r.URL, "http://"))
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(c,
		"POST /batch HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %s\r\nContent-Type: application/json\r\nContent-Length: "+
			"1200000\r\n\r\n", address)
	c.SetWriteDeadline(time.Now().Add(5 * time.Second))
	c.Write(bytes.Repeat([]byte(" "), 1_190_000))
	return c, nil
}

// errorBytes is the size of the errors pipeline's objects in the bucket.
func (s *stack) errorBytes() (n int64) {
	s.t.Helper()
	for _, prefix := range []string{"errors/", "blobs/errors/"} {
		pages := s3.NewListObjectsV2Paginator(s.s3(), &s3.ListObjectsV2Input{Bucket: aws.String("penstock"), Prefix: &prefix})
		for pages.HasMorePages() {
			page, err := pages.NextPage(s.t.Context())
			if err != nil {
				s.t.Fatal(err)
			}
			for _, o := range page.Contents {
				n += *o.Size
			}
		}
	}
	return n
}

// customer sends bodies of 3 MB one after the other, and returns the 99th percentile of how long they took.
func customer(t *testing.T, r *role, n int) time.Duration {
	t.Helper()
	body := `{"name":"large","properties":{"frames":"` + strings.Repeat("abcdefgh", 3_000_000/8) + `"}}`
	var took []time.Duration
	for range n {
		begin := time.Now()
		if status, a, _ := postAs(t, r, key, body); status != http.StatusAccepted {
			t.Fatalf("a customer's body: %d %v", status, a)
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	return took[(len(took)*99+99)/100-1]
}

// keyInBody sends small batches of a client whose key is in the body until ctx ends; all of them must be taken.
func keyInBody(ctx context.Context, t *testing.T, r *role) (sent int) {
	client := &http.Client{}
	for ; ctx.Err() == nil; sent++ {
		body := `{"batch":[{"event":"small","distinct_id":"u"}],"api_key":"` + key + `"}`
		req, _ := http.NewRequest(http.MethodPost, r.URL+"/batch", strings.NewReader(body))
		req.Header.Set("X-Forwarded-For", "198.51.100.1")
		resp, err := client.Do(req)
		if err != nil {
			t.Errorf("a client with its key in the body: %v", err)
			return sent
		}
		text, _ := io.ReadAll(resp.Body)
		if resp.Body.Close(); resp.StatusCode != http.StatusOK {
			t.Errorf("a client with its key in the body: %d %s", resp.StatusCode, text)
			return sent
		}
		time.Sleep(20 * time.Millisecond) // its pace
	}
	return sent
}

// 200 strangers attack a receiver in all ways at once, and 1500 connections stall. Stored bytes stay within the budget,
// memory stays within its limit, and customers notice nothing.
func TestStrangers(t *testing.T) {
	const strangers, stalled, requests, pause = 200, 1500, 100, 4 * time.Second
	s := newStack(t)
	r := s.prepare("r1", "receive", "PENSTOCK_RECEIVER_TRUSTED_PROXIES=[127.0.0.0/8]", "PENSTOCK_BATCHER_ROLL_AGE=5s",
		"PENSTOCK_RECEIVER_READ_TIMEOUT=60s")
	r.binary = plain // the race detector takes many times the memory
	r.spawn()
	r.awaitReady()
	customer(t, r, 10) // warm
	alone := customer(t, r, requests)
	began := time.Now()
	for i := range 300 { // small ones use up the budget and are stored
		strange(t.Context(), r, fmt.Sprintf("203.2.0.%d", i%250), "/batch", bytes.NewReader(junk()[i<<13:(i+1)<<13]), 8<<10,
			"Content-Encoding", "gzip")
	}

	var conns []net.Conn
	var g sync.WaitGroup
	var mu sync.Mutex
	for i := range stalled {
		if i%50 == 0 {
			g.Wait()
		}
		g.Go(func() {
			if c, err := stall(r, fmt.Sprintf("203.0.%d.%d", 100+i/250, i%250)); err == nil {
				mu.Lock()
				conns = append(conns, c)
				mu.Unlock()
			}
		})
	}
	g.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	var attacked atomic.Int64
	for i := range strangers {
		g.Go(func() {
			time.Sleep(time.Duration(i) * pause / strangers) // not all at the same moment
			for n := i; ctx.Err() == nil; n++ {
				attacks[n%len(attacks)](ctx, r, fmt.Sprintf("203.1.%d.%d", i, n%250))
				attacked.Add(1)
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
			}
		})
	}
	sent := 0
	g.Go(func() { sent = keyInBody(ctx, t, r) })
	best := time.Hour
	for range 3 { // other work on the machine makes single ones slow
		if best = min(best, customer(t, r, requests)); best <= 2*alone {
			break
		}
	}
	cancel()
	g.Wait()
	for _, c := range conns {
		c.Close()
	}
	peak, err := load.PeakRSS(r.Pid)
	if err != nil {
		t.Fatal(err)
	}
	alone = max(alone, customer(t, r, requests)) // other work on the machine is as much as before, or more
	dropped := r.metric(`penstock_errors_dropped_total{reason="anonymous"}`)
	r.term()
	took := time.Since(began)
	stored, budget := s.errorBytes(), anonymousBurst+int64(took.Seconds()*anonymousRate)
	t.Logf("customer's p99: alone %s, attacked %s; %d attacks in %s and %d stalled connections: %d KiB stored (budget "+
		"%d), %.0f failures dropped, "+
		"%d MiB at most; %d requests of a client with its key in the body", alone, best, attacked.Load(), took, len(conns),
		stored>>10, budget>>10, dropped, peak>>20, sent)
	// On a quiet machine it is at most twice: PENSTOCK_STRANGERS_RATIO=2 checks that. Beside other tests, only large
	// differences mean anything.
	if ratio := number("PENSTOCK_STRANGERS_RATIO", 8); best > time.Duration(ratio)*alone {
		t.Errorf("customer's p99: %s, alone %s", best, alone)
	}
	if peak>>20 > receiveMiB {
		t.Errorf("%d MiB resident, the limit is %d", peak>>20, receiveMiB)
	}
	if stored > budget || stored == 0 {
		t.Errorf("%d bytes of strangers are stored, the budget is %d", stored, budget)
	}
	if dropped == 0 || sent == 0 {
		t.Errorf("%v failures dropped, %d requests beside", dropped, sent)
	}
}
