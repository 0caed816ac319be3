package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/tools/bench/report"
)

// tracedShares are the shares of requests that --traces traces.
var tracedShares = []float64{0.01, 1}

// traced measures a receiver that traces a share of the requests. The collector is in this process and keeps nothing.
func (b *benchmark) traced(share float64) measurement {
	run := func(ctx context.Context, rate int) (report.Run, error) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return report.Run{}, err
		}
		server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
			io.Copy(io.Discard, req.Body)
		})} // #nosec G112 -- for the receiver alone
		go server.Serve(listener)
		defer server.Close()
		before := b.configure
		defer func() { b.configure = before }()
		b.configure = func(c *config.Config) {
			if before != nil {
				before(c)
			}
			c.Tracing = config.Tracing{Enabled: true, Endpoint: "http://" + listener.Addr().String(), Requests: share}
		}
		return b.receive(ctx, rate)
	}
	return measurement{fmt.Sprintf("traced %g%%", 100*share), run}
}

// addSpans adds what became of the receiver's spans so far, if it traces.
func (st *benchStack) addSpans(ctx context.Context, f *report.Figures, r *roleProcess) (err error) {
	if !st.cfg.Tracing.Enabled {
		return nil
	}
	for _, result := range []string{"sent", "failed", "dropped"} {
		n, failed := r.metric(ctx, `penstock_tracing_spans_total{result="`+result+`"}`)
		f.Add("spans_"+result, n)
		err = errors.Join(err, failed)
	}
	return err
}
