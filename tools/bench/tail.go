package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/penstock/penstock/tools/bench/report"
)

// watching is how a run looks at the live events.
type watching string

const (
	unwatched watching = ""
	tailed    watching = "tail"      // as fast as they come
	slowTail  watching = "slow tail" // a client that reads nothing until all is sent
)

// tail is a client of a receiver's live events.
type tail struct {
	how   watching
	body  io.ReadCloser
	ended chan int // receives the number of events
}

// watch begins to look.
func watch(ctx context.Context, how watching, admin, token string) (*tail, error) {
	if how == unwatched {
		return &tail{}, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+"/v1/tail", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("%s answered %s", req.URL, resp.Status)
	}
	t := &tail{how, resp.Body, make(chan int, 1)}
	if how == tailed {
		go t.read()
	}
	return t, nil
}

// read counts the events until the connection ends.
func (t *tail) read() {
	n := 0
	for in := bufio.NewScanner(t.body); in.Scan(); {
		if bytes.HasPrefix(in.Bytes(), []byte(`{"item":`)) {
			n++
		}
	}
	t.ended <- n
}

// end stops looking, and adds how many events were shown.
func (t *tail) end(f *report.Figures) {
	if t.how == unwatched {
		return
	}
	t.body.Close()
	if t.how == tailed {
		f.Add("shown_events", float64(<-t.ended))
	}
}
