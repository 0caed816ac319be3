// Pictures draws the dashboards of infra/grafana for the documents. Without -prometheus it first runs a pipeline with
// generated traffic, an outage of ClickHouse and a bad release, which takes -for. It runs in tools/alerts, and needs
// penstock, prometheus and chromium on PATH. The pages that it draws are ours and not Grafana's: see package page.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/traffic"
)

func main() {
	prometheus := flag.String("prometheus", "", "draw from this Prometheus, and run nothing")
	length := flag.Duration("for", 30*time.Minute, "how long the pipeline runs, and what the pictures show")
	browser := flag.String("browser", "chromium", "program that takes the pictures")
	out := flag.String("out", "../../docs/images", "folder for the pictures")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *prometheus, *length, *browser, *out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, prometheus string, length time.Duration, browser, out string) error {
	if prometheus != "" {
		return draw(ctx, prometheus, length, browser, out)
	}
	data, err := os.MkdirTemp("", "penstock-pictures-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(data)
	s, err := startStack(ctx, data)
	if err != nil {
		return err
	}
	defer s.stop()
	fmt.Println("Prometheus is", s.prometheus, "until", time.Now().Add(length).Format(time.TimeOnly))
	if err := s.story(ctx, length); err != nil {
		return err
	}
	return draw(ctx, s.prometheus, length, browser, out)
}

// story is what the pictures show.
func (s *stack) story(ctx context.Context, length time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	c := &clients{stack: s, began: time.Now()}
	for _, from := range []sender{
		{"game", "/v1/events", 90, 3, 23 * time.Minute, c.native(traffic.Game)},
		{"shop", "/v1/batch", 24, 2, 17 * time.Minute, segment},
		{"assistant", "/v1/events", 4, 1, 11 * time.Minute, c.native(traffic.LLM)},
	} {
		go c.send(ctx, from)
	}
	bad := func(out bool) func(context.Context) error {
		return func(context.Context) error { c.release.Store(out); return nil }
	}
	for at, do := range []func(context.Context) error{ // by tenths of the length
		3: s.verify,
		4: func(ctx context.Context) error { return s.outage(ctx, length/10) },
		7: bad(true),
		8: bad(false),
		9: s.verify,
	} {
		if do == nil {
			continue
		}
		_ = retry.Sleep(ctx, time.Until(c.began.Add(length/10*time.Duration(at))))
		if err := do(ctx); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}
