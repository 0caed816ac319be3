package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Spec is all in which one pipeline differs from another. The binary builds
// both pipelines by one loop over two Specs; nothing else knows how many there are.
type Spec struct {
	Name   string // in metrics, logs, stream and subject names, and the table's name
	Prefix string // of its objects' keys, with the slash
}

// Events is the pipeline of clients' events; Errors is its mirror, whose
// events are what could not go the way of the first.
var (
	Events = Spec{Name: "events", Prefix: "events/"}
	Errors = Spec{Name: "errors", Prefix: "errors/"}
)

// Specs lists both, events first.
func Specs() []Spec { return []Spec{Events, Errors} }

// SpecOf is the pipeline of a key, or of the beginning of one.
func SpecOf(key string) (Spec, error) {
	for _, s := range Specs() {
		if strings.HasPrefix(key, s.Prefix) {
			return s, nil
		}
	}
	return Spec{}, fmt.Errorf("%q is of no pipeline: keys begin with events/ or errors/", key)
}

// SpecNamed is the pipeline of a name.
func SpecNamed(name string) (Spec, error) {
	for _, s := range Specs() {
		if s.Name == name {
			return s, nil
		}
	}
	return Spec{}, fmt.Errorf("there is no pipeline %q: events or errors", name)
}

// Notification says that an object is in the bucket. It may come twice, late, or never; then the sweep finds the
// object.
type Notification struct {
	Key  string
	ETag string // empty where the store does not say
	Size int64  // bytes; 0 where the store does not say
}

// Delivery is a received message about new objects, to be settled by one Ack or Nak.
type Delivery interface {
	Notifications() ([]Notification, error) // none: a store's test message
	Attempt() int                           // counts deliveries of the message, from 1
	Ack(ctx context.Context) error          // returns when the queue has settled it
	Nak(delay time.Duration) error          // it comes again after the delay
	Extend() error                          // work on it goes on
}

// Durability is what an acknowledgement promises.
type Durability uint8

// The three promises, weakest first, so that they compare.
const (
	Memory Durability = iota // in memory; a crash loses at most the active batch
	Disk                     // in the write-ahead log, fsynced
	Bucket                   // in the object store
)

// ParseDurability reads "memory", "disk" or "object".
func ParseDurability(s string) (Durability, bool) {
	switch s {
	case "memory":
		return Memory, true
	case "disk":
		return Disk, true
	case "object":
		return Bucket, true
	}
	return 0, false
}

func (d Durability) String() string { return [...]string{"memory", "disk", "object"}[d] }

// ErrPending says that events are in the write-ahead log, but did not reach
// the bucket in the time that a request waits for it. They will; a resend with
// the same ids is the same rows.
var ErrPending = errors.New(
	"the events are in the write-ahead log but not in the bucket yet; they will be stored, and a resend with the same " +
		"event_id counts once")

// Failure is something that the errors pipeline keeps: a refused event or
// request, a row or an object that could not be loaded.
type Failure struct {
	ID      UUID // zero: a new one; given where the same failure may be reported again
	Time    time.Time
	Stage   string // receiver, batcher, loader
	Code    string // stable, for machines: "invalid_json"
	Message string // for people: what was wrong, and where
	Project string // empty where it is not known
	Raw     []byte // the refused bytes, untruncated

	RequestID       string
	Method, Path    string
	ContentType     string
	ContentEncoding string
	ClientIP        string
	UserAgent       string
	Headers         []Header // chosen ones, never the key
	Index           int      // of the event in its request; -1: the request as a whole
	Count           int      // events that the record stands for, Index is that of the first; 0: one

	// Of a load.
	Object     string // key; empty: not of a load
	Row        int64  // of the event in it; -1: the object as a whole
	Attempt    int    // from 1
	ServerCode int    // ClickHouse's; 0: none
	Class      string // outage, permanent or unknown; of an event: taken, where it was taken all the same
	Loader     string // its name
}

// Header is one of a request.
type Header struct{ Name, Value string }
