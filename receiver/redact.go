package receiver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/protocol"
	"github.com/penstock/penstock/receiver/tenant"
)

// redaction is what a project drops of its events, and what it hashes.
type redaction struct {
	rules []rule
	root  node      // whose next are the event's own: properties, context, user_id, session_id
	macs  sync.Pool // of hash.Hash, with the salt
}

// rule is one path.
type rule struct {
	path    string
	hash    bool // false: the value is dropped
	applied prometheus.Counter
}

// node is a place in an event, by the parts of its path.
type node struct {
	next map[string]*node
	rule int // what is done here, counted from 1; 0: nothing
}

// columns of an event that a path may name, besides what is below properties and context.
const (
	userPath    = "user_id"
	sessionPath = "session_id"
)

// newRedaction is nil where nothing is dropped or hashed.
func newRedaction(p *tenant.Project, applied *prometheus.CounterVec) (*redaction, error) {
	if len(p.Drop) == 0 && len(p.Hash) == 0 {
		return nil, nil
	}
	d := &redaction{}
	for _, path := range p.Drop {
		if err := d.add(path, rule{path, false, applied.WithLabelValues(p.Name, path, "drop")}); err != nil {
			return nil, err
		}
	}
	for _, path := range p.Hash {
		if err := d.add(path, rule{path, true, applied.WithLabelValues(p.Name, path, "hash")}); err != nil {
			return nil, err
		}
	}
	salt := []byte(p.Salt)
	d.macs.New = func() any { return hmac.New(sha256.New, salt) }
	return d, nil
}

func (d *redaction) add(path string, r rule) error {
	parts := strings.Split(path, ".")
	switch below := len(parts) > 1; parts[0] {
	case "properties", "context":
		if !below {
			return fmt.Errorf("the path %q: name what is below it, as %s.KEY", path, path)
		}
	case userPath, sessionPath:
		if below {
			return fmt.Errorf("the path %q: nothing is below %s", path, parts[0])
		}
	default:
		return fmt.Errorf("the path %q: want properties.KEY…, context.KEY…, user_id or session_id", path)
	}
	n := &d.root
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
	d.rules = append(d.rules, r)
	n.rule = len(d.rules)
	return nil
}

