package document

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"sync"

	"github.com/penstock/penstock/internal/jsonscan"
)

// Redaction is a project's rules to drop and hash parts of events.
type Redaction struct {
	rules []Rule
	root  node      // whose next are the event's own: properties, context, user_id, session_id
	macs  sync.Pool // of hash.Hash, with the salt
}

// Rule is one path of a redaction.
type Rule struct {
	Path string
	Hash bool // the value is hashed; else it is dropped
}

// node is a place in an event, by the parts of its path.
type node struct {
	next map[string]*node
	rule int // the rule at this node, from 1; 0: none
}

// Columns that a path may name, besides paths below properties and context.
const (
	UserPath    = "user_id"
	SessionPath = "session_id"
)

// NewRedaction is nil if there are no rules.
func NewRedaction(rules []Rule, salt string) (*Redaction, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	r := &Redaction{rules: rules}
	for i, rule := range rules {
		if err := r.add(rule.Path, i+1); err != nil {
			return nil, err
		}
	}
	r.macs.New = func() any { return hmac.New(sha256.New, []byte(salt)) }
	return r, nil
}

func (r *Redaction) add(path string, rule int) error {
	parts := strings.Split(path, ".")
	switch below := len(parts) > 1; parts[0] {
	case "properties", "context":
		if !below {
			return fmt.Errorf("the path %q: name what is below it, as %s.KEY", path, path)
		}
	case UserPath, SessionPath:
		if below {
			return fmt.Errorf("the path %q: nothing is below %s", path, parts[0])
		}
	default:
		return fmt.Errorf("the path %q: want properties.KEY…, context.KEY…, user_id or session_id", path)
	}
	n := &r.root
	for _, part := range parts {
		if n.next == nil {
			n.next = map[string]*node{}
		}
		if n.next[part] == nil {
			n.next[part] = &node{}
		}
		n = n.next[part]
	}
	if n.rule != 0 {
		return fmt.Errorf("the path %q stands twice", path)
	}
	n.rule = rule
	return nil
}

// at returns the node of a member; nil: no rule there or below. As in ClickHouse, a key with dots is the same path as
// nested objects.
func (n *node) at(key []byte) *node {
	for from := 0; n != nil; {
		part := key[from:]
		dot := bytes.IndexByte(part, '.')
		if dot >= 0 {
			part = part[:dot]
		}
		n = n.next[string(part)]
		if dot < 0 || n != nil && n.rule != 0 {
			break
		}
		from += dot + 1
	}
	return n
}

func (r *Redaction) properties() *node {
	if r == nil {
		return nil
	}
	return r.root.next["properties"]
}

// Drops reports whether a property is dropped as a whole, and counts it in w if so.
func (r *Redaction) Drops(w *Writer, key []byte) bool {
	n := r.properties().at(key)
	if n == nil || n.rule == 0 || r.rules[n.rule-1].Hash {
		return false
	}
	w.Applied = append(w.Applied, int32(n.rule-1))
	return true
}

// Known is the part of a path that may be shown. Below a rule, keys are as secret as values.
func (r *Redaction) Known(place []string) []string {
	n := r.properties()
	for i, key := range place {
		next := n.at([]byte(key))
		if _, err := strconv.Atoi(key); err == nil && next == nil {
			continue // the elements of an array are at the array's place
		}
		if n = next; n == nil {
			break
		}
		if n.rule != 0 {
			return place[:i+1]
		}
	}
	return place
}

// Copies reports whether a writer copies an event's properties or its context to redact them.
func (r *Redaction) Copies() (properties, context bool) {
	return r.root.next["properties"] != nil, r.root.next["context"] != nil
}

// Column redacts the content of a column, UserPath or SessionPath.
func (r *Redaction) Column(w *Writer, path string, text []byte) []byte {
	n := r.root.next[path]
	if n == nil || len(text) == 0 {
		return text
	}
	w.Applied = append(w.Applied, int32(n.rule-1))
	if !r.rules[n.rule-1].Hash {
		return nil
	}
	from := len(w.Buf)
	r.hash(w, func(h hash.Hash) { h.Write(text) })
	return w.Buf[from:len(w.Buf):len(w.Buf)]
}

// Context redacts an event's context.
func (r *Redaction) Context(w *Writer, context []byte) []byte {
	n := r.root.next["context"]
	if n == nil {
		return context
	}
	p := w.made(context, true)
	r.redactPiece(w, n, &p)
	return p.text
}

// redact makes the pieces of a redacted row. Pieces without redacted values stay as they are.
func (r *Redaction) redact(w *Writer) (members, envelope []piece) {
	n := r.properties()
	w.redacted = r.redactPieces(w, n, w.redacted[:0], w.members)
	split := len(w.redacted)
	if len(w.envelope) == 0 {
		return w.redacted, nil
	}
	below := n.at([]byte(EnvelopeKey))
	if below == nil || below.rule == 0 {
		w.redacted = r.redactPieces(w, below, w.redacted, w.envelope)
		return w.redacted[:split:split], w.redacted[split:]
	}
	from := len(w.Buf)
	w.Buf = append(w.Buf, `{"`+EnvelopeKey+`":{`...)
	(&rowWriter{w: w, from: from}).pieces(w.envelope)
	w.Buf = append(w.Buf, "}}"...)
	p := w.made(w.Buf[from:len(w.Buf):len(w.Buf)], true)
	r.redactPiece(w, n, &p)
	return append(w.redacted, p), nil
}

