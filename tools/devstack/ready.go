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

// How long a server may take to answer, and how often it is asked. Most answer within a second. The limit allows for a
// compiling machine, and for a ClickHouse with many parts to load.
const (
	readyWithin  = 60 * time.Second
	readyPoll    = 20 * time.Millisecond
	probeTimeout = 2 * time.Second
)

// launch starts a server and waits until probe succeeds. On failure the process is gone when it returns. The error has
// the end of its log; if a port was taken, it is a *PortTakenError.
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
	if taken := needs.free(); taken != nil { // taken between our check and the start
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

// listens checks that a server accepts connections on the address.
func listens(ctx context.Context, addr string) error {
	dialer := net.Dialer{Timeout: probeTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

// httpGet returns the body of a 200, at most 64 KiB. It uses a new connection each time, because a kept one would say
// nothing about a restarted server.
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
