package operate

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/penstock/penstock/internal/show"
)

// Output is where a command writes: what it finds to Out, its progress to Err.
type Output struct {
	Out, Err io.Writer
	JSON     bool // a line an item, not what people read
}

// Show carries an operation out and prints its lines as they come: a table
// aligns its columns block by block, so that long lists stream.
func (op Operation) Show(ctx context.Context, ex Executor, params any, to Output) error {
	live := show.NewLine(to.Err)
	defer live.End()
	out := bufio.NewWriter(to.Out)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
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
			if items%1000 == 1 {
				if err := table.Flush(); err != nil {
					return err
				}
				fmt.Fprintln(table, strings.Join(op.header, "\t"))
			}
			row := op.row(item)
			for i := range row { // a line is a line
				row[i] = strings.Join(strings.Fields(row[i]), " ")
			}
			_, err := fmt.Fprintln(table, strings.Join(row, "\t"))
			return err
		},
		progress: func(p progress) {
			live.Show("%s", show.Terminal(p.String()))
		},
	})
	live.End()
	err = errors.Join(err, table.Flush())
	if op.sum != nil && !to.JSON && err == nil {
		op.sum(out, kinds)
	}
	return errors.Join(err, out.Flush())
}
