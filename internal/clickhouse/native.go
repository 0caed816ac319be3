package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
)

// natives are connections for blocks that we build ourselves, and the blocks'
// memory, both kept for the next insert.
type natives struct {
	mu       sync.Mutex
	columns  []*columns
	idle     []*ch.Client
	columnar map[string]bool // tables whose JSON the server takes in columns, as far as they were asked for
}

// columnar tells whether a table's JSON can be sent in columns: the server is
// new enough, and its columns have no typed paths. It is asked once a table, by
// a row that it throws away.
func (db *DB) columnar(ctx context.Context, table string) (bool, error) {
	db.natives.mu.Lock()
	is, known := db.natives.columnar[table]
	db.natives.mu.Unlock()
	if known {
		return is, nil
	}
	var kind string
	if err := db.conn.QueryRow(ctx, "SELECT anyIf(type, name = 'properties') FROM system.columns WHERE database = ? AND table = ?", db.database, table).Scan(&kind); err != nil {
		return false, class(err)
	}
	if kind == "" {
		return false, nil // no such table; it may come
	}
	c, err := db.native(ctx)
	if err != nil {
		return false, err
	}
	var probe jsonColumn
	if err := probe.append([]byte(`{"a":1,"b":{"c":["x"]},"d":[{"e":true}]}`)); err != nil {
		return false, err
	}
	err = c.Do(ctx, ch.Query{Body: "INSERT INTO FUNCTION null('j " + strings.ReplaceAll(kind, "'", "\\'") + "') VALUES", Input: proto.Input{{Name: "j", Data: probe.column([]uint32{0})}}})
	db.done(c, err)
	if err != nil && ctx.Err() != nil {
		return false, class(ctx.Err())
	}
	if _, said := errors.AsType[*ch.Exception](err); err != nil && !said {
		return false, class(err)
	}
	db.natives.mu.Lock()
	defer db.natives.mu.Unlock()
	if db.natives.columnar == nil {
		db.natives.columnar = map[string]bool{}
	}
	db.natives.columnar[table] = err == nil
	return err == nil, nil
}

func (db *DB) native(ctx context.Context) (*ch.Client, error) {
	db.natives.mu.Lock()
	for n := len(db.natives.idle); n > 0; n = len(db.natives.idle) {
		c := db.natives.idle[n-1]
		db.natives.idle = db.natives.idle[:n-1]
		if !c.IsClosed() {
			db.natives.mu.Unlock()
			return c, nil
		}
	}
	db.natives.mu.Unlock()
	// Not compressed: then a block is written column by column, and none of it is
	// held a second time. It is a third of its text as it is.
	o := ch.Options{Database: db.opts.Database, User: db.opts.User, Password: db.opts.Password,
		ReadTimeout: db.opts.Timeout, DialTimeout: min(db.opts.Timeout, 10*time.Second), HandshakeTimeout: min(db.opts.Timeout, 10*time.Second), ClientName: "penstock"}
	o.TLS = db.opts.TLS
	var err error
	for _, o.Address = range db.opts.Addresses {
		var c *ch.Client
		if c, err = ch.Dial(ctx, o); err == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("connect: %w", class(err))
}

// done keeps a connection whose last query went well; another is in an unknown state.
func (db *DB) done(c *ch.Client, err error) {
	if err != nil {
		c.Close()
		return
	}
	db.natives.mu.Lock()
	defer db.natives.mu.Unlock()
	db.natives.idle = append(db.natives.idle, c)
}

func (n *natives) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var err error
	for _, c := range n.idle {
		err = errors.Join(err, c.Close())
	}
	n.idle = nil
	return err
}
