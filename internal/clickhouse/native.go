package clickhouse

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/ch-go/proto"
	"github.com/google/uuid"

	"github.com/penstock/penstock/internal/pipeline"
)

// natives are connections for blocks that we build ourselves, kept for the next insert.
type natives struct {
	mu       sync.Mutex
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
	err = c.Do(ctx, ch.Query{Body: "INSERT INTO FUNCTION null('j " + strings.ReplaceAll(kind, "'", "\\'") + "') VALUES", Input: proto.Input{{Name: "j", Data: &probe}}})
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
	o := ch.Options{Database: db.opts.Database, User: db.opts.User, Password: db.opts.Password, Compression: ch.CompressionLZ4,
		ReadTimeout: db.opts.Timeout, DialTimeout: min(db.opts.Timeout, 10*time.Second), HandshakeTimeout: min(db.opts.Timeout, 10*time.Second), ClientName: "penstock"}
	if db.opts.TLS {
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
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

// block is the columns of an insert, in the order of insertColumns.
type block struct {
	ids                         proto.ColUUID
	projects, names, receivers  *proto.ColLowCardinality[string]
	times, identities, received proto.ColDateTime64
	sessions, users             proto.ColStr
	seqs                        proto.ColUInt64
	properties, contexts        jsonColumn
	objects                     *proto.ColLowCardinality[string]
	rows, generations           proto.ColUInt32
}

func lowCardinality() *proto.ColLowCardinality[string] {
	return proto.NewLowCardinality[string](new(proto.ColStr))
}

// newBlock takes the events apart. errNotColumnar: their text must be sent.
func newBlock(object string, generation uint32, events []pipeline.Event) (*block, error) {
	b := &block{projects: lowCardinality(), names: lowCardinality(), receivers: lowCardinality(), objects: lowCardinality()}
	for _, c := range []*proto.ColDateTime64{&b.times, &b.identities, &b.received} {
		c.WithPrecision(proto.PrecisionMilli).WithLocation(time.UTC)
		c.Data = make([]proto.DateTime64, 0, len(events))
	}
	var texts interned
	for i := range events {
		e := &events[i]
		b.ids.Append(uuid.UUID(e.ID))
		b.projects.Append(texts.string(e.Project))
		b.names.Append(texts.string(e.Name))
		at, identity := e.Timestamp, e.Timestamp
		if e.Timestamp == pipeline.NoTime {
			at, identity = e.ReceivedAt, 0
		}
		b.times.AppendRaw(proto.DateTime64(at))
		b.identities.AppendRaw(proto.DateTime64(identity))
		b.received.AppendRaw(proto.DateTime64(e.ReceivedAt))
		b.sessions.AppendBytes(e.SessionID)
		b.users.AppendBytes(e.UserID)
		b.receivers.Append(texts.string(e.Receiver))
		b.seqs.Append(e.Seq)
		if err := b.properties.append(e.Properties); err != nil {
			return nil, err
		}
		if err := b.contexts.append(e.Context); err != nil {
			return nil, err
		}
		b.objects.Append(object)
		b.rows.Append(e.Row)
		b.generations.Append(generation)
	}
	if len(events)*(len(b.properties.root.paths)+len(b.contexts.root.paths)) > maxCells {
		return nil, errNotColumnar
	}
	return b, nil
}

func (b *block) input() proto.Input {
	return proto.Input{
		{Name: "event_id", Data: &b.ids}, {Name: "project", Data: b.projects}, {Name: "name", Data: b.names},
		{Name: "timestamp", Data: &b.times}, {Name: "identity_time", Data: &b.identities}, {Name: "received_at", Data: &b.received},
		{Name: "session_id", Data: &b.sessions}, {Name: "user_id", Data: &b.users}, {Name: "receiver", Data: b.receivers}, {Name: "seq", Data: &b.seqs},
		{Name: "properties", Data: &b.properties}, {Name: "context", Data: &b.contexts},
		{Name: "object", Data: b.objects}, {Name: "object_row", Data: &b.rows}, {Name: "generation", Data: &b.generations},
	}
}

// insertBlock sends a block whose JSON the server need not parse.
func (db *DB) insertBlock(ctx context.Context, table, token string, b *block) error {
	c, err := db.native(ctx)
	if err != nil {
		return fmt.Errorf("insert into %s: %w", table, err)
	}
	var settings []ch.Setting
	for k, v := range insertSettings(token) {
		text, ok := v.(string)
		if !ok {
			text = strconv.Itoa(v.(int))
		}
		settings = append(settings, ch.Setting{Key: k, Value: text, Important: true})
	}
	err = c.Do(ctx, ch.Query{Body: "INSERT INTO " + quoteName(table) + " (" + insertColumns + ") VALUES", Input: b.input(), Settings: settings})
	db.done(c, err)
	if err != nil {
		return fmt.Errorf("insert: %w", classInsert(err))
	}
	return nil
}
