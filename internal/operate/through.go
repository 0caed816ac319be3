package operate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/show"
)

// throughParallel is how many filters run at once.
const throughParallel = 4

// Through is errors redrive with --through: it pipes each failure's bytes through the operator's command and sends the
// output.
func Through(ex Executor, command string) Executor {
	return func(ctx context.Context, op Operation, params any, out sink) error {
		return redriveThrough(ctx, ex, op, params.(*errorRedrive), command, out)
	}
}

// redriveThrough sends the filter's output for each failure.
func redriveThrough(ctx context.Context, ex Executor, op Operation, p *errorRedrive, through string, out sink) error {
	if err := p.check(nil); err != nil {
		return err
	}
	f := p.errorFilter
	f.Pending = true
	var ids []string
	quiet := func(progress) {}
	if err := ex(ctx, Find("errors list"), &f, sink{item: func(item any) error {
		ids = append(ids, item.(*clickhouse.Kept).ID)
		return nil
	}, progress: quiet}); err != nil {
		return err
	}
	began := time.Now()
	for done := 0; done < len(ids); {
		page := ids[done:min(done+redrivePage, len(ids))]
		send := &errorRedrive{errorFilter: errorFilter{Since: p.Since, Until: p.Until}, As: p.As, DryRun: p.DryRun,
			Edit:   p.Edit,
			Bodies: map[string][]byte{}}
		var failed []errorResult
		var mu sync.Mutex
		g, filtering := errgroup.WithContext(ctx)
		g.SetLimit(throughParallel)
		whole := errorFilter{IDs: page}
		err := ex(ctx, Find("errors show"), &whole, sink{progress: quiet, item: func(item any) error {
			d := *item.(*errorDetail)
			g.Go(func() error {
				body, why := filter(filtering, through, d.Raw)
				mu.Lock()
				defer mu.Unlock()
				if why != "" {
					failed = append(failed, errorResult{ID: d.ID, Result: "skipped", Message: why})
				} else {
					send.IDs, send.Bodies[d.ID] = append(send.IDs, d.ID), body
				}
				return filtering.Err()
			})
			return nil
		}})
		if err := errors.Join(err, g.Wait()); err != nil {
			return err
		}
		for _, r := range failed {
			if err := out.item(&r); err != nil {
				return err
			}
		}
		if len(send.IDs) > 0 {
			if err := ex(ctx, op, send, sink{progress: quiet, item: out.item}); err != nil {
				return err
			}
		}
		done += len(page)
		out.progress(progress{Seconds: time.Since(began).Seconds(),
			Text: fmt.Sprintf("%d of %s, %.0f/s", done, show.Plural(len(ids), "failure"),
				float64(done)/time.Since(began).Seconds())})
	}
	return nil
}

// filter lets a command fix a payload. why is the reason if it fails.
func filter(ctx context.Context, command string, raw []byte) (body []byte, why string) {
	// #nosec G204 G702 -- the operator's own --through, on this machine
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	var said bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(raw), &said
	body, err := cmd.Output()
	switch {
	case err != nil:
		return nil, fmt.Sprintf("the filter failed: %s %s", err, strings.TrimSpace(said.String()))
	case len(bytes.TrimSpace(body)) == 0:
		return nil, "the filter printed nothing"
	}
	return body, ""
}
