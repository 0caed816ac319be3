package native

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// Options describe the server and how to connect.
type Options struct {
	Addresses []string // host:port of the native protocol, tried in order
	Database  string
	User      string
	Password  string
	TLS       *tls.Config   // nil: none
	Timeout   time.Duration // of a read, a dial, and a handshake
}

// conn is a connection to the server: all that this package needs from a client library.
type conn interface {
	insert(ctx context.Context, query string, settings map[string]any, blocks iter.Seq2[[]Column, error]) error
	usable() bool
	Close() error
}

// Client sends blocks. It keeps idle connections and the memory of blocks.
type Client struct {
	opts Options
	dial func(ctx context.Context, opts Options, address string) (conn, error)

	mu     sync.Mutex
	idle   []conn
	blocks []*Block
}

// NewClient returns a client that is not connected yet.
func NewClient(opts Options) *Client { return &Client{opts: opts, dial: dial} }

// Insert sends blocks. It sends each one before it asks for the next. An error of the server is a
// *clickhouse.Exception, as in clickhouse-go.
func (c *Client) Insert(ctx context.Context, query string, settings map[string]any,
	blocks iter.Seq2[[]Column, error]) error {
	to, err := c.conn(ctx)
	if err != nil {
		return err
	}
	if err := to.insert(ctx, query, settings, blocks); err != nil {
		to.Close() // it is in an unknown state
		if _, refused := errors.AsType[*clickhouse.Exception](err); !refused {
			c.Close() // a restart of the server breaks the idle ones too
		}
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = append(c.idle, to)
	return nil
}

// conn returns an idle connection or a new one, to the first address that answers.
func (c *Client) conn(ctx context.Context) (to conn, err error) {
	for to := c.takeIdle(); to != nil; to = c.takeIdle() {
		if to.usable() {
			return to, nil
		}
	}
	for _, address := range c.opts.Addresses {
		if to, err = c.dial(ctx, c.opts, address); err == nil {
			return to, nil
		}
	}
	return nil, err
}

func (c *Client) takeIdle() conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.idle)
	if n == 0 {
		return nil
	}
	to := c.idle[n-1]
	c.idle = c.idle[:n-1]
	return to
}

// One yields a single block.
func One(columns ...Column) iter.Seq2[[]Column, error] {
	return func(yield func([]Column, error) bool) { yield(columns, nil) }
}

// Close closes all idle connections.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	for _, to := range c.idle {
		err = errors.Join(err, to.Close())
	}
	c.idle = nil
	return err
}

// keepBlocks is how many blocks a client keeps for reuse.
const keepBlocks = 2

// Block returns an empty block, with the largest memory that can be reused.
func (c *Client) Block(types Types) *Block {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, b := range slices.Backward(c.blocks) {
		if b.types == types {
			c.blocks = slices.Delete(c.blocks, i, i+1)
			return b
		}
	}
	return NewBlock(types)
}

// Keep takes back a block whose rows are no longer needed.
func (c *Client) Keep(b *Block) {
	if !b.reusable() {
		return
	}
	b.Reset()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blocks = append(c.blocks, b)
	slices.SortStableFunc(c.blocks, func(x, y *Block) int { return cmp.Compare(cap(x.times), cap(y.times)) })
	if len(c.blocks) > keepBlocks {
		c.blocks = slices.Delete(c.blocks, 0, 1)
	}
}
