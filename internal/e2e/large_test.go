package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/testing/load"
)

// recording is a value of many MiB that is never whole in memory.
type recording struct {
	r    *rand.Rand
	left int64
	sum  hash.Hash
}

func newRecording(seed uint64, size int64) *recording {
	return &recording{r: rand.New(rand.NewPCG(seed, 11)), left: size, sum: sha256.New()}
}

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

func (v *recording) Read(p []byte) (int, error) {
	if v.left == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), v.left))
	for i := 0; i < n; i += 10 {
		x := v.r.Uint64()
		for k := i; k < min(i+10, n); k++ {
			p[k] = letters[x&63]
			x >>= 6
		}
	}
	v.sum.Write(p[:n])
	v.left -= int64(n)
	return n, nil
}

// recordingEnv makes this program one that posts an event with a recording: to
// which URL, which, and how large.
const recordingEnv = "PENSTOCK_TEST_RECORDING"

// postRecording prints the recording's SHA-256, or what went wrong.
func postRecording(what string) (code int) {
	var url string
	var n uint64
	var size int64
	if _, err := fmt.Sscan(what, &url, &n, &size); err != nil {
		fmt.Print(err)
		return 1
	}
	v := newRecording(n, size)
	body := io.MultiReader(strings.NewReader(fmt.Sprintf(`{"name":"recording","properties":{"n":%d,"frames":"`, n)), v,
		strings.NewReader(`","fps":30}}`))
	resp, err := http.Post(url, "application/json", body)
	if err != nil {
		fmt.Print(err)
		return 1
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		text, _ := io.ReadAll(resp.Body)
		fmt.Printf("%s %s", resp.Status, text)
		return 1
	}
	fmt.Printf("%x", v.sum.Sum(nil))
	return 0
}

// steady sends n events in requests of ten at a rate, and returns the latencies
// of the requests, from when each was due.
func steady(ctx context.Context, url string, seconds, rate int) (took []time.Duration, sent int, err error) {
	var mu sync.Mutex
	var g sync.WaitGroup
	begin := time.Now()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	for i := 0; i*10 < seconds*rate && ctx.Err() == nil; i++ {
		due := begin.Add(time.Duration(i) * 10 * time.Second / time.Duration(rate))
		time.Sleep(time.Until(due)) // keeps the measured pace
		sent += 10
		g.Go(func() {
			body := strings.Repeat(`{"name":"small","properties":{"level":7,"zone":"forest"}}`+"\n", 10)
			resp, e := client.Post(url, "application/x-ndjson", strings.NewReader(body))
			if e == nil {
				io.Copy(io.Discard, resp.Body)
				if resp.Body.Close(); resp.StatusCode != 202 {
					e = fmt.Errorf("%s", resp.Status)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if took = append(took, time.Since(due)); e != nil {
				err = e
			}
		})
	}
	g.Wait()
	slices.Sort(took)
	return took, sent, err
}

// Events of 90 MiB come among small ones: the receiver's memory stays within its
// limit, every byte comes back, and nothing is lost. PENSTOCK_LARGE="20 60 5000"
// is 20 of them in 60 s among 5,000 small ones a second.
func TestLargeEvents(t *testing.T) {
	const size = 90 << 20
	count, seconds, rate := 4, 8, 1000
	if text := os.Getenv("PENSTOCK_LARGE"); text != "" {
		if _, err := fmt.Sscan(text, &count, &seconds, &rate); err != nil {
			t.Fatal(err)
		}
	}
	s := newStack(t)
	r := s.prepare("r1", "receive", "PENSTOCK_BATCHER_ROLL_AGE=5s")
	r.binary = plain // the race detector takes many times the memory
	r.spawn()
	r.awaitReady()
	s.start("l1", "load")
	url := r.URL + "/v1/events?key=" + key
	alone, small, err := steady(t.Context(), url, seconds/2, rate)
	if err != nil {
		t.Fatal(err)
	}
	sums := make([]string, count)
	var g sync.WaitGroup
	for i := range count {
		g.Go(func() {
			time.Sleep(time.Duration(i) * time.Duration(seconds) * time.Second / time.Duration(count+1)) // spread over the time
			// In a separate process: here it would delay the sender of small requests.
			send := exec.CommandContext(t.Context(), os.Args[0])
			send.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d", recordingEnv, url, i, size))
			sum, err := send.Output()
			if err != nil {
				t.Errorf("recording %d: %v: %s", i, err, sum)
			}
			sums[i] = string(sum)
		})
	}
	beside, more, err := steady(t.Context(), url, seconds, rate)
	if err != nil {
		t.Error(err)
	}
	g.Wait()
	p99 := func(d []time.Duration) time.Duration { return d[len(d)*99/100].Round(100 * time.Microsecond) }
	t.Logf("%d events of %d MiB among %d/s small ones: p99 of the small %s, %s without", count, size>>20, rate,
		p99(beside), p99(alone))
	// One beyond the limit fails alone, with its bytes.
	tooLarge := newRecording(99, 101<<20)
	mixed := io.MultiReader(strings.NewReader(`{"name":"small"}`+"\n"+`{"name":"recording","v":"`), tooLarge,
		strings.NewReader(`"}`+"\n"+`{"name":"small"}`))
	resp, err := http.Post(url, "application/x-ndjson", mixed)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(resp.Body)
	if resp.Body.Close(); resp.StatusCode != 202 || !strings.Contains(string(text), `"accepted":2,"rejected":1`) ||
		!strings.Contains(string(text), `"index":1,"code":"event_too_large"`) {
		t.Errorf("%s %s", resp.Status, text)
	}
	peak, err := load.PeakRSS(r.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if t.Logf("the receiver took %d MiB at most", peak>>20); peak>>20 > 512 {
		t.Errorf("the receiver took %d MiB", peak>>20)
	}
	r.term()
	s.rows("events", uint64(small+more+count+2))
	s.rows("errors", 1)
	if n := one[int64](s, "SELECT raw_bytes FROM errors"); n != 101<<20+int64(len(`{"name":"recording","v":""}`)) {
		t.Errorf("%d bytes were kept of the one that is too large", n)
	}
	for i, sum := range sums {
		ref := one[string](s,
			"SELECT concat(properties.frames.$blob.object.:String, ' ', properties.frames.$blob.sha256.:String, ' ', "+
				"toString(properties.frames.$blob.bytes.:Int64), ' ', "+
				"toString(properties.frames.$blob.range.:`Array(Nullable(Int64))`[1])) FROM events WHERE name = 'recording' AND "+
				"properties.n.:Int64 = ?", i)
		var object, said string
		var bytes, first int64
		fmt.Sscan(ref, &object, &said, &bytes, &first)
		if said != sum || bytes != size {
			t.Errorf("recording %d: %s, want %s", i, ref, sum)
			continue
		}
		body, err := s.bucket().GetRange(t.Context(), object, first, first+bytes-1)
		if err != nil {
			t.Fatal(err)
		}
		got := sha256.New()
		io.Copy(got, body)
		if body.Close(); hex.EncodeToString(got.Sum(nil)) != sum {
			t.Errorf("recording %d comes back as something else", i)
		}
	}
	if out, err := s.run("verify", "--since", "1h", "--grace", "0s"); err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	} else {
		t.Logf("%s", out)
	}
}
