package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"
)

// chConn is a connection of ch-go, which can write a column part by part. docs/design/clickhouse.md says why
// clickhouse-go does not suffice.
type chConn struct{ *ch.Client }

// dial connects without compression. So a block is sent column by column, and no part of it is copied. Uncompressed
// columns are a third of the text's size.
func dial(ctx context.Context, opts Options, address string) (conn, error) {
	brief := min(opts.Timeout, 10*time.Second)
	client, err := ch.Dial(ctx, ch.Options{Address: address, Database: opts.Database, User: opts.User,
		Password: opts.Password, TLS: opts.TLS, ReadTimeout: opts.Timeout, DialTimeout: brief,
		HandshakeTimeout: brief, ClientName: "penstock"})
	if err != nil {
		return nil, fmt.Errorf("connect: %w", exception(err))
	}
	return chConn{client}, nil
}

func (c chConn) usable() bool { return !c.IsClosed() }

func (c chConn) insert(ctx context.Context, query string, settings map[string]any,
	blocks iter.Seq2[[]Column, error]) error {
	next, stop := iter.Pull2(blocks)
	defer stop()
	first, err, ok := next()
	if err != nil || !ok {
		return err
	}
	q := ch.Query{Body: query}
	for key, value := range settings {
		q.Settings = append(q.Settings, ch.Setting{Key: key, Value: fmt.Sprint(value), Important: true})
	}
	columns := make([]*chColumn, len(first))
	for i := range first {
		columns[i] = &chColumn{Column: first[i]}
		q.Input = append(q.Input, proto.InputColumn{Name: first[i].Name, Data: columns[i]})
	}
	// ch-go waits for the answer until its own timeout, even if the context ends. Closing the connection ends the wait.
	sending, cancel := context.WithCancel(ctx)
	defer cancel()
	stopClosing := context.AfterFunc(sending, func() { c.Close() })
	var failed error // error of the source of blocks
	q.OnInput = func(context.Context) error {
		block, err, ok := next()
		for i := range columns {
			columns[i].Column = Column{} // no rows
			if ok && err == nil {
				columns[i].Column = block[i]
			}
		}
		if failed = err; err == nil && !ok {
			return io.EOF
		}
		if err != nil {
			cancel()
		}
		return err
	}
	err = exception(c.Do(sending, q))
	if !stopClosing() { // otherwise it would be closed later, during the next insert
		c.Close()
	}
	switch {
	case failed != nil:
		return failed
	case err != nil && ctx.Err() != nil:
		return errors.Join(ctx.Err(), err)
	}
	return err
}

// exception converts the server's error to clickhouse-go's type, so that callers handle one type.
func exception(err error) error {
	ex, ok := errors.AsType[*ch.Exception](err)
	if !ok {
		return err
	}
	return &clickhouse.Exception{Code: int32(ex.Code), Name: ex.Name, StackTrace: ex.Stack,
		Message: strings.TrimSpace(strings.TrimPrefix(ex.Message, ex.Name+":"))}
}

// chColumn adapts a Column to ch-go.
type chColumn struct {
	Column
	table proto.ColumnType // type of the table's column
}

func (c *chColumn) Rows() int { return c.Column.Rows }

// Infer receives the type of the table's column before any block is sent.
func (c *chColumn) Infer(kind proto.ColumnType) error {
	c.table = kind
	return nil
}

func (c *chColumn) Type() proto.ColumnType {
	if c.Column.Type == "" {
		return c.table
	}
	return proto.ColumnType(c.Column.Type)
}

func (c *chColumn) EncodeState(b *proto.Buffer) {
	switch {
	case c.state != nil:
		b.Buf = c.state(b.Buf)
	case c.Column.Type == "" && strings.HasPrefix(string(c.table), "JSON"):
		b.PutUInt64(1) // JSON as text
	}
}

// EncodeColumn is called only on compressed connections. Ours are not.
func (c *chColumn) EncodeColumn(b *proto.Buffer) {
	s := sink{buf: b.Buf, flush: func(b []byte) []byte { return b }}
	c.write(&s)
	b.Buf = s.buf
}

// WriteColumn sends while it encodes. A failed write breaks the connection, and the next write returns the error.
func (c *chColumn) WriteColumn(w *proto.Writer) {
	w.ChainBuffer(func(b *proto.Buffer) {
		s := sink{buf: b.Buf, flush: func(full []byte) []byte {
			b.Buf = full
			w.Flush()
			return b.Buf
		}}
		c.write(&s)
		b.Buf = s.buf
	})
}
