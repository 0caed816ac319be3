package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/penstock/penstock/internal/retry"
)

// largeBytes is the size of one large event.
const largeBytes = 90 << 20

// beside is how many large events this run has.
func (b *benchmark) beside() int {
	if b.alone {
		return 0
	}
	return b.large
}

// besideLarge runs send while another process posts large events, spread over the time that send takes. The process is
// separate, so that the large events do not delay the generator of the small ones.
func (b *benchmark) besideLarge(ctx context.Context, listen, key string, rate int, send func() error) error {
	if b.beside() == 0 {
		return send()
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	every := time.Duration(float64(b.events) / float64(rate) * float64(time.Second) / float64(b.large+1))
	p := exec.CommandContext(ctx, self, "large", // #nosec G204 G702 -- this program
		"--url", "http://"+listen+"/v1/events?key="+key, "--count", strconv.Itoa(b.large), "--every", every.String())
	var said bytes.Buffer
	p.Stderr = &said
	made, err := p.StdoutPipe()
	if err != nil {
		return err
	}
	begin, err := p.StdinPipe()
	if err != nil {
		return err
	}
	if err := p.Start(); err != nil {
		return err
	}
	_, err = io.ReadFull(made, make([]byte, 1)) // if it has ended, Wait says why
	begin.Close()
	if err == nil {
		err = send()
	}
	if failed := p.Wait(); failed != nil && (err == nil || errors.Is(err, io.EOF)) {
		err = fmt.Errorf("large events: %w: %s", failed, said.Bytes())
	}
	return err
}

// elsewhere makes MinIO keep its objects in memory. With one drive it writes an object of 90 MiB by a single fsync, for
// which the receiver's log would wait if both had the same disk.
func elsewhere(data string) (dir string, err error) {
	if dir, err = os.MkdirTemp("/dev/shm", "penstock-bench-"); err != nil {
		return "", err
	}
	return dir, os.Symlink(dir, filepath.Join(data, "minio"))
}

// runLarge is the process that posts large events. It writes a byte when it has made the event, and begins when its
// input ends.
func runLarge(ctx context.Context, s streams, args []string) error {
	fs := newFlags(s, "large", "Posts events of 90 MiB; `bench receive --large` runs it.")
	url := fs.String("url", "", "`URL` to post to")
	count := fs.Int("count", 1, "`number` of events")
	every := fs.Duration("every", time.Second, "`time` from one to the next")
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	body := largeEvent()
	fmt.Fprintln(os.Stdout)
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	errs := make(chan error, *count)
	for range *count {
		if err := retry.Sleep(ctx, *every); err != nil {
			return err
		}
		go func() { errs <- postLarge(ctx, *url, body) }()
	}
	for range *count {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

func postLarge(ctx context.Context, url string, body []byte) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	q.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		text, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s: %s", resp.Status, text)
	}
	return nil
}

// largeEvent makes an event with one large value, that no compressor makes small.
func largeEvent() []byte {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	body := append(make([]byte, 0, largeBytes+64), `{"name":"recording","properties":{"frames":"`...)
	r := rand.New(rand.NewPCG(1, 1)) // #nosec G404 -- data of a benchmark
	for len(body) < largeBytes {
		for x, i := r.Uint64(), 0; i < 10; i++ {
			body = append(body, letters[x&63])
			x >>= 6
		}
	}
	return append(body, `"}}`...)
}
