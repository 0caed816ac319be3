package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strconv"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/traffic"
)

// Conn is a kept-alive HTTP/1.1 connection that does as little as a client can:
// one write and one read a request, and nothing allocated. It is for one
// goroutine.
type Conn struct {
	conn net.Conn
	in   *bufio.Reader
	head []byte // of every request, to the length of its body
	buf  []byte
	text []byte // of the last answer
}

// postTimeout bounds one request with its answer.
const postTimeout = time.Minute

// maxAnswer bounds an answer's body, in bytes.
const maxAnswer = 1 << 20

// Dial connects to a receiver at host:port and returns a connection that posts
// to its events.
func Dial(ctx context.Context, addr, key string) (*Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return newConn(conn, addr, key), nil
}

func newConn(conn net.Conn, host, key string) *Conn {
	head := "POST /v1/events HTTP/1.1\r\nHost: " + host + "\r\nAuthorization: Bearer " + key +
		"\r\nContent-Type: application/x-ndjson\r\nContent-Length: "
	return &Conn{conn: conn, in: bufio.NewReader(conn), head: []byte(head)}
}

// StatusError is an answer that is no success: the connection is still good.
type StatusError struct {
	Status int
	Body   string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("answer %d: %s", e.Status, strings.TrimSpace(e.Body))
}

// Post sends the body and returns the receiver's answer. The events are numbered from first on. After an error other
// than StatusError, the connection is unusable, and whether the events were accepted is unknown.
func (c *Conn) Post(body *traffic.Body, first uint64) (traffic.Answer, error) {
	c.buf = strconv.AppendInt(append(c.buf[:0], c.head...), int64(body.Len()), 10)
	now := time.Now()
	c.buf = body.Append(append(c.buf, "\r\n\r\n"...), first, now)
	if err := c.conn.SetDeadline(now.Add(postTimeout)); err != nil {
		return traffic.Answer{}, err
	}
	if _, err := c.conn.Write(c.buf); err != nil {
		return traffic.Answer{}, err
	}
	status, err := c.read()
	if err != nil {
		return traffic.Answer{}, fmt.Errorf("read answer: %w", err)
	}
	if status/100 != 2 {
		return traffic.Answer{}, &StatusError{status, string(c.text)}
	}
	a := traffic.Answer{Accepted: number(c.text, `"accepted":`), Rejected: number(c.text, `"rejected":`)}
	if a.Accepted+a.Rejected != body.Events() {
		return a, fmt.Errorf("the answer to %d events is %q", body.Events(), c.text)
	}
	return a, nil
}

// read reads one answer, its body into c.text.
func (c *Conn) read() (status int, err error) {
	line, err := c.line()
	if err != nil {
		return 0, err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) || len(line) < 12 {
		return 0, fmt.Errorf("not HTTP/1.1: %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, fmt.Errorf("no status: %q", line)
	}
	length, chunked := -1, false
	for {
		if line, err = c.line(); err != nil {
			return 0, err
		}
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch value = bytes.TrimSpace(value); {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, err
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		}
	}
	if chunked {
		if c.text, err = io.ReadAll(io.LimitReader(httputil.NewChunkedReader(c.in), maxAnswer)); err != nil {
			return 0, err
		}
		_, err = c.line() // behind the last chunk
		return status, err
	}
	if length < 0 || length > maxAnswer {
		return 0, fmt.Errorf("an answer of %d bytes", length)
	}
	c.text = append(c.text[:0], make([]byte, length)...)
	_, err = io.ReadFull(c.in, c.text)
	return status, err
}

// line reads a line without its end.
func (c *Conn) line() ([]byte, error) {
	line, err := c.in.ReadSlice('\n')
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return bytes.TrimRight(line, "\r\n"), err
}

// Close ends the connection, and a Post that another goroutine is in.
func (c *Conn) Close() error { return c.conn.Close() }

// number returns the number after name in a JSON text, 0: none.
func number(text []byte, name string) int {
	_, rest, _ := bytes.Cut(text, []byte(name))
	n := 0
	for _, c := range rest {
		if c < '0' || c > '9' {
			break
		}
		n = 10*n + int(c-'0')
	}
	return n
}
