package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/show"
)

// Output is where a command writes: results to Out, progress to Err.
type Output struct {
	Out, Err io.Writer
	JSON     bool // print a line of JSON for each item
}

// Show runs an operation and prints its lines as they arrive. A table aligns its columns block by block, so that long
// lists stream.
func (op Operation) Show(ctx context.Context, ex Executor, params any, to Output) error {
	live := show.NewLine(to.Err)
	defer live.End()
	out := show.NewBuffer(to.Out)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	table := show.NewTable(out, op.header...)
	items, kinds := 0, map[string]int{}
	err := ex(ctx, op, params, sink{
		item: func(item any) error {
			items++
			kinds[""]++
			if op.kind != nil {
				kinds[op.kind(item)]++
			}
			switch {
			case to.JSON || op.row == nil && op.print == nil:
				if raw, ok := item.(*json.RawMessage); ok {
					out.Write(*raw)
					return out.WriteByte('\n')
				}
				return enc.Encode(item)
			case op.print != nil:
				live.End()
				return op.print(out, item)
			}
			if items > 1 && items%1000 == 1 {
				if err := table.Flush(); err != nil {
					return err
				}
				table = show.NewTable(out, op.header...)
			}
			table.Row(op.row(item)...)
			return nil
		},
		progress: func(p progress) {
			out.Flush() // people may be waiting for output
			live.Show("%s", show.Terminal(p.String()))
		},
	})
	live.End()
	if op.row != nil && items > 0 && !to.JSON {
		err = errors.Join(err, table.Flush())
	}
	if op.sum != nil && !to.JSON && err == nil {
		op.sum(out, params, kinds)
	}
	return errors.Join(err, out.Flush())
}

// Watch shows an operation repeatedly until ctx ends. It continues after errors.
func (op Operation) Watch(ctx context.Context, ex Executor, params any, to Output, every time.Duration) error {
	for {
		if err := show.Clear(to.Out); err != nil {
			return err
		}
		if err := op.Show(ctx, ex, params, to); err != nil && ctx.Err() == nil {
			fmt.Fprintln(to.Err, err)
		}
		if retry.Sleep(ctx, every) != nil {
			return nil
		}
	}
}
