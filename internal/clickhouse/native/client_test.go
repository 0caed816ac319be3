package native

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/clickhouse-go/v2"
)

// fakeConn is a connection to a server that answers as told.
type fakeConn struct {
	address string
	err     error // result of the next insert
	broken  bool
	closed  bool
	blocks  int
}

func (c *fakeConn) insert(_ context.Context, _ string, _ map[string]any, blocks iter.Seq2[[]Column, error]) error {
	for _, err := range blocks {
		if err != nil {
			return err
		}
		c.blocks++
	}
	return c.err
}

func (c *fakeConn) usable() bool { return !c.broken }
func (c *fakeConn) Close() error { c.closed = true; return nil }

// fakeServers returns a client and its connections in the order of creation. away are unreachable addresses.
func fakeServers(away ...string) (*Client, *[]*fakeConn) {
	var made []*fakeConn
	c := NewClient(Options{Addresses: []string{"a", "b"}})
	c.dial = func(_ context.Context, _ Options, address string) (conn, error) {
		for _, a := range away {
			if a == address {
				return nil, fmt.Errorf("connect to %s: refused", a)
			}
		}
		made = append(made, &fakeConn{address: address})
		return made[len(made)-1], nil
	}
	return c, &made
}

func TestConnectionsAreKept(t *testing.T) {
	c, made := fakeServers()
	insert := func() error { return c.Insert(t.Context(), "", nil, One(Column{})) }
	for range 3 {
		if err := insert(); err != nil {
			t.Fatal(err)
		}
	}
	if len(*made) != 1 || (*made)[0].blocks != 3 || (*made)[0].address != "a" {
		t.Fatalf("%d connections, want one that is used three times", len(*made))
	}
	(*made)[0].broken = true
	if err := insert(); err != nil || len(*made) != 2 {
		t.Errorf("a broken connection: %v, %d connections, want a new one", err, len(*made))
	}
	(*made)[1].err = errors.New("refused")
	if err := insert(); err == nil || !(*made)[1].closed {
		t.Errorf("a failed insert: %v, closed %v", err, (*made)[1].closed)
	}
	if err := insert(); err != nil || len(*made) != 3 {
		t.Errorf("after a failed insert: %v, %d connections, want a new one", err, len(*made))
	}
	if err := c.Close(); err != nil || !(*made)[2].closed {
		t.Errorf("Close: %v, idle connection closed: %v", err, (*made)[2].closed)
	}
}

// After a connection breaks, the idle ones are dropped: each would fail an insert.
func TestBrokenConnectionsAreDropped(t *testing.T) {
	c, made := fakeServers()
	insert := func() error { return c.Insert(t.Context(), "", nil, One(Column{})) }
	both := func(yield func([]Column, error) bool) { // nested inserts need two connections
		if err := insert(); err != nil {
			t.Error(err)
		}
		yield(nil, nil)
	}
	for _, tt := range []struct {
		err  error
		want bool // the idle one is closed
	}{{&clickhouse.Exception{Code: 53}, false}, {errors.New("EOF"), true}} {
		*made = nil
		c.Close()
		if err := c.Insert(t.Context(), "", nil, both); err != nil || len(*made) != 2 {
			t.Fatalf("%v, %d connections, want 2", err, len(*made))
		}
		(*made)[0].err = tt.err // returned last, so used first
		if err := insert(); !errors.Is(err, tt.err) {
			t.Errorf("got %v, want %v", err, tt.err)
		}
		if (*made)[1].closed != tt.want {
			t.Errorf("after %v, the idle connection is closed: %v, want %v", tt.err, (*made)[1].closed, tt.want)
		}
	}
}

func TestAddressesAreTriedInOrder(t *testing.T) {
	c, made := fakeServers("a")
	if err := c.Insert(t.Context(), "", nil, One()); err != nil || (*made)[0].address != "b" {
		t.Errorf("got %v", err)
	}
	c, _ = fakeServers("a", "b")
	if err := c.Insert(t.Context(), "", nil, One()); err == nil || err.Error() != "connect to b: refused" {
		t.Errorf("no server: got %v", err)
	}
}

// plain are the types of a table without its own limits.
var plain = Types{"JSON", "JSON"}

// The largest blocks are kept, and the largest is reused first: an object has one large block and several small ones.
func TestBlocksAreKept(t *testing.T) {
	c := NewClient(Options{})
	var blocks []*Block
	for i := range keepBlocks + 2 {
		blocks = append(blocks, c.Block(plain))
		blocks[i].times = make([]int64, (i*3+1)%(keepBlocks+2)) // 1, 0, 3, 2
	}
	for _, b := range blocks {
		c.Keep(b)
	}
	if got := c.Block(Types{"JSON(max_dynamic_paths=8)", "JSON"}); slices.Contains(blocks, got) {
		t.Error("a block of a table with other types is used")
	}
	for _, want := range []int{2, 3} {
		if got := c.Block(plain); got != blocks[want] {
			t.Errorf("got block %d, want %d", slices.Index(blocks, got), want)
		}
	}
	if slices.Contains(blocks, c.Block(plain)) {
		t.Error("too many blocks are kept")
	}
}

// Exceptions become clickhouse-go's, and other errors stay unchanged.
func TestException(t *testing.T) {
	err := exception(fmt.Errorf("query: %w",
		&ch.Exception{Code: 53, Name: "DB::Exception", Message: "DB::Exception: no such type"}))
	ex, ok := errors.AsType[*clickhouse.Exception](err)
	if !ok || ex.Code != 53 || ex.Message != "no such type" {
		t.Errorf("got %v", err)
	}
	if other := errors.New("reset"); !errors.Is(exception(other), other) || exception(nil) != nil {
		t.Error("another error is changed")
	}
}
