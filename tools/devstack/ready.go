package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// How long a server may take until it answers, and how often it is asked. Most are there within a second; the limit is
// for a machine that compiles beside it, and for a ClickHouse with many parts to load.
const (
	readyWithin  = 60 * time.Second
	readyPoll    = 20 * time.Millisecond
	probeTimeout = 2 * time.Second
)

// launch starts a server and waits until probe gets an answer from it. Otherwise the process is gone when it returns,
// and the error holds the end of its log, or is a *PortTakenError when that was the cause.
func launch(ctx context.Context, c Command, needs ports, probe func(context.Context) error) (*Process, error) {
	if err := needs.free(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	p, err := Start(ctx, c)
	if err != nil {
		return nil, err
	}
	err = p.await(ctx, probe)
	if err == nil {
		return p, nil
	}
	p.Kill()
	if taken := needs.free(); taken != nil { // somebody came between our look and its start
		err = errors.Join(taken, err)
	}
	return nil, fmt.Errorf("start %s: %w", c.Name, err)
}

// await polls probe until it succeeds, the process ends, ctx ends or readyWithin has passed.
func (p *Process) await(ctx context.Context, probe func(context.Context) error) error {
	limit := time.NewTimer(readyWithin)
	defer limit.Stop()
	for {
		err := probe(ctx)
		if err == nil && p.Err() == nil {
			return nil
		}
		select {
		case <-p.done:
			return p.err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-limit.C:
			return fmt.Errorf("no answer within %s: %w; its log %s ends:\n%s", readyWithin, err, p.LogPath, p.LogTail())
		case <-time.After(readyPoll):
		}
	}
}

// listens checks that somebody accepts connections on the address.
func listens(ctx context.Context, addr string) error {
	dialer := net.Dialer{Timeout: probeTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

// httpGet returns the body of a 200, at most 64 KiB of it. It asks anew each time: a kept connection would say nothing
// of a server that has restarted meanwhile.
func httpGet(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return "", fmt.Errorf("get %s: %w", url, err)
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("get %s: %s: %s", url, response.Status, strings.TrimSpace(string(body)))
	}
	return string(body), nil
}