func (r *Redaction) redactPieces(w *Writer, n *node, to, pieces []piece) []piece {
	for _, p := range pieces {
		switch {
		case n == nil:
		case p.blob == nil:
			r.redactPiece(w, n, &p)
		case !r.redactBlob(w, n, &p):
			continue
		}
		to = append(to, p)
	}
	return to
}

// redactBlob redacts a property that is a blob, and reports whether anything is left of it.
func (r *Redaction) redactBlob(w *Writer, n *node, p *piece) bool {
	if n = n.at(p.blob.key); n == nil || n.rule == 0 {
		return true
	}
	w.Applied = append(w.Applied, int32(n.rule-1))
	if !r.rules[n.rule-1].Hash {
		return false
	}
	from := len(w.Buf)
	w.Buf = append(jsonscan.AppendQuoted(w.Buf, p.blob.key), ':', '"')
	r.hash(w, func(h hash.Hash) { p.blob.Write(h) }) // it is in memory, so this cannot fail
	w.Buf = append(w.Buf, '"')
	*p = w.made(w.Buf[from:len(w.Buf):len(w.Buf)], false)
	return true
}

// redactPiece copies a piece without redacted parts, if there are any.
func (r *Redaction) redactPiece(w *Writer, n *node, p *piece) {
	from, applied := len(w.Buf), len(w.Applied)
	text := p.text[p.start:p.end]
	c := redactor{Walker: jsonscan.NewWalker(text), r: r, w: w, text: text}
	if p.object {
		c.object(n) // cannot fail: the text was scanned
	} else {
		c.write('{')
		c.members(n)
		c.write('}')
	}
	if len(w.Applied) == applied {
		w.Buf = w.Buf[:from]
		return
	}
	copied := w.Buf[from:len(w.Buf):len(w.Buf)]
	*p = w.made(copied, true)
	if smallest := LargeFrom(w.Threshold); w.Threshold > 0 && len(copied) > smallest {
		s := jsonscan.Scanner{MaxDepth: 1 << 20, AllowLoneSurrogates: true, LargeFrom: smallest}
		s.Value(copied)
		p.large = sorted(s.Large())
	}
}

// hash writes the hex of a value's HMAC.
func (r *Redaction) hash(w *Writer, write func(hash.Hash)) {
	h := r.macs.Get().(hash.Hash)
	h.Reset()
	write(h)
	var sum [sha256.Size]byte
	w.Buf = hex.AppendEncode(w.Buf, h.Sum(sum[:0]))
	r.macs.Put(h)
}

// redactor copies members, except what the rules drop or hash.
type redactor struct {
	jsonscan.Walker
	r    *Redaction
	w    *Writer
	text []byte
}

func (c *redactor) write(b byte) { c.w.Buf = append(c.w.Buf, b) }

func (c *redactor) copy(from int) { c.w.Buf = append(c.w.Buf, c.text[from:c.At()]...) }

func (c *redactor) object(n *node) error {
	if !c.Take('{') {
		return c.Fail()
	}
	c.write('{')
	if err := c.members(n); err != nil {
		return err
	}
	if !c.Take('}') {
		return c.Fail()
	}
	c.write('}')
	return nil
}

// members copies members up to a closing brace or the end of the text.
func (c *redactor) members(n *node) error {
	for {
		c.Space()
		if c.Take(',') {
			c.Space()
		}
		if c.Peek() != '"' {
			return nil
		}
		from := c.At()
		key, err := c.Key()
		if err != nil {
			return err
		}
		c.Space()
		next := n.at(key)
		rule := int32(-1)
		if next != nil {
			rule = int32(next.rule - 1)
		}
		if rule >= 0 && !c.r.rules[rule].Hash {
			c.w.Applied = append(c.w.Applied, rule)
			if err := c.skip(); err != nil {
				return err
			}
			continue
		}
		if c.w.Buf[len(c.w.Buf)-1] != '{' {
			c.write(',')
		}
		c.copy(from)
		switch {
		case rule >= 0:
			err = c.hash(rule)
		case next != nil:
			err = c.value(next)
		default:
			err = c.pass()
		}
		if err != nil {
			return err
		}
	}
}

// value continues below a place. The elements of an array have the array's place.
func (c *redactor) value(n *node) error {
	switch c.Peek() {
	case '{':
		return c.object(n)
	case '[':
		return c.array(func() error { return c.value(n) })
	}
	return c.pass()
}

func (c *redactor) array(each func() error) error {
	c.write('[')
	first := true
	err := c.Elements(func() error {
		if !first {
			c.write(',')
		}
		first = false
		return each()
	})
	c.write(']')
	return err
}

// hash replaces a value by its hash: of a string's content, a number's digits, an object's text, or of each element of
// an array. A null stays null.
func (c *redactor) hash(rule int32) error {
	var content []byte
	from := c.At()
	switch c.Peek() {
	case '[':
		return c.array(func() error { return c.hash(rule) })
	case 'n':
		return c.pass()
	case '"':
		v, err := c.Value()
		if err != nil {
			return err
		}
		if content = v.Raw; v.Escaped {
			content = v.AppendText(nil)
		}
	default:
		if err := c.skip(); err != nil {
			return err
		}
		content = c.text[from:c.At()]
	}
	c.w.Applied = append(c.w.Applied, rule)
	c.write('"')
	c.r.hash(c.w, func(h hash.Hash) { h.Write(content) })
	c.write('"')
	return nil
}

// pass copies a value as it is.
func (c *redactor) pass() error {
	from := c.At()
	err := c.skip()
	c.copy(from)
	return err
}

func (c *redactor) skip() error {
	switch c.Peek() {
	case '{', '[':
		return c.Skip()
	case 'n':
		return c.Word("null")
	}
	_, err := c.Value()
	return err
}