// at is the place of a member. A key with dots is as good as objects within each
// other: in ClickHouse both are the same path. What is below a rule is the rule's.
func (n *node) at(key []byte) *node {
	for from := 0; n != nil; {
		part := key[from:]
		dot := strings.IndexByte(view(part), '.')
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

// known is as much of a place in the properties as may be told: keys below a rule
// are as much its own as values.
func (d *redaction) known(place []string) []string {
	n := d.root.next["properties"]
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

// redact takes out of an event what its project drops, and hashes what it
// hashes. Blobs that the dialect has made already (blobs of q.blobs on) are moved
// with what surrounds them, or go with it. Values are cut out of rows after it.
func (q *request) redact(e *pipeline.Event, blobs int) (err error) {
	d := q.tenant.Edits
	e.UserID = q.redactText(d.root.next[userPath], e.UserID)
	e.SessionID = q.redactText(d.root.next[sessionPath], e.SessionID)
	if e.Context, err = q.redactObject(d.root.next["context"], e.Context, len(q.blobs)); err == nil {
		e.Properties, err = q.redactObject(d.root.next["properties"], e.Properties, blobs)
	}
	if err == nil && q.large(e.Properties) {
		q.recut(e, blobs)
	}
	return err
}

// recut takes large values out of an event that was written with them. What is
// blobs already, those of q.blobs from blobs on, stays so; they are files or a
// CloudEvent's data, each a property.
func (q *request) recut(e *pipeline.Event, blobs int) {
	files := slices.Clone(q.blobs[blobs:])
	q.blobs = q.blobs[:blobs]
	from := len(q.scratch)
	q.scratch = append(q.scratch, '{')
	protocol.EachSent(e.Properties, func(key, value []byte) {
		q.comma()
		q.scratch = append(append(append(q.scratch, '"'), key...), '"', ':')
		at := cap(e.Properties) - cap(value) // where value begins: it is a part of them
		if len(files) == 0 || files[0].At >= at+len(value) {
			q.line(value)
			return
		}
		for len(files) > 0 && files[0].At < at+len(value) {
			files[0].At += len(q.scratch) - at
			q.blobs, files = append(q.blobs, files[0]), files[1:]
		}
		q.flat(value)
	})
	q.scratch = append(q.scratch, '}')
	q.settle(from)
	e.Properties = q.scratch[from:len(q.scratch):len(q.scratch)]
}

func (q *request) redactText(n *node, text []byte) []byte {
	if n == nil || len(text) == 0 {
		return text
	}
	q.applied = append(q.applied, int32(n.rule-1))
	if !q.tenant.Edits.rules[n.rule-1].hash {
		return nil
	}
	from := len(q.scratch)
	q.hash(func(h hash.Hash) { h.Write(text) })
	return q.scratch[from:len(q.scratch):len(q.scratch)]
}

// hash writes the hex of a value's HMAC into scratch.
func (q *request) hash(write func(hash.Hash)) {
	macs := &q.tenant.Edits.macs
	h := macs.Get().(hash.Hash)
	h.Reset()
	write(h)
	var sum [sha256.Size]byte
	q.scratch = hex.AppendEncode(q.scratch, h.Sum(sum[:0]))
	macs.Put(h)
}

// redactObject writes an object without what is taken out of it into scratch, or
// leaves it as it is.
func (q *request) redactObject(n *node, object []byte, blobs int) ([]byte, error) {
	if n == nil {
		return object, nil
	}
	if q.charge(q.charged+int64(len(object))) != nil {
		q.overfull = true
		return nil, errMemory
	}
	from, applied := len(q.scratch), len(q.applied)
	w := redactor{Walker: jsonscan.NewWalker(object), q: q, text: object, from: from, blob: blobs, kept: blobs}
	if err := w.object(n); err != nil {
		return nil, err
	}
	if len(q.applied) == applied && blobs == len(q.blobs) {
		q.scratch = q.scratch[:from]
		return object, nil
	}
	q.blobs = append(q.blobs[:w.kept], q.blobs[w.blob:]...)
	return q.scratch[from:len(q.scratch):len(q.scratch)], nil
}

// redactor walks through an object and copies it, but for what rules say.
type redactor struct {
	jsonscan.Walker
	q    *request
	text []byte
	from int // where the copy begins in scratch

	blob int // the next of q.blobs that lies ahead
	kept int // those before it are done with
}

// copy takes over text up to where the walker is.
func (w *redactor) copy(from int) {
	to := len(w.q.scratch) - w.from
	for ; w.blob < len(w.q.blobs) && w.q.blobs[w.blob].At < w.At(); w.blob++ {
		b := w.q.blobs[w.blob]
		b.At += to - from
		w.q.blobs[w.kept] = b
		w.kept++
	}
	w.q.scratch = append(w.q.scratch, w.text[from:w.At()]...)
}

// leave passes text by up to where the walker is, with the blobs in it.
func (w *redactor) leave() {
	for w.blob < len(w.q.blobs) && w.q.blobs[w.blob].At < w.At() {
		w.blob++
	}
}

func (w *redactor) write(c byte) { w.q.scratch = append(w.q.scratch, c) }

func (w *redactor) object(n *node) error {
	if !w.Take('{') {
		return w.Fail()
	}
	w.write('{')
	for w.Space(); !w.Take('}'); w.Space() {
		if w.Take(',') {
			w.Space()
		}
		from := w.At()
		key, err := w.Key()
		if err != nil {
			return err
		}
		w.Space()
		next := n.at(key)
		var r *rule
		if next != nil && next.rule != 0 {
			r = &w.q.tenant.Edits.rules[next.rule-1]
		}
		if r != nil && !r.hash {
			if err := w.skip(); err != nil {
				return err
			}
			w.leave()
			w.q.applied = append(w.q.applied, int32(next.rule-1))
			continue
		}
		w.q.comma()
		w.copy(from)
		switch {
		case r != nil:
			err = w.hash(int32(next.rule - 1))
		case next != nil:
			err = w.value(next)
		default:
			err = w.pass()
		}
		if err != nil {
			return err
		}
	}
	w.write('}')
	return nil
}

// value goes on below a place. The elements of an array are at the array's.
func (w *redactor) value(n *node) error {
	switch w.Peek() {
	case '{':
		return w.object(n)
	case '[':
		return w.array(func() error { return w.value(n) })
	}
	return w.pass()
}

func (w *redactor) array(each func() error) error {
	w.write('[')
	first := true
	err := w.Elements(func() error {
		if !first {
			w.write(',')
		}
		first = false
		return each()
	})
	w.write(']')
	return err
}

// hash writes a string with a value's hash in its place: of a string its content,
// of a number its digits, of an object its text; of an array, each element's. A
// null stays one.
func (w *redactor) hash(rule int32) error {
	from := w.At()
	var write func(hash.Hash)
	switch w.Peek() {
	case '[':
		return w.array(func() error { return w.hash(rule) })
	case 'n':
		if w.blob == len(w.q.blobs) || w.q.blobs[w.blob].At != from {
			return w.pass()
		}
		blob := w.q.blobs[w.blob]
		write = func(h hash.Hash) { blob.Write(h) } // of what is in memory: it cannot fail
		if err := w.skip(); err != nil {
			return err
		}
	case '"':
		v, err := w.Value()
		if err != nil {
			return err
		}
		write = func(h hash.Hash) {
			if v.Escaped {
				h.Write(v.AppendText(nil))
			} else {
				h.Write(v.Raw)
			}
		}
	default:
		if err := w.skip(); err != nil {
			return err
		}
		write = func(h hash.Hash) { h.Write(w.text[from:w.At()]) }
	}
	w.leave()
	w.q.applied = append(w.q.applied, rule)
	w.write('"')
	w.q.hash(write)
	w.write('"')
	return nil
}

// pass copies a value as it is.
func (w *redactor) pass() error {
	from := w.At()
	err := w.skip()
	w.copy(from)
	return err
}

func (w *redactor) skip() error {
	switch w.Peek() {
	case '{', '[':
		return w.Skip()
	case 'n':
		return w.Word("null")
	}
	_, err := w.Value()
	return err
}
